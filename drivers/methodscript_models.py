"""What each model that runs MethodSCRIPT can do; a program outside is refused before it is sent. No I/O.

Voltages, current ranges and the largest amplitude of an impedance measurement are those of the documents
named in the protocol sheet (MethodSCRIPT manual v1.8, appendix B, as restated by third parties). Ours, and
cautious: the slowest frequencies, the fastest galvanostatic one (that of PalmSens' published example), and
amplitudes of current up to 0.9 of the largest range. The compliance voltage is not in the documents that we
have read; it decides nothing here, for a cell of two electrodes never needs more than its own voltage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drivers.roles import CellAbilities, SweepAbility

NEEDED_SCRIPT = (1, 3)  # MethodSCRIPT with set_range, meas_loop_cp, timer_get, if and breakloop
ES4_RANGES_A = (1e-9, 10e-9, 100e-9, 1e-6, 10e-6, 100e-6, 1e-3, 10e-3, 100e-3)
PICO_RANGES_A = (
    100e-9, 2e-6, 4e-6, 8e-6, 16e-6, 32e-6, 63e-6, 125e-6, 250e-6, 500e-6, 1e-3, 5e-3,
)  # fmt: skip


@dataclass(frozen=True)
class Capabilities:
    """One type of instrument."""

    name: str
    codes: tuple[str, ...]  # in the answer to ``t``
    low_v: float
    high_v: float
    most_a: float
    least_a: float
    galvanostat: bool
    ranges_a: tuple[float, ...]  # nominal, smallest first
    eis: SweepAbility | None
    geis: SweepAbility | None
    compliance_v: float | None = None

    @property
    def abilities(self) -> CellAbilities:
        """The same in the words of the roles."""
        return CellAbilities(
            self.name, self.low_v, self.high_v, self.most_a, self.galvanostat, self.eis, self.geis
        )

    def range_a(self, ampere: float) -> float:
        """Return the smallest nominal range that holds a current, A; the largest when none does."""
        return next((one for one in self.ranges_a if ampere <= one * (1 + 1e-9)), self.ranges_a[-1])


CAPABILITIES: Mapping[str, Capabilities] = {
    "es4_hr": Capabilities(
        "EmStat4 HR", ("es4_hr", "mes4hr"), -6.0, 6.0, 0.1, 1e-9, True, ES4_RANGES_A[2:],
        SweepAbility(1e-5, 2e5, 1e-3, 0.9), SweepAbility(1e-5, 1e5, 1e-9, 0.09), 8.0,
    ),
    "es4_lr": Capabilities(
        "EmStat4 LR", ("es4_lr", "mes4lr"), -3.0, 3.0, 0.01, 1e-11, True, ES4_RANGES_A[:-1],
        SweepAbility(1e-5, 2e5, 1e-3, 0.9), SweepAbility(1e-5, 1e5, 1e-11, 0.009), 5.0,
    ),
    "pico": Capabilities(
        "EmStat Pico", ("espico", "senswb"), -1.7, 2.0, 0.005, 1e-9, False, PICO_RANGES_A,
        SweepAbility(0.016, 2e5, 1e-3, 0.429), None,
    ),
}  # fmt: skip
