"""A loop in the host beside simple-pid and an instrument's own PID: one plant, one run, virtual time.

All heat the bench's holder from 298 to 333 K with 40 W at most and a set-point ramped by 20 K/min; all
read the same noisy Pt100. Then the supply sags by a tenth of its voltage (a fifth of the power), recovers,
and the room warms by 5 K. The gains are those that the autotuning of this tree finds on this holder just
before; simple-pid gets the same gains and the same ramp, the instrument its own as delivered, and the same
again, as far as it has them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import math
import random
import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller import pid
from controller.autotune import RelayTest, gains_from_plant
from edge.thermal import ThermalFit, ThermalRecord, identify_best
from hil_tests.sim.eurotherm_loop import KELVIN_AT_0_C, Loop, LoopSettings
from hil_tests.sim.physics.holder import Holder
from tests.controller.heated_bench import FULL_W, PERIOD_S, Rig, virtually

Floats = NDArray[np.float64]

SIMPLE_PID = importlib.util.find_spec("simple_pid") is not None
START_K, TARGET_K, RATE_K_PER_S = 298.0, 333.0, 20.0 / 60.0
BEGIN_S, SAG_S, SOUND_S, WARM_S, END_S = 10.0, 1200.0, 1800.0, 2400.0, 3600.0
SAG, ROOM_STEP_K = 0.9, 5.0
NOISE_K = 0.01
SETTLED_K, PAPER_K = 0.2, 2.0
INSTRUMENT_PERIOD_S = 0.25
Powers = Callable[[float, float], float]  # measured K, time s -> W


@dataclass(frozen=True)
class Course:
    """One contender's run: time, temperature as it is, power asked for."""

    name: str
    time_s: Floats
    temperature_k: Floats
    power_w: Floats

    def part(self, begin_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Return times since ``begin_s`` and errors in K."""
        chosen = (self.time_s >= begin_s) & (self.time_s < end_s)
        return self.time_s[chosen] - begin_s, self.temperature_k[chosen] - TARGET_K

    def overshoot_k(self) -> float:
        """Return how far above the set-point it comes before anything happens."""
        return float(self.part(BEGIN_S, SAG_S)[1].max())

    def within_s(self, band_k: float, begin_s: float = BEGIN_S, end_s: float = SAG_S) -> float:
        """Return after what time it stays inside a band until the end of a part; infinite if never."""
        t, error = self.part(begin_s, end_s)
        outside = np.flatnonzero(np.abs(error) > band_k)
        if outside.size == 0:
            return 0.0
        return math.inf if outside[-1] == t.size - 1 else float(t[outside[-1] + 1])

    def worst_k(self, begin_s: float, end_s: float) -> float:
        """Return the largest error of a part."""
        return float(np.abs(self.part(begin_s, end_s)[1]).max())


def tuned() -> tuple[ThermalFit, pid.Gains]:
    """Tune on the holder as ``operando tune`` does: relay test, identification, gains."""
    holder, rng = Holder(start_k=START_K), random.Random(3)
    law = RelayTest(at_k=TARGET_K, swing_k=1.5, cap_w=FULL_W, rate_k_per_s=RATE_K_PER_S)
    rows: list[tuple[float, float, float]] = []
    now_s, cooling_s = 0.0, 0.0
    while cooling_s < 300.0:
        measured_k = holder.pt100_k + rng.gauss(0.0, NOISE_K)
        power_w = 0.0 if now_s < 20.0 else law(measured_k, PERIOD_S)
        rows.append((now_s, measured_k, power_w))
        holder.set_duty(power_w / FULL_W)
        holder.process(PERIOD_S)
        now_s += PERIOD_S
        cooling_s += PERIOD_S if law.done else 0.0
    t, temperature, power = np.array(rows).T
    fit = identify_best(ThermalRecord.of(t, temperature, power))[0]
    gains = gains_from_plant(
        capacity_j_per_k=fit.capacity, loss_w_per_k=fit.loss, lag_s=fit.lag_s, dead_s=fit.dead_s,
        period_s=PERIOD_S,
    )  # fmt: skip
    return fit, gains


def ours(name: str, gains: pid.Gains, fit: ThermalFit | None) -> Course:
    """Run the device of this tree: PID in the host, thermometer and supply with their latencies."""
    settings: dict[str, Any] = {"gains": asdict(gains), "temperature_rate_k_per_s": RATE_K_PER_S}
    if fit is not None:
        settings["plant"] = {
            "capacity_j_per_k": fit.total_capacity, "loss_w_per_k": fit.loss, "ambient_k": fit.ambient_k,
        }  # fmt: skip

    async def go() -> list[tuple[float, float, float]]:
        rig = Rig(START_K, **settings)
        await rig.run(BEGIN_S)
        began_s = rig.trace[0][0]
        await rig.pid.set_target_k(TARGET_K)
        await rig.run(SAG_S - BEGIN_S)
        rig.world.line_share = SAG
        await rig.run(SOUND_S - SAG_S)
        rig.world.line_share = 1.0
        await rig.run(WARM_S - SOUND_S)
        rig.world.holder.ambient_k += ROOM_STEP_K
        await rig.run(END_S - WARM_S)
        return [(t - began_s, k, w) for t, k, w in rig.trace]

    t, temperature, power = np.array(virtually(go())).T
    return Course(name, t, temperature, power)


def other(name: str, law: Powers, period_s: float) -> Course:
    """Run a law that is asked for a power at every period."""
    holder, rng = Holder(start_k=START_K), random.Random(5)
    rows = []
    for index in range(int(END_S / period_s)):
        now_s = index * period_s
        power_w = law(round(holder.pt100_k + rng.gauss(0.0, NOISE_K), 2), now_s)
        holder.ambient_k = holder.parameters.ambient_k + (ROOM_STEP_K if now_s >= WARM_S else 0.0)
        given_w = power_w * (SAG**2 if SAG_S <= now_s < SOUND_S else 1.0)
        holder.set_duty(given_w / FULL_W)
        holder.process(period_s)
        rows.append((now_s + period_s, holder.pt100_k, given_w))
    t, temperature, power = np.array(rows).T
    return Course(name, t, temperature, power)


def simple_pid(gains: pid.Gains) -> Course:
    """Run simple-pid with the same gains, derivative on measurement, and the same ramp."""
    from simple_pid import PID

    law = PID(
        gains.kp_w_per_k, gains.kp_w_per_k / gains.ti_s, gains.kp_w_per_k * gains.td_s, setpoint=START_K,
        sample_time=None, output_limits=(0.0, FULL_W),
    )  # fmt: skip

    def power(now_k: float, now_s: float) -> float:
        if now_s < BEGIN_S:
            return 0.0
        law.setpoint = pid.ramped(START_K, TARGET_K, RATE_K_PER_S, now_s - BEGIN_S)
        return float(law(now_k, dt=PERIOD_S))

    return other("simple-pid, the same gains", power, PERIOD_S)


def instrument(name: str, settings: LoopSettings) -> Course:
    """Run the loop of the temperature controller's twin."""
    settings.setpoint_1_c = START_K - KELVIN_AT_0_C
    settings.rate = RATE_K_PER_S * 60.0
    loop = Loop(settings, working_setpoint_c=START_K - KELVIN_AT_0_C)

    def power(now_k: float, now_s: float) -> float:
        if now_s >= BEGIN_S:
            loop.settings.setpoint_1_c = TARGET_K - KELVIN_AT_0_C
        loop.cycle(now_k - KELVIN_AT_0_C, INSTRUMENT_PERIOD_S)
        return FULL_W * loop.output_percent / 100.0

    return other(name, power, INSTRUMENT_PERIOD_S)


def courses() -> list[Course]:
    """Tune, then run everybody."""
    fit, gains = tuned()
    same = LoopSettings(
        proportional_band_c=FULL_W / gains.kp_w_per_k, integral_s=gains.ti_s, derivative_s=gains.td_s
    )
    found = [ours("ours, plant fed forward", gains, fit), ours("ours, gains alone", gains, None)]
    if SIMPLE_PID:
        found.append(simple_pid(gains))
    return [
        *found,
        instrument("instrument's own, as delivered", LoopSettings()),
        instrument("instrument's own, the same gains", same),
    ]


def table(found: list[Course]) -> str:
    """Return the figures of every contender."""
    head = (
        f"{'298 -> 333 K':<34}{'overshoot':>10}{'in 2 K':>8}{'in 0.2 K':>9}"
        f"{'sag':>8}{'back':>7}{'room':>8}{'back':>7}"
    )
    rows = [head]
    for one in found:
        sag_s, room_s = one.within_s(SETTLED_K, SAG_S, SOUND_S), one.within_s(SETTLED_K, WARM_S, END_S)
        rows.append(
            f"{one.name:<34}{one.overshoot_k():>8.2f} K{one.within_s(PAPER_K):>6.0f} s"
            f"{one.within_s(SETTLED_K):>7.0f} s{one.worst_k(SAG_S, SOUND_S):>6.2f} K{sag_s:>5.0f} s"
            f"{one.worst_k(WARM_S, END_S):>6.2f} K{room_s:>5.0f} s"
        )
    return "\n".join(rows)


def _per_tick(gains: pid.Gains) -> str:
    """Return what one step of the law takes, beside simple-pid."""
    memory = pid.Memory()

    def step() -> None:
        nonlocal memory
        _, memory = pid.step(gains, memory, target_k=333.0, now_k=332.9, dt_s=0.5, high_w=40.0)

    count = 20_000
    own_us = 1e6 * min(timeit.repeat(step, number=count, repeat=5)) / count
    if not SIMPLE_PID:
        return f"a tick of the law: {own_us:.1f} us"
    from simple_pid import PID

    law = PID(1.0, 0.1, 0.1, setpoint=333.0, sample_time=None, output_limits=(0.0, 40.0))
    peer_us = 1e6 * min(timeit.repeat(lambda: law(332.9, dt=0.5), number=count, repeat=5)) / count
    return f"a tick of the law: {own_us:.1f} us, simple-pid {peer_us:.1f} us"


def heating(figure: Path | None) -> str:
    """Run the part; write the figure if a file is named."""
    found = courses()
    if figure is not None:
        draw(found, figure)
    peer = f"simple-pid {importlib.metadata.version('simple-pid')}" if SIMPLE_PID else "simple-pid: not there"
    _, gains = tuned()
    said = f"gains {gains.kp_w_per_k:.2f} W/K, {gains.ti_s:.1f} s, {gains.td_s:.2f} s; {peer}"
    return f"heating: {said}\n{table(found)}\n{_per_tick(gains)}\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this part can be told."""
    parser.add_argument("--heating-figure", type=Path, metavar="FILE", help="figure of the part heating")


LINES: tuple[dict[str, Any], ...] = (  # three of them lie on each other: all must be seen
    {"linewidth": 1.6}, {"linewidth": 3.0, "alpha": 0.45}, {"linewidth": 1.4, "linestyle": (0, (5, 3))},
    {"linewidth": 1.1}, {"linewidth": 1.4, "linestyle": (0, (1, 2))},
)  # fmt: skip


def draw(found: list[Course], path: Path) -> None:
    """Write the figure: the approach, and the answer to both disturbances."""
    from matplotlib.pyplot import rc_context

    from controller.offline.plot_style import FILL, PALETTE, STYLE, grid_lines, new_figure, saved

    with rc_context(STYLE):
        figure = new_figure(7.6, 6.0)
        grid = figure.add_gridspec(2, 2)
        whole, sag, room = (
            figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1]),
        )  # fmt: skip
        parts = (
            (whole, BEGIN_S, 700.0, (-3.0, 7.0), "298 to 333 K at 20 K/min"),
            (sag, SAG_S, SAG_S + 300.0, (-0.6, 0.3), "the supply sags by 10 %"),
            (room, WARM_S, WARM_S + 600.0, (-0.3, 0.6), "the room warms by 5 K"),
        )
        for axes, begin_s, end_s, limits, title in parts:
            axes.axhspan(-SETTLED_K, SETTLED_K, color=FILL, zorder=0)
            for index, one in enumerate(found):
                t, error = one.part(begin_s, end_s)
                axes.plot(t / 60.0, error, color=PALETTE[index], label=one.name, **LINES[index])
            axes.set_ylim(*limits)
            axes.set_title(title)
            axes.set_xlabel("time, min")
            grid_lines(axes)
        whole.axhline(PAPER_K, color="#8a939c", linewidth=0.8, linestyle=(0, (4, 3)))
        whole.axhline(-PAPER_K, color="#8a939c", linewidth=0.8, linestyle=(0, (4, 3)))
        whole.set_ylabel("above the set-point, K")
        sag.set_ylabel("above the set-point, K")
        whole.legend(loc="upper right")
        path.write_bytes(saved(figure, path.suffix[1:]))
