"""The language of interlock rows: ``io.permit == false``, ``cell.voltage > 4 V and heater.output > 5 %``.

    condition  := term { "or" term }
    term       := comparison { "and" comparison }
    comparison := device "." field operator value [unit]
    operator   := == != < <= > >=

Values are quantities with units, or true and false for switches. There are no brackets, no arithmetic and
nothing is evaluated as code. A parsed condition is asked with the newest readings, ``"heater.temperature"``
and so on in SI units; when one of them is unknown the answer may be None, which the guard treats as met.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from controller.config.quantities import QuantityError, parse_as, show

Values = Mapping[str, float | bool | None]

# What the guard knows of each role: field name -> unit of its value, None for a switch.
FIELDS: dict[str, dict[str, str | None]] = {
    "heater": {"temperature": "K", "output": "1"},
    "cell": {"voltage": "V", "current": "A"},
    "io": {"permit": None, "beam_current": "A", "relay": None, "shutter": None, "blanked": None},
}

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARISON = re.compile(
    r"\s*([A-Za-z_][\w-]*)\s*\.\s*([A-Za-z_]\w*)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*", re.DOTALL
)
_SHAPE = (
    "write device.field, an operator and a value, such as "
    '"io.permit == false" or "heater.temperature > 340 K"'
)


@dataclass(frozen=True)
class Comparison:
    """One reading against one value."""

    device: str  # as named in the station file
    field: str
    operator: str
    value: float | bool  # SI, or a switch
    unit: str | None  # key of quantities.KINDS, None for a switch
    role: str = ""  # heater, cell or io: the name under which the guard keeps the reading

    @property
    def channel(self) -> str:
        """The key of the reading in ``holds``."""
        return f"{self.role or self.device}.{self.field}"

    def holds(self, values: Values) -> bool | None:
        """Return whether the reading satisfies the comparison, None when it is unknown."""
        value = values.get(self.channel)
        if value is None:
            return None
        return _OPERATORS[self.operator](value, self.value)

    def __str__(self) -> str:
        value = str(self.value).lower() if self.unit is None else show(float(self.value), self.unit)
        return f"{self.device}.{self.field} {self.operator} {value}"


@dataclass(frozen=True)
class Condition:
    """Comparisons joined by ``and``, those joined by ``or``; true beats unknown beats false in ``or``."""

    terms: tuple[tuple[Comparison, ...], ...]

    def holds(self, values: Values) -> bool | None:
        """Return whether the condition is met, None when that hangs on an unknown reading."""
        unknown = False
        for term in self.terms:
            answers = [comparison.holds(values) for comparison in term]
            if all(answers):
                return True
            unknown = unknown or not any(answer is False for answer in answers)
        return None if unknown else False

    @property
    def channels(self) -> frozenset[str]:
        """Every reading that the condition looks at."""
        return frozenset(comparison.channel for comparison in self.comparisons())

    def comparisons(self) -> Iterator[Comparison]:
        """Yield every comparison."""
        for term in self.terms:
            yield from term

    def __str__(self) -> str:
        return " or ".join(" and ".join(map(str, term)) for term in self.terms)


def parse_condition(
    text: str, roles: Mapping[str, str], switches: Collection[str] = (),
    monitors: Mapping[str, Mapping[str, str | None]] = MappingProxyType({}),
) -> Condition:  # fmt: skip
    """Parse a condition; ``roles`` maps each device name of the station to heater, cell, io or another word.

    ``switches`` are the named digital inputs of the I/O box, known as switches of its own besides ``FIELDS``;
    ``monitors`` what every further device measures: name -> unit, None for a switch.

    Raises: QuantityError with a complaint that begins with a verb.
    """
    terms = tuple(
        tuple(_comparison(part, roles, switches, monitors) for part in re.split(r"\band\b", term))
        for term in re.split(r"\bor\b", text)
    )
    return Condition(terms)


def _comparison(
    text: str, roles: Mapping[str, str], switches: Collection[str],
    monitors: Mapping[str, Mapping[str, str | None]],
) -> Comparison:  # fmt: skip
    matched = _COMPARISON.fullmatch(text)
    if matched is None:
        raise QuantityError(f"cannot be understood at {text.strip()!r}: {_SHAPE}")
    device, field, sign, written = matched.groups()
    if device not in roles:
        raise QuantityError(f'names the device "{device}", which this station does not have')
    fields = FIELDS.get(roles[device], {}) if roles[device] else dict(monitors.get(device, {}))
    if roles[device] == "io":
        fields = {**dict.fromkeys(switches), **fields}
    if field not in fields:
        known = ", ".join(f"{device}.{name}" for name in fields) or "nothing"
        raise QuantityError(
            f'names "{device}.{field}", which the guard does not know; of this device it knows {known}'
        )
    unit = fields[field]
    if unit is None:
        if written not in ("true", "false") or sign not in ("==", "!="):
            raise QuantityError(f"compares the switch {device}.{field}: write == true or == false")
        return Comparison(device, field, sign, written == "true", None, roles[device])
    if sign in ("==", "!="):
        raise QuantityError(f"compares the measured {device}.{field} with {sign}: use <, <=, > or >=")
    try:
        value = parse_as(written, unit)
    except QuantityError as error:
        raise QuantityError(f'compares with "{written}", which {error}') from None
    return replace(Comparison(device, field, sign, value, unit), role=roles[device])
