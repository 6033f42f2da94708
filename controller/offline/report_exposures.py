"""The table of the exposures of frame detectors in the report: what was counted, what was lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.offline import words
from controller.offline.markup import Content, Markup, join, table, tag

Plain = Mapping[str, Any]

LOST = {
    "unread": "overwritten before they were counted", "unrecorded": "counted, not recorded",
    "lost_with_host": "or more lost with the host, and made again",
}  # fmt: skip
COUNTERS = {
    "incomplete": "incomplete", "missing": "missing", "lost_packets": "packets lost",
    "bad": "packets damaged", "late": "late", "restarts": "restarts of the detector",
}  # fmt: skip


def exposures(told: Sequence[Plain]) -> Markup:
    """Return every exposure with its images, what was counted in them, and what was lost."""
    rows: list[tuple[Content, ...]] = []
    for one in told:
        name = str(one.get("name") or one.get("n", ""))
        rows.append(
            (
                join([tag("b", name), f" {one.get('role', '')}"], ""), one.get("purpose"),
                _count(one.get("frames")), _count(one.get("hits")), join(list(_found(one)), "") or None,
                join(list(_lost(one)), "") or "nothing", _verdict(one),
            )
        )  # fmt: skip
    heads = ("exposure", "purpose", "images", "hits", "found", "lost", "counts")
    return table(heads, rows, numbers=(2, 3), label="Exposures")


def _found(one: Plain) -> Iterator[Markup]:
    """Yield what was made of the images, with errors where they are known."""
    dark = one.get("dark") or {}
    for name in ("level", "noise"):
        if isinstance(dark.get(name), Mapping):
            yield tag("div", f"dark {name} {words.cells(name, dark[name]).short}")
    if one.get("photons") is not None:
        yield tag("div", f"{words.count(one['photons'])} photons")
    for name, said in (("occupancy", "occupancy"), ("acceptance", "a photon stays alone with")):
        if isinstance(one.get(name), Mapping):
            yield tag("div", f"{said} {words.cells(name, one[name]).short}")
    quantity = one.get("s")
    if isinstance(quantity, Mapping) and quantity.get("value") is not None:
        shown = words.cells("s", quantity)
        yield tag("div", f"S = {shown.value} ± {shown.stat} stat ± {shown.sys} sys")


def _lost(one: Plain) -> Iterator[Markup]:
    for key, text in LOST.items():
        if one.get(key):
            yield tag("div", f"{words.count(one[key])} {text}", class_="warn")
    for key, text in COUNTERS.items():
        number = (one.get("counters") or {}).get(key)
        if number:
            yield tag("div", f"{words.count(number)} {text}", class_="warn")


def _verdict(one: Plain) -> Content:
    problem = str(one.get("why") or one.get("problem") or "")
    if one.get("ok") is False:
        return tag("span", f"no: {problem}" if problem else "no", class_="bad")
    if one.get("interrupted"):
        problem = "; ".join(filter(None, ("cut off with the host, taken up afterwards", problem)))
    return "yes" + (f": {problem}" if problem else "")


def _count(number: Any) -> str | None:
    return None if number is None else words.count(float(number))
