"""A Li_xCoO2 | polymer electrolyte (MEEP) | lithium cell: an equivalent circuit that counts its coulombs.

Voltage = open-circuit voltage of the cathode against lithium + ohmic + charge-transfer + diffusion
overpotential, driven by the current that moves lithium. A leak (a resistance through the separator) and a
side reaction (oxidation of the polymer, tenfold per ``side_decade_v``) take current that moves none.

* Open-circuit voltage: the fit of Ramadass et al., J. Electrochem. Soc. 151 (2004) A196, as used by Torchio
  et al. (LIONSIMBA), J. Electrochem. Soc. 163 (2016) A1192, evaluated at the points below and joined by
  straight lines; it holds for 0.4955 < x < 0.9917, beyond our last two points the line is continued.
* Charge transfer: resistance and double-layer capacitance in parallel.
* Diffusion: finite-length Warburg element R tanh(sqrt(j w tau))/sqrt(j w tau), as resistor-capacitor pairs
  R_k = 2R/((k-1/2) pi)^2, tau_k = tau/((k-1/2) pi)^2: its first terms, and the others in groups with their
  common resistance and their mean time, the last of which holds all that is left. The same pairs make the
  impedance, so time and frequency domain agree.
* Every resistance follows exp(E/k (1/T - 1/T_ref)): a cold polymer cell takes almost no charge.

Positive current charges. Charge through the terminals and charge that moved lithium are counted apart.
The resistances describe no particular cell; they give one that takes 13 uA at 333 K and next to nothing cold.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

BOLTZMANN_EV_PER_K = 8.617333262e-5  # CODATA 2018
ELEMENTARY_COULOMB = 1.602176634e-19  # exact, SI 2019

OCV_POINTS_V: tuple[tuple[float, float], ...] = (  # x in Li_xCoO2, volt against lithium
    (0.45, 4.4835),
    (0.50, 4.2350),
    (0.52, 4.1941),
    (0.55, 4.1458),
    (0.60, 4.0814),
    (0.65, 4.0281),
    (0.70, 3.9831),
    (0.75, 3.9453),
    (0.80, 3.9135),
    (0.85, 3.8852),
    (0.90, 3.8535),
    (0.92, 3.8354),
    (0.94, 3.8084),
    (0.95, 3.7882),
    (0.96, 3.7591),
    (0.97, 3.7133),
    (0.98, 3.6299),
    (0.99, 3.4294),
    (0.995, 3.1670),
)
_OCV_X = [point[0] for point in OCV_POINTS_V]

Mode = Literal["open", "galvanostat", "potentiostat"]
MAX_STEP_S = 2.0
MAX_NEWTON_STEPS = 50
GROUPS = 3


@dataclass(frozen=True)
class CellParameters:
    """Resistances at ``reference_k``, activation energies in eV."""

    capacity_coulomb: float = 0.072  # 20 uAh, for x from 1 to 0.5
    start_x: float = 0.995
    reference_k: float = 333.15
    ohmic_ohm: float = 2500.0
    ohmic_ev: float = 1.3
    transfer_ohm: float = 2000.0
    transfer_ev: float = 1.3
    double_layer_f: float = 2e-6
    diffusion_ohm: float = 1500.0
    diffusion_ev: float = 0.8
    diffusion_s: float = 300.0
    diffusion_terms: int = 6
    leak_ohm: float = 2e8
    side_a_at_4v: float = 2e-9
    side_decade_v: float = 0.15


@dataclass
class CellCharge:
    """Coulombs, all positive in the direction of charging the cell except ``passed_discharge``."""

    terminals: float = 0.0  # integral of the current through the wires
    passed_charge: float = 0.0
    passed_discharge: float = 0.0  # as a positive number
    lithium: float = 0.0  # integral of the current that took lithium out of the cathode
    leak: float = 0.0
    side: float = 0.0


@dataclass
class _Pair:
    """One resistor-capacitor pair: its share at the reference temperature and its voltage."""

    ohm: float
    tau_s: float
    ev: float
    volt: float = 0.0


@dataclass(frozen=True)
class _Source:
    """The cell over the coming step as a voltage behind a resistance, for the lithium current."""

    volt: float
    ohm: float
    decays: list[tuple[float, float]] = field(default_factory=list)  # (a, b): v -> a v + b I


class Cell:
    """The cell with an ideal potentiostat attached: set a mode, let time pass, read volt and ampere."""

    def __init__(
        self,
        parameters: CellParameters | None = None,
        *,
        temperature_k: Callable[[], float] = lambda: 298.15,
    ) -> None:
        self.parameters = parameters or CellParameters()
        self.temperature_k = temperature_k
        self.x = self.parameters.start_x
        self.charge = CellCharge()
        self.short_ohm = math.inf  # set by a fault
        self.contact_ohm = 0.0  # of a bad contact in series, set by a fault
        self.mode: Mode = "open"
        self._set_value = 0.0
        self._current_a = 0.0
        self._voltage_v = 0.0
        p = self.parameters
        self._pairs = [_Pair(p.transfer_ohm, p.transfer_ohm * p.double_layer_f, p.transfer_ev)]
        for share, part in _warburg_terms(p.diffusion_terms):
            self._pairs.append(_Pair(share * p.diffusion_ohm, part * p.diffusion_s, p.diffusion_ev))
        self.process(0.0)

    @property
    def voltage_v(self) -> float:
        """Voltage between the terminals at the end of the last step, V."""
        return self._voltage_v

    @property
    def current_a(self) -> float:
        """Current through the terminals during the last step, A."""
        return self._current_a

    @property
    def lithium_atoms_out(self) -> float:
        """Atoms of lithium that have left the cathode since the start."""
        return self.charge.lithium / ELEMENTARY_COULOMB

    def open_circuit(self) -> None:
        """Disconnect the cell."""
        self._connect("open", 0.0)

    def galvanostat(self, current_a: float) -> None:
        """Force a current; positive charges."""
        self._connect("galvanostat", current_a)

    def potentiostat(self, voltage_v: float) -> None:
        """Force a voltage."""
        self._connect("potentiostat", voltage_v)

    def process(self, dt_s: float) -> None:
        """Let ``dt_s`` seconds pass; 0 only brings volt and ampere up to date after a change of mode."""
        if dt_s < 0.0:
            raise ValueError(f"dt_s must not be negative, got {dt_s}")
        if dt_s == 0.0:
            self._step(0.0)
            return
        steps = math.ceil(dt_s / MAX_STEP_S - 1e-9)
        for _ in range(steps):
            self._step(dt_s / steps)

    def impedance_ohm(self, frequency_hz: float) -> complex:
        """Return the small-signal impedance at the present state: leak, short and side reaction included."""
        omega = 2.0 * math.pi * frequency_hz
        total = complex(self._at_temperature(self.parameters.ohmic_ohm, self.parameters.ohmic_ev))
        for pair in self._pairs:
            factor = self._at_temperature(1.0, pair.ev)
            total += pair.ohm * factor / (1.0 + 1j * omega * pair.tau_s * factor)
        total += self._slope_v_per_coulomb() / (1j * omega)  # the cathode's own capacitance
        beside = (
            self._leak_siemens()
            + self._side_a(self._voltage_v) * math.log(10.0) / self.parameters.side_decade_v
        )
        return self.contact_ohm + 1.0 / (1.0 / total + beside)

    def _connect(self, mode: Mode, value: float) -> None:
        if not math.isfinite(value):
            raise ValueError(f"{mode}: {value} is not a number")
        self.mode = mode
        self._set_value = value
        self.process(0.0)

    def _step(self, dt_s: float) -> None:
        source = self._source(dt_s)
        leak_siemens = self._leak_siemens()
        contact_ohm = self.contact_ohm
        if self.mode == "potentiostat":
            volt = self._set_value
            if contact_ohm > 0.0:  # the same balance, with one more path: to the potentiostat
                siemens = 1.0 / contact_ohm
                volt = self._balance_v(source, self._set_value * siemens, leak_siemens + siemens)
            side_a = self._side_a(volt)
            ampere = (volt - source.volt) / source.ohm + leak_siemens * volt + side_a
        else:
            ampere = self._set_value if self.mode == "galvanostat" else 0.0
            volt = self._balance_v(source, ampere, leak_siemens)
            side_a = self._side_a(volt)
        lithium_a = (volt - source.volt) / source.ohm
        self._voltage_v, self._current_a = volt + contact_ohm * ampere, ampere
        if dt_s == 0.0:
            return
        for pair, (keep, gain) in zip(self._pairs, source.decays, strict=True):
            pair.volt = keep * pair.volt + gain * lithium_a
        self.x -= 0.5 * lithium_a * dt_s / self.parameters.capacity_coulomb
        self._count(dt_s, ampere, lithium_a, leak_siemens * volt, side_a)

    def _source(self, dt_s: float) -> _Source:
        """Implicit: what answers within ``dt_s`` counts as resistance, so that any step is stable."""
        volt = open_circuit_v(self.x)
        ohm = self._at_temperature(self.parameters.ohmic_ohm, self.parameters.ohmic_ev)
        decays: list[tuple[float, float]] = []
        for pair in self._pairs:
            factor = self._at_temperature(1.0, pair.ev)
            keep = math.exp(-dt_s / (pair.tau_s * factor))
            gain = pair.ohm * factor * (1.0 - keep)
            decays.append((keep, gain))
            volt += keep * pair.volt
            ohm += gain
        ohm += self._slope_v_per_coulomb() * dt_s
        return _Source(volt, ohm, decays)

    def _count(self, dt_s: float, ampere: float, lithium_a: float, leak_a: float, side_a: float) -> None:
        charge = self.charge
        charge.terminals += ampere * dt_s
        charge.passed_charge += max(ampere, 0.0) * dt_s
        charge.passed_discharge += max(-ampere, 0.0) * dt_s
        charge.lithium += lithium_a * dt_s
        charge.leak += leak_a * dt_s
        charge.side += side_a * dt_s

    def _leak_siemens(self) -> float:
        return 1.0 / self.parameters.leak_ohm + 1.0 / self.short_ohm

    def _side_a(self, volt: float) -> float:
        """Tafel law; limited, so that no voltage of a potentiostat overflows it."""
        p = self.parameters
        return p.side_a_at_4v * math.pow(10.0, min((volt - 4.0) / p.side_decade_v, 8.0))

    def _balance_v(self, source: _Source, ampere: float, leak_siemens: float) -> float:
        """Find the voltage at which lithium, leak and side reaction together take ``ampere``.

        Newton from above: the sum rises with the voltage and is convex, so the iteration falls onto the
        answer. It starts at the lower one of two bounds, where either of the two paths takes everything.
        """
        p = self.parameters
        siemens = 1.0 / source.ohm + leak_siemens
        volt = (ampere + source.volt / source.ohm) / siemens
        if ampere > 0.0:
            alone_v = 4.0 + p.side_decade_v * math.log10(ampere / p.side_a_at_4v)
            volt = min(volt, max(source.volt, alone_v))
        for _ in range(MAX_NEWTON_STEPS):
            side_a = self._side_a(volt)
            excess_a = (volt - source.volt) / source.ohm + leak_siemens * volt + side_a - ampere
            step_v = excess_a / (siemens + side_a * math.log(10.0) / p.side_decade_v)
            volt -= step_v
            if abs(step_v) < 1e-12:
                break
        return volt

    def _at_temperature(self, ohm: float, ev: float) -> float:
        kelvin = self.temperature_k()
        return ohm * math.exp(ev / BOLTZMANN_EV_PER_K * (1.0 / kelvin - 1.0 / self.parameters.reference_k))

    def _slope_v_per_coulomb(self) -> float:
        """Rise of the open-circuit voltage per coulomb of charge, V/C."""
        return -open_circuit_slope_v(self.x) * 0.5 / self.parameters.capacity_coulomb


def _warburg_terms(terms: int) -> list[tuple[float, float]]:
    """Return the pairs of a finite-length Warburg element as shares of its resistance and of its time.

    ``terms`` exact ones, then GROUPS groups, each twice as long as all before it, then one with the rest: the
    shares add up to 1, and shares times times to 1/3, as those of the whole series do.
    """
    roots = [((k + 0.5) * math.pi) ** 2 for k in range(terms << GROUPS)]
    found = [(2.0 / root, 1.0 / root) for root in roots[:terms]]
    begin = terms
    for _ in range(GROUPS):
        group = roots[begin : 2 * begin]
        share = sum(2.0 / root for root in group)
        found.append((share, sum(2.0 / root**2 for root in group) / share))
        begin *= 2
    rest = 1.0 - sum(share for share, _ in found)
    return [*found, (rest, (1.0 / 3.0 - sum(share * part for share, part in found)) / rest)]


def open_circuit_v(x: float) -> float:
    """Return the voltage of Li_xCoO2 against lithium, V."""
    left, slope = _segment(x)
    return OCV_POINTS_V[left][1] + slope * (x - OCV_POINTS_V[left][0])


def open_circuit_slope_v(x: float) -> float:
    """Return d(voltage)/dx, V; negative everywhere."""
    return _segment(x)[1]


def _segment(x: float) -> tuple[int, float]:
    left = min(max(bisect_right(_OCV_X, x) - 1, 0), len(OCV_POINTS_V) - 2)
    (x0, v0), (x1, v1) = OCV_POINTS_V[left], OCV_POINTS_V[left + 1]
    return left, (v1 - v0) / (x1 - x0)
