"""The potentiostat's twin: what it measures, what goes on without a host, what breaks."""

import asyncio

import pytest
import serial

from hil_tests.emstat_host import SHEET_CCCV, emstat_bench, packages, value
from hil_tests.sim.clock import LabClock
from hil_tests.sim.palmsens_emstat4 import EmStatTwin
from hil_tests.sim.physics.cell import Cell


@pytest.fixture
async def bench():
    async with emstat_bench() as make:
        yield make


async def test_cccv_of_the_sheet(bench):
    twin, host = await bench(speed=2000.0)
    lines = await host.run(SHEET_CCCV)
    assert lines[:2] == ["e", "M000A"]
    switch = lines.index("*")
    assert lines[switch + 1] == "M0007"
    assert lines[-1] == "*"
    current, hold = packages(lines[:switch]), packages(lines[switch:])
    assert [round(p["eb"]) for p in current[:3]] == [10, 20, 30]
    assert all(p["ba"] == pytest.approx(13e-6, rel=1e-6) for p in current)
    assert [p["ab"] < 4.0 for p in current] == [True] * (len(current) - 1) + [False]
    assert all(p["ab"] == pytest.approx(4.0, abs=1e-6) for p in hold)
    assert hold[-1]["ba"] <= 2e-6 < hold[-2]["ba"]
    counters = twin.counters()
    assert not counters["cell_on"]
    assert counters["points"] == len(current) + len(hold)
    assert counters["lost_bytes"] == 0
    # the currents of the packages, summed by us, are the coulombs that the cell has counted
    summed = sum(p["ba"] for p in current + hold) * 10.0
    assert summed == pytest.approx(counters["terminal_coulomb"], rel=5e-3)


async def test_abort_ends_as_the_sheet_says(bench):
    twin, host = await bench(speed=200.0)
    await host.send("e\n" + SHEET_CCCV.strip("\n") + "\n\n")
    assert [await host.line() for _ in range(2)] == ["e", "M000A"]
    await host.line()
    await host.send("Z\n")
    tail = await host.lines_to_end()
    assert tail[-2:] == ["Z", "*"]
    assert not twin.counters()["cell_on"]  # on_finished was executed
    assert await host.ask("Z") == "Z!0006"


async def test_abort_inside_nested_loops(bench):
    _, host = await bench()
    await host.send('e\nvar x\nloop x == x\nwait 100\nendloop\non_finished:\nsend_string "done"\n\n')
    assert [await host.line() for _ in range(2)] == ["e", "L"]
    await host.send("Z\n")
    assert await host.lines_to_end() == ["Z", "+", "Tdone"]


async def test_the_command_abort_executes_on_finished(bench):
    _, host = await bench()
    assert await host.run('abort\nsend_string "no"\non_finished:\nsend_string "yes"') == ["e", "Tyes"]


async def test_a_runtime_error_leaves_the_cell_on(bench):
    twin, host = await bench(speed=200.0)
    await host.send("e\n" + SHEET_CCCV.strip("\n") + "\n\n")
    assert await host.line() == "e"
    twin.inject({"kind": "runtime_error", "code": "0032"})
    lines = await host.lines_to_end()
    assert lines[-1].startswith("!0032: Line ")
    assert twin.counters()["cell_on"]
    assert (await host.run("var p\nset_pgstat_mode 6\nmeas_loop_ocp p 1 1\nendloop"))[-1] == "!0014: Line 3"
    assert await host.run("cell_off") == ["e"]
    assert not twin.counters()["cell_on"]


async def test_leave_only_the_loop(bench):
    _, host = await bench(speed=200.0)
    await host.send('e\nvar p\nmeas_loop_ocp p 1 3600\nendloop\nsend_string "after"\n\n')
    assert [await host.line() for _ in range(2)] == ["e", "M000B"]
    await host.send("Y\n")
    assert await host.lines_to_end() == ["Y", "*", "Tafter"]


async def test_halted_means_energised(bench):
    twin, host = await bench(speed=50.0)
    await host.send("e\n" + SHEET_CCCV.strip("\n") + "\n\n")
    assert await host.line() == "e"
    await host.send("h\n")
    while await host.line() != "h":
        pass
    points = twin.counters()["points"]
    await asyncio.sleep(0.04)
    assert twin.counters()["points"] <= points + 1
    assert twin.counters()["cell_on"]
    assert await host.ask("H") == "H"
    await host.send("Z\n")
    assert (await host.lines_to_end())[-2:] == ["Z", "*"]


async def test_other_commands_are_refused_while_running(bench):
    _, host = await bench(speed=200.0)
    await host.send("e\nvar p\nmeas_loop_ocp p 100 3600\nendloop\n\n")
    assert [await host.line() for _ in range(2)] == ["e", "M000B"]
    for letter in "teiv":
        assert await host.ask(letter) == f"{letter}!0006"


async def test_a_running_script_does_not_notice_a_pulled_cable(bench):
    twin, host = await bench(speed=500.0)
    await host.send("e\n" + SHEET_CCCV.strip("\n") + "\n\n")
    assert await host.line() == "e"
    port = host.port.port
    twin.inject({"kind": "unplug"})
    host.port.close()
    before = twin.counters()
    await asyncio.sleep(0.05)
    during = twin.counters()
    assert during["points"] > before["points"]
    assert during["cell_on"]
    twin.inject({"kind": "replug"})
    host.port = serial.Serial(port, 921600, timeout=2.0)
    await host.send("\nZ\n")
    lines = await host.lines_to_end()
    assert lines[-2:] == ["Z", "*"]
    assert not twin.counters()["cell_on"]


async def test_ca_with_variables_as_arguments(bench):
    twin, host = await bench(speed=500.0)
    lines = await host.run(
        """
        var potential
        var current
        var level
        var interval
        var run
        store_var level 3950m ja
        store_var interval 100m ja
        store_var run 2 ja
        set_pgstat_chan 0
        set_pgstat_mode 2
        set_max_bandwidth 60
        set_range_minmax da level level
        set_range ba 100u
        set_autoranging ba 1u 1m
        set_e level
        cell_on
        meas_loop_ca potential current level interval run
          pck_start
          pck_add potential
          pck_add current
          pck_end
        endloop
        on_finished:
        cell_off
        """
    )
    assert len(packages(lines)) == 20
    assert all(p["ab"] == pytest.approx(3.95, abs=1e-6) for p in packages(lines))
    assert twin.cell.charge.terminals > 0.0


async def test_range_and_status_in_the_metadata(bench):
    twin, host = await bench(speed=500.0)
    body = "pck_start\npck_add c\npck_end\nendloop"
    lines = await host.run(
        "var p\nvar c\nset_pgstat_mode 6\nset_range db 10u\nset_i 13u\ncell_on\n"
        f"meas_loop_cp p c 13u 1 1\n{body}"
    )
    assert lines[2].endswith(",10,20F")  # 10 uA range of the table
    for ampere, tail in (("26u", ",18,20F"), ("1u", ",14,20F")):
        lines = await host.run(f"var p\nvar c\nmeas_loop_cp p c {ampere} 1 1\n{body}")
        assert lines[2].endswith(tail)
    assert (await host.run(f"var p\nvar c\nmeas_loop_cp p c 30u 1 1\n{body}"))[2] == "Pba     nan,12,20F"
    twin.inject({"kind": "overload", "count": 1})
    lines = await host.run(f"var p\nvar c\nmeas_loop_cp p c 13u 1 2\n{body}\ncell_off")
    assert lines[2] == "Pba     nan,12,20F"
    assert lines[3].endswith(",10,20F")


@pytest.mark.parametrize(
    ("name", "mode", "amplitude", "bias", "set_up"),
    [
        ("meas_loop_eis", 3, "10m", "3900m", "set_e 3900m"),
        ("meas_loop_geis", 6, "2u", "0", "set_range db 10u\nset_i 0"),
    ],
)
async def test_impedance_is_that_of_the_circuit(bench, name, mode, amplitude, bias, set_up):
    twin, host = await bench(speed=2000.0)
    lines = await host.run(
        f"""
        var f
        var r
        var j
        set_pgstat_mode {mode}
        {set_up}
        cell_on
        {name} f r j {amplitude} 100k 100m 7i {bias}
          pck_start
          pck_add f
          pck_add r
          pck_add j
          pck_end
        endloop
        on_finished:
        cell_off
        """
    )
    points = packages(lines)
    assert [p["dc"] for p in points] == pytest.approx([1e5, 1e4, 1e3, 1e2, 1e1, 1.0, 0.1], rel=1e-6)
    for p in points:
        expected = twin.cell.impedance_ohm(p["dc"])
        assert p["cc"] == pytest.approx(expected.real, rel=1e-3)
        assert p["cd"] == pytest.approx(expected.imag, rel=1e-2, abs=0.01)
    assert points[0]["cc"] == pytest.approx(2500.0, rel=1e-3)  # only the electrolyte is left at 100 kHz


SWEEP = """
var f
var r
var j
var t
set_pgstat_mode {mode}
{set_up}
cell_on
timer_start
{loop}
  timer_get t
  pck_start
  pck_add t
  pck_add f
  pck_add r
  pck_add j
  pck_end
endloop
on_finished:
cell_off
"""


def points_of(lines):
    """Time, range index and status of the impedance of each point."""
    found = []
    for line in lines:
        if line.startswith("P"):
            time_s, _, real, _ = line[1:].split(";")
            tail = {field[0]: field[1:] for field in real.split(",")[1:]}
            found.append((value(time_s), int(tail["2"], 16), int(tail["1"], 16), real[2:10] == "     nan"))
    return found


async def test_autoranging_takes_its_time_and_ends_on_the_range_that_fits(bench):
    """10 mV rms over 2500 ohm peaks at 5.66 uA: from 100 uA by way of 10 uA (0x0F) to none smaller, for 1 uA
    overloads at 2.92 uA. Each change measures the point once more: 2 x 0.1 s for the first, then 0.1 s each.
    """
    twin, host = await bench(speed=500.0)
    set_up = "set_range ba 100u\nset_autoranging ba 100n 100u\nset_e 3900m"
    loop = "meas_loop_eis f r j 10m 100k 10k 3i 3900m"
    points = points_of(await host.run(SWEEP.format(mode=3, set_up=set_up, loop=loop)))
    assert [time_s for time_s, *_ in points] == pytest.approx([0.2, 0.3, 0.4])
    assert [(index, status) for _, index, status, _ in points] == [(0x0F, 0)] * 3
    assert twin.counters()["range_changes"] == 1


async def test_a_sweep_beyond_its_range_is_overloaded_and_no_number(bench):
    """5.66 uA on 1 uA (0x0C) is beyond 2.92 times the range; 2 uA asked for gives 10 uA, which holds it."""
    _, host = await bench(speed=500.0)
    loop = "meas_loop_eis f r j 10m 100k 10k 2i 3900m"
    lines = await host.run(SWEEP.format(mode=3, set_up="set_range ba 1u\nset_e 3900m", loop=loop))
    assert [point[1:] for point in points_of(lines)] == [(0x0C, 2, True)] * 2
    lines = await host.run(SWEEP.format(mode=3, set_up="set_range ba 2u\nset_e 3900m", loop=loop))
    assert [point[1:] for point in points_of(lines)] == [(0x0F, 0, False)] * 2


async def test_a_stuck_range_warns_or_overloads(bench):
    twin, host = await bench(speed=500.0)
    set_up = "set_range ba 100u\nset_autoranging ba 100n 100u\nset_e 3900m"
    loop = "meas_loop_eis f r j 10m 100k 10k 2i 3900m"
    twin.inject({"kind": "stuck_range", "ampere": 1e-6})
    points = points_of(await host.run(SWEEP.format(mode=3, set_up=set_up, loop=loop)))
    assert [point[2:] for point in points] == [(2, True)] * 2
    twin.inject({"kind": "stuck_range", "ampere": None})
    points = points_of(await host.run(SWEEP.format(mode=3, set_up=set_up, loop=loop)))
    assert [point[2:] for point in points] == [(0, False)] * 2


@pytest.mark.parametrize(
    ("loop", "set_up", "code"),
    [
        ("meas_loop_eis f r j 1 1k 1k 1i 3900m", "set_pgstat_mode 3\nset_e 3900m\ncell_on", "0012"),
        ("meas_loop_eis f r j 10m 300k 1k 2i 3900m", "set_pgstat_mode 3\nset_e 3900m\ncell_on", "0011"),
        ("meas_loop_eis f r j 10m 1k 1k 1i 3900m", "set_pgstat_mode 2\nset_e 3900m\ncell_on", "0023"),
        ("meas_loop_geis f r j 10u 1k 1k 1i 0", "set_pgstat_mode 3\nset_e 3900m\ncell_on", "0023"),
        ("meas_loop_geis f r j 10u 1k 1k 1i 0", "set_pgstat_mode 6\nset_i 0", "4027"),
    ],
)
async def test_sweeps_that_the_instrument_refuses(bench, loop, set_up, code):
    _, host = await bench(speed=500.0)
    lines = await host.run(f"var f\nvar r\nvar j\n{set_up}\n{loop}\nendloop")
    assert lines[-1].startswith(f"!{code}: Line ")
    await host.ask("Z")


async def test_what_is_not_licensed_or_not_there_is_refused_before_anything_runs(bench):
    _, host = await bench(unlicensed=("meas_loop_geis",))
    script = "var f\nvar r\nvar j\nmeas_loop_geis f r j 10u 1k 1k 1i 0\nendloop"
    assert await host.run(script) == ["e!001F: Line 4, Col 1"]
    await host.send(f"l\n{script}\n\n")
    assert await host.line() == "l!001F: Line 4, Col 1"
    _, pico = await bench(model="pico")
    assert await pico.run(script) == ["e!001B: Line 4, Col 1"]


# --- faults ----------------------------------------------------------------------------------------------


async def test_reset_loses_the_script_and_opens_the_circuit(bench):
    twin, host = await bench(speed=50.0)
    await host.send("e\n" + SHEET_CCCV.strip("\n") + "\n\n")
    assert await host.line() == "e"
    twin.inject({"kind": "reset", "boot_s": 0.5})
    assert not twin.counters()["cell_on"]
    await asyncio.sleep(0.02)
    host.port.reset_input_buffer()
    await host.send("\nZ\n")
    assert await host.line() == "Z!0006"
    assert await host.ask("r") == "r!000C"


async def test_wire_faults_hit_lines(bench):
    twin, host = await bench()
    twin.inject({"kind": "flipped", "at": 1, "bit": 1})
    assert await host.ask("v") == "v21.08.00"
    twin.inject({"kind": "lost", "at": 0})
    assert await host.ask("v") == "01.08.00"
    twin.inject({"kind": "doubled"})
    assert await host.ask("v") == await host.line() == "v01.08.00"


async def test_a_short_in_the_cell_pulls_its_voltage_down(bench):
    twin, _ = await bench()
    twin.inject({"kind": "short", "ohm": 100.0})
    twin.cell.process(1.0)
    assert twin.cell.voltage_v < 0.5
    twin.inject({"kind": "short", "ohm": None})
    twin.cell.process(1.0)
    assert twin.cell.voltage_v > 3.0


async def test_physics_goes_on_when_nobody_asks_but_not_past_the_next_point(bench):
    twin, host = await bench(speed=1.0)
    twin.cell.galvanostat(13e-6)
    twin.advance(twin._time_s + 10.0)
    assert twin.cell.charge.terminals == pytest.approx(13e-5)
    await host.send("e\nvar p\nmeas_loop_ocp p 100 3600\nendloop\n\n")
    assert await host.line() == "e"
    start = twin._time_s
    twin.advance(start + 5000.0)
    assert twin._time_s <= start + 101.0


async def test_unknown_settings_and_faults_are_refused():
    cell = Cell()
    with pytest.raises(ValueError, match="unknown settings"):
        EmStatTwin(cell, LabClock(), {"colour": 1})
    with pytest.raises(ValueError, match="no such fault"):
        EmStatTwin(cell, LabClock()).inject({"kind": "earthquake"})
