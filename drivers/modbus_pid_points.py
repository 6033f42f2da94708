"""Points of a Modbus temperature controller as a station file describes them. Pure.

A point is one value in the controller: where it is, how it is coded, what it means. Nothing here knows a
brand, and nothing is guessed: what the description leaves out is not there.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.errors import BadReply, OutOfRange

KELVIN_AT_0_C = 273.15
READ_FUNCTIONS = (1, 2, 3, 4)
WRITE_FUNCTIONS = (5, 6, 16)
BITS = (1, 2)
TYPES = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "bit": 1}
FORMATS = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "float32": ">f"}
# unit -> (factor, offset) to kelvin, fraction or kelvin per minute
UNITS = {
    "K": (1.0, 0.0),
    "degC": (1.0, KELVIN_AT_0_C),
    "degF": (5.0 / 9.0, KELVIN_AT_0_C - 32.0 * 5.0 / 9.0),
    "%": (0.01, 0.0),
    "1": (1.0, 0.0),
    "K/min": (1.0, 0.0),
    "K/s": (60.0, 0.0),
    "K/h": (1.0 / 60.0, 0.0),
    "degF/min": (5.0 / 9.0, 0.0),
}


@dataclass(frozen=True)
class Point:
    """One value in the controller.

    Value in its unit = scale x number + offset; ``kelvin`` and the like come from the unit. ``low`` and
    ``high`` are in that unit. ``invalid`` are raw numbers that mean "no value" (unsigned, as on the wire).
    """

    register: int
    type: str = "int16"
    scale: float = 1.0
    offset: float = 0.0
    unit: str = "1"
    function: int = 3
    write: int | None = None
    low_word_first: bool = False
    low: float = -math.inf
    high: float = math.inf
    invalid: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.type not in TYPES or self.unit not in UNITS:
            raise OutOfRange(f"register {self.register}: no type {self.type!r} or no unit {self.unit!r}")
        if self.function not in READ_FUNCTIONS or self.write not in (None, *WRITE_FUNCTIONS):
            raise OutOfRange(f"register {self.register}: no function {self.function} or {self.write}")
        if (self.function in BITS) is not (self.type == "bit") or (self.write == 5) > (self.type == "bit"):
            raise OutOfRange(f"register {self.register}: bits have functions 1, 2 and 5, words the others")
        if not (math.isfinite(self.scale) and self.scale != 0.0 and math.isfinite(self.offset)):
            raise OutOfRange(f"register {self.register}: scale {self.scale}, offset {self.offset}")
        if self.write == 6 and self.words > 1:
            raise OutOfRange(f"register {self.register}: function 6 writes one word, {self.type} has two")
        if not self.low < self.high:
            raise OutOfRange(f"register {self.register}: limits {self.low:g} to {self.high:g}")

    @property
    def words(self) -> int:
        """Registers it takes; 1 for a bit."""
        return TYPES[self.type]

    @property
    def step(self) -> float:
        """The smallest change that can be written, in SI; a float's is taken as 1e-6 of its scale."""
        factor, _ = UNITS[self.unit]
        return abs(self.scale) * factor * (1e-6 if self.type == "float32" else 1.0)

    def raw(self, words: Sequence[int]) -> float:
        """Return the number as it is coded. Raises BadReply for a float that is none."""
        if self.type == "bit":
            return float(words[0])
        ordered = reversed(words) if self.low_word_first else words
        (number,) = struct.unpack(FORMATS[self.type], b"".join(word.to_bytes(2, "big") for word in ordered))
        return float(number)

    def is_invalid(self, words: Sequence[int]) -> bool:
        """Return whether the controller says that there is no value."""
        ordered = list(reversed(words)) if self.low_word_first else list(words)
        number = int.from_bytes(b"".join(word.to_bytes(2, "big") for word in ordered), "big")
        return number in self.invalid or not math.isfinite(self.raw(words))

    def shown(self, words: Sequence[int]) -> float:
        """Return the value in the point's own unit."""
        return self.scale * self.raw(words) + self.offset

    def value(self, words: Sequence[int]) -> float:
        """Return the value in kelvin, as a fraction, or in kelvin per minute."""
        return self.si(self.shown(words))

    def si(self, shown: float) -> float:
        """Return a value of the point's own unit in kelvin, as a fraction, or in kelvin per minute."""
        factor, offset = UNITS[self.unit]
        return factor * shown + offset

    def in_range(self, words: Sequence[int]) -> bool:
        """Return whether the value lies within the limits of its description."""
        return self.low <= self.shown(words) <= self.high

    def coded(self, value: float) -> list[int]:
        """Return the words for a value in SI.

        Raises:
            OutOfRange: outside the limits of the description or of the type.
        """
        factor, offset = UNITS[self.unit]
        shown = (value - offset) / factor
        if not self.low - 1e-9 <= shown <= self.high + 1e-9:
            raise OutOfRange(
                f"{shown:g} {self.unit} is outside the limits {self.low:g} to {self.high:g} of register "
                f"{self.register}"
            )
        return self.coded_raw((shown - self.offset) / self.scale)

    def coded_raw(self, number: float) -> list[int]:
        """Return the words for a number as it is coded. Raises OutOfRange if it does not fit."""
        if self.type == "bit":
            return [int(bool(number))]
        try:
            packed = struct.pack(FORMATS[self.type], number if self.type == "float32" else round(number))
        except (struct.error, OverflowError) as error:
            raise OutOfRange(f"{number:g} does not fit into register {self.register}: {error}") from None
        words = [int.from_bytes(packed[i : i + 2], "big") for i in range(0, len(packed), 2)]
        return words[::-1] if self.low_word_first else words


@dataclass(frozen=True)
class Flag:
    """A condition in a word or bit: some of its bits, or the whole number, mean something."""

    point: Point
    says: str  # in plain words
    sensor: bool = False  # then there is no temperature
    mask: int | None = None  # set if any of these bits is
    equals: tuple[int, ...] | None = None  # set if the number is one of these
    unlike: tuple[int, ...] | None = None  # set if the number is none of these

    def __post_init__(self) -> None:
        if sum(test is not None for test in (self.mask, self.equals, self.unlike)) != 1:
            raise OutOfRange(f"status {self.says!r}: one of mask, equals and unlike must be given")

    def is_set(self, words: Sequence[int]) -> bool:
        """Return whether the condition holds."""
        number = int(self.point.raw(words))
        if self.mask is not None:
            return bool(number & self.mask)
        if self.equals is not None:
            return number in self.equals
        return number not in (self.unlike or ())


@dataclass(frozen=True)
class Mode:
    """Off, automatic and manual, where the controller has a register for it; None: it has no such state."""

    point: Point
    auto: int
    off: int | None = None
    manual: int | None = None


@dataclass(frozen=True)
class Ramp:
    """The limit on the rate of the set-point; ``enable`` switches it, where that is apart."""

    point: Point
    none: float = 0.0  # the number that means "no limit", as coded
    enable: Point | None = None
    on: int = 1
    off: int = 0


@dataclass(frozen=True)
class Description:
    """All that is known of one controller."""

    process: Point
    setpoint: Point
    output: Point
    working: Point | None = None
    manual_output: Point | None = None
    mode: Mode | None = None
    ramp: Ramp | None = None
    flags: tuple[Flag, ...] = ()
    identity: tuple[Point, tuple[int, ...]] | None = None
    maker: str = "unlisted"
    model: str = "Modbus controller"
    setpoint_wears: bool = True  # a written set-point goes to a memory that wears out

    def points(self) -> list[Point]:
        """Return what one poll reads, without repetition."""
        found = [self.process, self.output, self.working or self.setpoint]
        found += [flag.point for flag in self.flags]
        if self.mode is not None:
            found.append(self.mode.point)
        return list(dict.fromkeys(found))


def description(settings: Mapping[str, Any]) -> Description:
    """Return what the settings describe. Raises OutOfRange for what cannot be."""
    mode, ramp, identity = settings.get("mode"), settings.get("ramp"), settings.get("identity")
    return Description(
        process=point(settings["process_value"]),
        setpoint=point(settings["setpoint"]),
        output=point(settings["output"]),
        working=_maybe(settings, "working_setpoint"),
        manual_output=_maybe(settings, "manual_output"),
        mode=None if mode is None else _mode(mode),
        ramp=None if ramp is None else _ramp(ramp),
        flags=tuple(_flag(table) for table in settings.get("status", ())),
        identity=None if identity is None else (point(identity), tuple(identity["equals"])),
        maker=str(settings.get("maker", Description.maker)),
        model=str(settings.get("model", Description.model)),
        setpoint_wears=bool(settings.get("setpoint_wears", True)),
    )


def point(table: Mapping[str, Any]) -> Point:
    """Return the point that a table describes; keys that are not a point's are left alone."""
    return Point(
        register=int(table["address"]),
        type=str(table.get("type", "int16")),
        scale=float(table.get("scale", 1.0)),
        offset=float(table.get("offset", 0.0)),
        unit=str(table.get("unit", "1")),
        function=int(table.get("function", 3)),
        write=None if table.get("write") is None else int(table["write"]),
        low_word_first=table.get("word_order", "high first") == "low first",
        low=float(table.get("low", -math.inf)),
        high=float(table.get("high", math.inf)),
        invalid=tuple(int(number) for number in table.get("invalid", ())),
    )


def blocks(points: Sequence[Point]) -> list[list[Point]]:
    """Group points that one request can read: same function, no register between or beyond them."""
    found: list[list[Point]] = []
    for one in sorted(set(points), key=lambda p: (p.function, p.register)):
        last = found[-1][-1] if found else None
        if last is not None and last.function == one.function and last.register + last.words == one.register:
            found[-1].append(one)
        else:
            found.append([one])
    return found


def split(block: Sequence[Point], words: Sequence[int]) -> dict[Point, list[int]]:
    """Return the words of each point of a block. Raises BadReply if there are not enough."""
    first = block[0].register
    if len(words) < block[-1].register + block[-1].words - first:
        raise BadReply(f"{len(words)} words for registers {first} to {block[-1].register}")
    return {one: list(words[one.register - first : one.register - first + one.words]) for one in block}


def _maybe(settings: Mapping[str, Any], key: str) -> Point | None:
    table = settings.get(key)
    return None if table is None else point(table)


def _mode(table: Mapping[str, Any]) -> Mode:
    off, manual = table.get("off"), table.get("manual")
    return Mode(
        point(table),
        auto=int(table["auto"]),
        off=None if off is None else int(off),
        manual=None if manual is None else int(manual),
    )


def _ramp(table: Mapping[str, Any]) -> Ramp:
    enable = table.get("enable")
    if enable is None:
        return Ramp(point(table), none=float(table.get("none", 0.0)))
    return Ramp(
        point(table),
        none=float(table.get("none", 0.0)),
        enable=point(enable),
        on=int(enable["on"]),
        off=int(enable["off"]),
    )


def _flag(table: Mapping[str, Any]) -> Flag:
    def numbers(key: str) -> tuple[int, ...] | None:
        given = table.get(key)
        return None if given is None else tuple(int(number) for number in given)

    mask = table.get("mask")
    return Flag(
        point(table),
        says=str(table["says"]),
        sensor=bool(table.get("sensor", False)),
        mask=None if mask is None else int(mask),
        equals=numbers("equals"),
        unlike=numbers("unlike"),
    )
