"""Impedance sweeps as MethodSCRIPT, potentiostatic and galvanostatic. No I/O.

Each frequency is a measurement loop of one point, so that the limits are checked, and voltage, current and
charge are read, between any two of them. The sine is superposed on the bias: its peak is sqrt(2) of the rms
amplitude, and after each point the script foresees from |Z| how far the next one would swing. |Z| cannot grow
faster than that of a capacitor, in proportion to the period; a sweep ends before a frequency at which the
voltage could leave its window, or the current its limit.

What no script can do: look while one frequency is being measured. The slowest one bounds for how long.
"""

from __future__ import annotations

import math

from drivers.errors import OutOfRange
from drivers.methodscript import FREQUENCY, POTENTIAL, literal
from drivers.methodscript_models import Capabilities
from drivers.methodscript_parts import (
    END,
    LONGEST_RUN_S,
    PHASE,
    READING_S,
    Ending,
    branch,
    check,
    choose,
    current_ranges,
    if_inside,
    limit_branches,
    prelude,
    reading,
    say,
    whole_volts,
)
from drivers.roles import Eis, Geis, SweepAbility

PEAK = math.sqrt(2.0)  # of a sine, over its rms
LEAST_RANGE_V = 0.05  # smallest potential range of these instruments
MOST_POINTS = 1000


def potentiostatic_sweep(program: Eis, model: Capabilities) -> list[str]:
    """Return a sweep about the open-circuit voltage, or about a voltage that is held. Raises OutOfRange."""
    limits = program.limits
    ratio = _check_sweep(program, model.eis, f"{model.name}: amplitude", "V", program.amplitude_v)
    peak_v = PEAK * program.amplitude_v
    if program.voltage_v is not None:
        low_v, high_v = limits.voltage_low_v + peak_v, limits.voltage_high_v - peak_v
        check(
            program.voltage_v, low_v, high_v, "V", f"voltage to hold, with {peak_v:.3g} V of sine about it,"
        )
    held = (
        "copy_var p e"
        if program.voltage_v is None
        else f"store_var e {literal(program.voltage_v)} {POTENTIAL}"
    )
    loop = f"meas_loop_eis x r j {literal(program.amplitude_v)} f f 1i e"
    # the current swings by peak / |Z|: too far if (limit - |c|)^2 |Z|^2 <= peak^2
    foresee = [
        *_square_of_modulus(),
        "copy_var c y",
        "if y < 0",
        "mul_var y -1",
        "endif",
        *_room(f"{literal(limits.current_a)}", "y"),
        "mul_var h u",
        *choose([branch(f"h <= {literal(peak_v**2)}", Ending.SWING_CURRENT)]),
    ]
    energised = [
        "set_range_minmax da e e",
        "set_e e",
        "cell_on",
        *_loop("eis", loop, program, ratio, foresee),
    ]
    return [
        *_declared(program),
        *prelude(limits),
        "set_pgstat_mode 3",
        f"set_max_bandwidth {literal(max(program.start_hz, program.stop_hz))}",
        *current_ranges(limits, model),
        f"set_range ab {whole_volts(limits)}",
        *if_inside(limits, peak_v, [held, *energised]),
    ]


def galvanostatic_sweep(program: Geis, model: Capabilities) -> list[str]:
    """Return a sweep about a direct current. Raises OutOfRange."""
    limits = program.limits
    if not model.galvanostat:
        raise OutOfRange(f"{model.name} has no galvanostat: no galvanostatic sweep")
    ratio = _check_sweep(program, model.geis, f"{model.name}: amplitude", "A", program.amplitude_a)
    peak_a = PEAK * program.amplitude_a
    most_a = abs(program.bias_a) + peak_a
    check(most_a, 0.0, limits.current_a, "A", "bias and sine together")
    least_s = _sweep_s(program, ratio)
    check(abs(program.bias_a) * least_s, 0.0, limits.charge_coulomb, "C", "charge of the bias over the sweep")
    loop = f"meas_loop_geis x r j {literal(program.amplitude_a)} f f 1i {literal(program.bias_a)}"
    # the voltage swings by peak |Z|: too far if (limit - p)^2 <= (peak / ratio)^2 |Z|^2
    high, low = literal(limits.voltage_high_v), literal(limits.voltage_low_v)
    foresee = [
        *_square_of_modulus(),
        f"mul_var u {literal((peak_a / ratio) ** 2)}",
        *_room(high, "p"),
        *choose([branch("h <= u", Ending.SWING_HIGH)]),
        "if w == 0i",
        *_room(low, "p"),
        *choose([branch("h <= u", Ending.SWING_LOW)]),
        "endif",
    ]
    volts = whole_volts(limits)
    energised = ["set_i 0", "cell_on", *_loop("geis", loop, program, ratio, foresee)]
    return [
        *_declared(program),
        *prelude(limits),
        "set_pgstat_mode 6",
        f"set_max_bandwidth {literal(max(program.start_hz, program.stop_hz))}",
        f"set_range ab {volts}",
        f"set_autoranging ab {literal(LEAST_RANGE_V)} {volts}",
        f"set_range db {literal(most_a)}",
        f"set_autoranging db {literal(most_a)} {literal(most_a)}",
        *if_inside(limits, 0.0, energised),
    ]


def _declared(program: Eis | Geis) -> list[str]:
    """Declare what only sweeps have.

    x frequency as set by the instrument, r and j the impedance, f the frequency asked for, m points done,
    e the voltage held, u, h, y for what is foreseen.
    """
    return [
        *(f"var {name}" for name in "xrjfemuhy"),
        f"store_var f {literal(program.start_hz)} {FREQUENCY}",
        "store_var m 0i ja",
    ]


def _loop(phase: str, measurement: str, program: Eis | Geis, ratio: float, foresee: list[str]) -> list[str]:
    """Return the loop over the frequencies: measure, read, check the limits, look ahead."""
    points = f"{program.points}i"
    return [
        "timer_start",
        say(PHASE, phase),
        f"loop m < {points}",
        measurement,
        "endloop",
        f"meas {literal(READING_S)} p ab",
        f"meas {literal(READING_S)} c ba",
        *reading("x", "r", "j", numbers=("r", "j")),
        *choose(limit_branches(program.limits)),
        f"mul_var f {literal(ratio)}",
        "add_var m 1i",
        f"if m < {points}",
        *foresee,
        "endif",
        "endloop",
        "if w == 0i",
        say(END, Ending.DONE),
        "endif",
    ]


def _square_of_modulus() -> list[str]:
    """Return lines that put |Z|^2 into u."""
    return ["copy_var r u", "mul_var u r", "copy_var j y", "mul_var y j", "add_var u y"]


def _room(limit: str, variable: str) -> list[str]:
    """Return lines that put (limit - variable)^2 into h."""
    return [f"store_var h {limit} ja", f"sub_var h {variable}", "copy_var h y", "mul_var h y"]


def _sweep_s(program: Eis | Geis, ratio: float) -> float:
    """Return the shortest that a sweep can take: one period of each frequency, and the readings, s."""
    periods_s = (1.0 / (program.start_hz * ratio**k) for k in range(program.points))
    return sum(periods_s) + 2 * READING_S * program.points


def _check_sweep(
    program: Eis | Geis, ability: SweepAbility | None, what: str, unit: str, amplitude: float
) -> float:
    """Return the ratio of one frequency to the one before. Raises OutOfRange."""
    if ability is None:
        raise OutOfRange(f"{what.partition(':')[0]} cannot measure impedance in this way")
    check(amplitude, ability.least, ability.most, unit, what)
    check(program.points, 1, MOST_POINTS, "", "number of frequencies")
    for hertz in (program.start_hz, program.stop_hz):
        check(hertz, ability.slowest_hz, ability.fastest_hz, "Hz", "frequency")
    if program.stop_hz > program.start_hz:
        raise OutOfRange(f"frequency {program.stop_hz} Hz: a sweep goes from high to low")
    ratio = math.pow(program.stop_hz / program.start_hz, 1.0 / max(program.points - 1, 1))
    check(program.limits.duration_s, _sweep_s(program, ratio), LONGEST_RUN_S, "s", "duration of the sweep")
    return ratio
