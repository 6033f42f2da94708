"""Writes the MethodSCRIPT of a cell program. No I/O.

A potentiostat of this family has no watchdog: a script goes on when the cable is pulled. So every loop that
has the cell connected checks, at each reading, both voltage limits, the current in both directions, the
charge it has added up itself, and the time; two readings in a row that are no numbers end it as well. (In a
sweep each frequency is a measurement of its own, and the limits are checked between them.) The cell is
switched on only if a first reading at open circuit lies inside the limits. Whatever ends a program, it says
why, and ``on_finished`` opens the circuit; after a runtime error the instrument does not do that, so the
driver does.

The parts are in ``methodscript_parts``, impedance sweeps in ``methodscript_sweeps``.

A constant-current phase that ends for another reason than its voltage is never followed by constant voltage.
Leave room between a program's current and its limit: a reading above the limit ends the program at once.
"""

from __future__ import annotations

import math

from drivers.errors import OutOfRange
from drivers.methodscript import LONGEST_LINE, literal
from drivers.methodscript_models import Capabilities
from drivers.methodscript_parts import (
    BANDWIDTH_HZ,
    END,
    PHASE,
    Ending,
    all_of,
    branch,
    check,
    check_limits,
    choose,
    count,
    current_ranges,
    if_inside,
    limit_branches,
    package,
    prelude,
    reading,
    run_times,
    say,
    time_ran_out,
    whole_volts,
)
from drivers.methodscript_sweeps import galvanostatic_sweep, potentiostatic_sweep
from drivers.roles import CcCv, CellProgram, ConstantCurrent, ConstantVoltage, Eis, Geis, Ocv


def write_script(program: CellProgram, model: Capabilities) -> str:
    """Return the script of a program, lines joined by LF, without the leading ``e`` and the empty last line.

    Raises:
        OutOfRange: the model, the program's own limits or the language do not allow it.
    """
    if isinstance(program, Ocv):
        lines = _ocv(program, model)
    else:
        check_limits(program.limits, model)
        if isinstance(program, ConstantVoltage):
            lines = _potentiostatic(program, model)
        elif isinstance(program, Eis):
            lines = potentiostatic_sweep(program, model)
        elif isinstance(program, Geis):
            lines = galvanostatic_sweep(program, model)
        else:
            lines = _galvanostatic(program, model)
    lines += ["on_finished:", "cell_off"]
    too_long = [line for line in lines if len(line) > LONGEST_LINE]
    if too_long:
        raise OutOfRange(f"script line longer than {LONGEST_LINE} characters: {too_long[0]}")
    return "\n".join(lines)


def off_script(model: Capabilities) -> str:
    """Return a script that opens the circuit and proves it: the measurement in it refuses a closed one."""
    return write_script(Ocv(duration_s=0.1, interval_s=0.1), model)


def _ocv(program: Ocv, model: Capabilities) -> list[str]:
    return [
        "var p",
        "var t",
        "set_pgstat_chan 0",
        "set_pgstat_mode 2",
        f"set_max_bandwidth {literal(BANDWIDTH_HZ)}",
        f"set_range ab {literal(math.ceil(max(-model.low_v, model.high_v)))}",
        "cell_off",
        "timer_start",
        say(PHASE, "ocv"),
        f"meas_loop_ocp p {run_times(program.interval_s, program.duration_s)}",
        "timer_get t",
        *package("t", "p"),
        f"if t >= {literal(program.duration_s)}",
        "breakloop",
        "endif",
        "endloop",
        say(END, Ending.TIME),
    ]


def _galvanostatic(program: ConstantCurrent | CcCv, model: Capabilities) -> list[str]:
    limits, current_a = program.limits, program.current_a
    hold = isinstance(program, CcCv)
    until_v = program.voltage_v if isinstance(program, CcCv) else program.until_voltage_v
    if not model.galvanostat:
        raise OutOfRange(f"{model.name} has no galvanostat")
    check(abs(current_a), model.least_a, limits.current_a, "A", "current")
    check(until_v, limits.voltage_low_v, limits.voltage_high_v, "V", "voltage to be reached")
    compare = ">=" if current_a > 0.0 else "<="
    reached = branch(f"p {compare} {literal(until_v)}", None if hold else Ending.VOLTAGE, code=1)
    energised = [
        "set_i 0",
        "cell_on",
        "timer_start",
        say(PHASE, "cc"),
        f"meas_loop_cp p c {literal(current_a)} {run_times(program.interval_s, limits.duration_s)}",
        *reading(),
        *choose([reached, *limit_branches(limits)]),
        "endloop",
    ]
    if isinstance(program, CcCv):
        energised += [
            "if w == 1i",
            *_then_hold(program, model),
            "elseif w == 0i",
            say(END, Ending.TIME),
            "endif",
        ]
    else:
        energised += time_ran_out()
    return [
        *prelude(limits),
        "set_pgstat_mode 6",
        f"set_max_bandwidth {literal(BANDWIDTH_HZ)}",
        f"set_range ab {whole_volts(limits)}",
        f"set_range db {literal(abs(current_a))}",
        *if_inside(limits, 0.0, energised),
    ]


def _then_hold(program: CcCv, model: Capabilities) -> list[str]:
    hold = ConstantVoltage(program.voltage_v, program.until_current_a, program.limits, program.interval_s)
    compare = "<=" if program.current_a > 0.0 else ">="
    until_a = math.copysign(program.until_current_a, program.current_a)
    return [
        "store_var w 0i ja",
        *_potentiostat(hold, model),
        f"set_e {literal(hold.voltage_v)}",
        "cell_on",
        *_hold_loop(hold, [f"c {compare} {literal(until_a)}"]),
    ]


def _potentiostatic(program: ConstantVoltage, model: Capabilities) -> list[str]:
    until = literal(program.until_current_a)
    small = [f"c <= {until}", f"c >= {literal(-program.until_current_a)}"]
    return [
        *prelude(program.limits),
        *_potentiostat(program, model),
        f"set_range ab {whole_volts(program.limits)}",
        *if_inside(
            program.limits,
            0.0,
            [
                f"set_e {literal(program.voltage_v)}",
                "cell_on",
                "timer_start",
                *_hold_loop(program, small),
            ],
        ),
    ]


def _potentiostat(program: ConstantVoltage, model: Capabilities) -> list[str]:
    """Low-speed mode with ranges up to the current limit; checks the program."""
    limits, volt = program.limits, literal(program.voltage_v)
    check(program.until_current_a, 0.0, limits.current_a, "A", "current to fall to")
    if not limits.voltage_low_v < program.voltage_v < limits.voltage_high_v:
        raise OutOfRange(
            f"voltage to hold {program.voltage_v} V leaves no room between the limits "
            f"{limits.voltage_low_v} V and {limits.voltage_high_v} V"
        )
    return [
        "set_pgstat_mode 2",
        f"set_max_bandwidth {literal(BANDWIDTH_HZ)}",
        f"set_range_minmax da {volt} {volt}",
        *current_ranges(limits, model),
    ]


def _hold_loop(program: ConstantVoltage, small: list[str]) -> list[str]:
    """The constant-voltage loop; it ends when all conditions of ``small`` held at two readings in a row."""
    limits = program.limits
    times = run_times(program.interval_s, limits.duration_s)
    return [
        "store_var n 0i ja",
        say(PHASE, "cv"),
        f"meas_loop_ca p c {literal(program.voltage_v)} {times}",
        *reading(),
        "store_var k 0i ja",
        *all_of(small, ["store_var k 1i ja"]),
        *count("n", "k == 1i"),
        *choose([*limit_branches(limits), branch("n >= 2i", Ending.CURRENT)]),
        "endloop",
        *time_ran_out(),
    ]
