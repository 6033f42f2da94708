"""Variables of a script and how they stand in a data package."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hil_tests.sim.emstat_script import PREFIXES

OFFSET, LARGEST_COUNT = 0x8000000, 0x7FFFFFF


@dataclass
class Value:
    """The content of a variable."""

    number: float = 0.0
    kind: str = "aa"
    integer: bool = False
    status: int | None = None
    range_index: int | None = None


def encode(value: Value) -> str:
    """Return a variable as it stands in a package: the finest prefix whose count still fits."""
    tail = "" if value.status is None else f",1{value.status:X}"
    tail += "" if value.range_index is None else f",2{value.range_index:02X}"
    number = value.number
    if math.isnan(number):
        return f"{value.kind}     nan{tail}"
    if value.integer:
        return f"{value.kind}{int(number) + OFFSET:07X}i{tail}"
    if number == 0.0:
        return f"{value.kind}{OFFSET:07X} {tail}"
    for prefix, factor in PREFIXES.items():
        count = round(number / factor)
        if -LARGEST_COUNT <= count <= LARGEST_COUNT:
            return f"{value.kind}{count + OFFSET:07X}{prefix or ' '}{tail}"
    return f"{value.kind}     nan{tail}"
