"""Physical quantities as a person writes them: ``"333 K"``, ``"26 uA"``, ``"C/20"``, ``"1.5 h"``.

One table says which quantities exist, in which unit the program keeps them, and which words and examples the
error messages use. pint does the arithmetic of units; it is imported at the first quantity, not before,
because it takes half a second. Nothing here evaluates text: the number and the unit are taken apart first.

Every refusal is a ``QuantityError`` whose text begins with a verb, so that the caller can put file and key in
front: ``experiment.toml: step[3].voltage = 4.0`` + ``has no unit: a voltage is needed, such as "4.0 V"``.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

MAX_CHARACTERS = 60


class QuantityError(ValueError):
    """What is wrong with a quantity, beginning with a verb; ``limit`` is the bound it broke, if one."""

    def __init__(self, complaint: str, limit: str = "") -> None:
        super().__init__(complaint)
        self.limit = limit


@dataclass(frozen=True)
class Kind:
    """A physical quantity: its words, the unit it is kept in, and how it is written back."""

    word: str  # with its article: "a temperature"
    unit: str  # what the program keeps, in pint's spelling
    examples: tuple[str, ...]
    shown: tuple[tuple[str, float], ...]  # unit as written, and its size in the kept unit, largest first
    difference: bool = False  # a temperature difference, for which 2 degC is 2 K


_TIME = (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6))
_CURRENT = (("A", 1.0), ("mA", 1e-3), ("uA", 1e-6), ("nA", 1e-9), ("pA", 1e-12))

KINDS: dict[str, Kind] = {
    "K": Kind("a temperature", "K", ("333 K", "60 degC"), (("K", 1.0),)),
    "delta K": Kind("a temperature difference", "K", ("2 K",), (("K", 1.0),), difference=True),
    "K/s": Kind("a temperature rate", "K/s", ("10 K/min",), (("K/min", 1.0 / 60.0),)),
    "s": Kind("a time", "s", ("30 s", "1.5 h"), _TIME),
    "A": Kind("a current", "A", ("26 uA",), _CURRENT),
    "V": Kind("a voltage", "V", ("4.0 V",), (("V", 1.0), ("mV", 1e-3))),
    "C": Kind(
        "an electric charge", "C", ("10 uAh", "36 mC"), (("Ah", 3600.0), ("mAh", 3.6), ("uAh", 3.6e-3))
    ),
    "um": Kind("a length", "um", ("100 um",), (("mm", 1e3), ("um", 1.0), ("nm", 1e-3))),
    "keV": Kind("an energy", "keV", ("3020 keV",), (("MeV", 1e3), ("keV", 1.0), ("eV", 1e-3))),
    "1/s": Kind("a count rate", "1/s", ("600 /s",), (("/s", 1.0),)),
    "Hz": Kind("a frequency", "Hz", ("100 kHz",), (("kHz", 1e3), ("Hz", 1.0), ("mHz", 1e-3))),
    "deg": Kind("an angle", "deg", ("45 deg",), (("deg", 1.0),)),
    "1": Kind("a percentage", "", ("5 %",), (("%", 0.01),)),
    "1/cm2": Kind("a dose (protons per area)", "1/cm**2", ("1e17 /cm2",), (("/cm2", 1.0),)),
    "ohm": Kind("a resistance", "ohm", ("25 ohm",), (("kohm", 1e3), ("ohm", 1.0), ("mohm", 1e-3))),
    "W": Kind("a power", "W", ("40 W",), (("W", 1.0), ("mW", 1e-3))),
    "W/K": Kind("a loss of heat", "W/K", ("0.14 W/K",), (("W/K", 1.0), ("mW/K", 1e-3))),
    "J/K": Kind("a heat capacity", "J/K", ("85 J/K",), (("J/K", 1.0),)),
    "um/V": Kind("a deflection scale", "um/V", ("100 um/V",), (("um/V", 1.0),)),
    "A/V": Kind(
        "a current per voltage",
        "A/V",
        ("10 pA/V",),
        (("A/V", 1.0), ("mA/V", 1e-3), ("uA/V", 1e-6), ("nA/V", 1e-9), ("pA/V", 1e-12)),
    ),
}

# Dimensions that a person may have written by mistake, for "is a length, but a temperature is needed".
_WORDS = {
    "K": "a temperature",
    "K/s": "a temperature rate",
    "s": "a time",
    "A": "a current",
    "V": "a voltage",
    "C": "an electric charge",
    "m": "a length",
    "m**2": "an area",
    "J": "an energy",
    "Hz": "a rate or a frequency",
    "W": "a power",
    "ohm": "a resistance",
    "1/m**2": "a number per area",
    "Pa": "a pressure",
    "g": "a mass",
    "F": "a capacitance",
    "H": "an inductance",
    "m/V": "a deflection scale",
    "A/V": "a conductance (a current per voltage)",
    "m/s": "a speed",
    "N": "a force",
    "mol/m**3": "a concentration",
    "J/K": "a heat capacity",
    "W/K": "a loss of heat",
}
# Spellings that everyone uses and pint reads otherwise or not at all. Only the unit's own name is replaced.
_SPELLINGS = {"%": "percent", "µ": "u", "μ": "u", "Ω": "ohm", "²": "2", "·": "*"}
_PERCENT = {"percent", "permille", "ppm"}
_ANGLES = {"degree", "radian", "milliradian", "microradian"}
_COMMON = (
    "K", "degC", "degF", "K/min", "K/s", "s", "ms", "us", "min", "h", "d", "A", "mA", "uA", "nA", "pA", "V",
    "mV", "uV", "Ah", "mAh", "uAh", "C", "mC", "m", "mm", "um", "nm", "cm", "eV", "keV", "MeV", "Hz", "kHz",
    "mHz", "MHz", "/s", "deg", "%", "/cm2", "um/V", "pA/V", "nA/V",
)  # fmt: skip
_WORD_HINTS = {
    "c": "degC",
    "celsius": "degC",
    "kelvin": "K",
    "amps": "A",
    "amp": "A",
    "sec": "s",
    "f": "degF",
}

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*", re.DOTALL)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+")
_UNIT = re.compile(r"[A-Za-z_/*^. 0-9-]+")
_BARE_POWER = re.compile(r"([A-Za-z])\^?(-?\d)")
_LONG_POWER = re.compile(r"\d\d")  # no unit has a power above 9; one of many digits takes hours
_C_RATE = re.compile(r"\s*(?:(\d+\.?\d*|\.\d+)\s*)?C(?:\s*/\s*(\d+\.?\d*|\.\d+))?\s*")


def parse(text: object, unit: str) -> float:
    """Return the value of ``text`` in ``unit`` (a key of ``KINDS``).

    A bare number is refused with the name of the unit that is missing, another dimension with its name.
    Temperatures with an offset (degC) become kelvin; differences and rates are never offset.
    Raises: QuantityError.
    """
    kind = KINDS[unit]
    number, written = _split(text, kind)
    units = _units(text, written, number, kind)
    value = _convert(float(number), units, written, number, kind)
    if not math.isfinite(value):
        raise QuantityError("is not a finite number")
    if unit == "K" and value < 0.0:
        raise QuantityError("is below absolute zero", "0 K")
    return value


def parse_as(text: object, unit: str) -> float:
    """Return the value of ``text`` in any unit, also one that is no key of ``KINDS`` (others' drivers).

    A plain number is what ``""`` asks for. Raises: QuantityError.
    """
    if unit in KINDS:
        return parse(text, unit)
    if unit:
        spelled = unit
        for sign, name in _SPELLINGS.items():
            spelled = spelled.replace(sign, name)
        kind = Kind(f"a value in {unit}", spelled, (f"1 {unit}",), ((unit, 1.0),))
        try:
            _ = _registry().parse_units(spelled).dimensionality
        except Exception:  # pint lets out its own errors and those of the tokenizer
            raise QuantityError(f"is needed in {unit!r}, which is no unit") from None
        number, written = _split(text, kind)
        value = _convert(float(number), _units(text, written, number, kind), written, number, kind)
    else:
        try:
            value = float(str(text))
        except ValueError:
            raise QuantityError("is no plain number, which is needed here") from None
    if not math.isfinite(value):
        raise QuantityError("is not a finite number")
    return value


def is_c_rate(text: object) -> bool:
    """Return whether ``text`` is written as a C-rate: ``"C/20"``, ``"2C"``, ``"0.5C/2"``."""
    return isinstance(text, str) and _C_RATE.fullmatch(text) is not None


def parse_current(text: object, capacity_coulomb: float | None) -> float:
    """Return a current in ampere from ``"26 uA"`` or, when the capacity is known, from ``"C/20"``.

    C/n is the current that passes the capacity in n hours: I = Q / (n * 3600 s).
    Raises: QuantityError, also for a C-rate when ``capacity_coulomb`` is None.
    """
    matched = _C_RATE.fullmatch(text) if isinstance(text, str) else None
    if matched is None:
        return parse(text, "A")
    if capacity_coulomb is None:
        raise QuantityError(
            'is a C-rate, which needs a valid sample.capacity: write a current such as "26 uA"'
        )
    hours = float(matched[2] or 1.0)
    if hours == 0.0:
        raise QuantityError("divides by zero")
    return float(matched[1] or 1.0) * capacity_coulomb / (hours * 3600.0)


def show(value: float, unit: str, digits: int = 6) -> str:
    """Write a kept value back as text in a readable unit; ``digits=17`` reads back to the same number."""
    if unit not in KINDS:
        return f"{value:.{digits}g} {unit}".rstrip()
    kind = KINDS[unit]
    written, size = kind.shown[-1]
    if value == 0.0:
        written, size = next((pair for pair in kind.shown if pair[1] == 1.0), kind.shown[0])
    for name, candidate in kind.shown:
        if abs(value) >= candidate * (1 - 1e-12):
            written, size = name, candidate
            break
    return f"{value / size:.{digits}g} {written}"


class Quantity:
    """Pydantic annotation: text with a unit in the file, a float in ``unit`` in the model.

    ``Annotated[float, Quantity("s", above=0)]``; ``low`` and ``high`` are inclusive bounds in the kept unit,
    ``above`` is exclusive. ``c_rate=True`` (currents) also takes C-rates, of the capacity that the validation
    context carries as ``c_rate_coulomb``.
    """

    def __init__(
        self,
        unit: str,
        *,
        low: float | None = None,
        high: float | None = None,
        above: float | None = None,
        c_rate: bool = False,
    ) -> None:
        self.unit = unit
        self.low = low
        self.high = high
        self.above = above
        self.c_rate = c_rate

    def read(self, text: object, capacity_coulomb: float | None = None) -> float:
        """Parse and check the bounds. Raises: QuantityError."""
        if is_c_rate(text) and self.unit == "A" and not self.c_rate:
            raise QuantityError('is a C-rate, which has no meaning here: write a current such as "40 uA"')
        value = parse_current(text, capacity_coulomb) if self.c_rate else parse(text, self.unit)
        if self.above is not None and value <= self.above:
            raise QuantityError(
                f"must be more than {show(self.above, self.unit)}", show(self.above, self.unit)
            )
        if self.low is not None and value < self.low * (1 - 1e-12):
            raise QuantityError(f"is below {show(self.low, self.unit)}", show(self.low, self.unit))
        if self.high is not None and value > self.high * (1 + 1e-12):
            raise QuantityError(f"is above {show(self.high, self.unit)}", show(self.high, self.unit))
        return value

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def validate(text: object, info: core_schema.ValidationInfo) -> float:
            context = info.context if isinstance(info.context, dict) else {}
            try:
                return self.read(text, context.get("c_rate_coulomb"))
            except QuantityError as error:
                raise PydanticCustomError(
                    "rule", "{complaint}", {"complaint": str(error), "limit": error.limit}
                ) from None

        return core_schema.with_info_plain_validator_function(validate)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        kind = KINDS[self.unit]
        examples = [*kind.examples, "C/20"] if self.c_rate else list(kind.examples)
        described: JsonSchemaValue = {
            "type": "string",
            "format": "quantity",
            "x-unit": kind.unit or "1",
            "x-quantity": kind.word.split(" ", 1)[1],
            "examples": examples,
        }
        for name, bound in (("x-minimum", self.low), ("x-maximum", self.high), ("x-above", self.above)):
            if bound is not None:
                described[name] = bound
        return described


class Difference(Quantity):
    """A temperature difference: ``"2 K"`` and ``"2 degC"`` both mean 2 K, never 275 K."""

    def __init__(self, unit: str = "K", **bounds: Any) -> None:
        super().__init__(f"delta {unit}", **bounds)


@cache
def _registry() -> Any:
    """Return pint's registry, loaded once and late."""
    import pint

    return pint.UnitRegistry(autoconvert_offset_to_baseunit=False)


@cache
def _dimension_words() -> dict[Any, str]:
    registry = _registry()
    return {registry.parse_units(unit).dimensionality: word for unit, word in _WORDS.items()}


def _such_as(kind: Kind) -> str:
    return "such as " + " or ".join(f'"{example}"' for example in kind.examples)


def _split(text: object, kind: Kind) -> tuple[str, str]:
    """Take a quantity apart into the text of its number and of its unit."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise QuantityError(f"has no unit: {kind.word} is needed, {_such_as(kind)}")
    if not isinstance(text, str):
        raise QuantityError(f"is not {kind.word}: write a number with its unit, {_such_as(kind)}")
    if len(text) > MAX_CHARACTERS:
        raise QuantityError(f"is too long for {kind.word}, {_such_as(kind)}")
    if _DECIMAL_COMMA.match(text):
        raise QuantityError(f'has a decimal comma: write a point, "{text.strip().replace(",", ".", 1)}"')
    matched = _NUMBER.fullmatch(text)
    if matched is None:
        raise QuantityError(f"is not {kind.word}: write a number with its unit, {_such_as(kind)}")
    if not matched[2]:
        raise QuantityError(f"has no unit: {kind.word} is needed, {_such_as(kind)}")
    return matched[1], matched[2]


def _units(text: object, written: str, number: str, kind: Kind) -> Any:
    """Return pint's unit for what was written, or say which unit was probably meant."""
    spelled = written
    for sign, name in _SPELLINGS.items():
        spelled = spelled.replace(sign, name)
    spelled = spelled.replace("°C", "degC").replace("° C", "degC").replace("°", "deg")
    spelled = _BARE_POWER.sub(r"\1**\2", spelled.replace("**", "^"))
    if spelled.startswith("/"):
        spelled = "1" + spelled
    hint = _hint(number, written, kind)
    unknown = QuantityError(
        f'has the unknown unit "{written}": {kind.word} is needed, {_such_as(kind)}{hint}'
    )
    if not _UNIT.fullmatch(spelled.replace("**", "^")) or _LONG_POWER.search(spelled):
        raise unknown
    try:
        units = _registry().parse_units(spelled)
        _ = units.dimensionality  # 1/dB is parsed, and has none
    except Exception:  # pint lets out its own errors and those of the tokenizer
        raise unknown from None
    return units


def _hint(number: str, written: str, kind: Kind) -> str:
    """Return ``; did you mean "26 uA"?`` when only the case or a common name is wrong."""
    wanted = _registry().parse_units(kind.unit).dimensionality
    lowered = written.lower()
    for unit in (_WORD_HINTS.get(lowered, ""), *_COMMON):
        if not unit or (unit.lower() != lowered and _WORD_HINTS.get(lowered) != unit) or unit == written:
            continue
        name = "1" + unit if unit.startswith("/") else unit.replace("%", "percent").replace("cm2", "cm**2")
        if _registry().parse_units(name).dimensionality == wanted:
            return f'; did you mean "{number} {unit}"?'
    return ""


def _convert(value: float, units: Any, written: str, number: str, kind: Kind) -> float:
    """Convert to the kept unit after the dimension was found right."""
    registry = _registry()
    wanted = registry.parse_units(kind.unit)
    name = str(units)
    wrong = units.dimensionality != wanted.dimensionality
    if kind.unit == "":
        wrong = name not in _PERCENT
    elif kind.unit == "deg":
        wrong = name not in _ANGLES
    if wrong:
        given = _dimension_words().get(units.dimensionality)
        if name in _PERCENT:
            given = "a percentage"
        elif name in _ANGLES:
            given = "an angle"
        elif not units.dimensionality:
            given = "a pure number"
        stated = f"is {given}" if given else f'has the unit "{written}"'
        hint = _hint(number, written, kind)
        raise QuantityError(f"{stated}, but {kind.word} is needed, {_such_as(kind)}{hint}")
    if kind.difference and name.startswith("degree_"):
        with contextlib.suppress(AttributeError):  # a scale from absolute zero has no difference of its own
            units = registry.parse_units(f"delta_{name}")
    try:
        return float(registry.Quantity(value, units).to(wanted).magnitude)
    except OverflowError:  # exa to the 99th
        return math.inf
