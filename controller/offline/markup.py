"""HTML without a template language: every text is escaped where it enters, and nowhere else."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already."""

    text: str

    def __str__(self) -> str:
        return self.text


Content = Markup | str | int | float | None
MISSING = Markup('<span class="missing">—</span>')


def escape(content: Content) -> str:
    """Return content as HTML; what is missing as a dash."""
    if content is None:
        return str(MISSING)
    return content.text if isinstance(content, Markup) else html.escape(str(content))


def tag(name: str, *content: Content, **attributes: str) -> Markup:
    """Return an element; ``class_`` stands for ``class``."""
    told = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items() if value)
    return Markup(f"<{name}{told}>{''.join(escape(one) for one in content)}</{name}>")


def join(parts: Iterable[Content], between: str = "\n") -> Markup:
    """Return parts one after the other."""
    return Markup(between.join(escape(part) for part in parts))


def table(
    heads: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    numbers: Sequence[int] = (),
    label: str = "",
) -> Markup:
    """Return a table; ``numbers`` are aligned to the right, ``label`` is read out by programs that read."""

    def line(cells: Sequence[Content], name: str) -> Markup:
        scope = {"scope": "col"} if name == "th" else {}
        return tag(
            "tr",
            *(tag(name, cell, class_="n" if k in numbers else "", **scope) for k, cell in enumerate(cells)),
        )

    body = [line(row, "td") for row in rows]
    more = {"aria-label": label} if label else {}
    whole = tag("table", tag("thead", line(heads, "th")), tag("tbody", *body), **more)
    return tag("div", whole, class_="scroll")


def section(anchor: str, title: str, *content: Content) -> Markup:
    """Return a section of the page with its heading."""
    return tag("section", tag("h2", title), *content, id=anchor)
