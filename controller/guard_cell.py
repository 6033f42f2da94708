"""The guard's second opinion on the cell: an internal short, an instrument that repeats itself. Pure.

The hard windows of voltage, current and charge are the guard's own; here is what no single reading shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from controller.guard_types import Action, Finding

WINDOW_S = 60.0
SETTLED_S = 30.0  # of a charge: before that, plating may begin with a peak of the voltage
RELAXED_S = 60.0  # of a rest: before that, the overpotential of what came before goes away
FALL_V = 0.2  # at rest or while charging, within the window
RISE_FACTOR, RISE_FRACTION = 1.5, 0.05  # of a current at constant voltage; the fraction is of the limit
SAME_CURRENT = 0.9  # a voltage may fall when the current does
WARMER_K = 1.0  # and when the cell gets warmer, for its resistance falls
SHORT_COUNT = 2
FROZEN_COUNT, FROZEN_TIME_S = 60, 60.0


class CellCheck:
    """Feed every valid package of one program in time order; ``begin`` at the next program."""

    def __init__(self, current_limit_a: float) -> None:
        self._limit_a = current_limit_a
        self._window: deque[tuple[float, float, float, float | None]] = deque()
        self._suspect = 0
        self._repeated: tuple[float, float] | None = None
        self._repeats = 0
        self._since_s = 0.0
        self._phase = ""
        self._phase_s = 0.0

    def begin(self) -> None:
        """A new program: nothing of the old one counts."""
        self._window.clear()
        self._suspect = self._repeats = 0
        self._repeated = None
        self._phase = ""

    def package(
        self, elapsed_s: float, phase: str, voltage_v: float, current_a: float, temperature_k: float | None
    ) -> Iterator[Finding]:
        """Take one package; yield what is wrong now."""
        if phase != self._phase:
            self.begin()
            self._phase, self._phase_s = phase, elapsed_s
        if phase in ("eis", "geis"):
            return
        while self._window and elapsed_s - self._window[0][0] > WINDOW_S:
            self._window.popleft()
        suspicion = self._short(elapsed_s, phase, voltage_v, current_a, temperature_k)
        self._suspect = self._suspect + 1 if suspicion else 0
        if suspicion and self._suspect >= SHORT_COUNT:
            yield suspicion
        self._window.append((elapsed_s, voltage_v, current_a, temperature_k))
        yield from self._frozen(elapsed_s, phase, voltage_v, current_a)

    def _short(
        self, elapsed_s: float, phase: str, voltage_v: float, current_a: float, temperature_k: float | None
    ) -> Finding | None:
        in_phase_s = elapsed_s - self._phase_s
        if phase == "ocv" and in_phase_s > RELAXED_S:
            rested = [(v, k) for t, v, _, k in self._window if t - self._phase_s > RELAXED_S]
            return self._fall("at rest", rested, voltage_v, temperature_k, warmth_explains=False)
        if phase == "cc" and current_a > 0.0 and in_phase_s > SETTLED_S:
            same = [
                (v, k) for t, v, a, k in self._window
                if t - self._phase_s > SETTLED_S and current_a >= SAME_CURRENT * a
            ]  # fmt: skip
            return self._fall("while charging", same, voltage_v, temperature_k, warmth_explains=True)
        if phase == "cv" and in_phase_s > SETTLED_S:
            return self._rise(current_a, temperature_k)
        return None

    def _fall(
        self, when: str, before: list[tuple[float, float | None]], voltage_v: float,
        temperature_k: float | None, *, warmth_explains: bool,
    ) -> Finding | None:  # fmt: skip
        for then_v, then_k in before:
            if then_v - voltage_v > FALL_V and not (warmth_explains and _warmer(then_k, temperature_k)):
                return Finding(
                    "cell-short", "cell.voltage", voltage_v, then_v - FALL_V, "V", Action.SAFE,
                    f"cell voltage fell from {then_v:.3f} V to {voltage_v:.3f} V {when} within "
                    f"{WINDOW_S:.0f} s (allowed {FALL_V:g} V), which no load explains: an internal short",
                )  # fmt: skip
        return None

    def _rise(self, current_a: float, temperature_k: float | None) -> Finding | None:
        for then_s, _, then_a, then_k in self._window:
            limit_a = RISE_FACTOR * abs(then_a) + RISE_FRACTION * self._limit_a
            settled = then_s - self._phase_s > SETTLED_S
            if settled and abs(current_a) > limit_a and not _warmer(then_k, temperature_k):
                return Finding(
                    "cell-short", "cell.current", current_a, limit_a, "A", Action.SAFE,
                    f"cell current rose from {then_a * 1e6:.3g} uA to {current_a * 1e6:.3g} uA at constant "
                    f"voltage within {WINDOW_S:.0f} s (allowed {limit_a * 1e6:.3g} uA): an internal short",
                )  # fmt: skip
        return None

    def _frozen(self, elapsed_s: float, phase: str, voltage_v: float, current_a: float) -> Iterator[Finding]:
        """Voltage and current the same to the last bit while charge flows; at rest they may stand still."""
        if phase not in ("cc", "cv") or current_a == 0.0 or (voltage_v, current_a) != self._repeated:
            self._repeated, self._repeats, self._since_s = (voltage_v, current_a), 1, elapsed_s
            return
        self._repeats += 1
        still_s = elapsed_s - self._since_s
        if self._repeats >= FROZEN_COUNT and still_s >= FROZEN_TIME_S:
            yield Finding(
                "cell-frozen", "cell.voltage", voltage_v, None, "V", Action.OPEN_CIRCUIT,
                f"cell readings frozen: {self._repeats} packages of exactly {voltage_v:.6g} V and "
                f"{current_a:.6g} A in {still_s:.0f} s while charge flows",
            )  # fmt: skip


def _warmer(then_k: float | None, now_k: float | None) -> bool:
    """Return whether the cell has warmed; not known is no, for then the thermometer is what trips."""
    return then_k is not None and now_k is not None and now_k - then_k > WARMER_K
