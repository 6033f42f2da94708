"""The potentiostat's twin: its commands, its language, its errors.

Spoken to over its pseudo-terminal by a few lines of pyserial here, by a foreign client in
``test_twin_emstat_foreign.py``, and by our driver in ``test_twin_emstat_driver.py``.
"""

import pytest

from hil_tests.emstat_host import emstat_bench, packages


@pytest.fixture
async def bench():
    async with emstat_bench() as make:
        yield make


# --- commands --------------------------------------------------------------------------------------------


async def test_says_who_it_is(bench):
    _, host = await bench(model="pico", firmware="1600#Sep 30 2025 12:00:00", serial="P123")
    assert await host.ask("t") == "tespico1600#Sep 30 2025 12:00:00"
    assert await host.line() == "R*"
    assert await host.ask("i") == "iP123"
    assert await host.ask("v") == "v01.08.00"
    assert (await host.ask("G06")).startswith("G")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("Z", "Z!0006"),
        ("r", "r!000C"),
        ("h", "h!0006"),
        ("Y", "Y!0006"),
        ("?", "?!0003"),
        ("q" * 300, "q!0008"),
    ],
)
async def test_says_no(bench, command, answer):
    _, host = await bench()
    assert await host.ask(command) == answer


async def test_an_empty_line_when_idle_is_not_answered(bench):
    _, host = await bench()
    await host.send("\n\n")
    assert await host.ask("Z") == "Z!0006"


async def test_load_and_run(bench):
    _, host = await bench()
    await host.send('l\nsend_string "hello"\n\n')
    assert await host.line() == "l"
    for _ in range(2):
        await host.send("r\n")
        assert await host.lines_to_end() == ["r", "Thello"]


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (["#"] * 10 + [" " * 28 + "nonsense 1"], "e!4001: Line 11, Col 29"),
        (["var x", "store_var x 3.5 ja"], "e!4004: Line 2, Col 14"),
        (["var x", "store_var x 3mm ja"], "e!4032: Line 2, Col 13"),
        (["var x", "store_var x 99999999999 ja"], "e!4005: Line 2, Col 13"),
        (["var x", "var x"], "e!4026: Line 2, Col 5"),
        (["set_e y"], "e!420B: Line 1, Col 7"),
        (["var x", "store_var x 3"], "e!4018: Line 2, Col 14"),
        (["var x", "loop x == x"], "e!4018: Line 3, Col 1"),
        (["endloop"], "e!400C: Line 1, Col 1"),
        (["breakloop"], "e!400C: Line 1, Col 1"),
        (["else"], "e!400C: Line 1, Col 1"),
        (["endif"], "e!400C: Line 1, Col 1"),
        (["on_finished:", "on_finished:"], "e!400C: Line 2, Col 1"),
        (["var p", "meas_loop_ocp p 1 1", "meas_loop_ocp p 1 1"], "e!400B: Line 3, Col 1"),
        (["cell_on now"], "e!4008: Line 1, Col 9"),
        (["cell_on 3"], "e!4004: Line 1, Col 9"),
        (["copy_var 3 4"], "e!4004: Line 1, Col 10"),
        (["array a 3m"], "e!4032: Line 1, Col 11"),
        (["hibernate 1 2 3"], "e!001B: Line 1, Col 1"),
    ],
)
async def test_parse_errors_name_line_and_column_and_nothing_runs(bench, lines, answer):
    twin, host = await bench()
    assert await host.run("\n".join(lines)) == [answer]
    assert twin.counters()["scripts"] == 0
    assert await host.ask("v") == "v01.08.00"


# --- the language ----------------------------------------------------------------------------------------


async def test_arithmetic_loops_choices_arrays_and_text(bench):
    _, host = await bench()
    lines = await host.run(
        """
        var i
        var x
        array a 3i
        store_var i 0i ja
        store_var x 1500m ja   # a comment
        loop i < 3i
          copy_var x a[i]
          mul_var x 2
          add_var i 1i
        endloop
        copy_var a[2i] x
        sub_var x 1
        div_var x 5
        pow_var x 2
        int_to_float i
        if x > 2
          send_string "no"
        elseif x == 1
          send_string f"x={x} a={a[1i]} i={i}"
        else
          send_string "no"
        endif
        alter_vartype x as
        float_to_int x
        pck_start
          pck_add x
          pck_add a[0i]
        pck_end
        set_script_output 0
        send_string "unheard"
        """
    )
    assert lines == [
        "e",
        "L",
        "+",
        "Tx=1 a=3 i=3",
        "Pas8000001i;ja816E360u",
    ]


async def test_time_is_the_scripts_own(bench):
    _, host = await bench()
    lines = await host.run(
        """
        var t
        var n
        store_var n 0i ja
        timer_start
        wait 1500m
        timer_get t
        pck_start
        pck_add t
        pck_end
        set_int 2
        loop n < 2i
        add_var n 1i
        await_int
        endloop
        timer_get t
        pck_start
        pck_add t
        pck_end
        """
    )
    assert [p["eb"] for p in packages(lines)] == [1.5, 5.5]


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("var x\nstore_var x 1 ja\ndiv_var x 0", "!0028: Line 3"),
        ("array a 2i\nstore_var a[2i] 1 ja", "!0007: Line 2"),
        ("var x\npck_add x", "!401B: Line 2"),
        ("cell_on", "!0021: Line 1"),
        ("set_pgstat_mode 5", "!0021: Line 1"),
        ("set_pgstat_mode 2\nset_e 7", "!000F: Line 2"),
        ("set_pgstat_mode 6\nset_i 1", "!4200: Line 2"),
        ("var p\nvar c\nset_pgstat_mode 2\nmeas_loop_ca p c 3 1 5\nendloop", "!4027: Line 4"),
        ("var p\nvar c\nset_pgstat_mode 2\nmeas_loop_cp p c 1u 1 5\nendloop", "!0023: Line 4"),
        ("var p\nset_pgstat_mode 2\nset_e 3\ncell_on\nmeas_loop_ocp p 1 5\nendloop", "!0014: Line 5"),
        ("var p\nmeas 100m p ed", "!001B: Line 2"),
    ],
)
async def test_runtime_errors_name_the_line_and_end_the_run(bench, script, answer):
    twin, host = await bench()
    assert (await host.run(script))[-1] == answer
    assert not twin.running
    assert await host.ask("Z") == "Z!0006"


async def test_pico_has_no_galvanostat(bench):
    _, host = await bench(model="pico")
    assert await host.run("set_pgstat_mode 6") == ["e", "!0021: Line 1"]
