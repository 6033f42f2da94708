"""The tables of the lines in the report: how they answered, and how those were shared that several use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.line_health import EVERY, SHARED
from controller.offline import words
from controller.offline.markup import Content, Markup, join, table, tag

Plain = Mapping[str, Any]

WRONG = {
    "timeouts": "not in time", "bad_replies": "damaged", "losses": "port lost",
    "failed_openings": "port not opened",
}  # fmt: skip
TIMES = ("p50_ms", "p99_ms", "max_ms")


def lines(told: Mapping[str, Plain]) -> Iterator[Markup]:
    """Yield a table of all lines, and one of those that are shared; nothing without any."""
    if not told:
        return
    rows = [
        (
            tag("b", name), _count(one.get("requests")), join(list(_wrong(one)), "") or "none",
            _count(one.get("reopenings")), *(_ms(one.get(key)) for key in TIMES),
        )
        for name, one in told.items()
    ]  # fmt: skip
    heads = (
        "line", "requests", "errors", "reopened", "half within / ms", "99 % within / ms", "slowest / ms",
    )  # fmt: skip
    yield tag("h3", "Lines")
    yield table(heads, rows, numbers=(1, 3, 4, 5, 6), label="Lines")
    shared = {name: one for name, one in told.items() if "worst_late_ms" in one}
    if shared:
        yield tag("h3", "Lines that several instruments share")
        yield table(
            ("", *(tag("b", name) for name in shared)),
            [
                (_meaning(key), *(_shown(key, one.get(key)) for one in shared.values()))
                for key in ("polls", *SHARED)
            ],
            numbers=range(1, len(shared) + 1), label="Shared lines",
        )  # fmt: skip


def _wrong(one: Plain) -> Iterator[Markup]:
    for key, text in WRONG.items():
        if one.get(key):
            yield tag("div", f"{words.count(one[key])} {text}", class_="warn")


def _meaning(key: str) -> str:
    unit = EVERY[key].get("unit")
    return f"{EVERY[key]['description']}{f' / {unit}' if unit else ''}"


def _shown(key: str, value: Any) -> Content:
    return _ms(value) if EVERY[key].get("unit") == "ms" else _count(value)


def _count(number: Any) -> str | None:
    return None if number is None else words.count(float(number))


def _ms(number: Any) -> str | None:
    return None if number is None else words.fixed(float(number), 1)
