"""Numbers and times as people write them: rounded to their error, with units, a dash for what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.summary import WHAT_ENDS, total

MISSING = "—"
COULOMB_PER_UAH = 3.6e-3
PERCENT = ("soc_beam", "soc_charge", "soc_beam_relative", "occupancy", "acceptance")  # shown in percent

NAMES = {
    "li_relative": "lithium per {normaliser}, relative to the reference",
    "li_relative_charge": "lithium per beam charge, relative to the reference",
    "x": "x in {host}",
    "soc_beam": "state of charge from the beam",
    "soc_charge": "state of charge from the charge passed",
    "soc_beam_relative": "state of charge from the beam, between the named scans",
}
"""The quantities that a person is told, in the order in which they are told."""

OTHERS = {
    "_counts": "{element}, net counts",
    "_per_charge": "{element} counts per beam charge",
    "_per_normaliser": "{element} per {normaliser}",
}


@dataclass(frozen=True)
class Cells:
    """A quantity as text: all parts rounded alike, to two digits of the total error."""

    value: str
    stat: str
    sys: str
    total: str
    unit: str

    @property
    def short(self) -> str:
        """Value, total error and unit."""
        if self.total == MISSING:
            return self.value
        return f"{self.value} ± {self.total}{' ' + self.unit if self.unit else ''}"


def cells(name: str, quantity: Mapping[str, Any]) -> Cells:
    """Return a quantity as text; states of charge in percent."""
    error = total(quantity)
    limit = quantity.get("upper_limit")
    if error is None and limit is not None:
        return Cells(f"< {limit:.2g}", MISSING, MISSING, MISSING, "")
    if error is None and quantity.get("flags"):
        return Cells(str(quantity["flags"][0]), MISSING, MISSING, MISSING, "")
    if error is None:
        return Cells(MISSING, MISSING, MISSING, MISSING, "")
    scale, unit = (100.0, "%") if name in PERCENT else (1.0, str(quantity.get("unit", "")))
    digits = digits_of(scale * error)
    parts = (quantity["value"], quantity["sigma_stat"], quantity["sigma_sys"], error)
    value, stat, sys, whole = (fixed(scale * part, digits) for part in parts)
    return Cells(value, stat, sys, whole, unit_of(unit))


def digits_of(error: float) -> int:
    """Return the decimals that show two digits of an error; negative: so many digits are rounded away."""
    if not math.isfinite(error) or error <= 0.0:
        return 4
    return 1 - math.floor(math.log10(float(f"{error:.1e}")))


def fixed(value: float, digits: int) -> str:
    """Return a number with so many decimals and a true minus sign; thousands are set apart."""
    text = f"{round(value, digits):,.{max(digits, 0)}f}".replace(",", "\u202f")
    if float(text.replace("\u202f", "")) == 0.0:
        text = text.removeprefix("-")
    return text.replace("-", "\u2212")


def name_of(name: str, layer: str, sample: Mapping[str, Any] | None) -> str:
    """Return what a quantity of a layer is called, with the names of this sample."""
    known = ((sample or {}).get("layers") or {}).get(layer, {})
    normaliser = known.get("normaliser") or "normaliser"
    for ending, text in OTHERS.items():
        if name.endswith(ending):
            return text.format(element=name.removesuffix(ending).capitalize(), normaliser=normaliser)
    host = str(known.get("host") or "the host").replace("Li", "Liₓ", 1).replace("O2", "O₂")
    return NAMES.get(name, name.replace("_", " ")).format(host=host, normaliser=normaliser)


def agreement(layer: Mapping[str, Any]) -> str:
    """Say whether beam and charge agree."""
    if layer.get("z") is None or layer.get("agree") is None:
        return "not compared"
    word = "agree" if layer["agree"] else "DISAGREE"
    return f"beam and charge {word} (z = {fixed(layer['z'], 2)})"


def appeared(layer: Mapping[str, Any]) -> str:
    """Say of lithium that the reference did not show how much it is, and since when; empty without any."""
    one = layer.get("appeared")
    if not one:
        return ""
    more = cells("", {**one["gained"], "unit": "1"}).short
    none = one.get("none_before", True)
    had = (
        f"fewer than {count(one['reference_below'])}"
        if none
        else cells("", {**one["reference"], "unit": "1"}).short
    )
    text = (
        f"{more} counts more than the reference for the same beam charge, which had {had}; claimed above "
        f"{count(one['threshold'])}. "
    )
    text += (
        "Nothing to compare with: no relative signal, no state of charge" if none else "No state of charge"
    )
    first = made_of(one.get("first"))
    return text if first == MISSING else f"{text}. First seen in {first}"


def made_of(interval: Mapping[str, Any] | None) -> str:
    """Say what a result is made of: scan, passes, and the state of the cell meanwhile."""
    if not interval:
        return MISSING
    parts = [f"scan “{interval['scan']}”"] if interval.get("scan") else []
    passes = interval.get("passes")
    if passes:
        first, last = passes[0], passes[-1]
        parts.append(f"pass {first}" if first == last else f"passes {first} to {last}")
    parts += [
        text
        for text in (
            span(interval.get("soc_charge"), "%", 1, 100.0),
            span(interval.get("temperature_k"), "K", 1),
            span(interval.get("voltage_v"), "V", 3),
        )
        if text
    ]
    if interval.get("soc_charge"):
        index = 2 if passes else 1
        parts[index] = f"SoC by charge {parts[index]}"
    return ", ".join(parts)


def span(pair: Sequence[float] | None, unit: str, digits: int, scale: float = 1.0) -> str:
    """Return "314.2 to 333.0 K", or one number where both are the same; empty when it is not known."""
    if not pair:
        return ""
    low, high = (fixed(scale * end, digits) for end in (pair[0], pair[-1]))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def seconds(value: float | None) -> str:
    """Return a duration: "85 s", "12 min 5 s", "1 h 23 min"."""
    if value is None:
        return MISSING
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def charge(coulomb: float | None, sigma: float | None) -> str:
    """Return a charge in uAh with its error."""
    if coulomb is None:
        return MISSING
    value = coulomb / COULOMB_PER_UAH
    if sigma is None:
        return f"{fixed(value, 3)} µAh (error not known)"
    error = sigma / COULOMB_PER_UAH
    digits = min(digits_of(error), 4)
    return f"{fixed(value, digits)} ± {fixed(error, digits)} µAh"


def triple(quantity: Mapping[str, Any]) -> str:
    """Return a quantity with both errors: "0.531 ± 0.004 ± 0.021", "(5.05 ± 0.12 ± 0.21) × 10²⁰ 1/cm²"."""
    parts = [float(quantity[key]) for key in ("value", "sigma_stat", "sigma_sys")]
    if not all(math.isfinite(part) for part in parts):
        return MISSING
    size = max(abs(part) for part in parts)
    power = math.floor(math.log10(size)) if size > 0.0 and not 1e-3 <= size < 1e5 else 0
    scaled = [part / 10.0**power for part in parts]
    digits = digits_of(min((part for part in scaled[1:] if part > 0.0), default=0.0))
    text = " ± ".join(fixed(part, digits) for part in scaled)
    unit = unit_of(str(quantity.get("unit", "1")))
    text = f"({text}) × {ten_to(power)}" if power else text
    return f"{text} {unit}" if unit else text


def unit_of(unit: str) -> str:
    """Return a unit as it is printed: "1/cm2" as "1/cm²", "ohm/s^0.5" as "Ω/√s", "1" as nothing."""
    printed = unit.replace("m2", "m²").replace("m3", "m³").replace("ohm", "Ω").replace("s^0.5", "√s")
    return "" if unit == "1" else printed


def count(value: float) -> str:
    """Return a number of counts with its thousands set apart."""
    return fixed(value, 0)


def powers(value: float) -> str:
    """Return "3.2 × 10¹⁵"."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × {ten_to(int(exponent))}"


def ten_to(power: int) -> str:
    """Return "10¹⁵"."""
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def ending(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Return how a run ended, in a word or a few, and what more there is to say."""
    code, outcome = summary["exit_code"], str(summary["outcome"])
    word = "ended without a record" if code is None else WHAT_ENDS.get(code, f"exit code {code}")
    if outcome == "done":
        trips = summary.get("trips") or []
        return word, f"the guard tripped: {trips[-1].get('text', trips[-1].get('id'))}" if trips else ""
    if (
        outcome.split()[:1] == word.split()[:1]
    ):  # it says so itself: aborted by ..., finished, but with gaps: ...
        first, _, more = outcome.partition(":")
        return first, more.strip()
    return word, outcome
