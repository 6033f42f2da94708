"""HTML without a template language: every text is escaped where it enters, and nowhere else."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)


Content = Markup | str | int | float | None
NARROW = 3  # columns that a phone has room for
SHORT = 12  # rows that stay on one printed page
VERBATIM = ("pre", "code")  # what is copied from them must be what stands in the file
_UNITS = "K|V|s|h|min|%|[uµmk]?Ah?|[µm]?C|[ekM]+V|µm|mm|nC|[kMG]B|bytes|ADU|σ|kΩ|ohm"
_TOGETHER = re.compile(  # the space between number and unit, and those around ± and ×
    rf"(?<=[\d⁰¹²³⁴⁵⁶⁷⁸⁹]) (?=(?:{_UNITS})(?!\w))"
    r"|(?<=\d) (?=[±×] ?\d)|(?<=\d [±×]) (?=\d)|(?<=\d\) [±×]) (?=\d)"
)
MISSING = Markup('<span class="missing">—</span>')


def escape(content: Content) -> str:
    """Return content as HTML; what is missing as a dash. A number and its unit stay on one line."""
    if content is None:
        return str(MISSING)
    return content.text if isinstance(content, Markup) else _TOGETHER.sub("\u00a0", html.escape(str(content)))


def tag(name: str, *content: Content, **attributes: str) -> Markup:
    """Return an element; ``class_`` stands for ``class``."""
    told = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items() if value)
    if name in VERBATIM:
        content = tuple(Markup(html.escape(one)) if isinstance(one, str) else one for one in content)
    return Markup(f"<{name}{told}>{''.join(escape(one) for one in content)}</{name}>")


def join(parts: Iterable[Content], between: str = "\n") -> Markup:
    """Return parts one after the other."""
    return Markup(between.join(escape(part) for part in parts))


def table(
    heads: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    numbers: Sequence[int] = (),
    label: str = "",
    *,
    wide: bool | None = None,
) -> Markup:
    """Return a table; ``numbers`` are aligned to the right, ``label`` is read out by programs that read.

    ``wide`` says whether a phone has no room for it; without it the number of columns decides.
    """
    said = [head if isinstance(head, str) else "" for head in heads]
    body = [
        tag("tr", *(cell(one, said[k], "n" if k in numbers else "", first=k == 0)
                    for k, one in enumerate(row)), role="row")
        for row in rows
    ]  # fmt: skip
    top = (
        tag("th", head, class_="n" if k in numbers else "", scope="col", role="columnheader")
        for k, head in enumerate(heads)
    )
    return framed(
        tag("tr", *top, role="row"), body, label, wide=len(heads) > NARROW if wide is None else wide
    )


def cell(content: Content, head: str = "", class_: str = "", *, first: bool = False) -> Markup:
    """Return a cell; on a phone ``head`` stands before it, for there the row is a card without a header."""
    more = {} if first or not head else {"data-head": head}
    return tag("td", content, class_=class_, role="cell", **more)


def framed(top: Markup, body: Sequence[Markup], label: str = "", *, wide: bool = True) -> Markup:
    """Return a table from its rows.

    Args:
        top: the row with the headers.
        body: the others.
        label: what the table is, read out.
        wide: too wide for a phone: there each row becomes a card (roles keep it a table for who listens).
    """
    kinds = " ".join(["cards"] * wide + ["short"] * (len(body) <= SHORT))
    whole = tag(
        "table", tag("thead", top, role="rowgroup"), tag("tbody", *body, role="rowgroup"), class_=kinds,
        role="table", **({"aria-label": label} if label else {}),
    )  # fmt: skip
    return tag("div", whole, class_="scroll")


def section(anchor: str, title: str, *content: Content) -> Markup:
    """Return a section of the page with its heading."""
    return tag("section", tag("h2", title), *content, id=anchor)
