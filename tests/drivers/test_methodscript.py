"""MethodSCRIPT: worked lines of the documents, and scripts that can be parsed and carry their limits."""

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark, Tree, UnexpectedInput

from drivers.errors import BadReply, OutOfRange
from drivers.methodscript import (
    LARGEST_COUNT,
    Value,
    decode_error,
    decode_package,
    decode_value,
    encode_value,
    literal,
)
from drivers.methodscript_models import CAPABILITIES
from drivers.methodscript_scripts import off_script, write_script
from drivers.roles import CcCv, CellLimits, ConstantCurrent, ConstantVoltage, Eis, Geis, Ocv

DATA = Path(__file__).parents[1] / "data" / "methodscript"
GRAMMAR = Lark((DATA / "grammar.lark").read_text(), parser="lalr")
HR = CAPABILITIES["es4_hr"]
SWEEPS = ("meas_loop_eis", "meas_loop_geis")
LIMITS = CellLimits(2.5, 4.05, 40e-6, 3.6, 7200.0)

# --- numbers: the lines and values are those of the protocol sheet ---------------------------------------


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("Pda7F0BDF9u;ba7678CD7p,10,20F,40", [("da", -0.999943, 0, None), ("ba", -9.990953e-6, 0, 0x0F)]),
        (
            "Peb80F4240u;ab83FBF68u;ba8002710u,10,218",
            [("eb", 1.0, 0, None), ("ab", 4.177768, 0, None), ("ba", 10.0e-3, 0, 0x18)],
        ),
        ("Pda8000000 ;ba     nan,12,218", [("da", 0.0, 0, None), ("ba", math.nan, 2, 0x18)]),
        ("Pea8000005i", [("ea", 5.0, 0, None)]),
        (
            "Pdc80186A0 ;cc8000C81m,10,214;cd7FFF1F0m,10,202",
            [("dc", 100e3, 0, None), ("cc", 3.201, 0, 0x14), ("cd", -3.600, 0, 0x02)],
        ),
        ("PdaDF5E100n", [("da", 0.1, 0, None)]),
    ],
)
def test_decodes_the_worked_lines_exactly(line, values):
    decoded = [(v.kind, v.value, v.status, v.range_index) for v in decode_package(line)]
    assert repr(decoded) == repr(values)  # repr: NaN equals NaN, and not one digit may differ


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("ab", 4.2, "ab8401640u"),
        ("ab", -12.3e-3, "ab7445120n"),
        ("ba", 10e-3, "ba8989680n"),
        ("ba", -2.5e-3, "ba7D9DA60n"),
        ("eb", 3600.1, "eb836EEE4m"),
        ("dc", 100e3, "dcDF5E100m"),
        ("ab", 0.0, "ab8000000 "),
        ("da", 0.1, "daDF5E100n"),
        ("ba", math.nan, "ba     nan"),
    ],
)
def test_encodes_the_worked_values_exactly(kind, value, text):
    assert encode_value(kind, value) == text
    back = decode_value(text).value
    assert back == value or (math.isnan(back) and math.isnan(value))


@given(st.floats(-1e20, 1e20, allow_nan=False))
def test_a_value_survives_the_wire_within_one_count(value):
    # the coarsest step: half a count of 134 218, just above the range of the finer prefix
    assert decode_value(encode_value("ab", value)).value == pytest.approx(value, rel=3.8e-6, abs=1e-18)


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e30])
def test_what_does_not_fit_is_refused(value):
    with pytest.raises(ValueError, match="does not fit"):
        encode_value("ab", value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab",
        "ab840164u",
        "ab8401640x",
        "AB8401640u",
        "ab8401640u,",
        "ab84O1640u",
        "ab    nan",
        "ab8401640uu",
    ],
)
def test_garbage_is_a_bad_reply(text):
    with pytest.raises(BadReply):
        decode_package("P" + text)


def test_every_prefix_of_a_package_is_refused_or_shorter():
    line = "Peb80F4240u;ab83FBF68u;ba8002710u,10,218"
    for cut in range(1, len(line)):
        try:
            values = decode_package(line[:cut])
        except BadReply:
            continue
        assert len(values) <= 3
        assert [v.value for v in values] == [1.0, 4.177768, 10e-3][: len(values)]


@pytest.mark.parametrize(
    ("status", "valid", "words"),
    [
        ("0", True, ()),
        ("1", False, ("timing not met",)),
        ("2", False, ("overload",)),
        ("4", True, ("underload",)),
        ("8", True, ("close to overload",)),
        ("3", False, ("timing not met", "overload")),
    ],
)
def test_status_bits(status, valid, words):
    value = decode_value(f"ba8002710u,1{status},218,40,77")  # unknown metadata is ignored
    assert (value.valid, value.problems) == (valid, words)


def test_nan_is_never_valid():
    assert not Value("ba", math.nan).valid
    assert Value("ba", math.nan).problems == ("not a number",)


@pytest.mark.parametrize(
    ("line", "command", "code", "words"),
    [
        ("e!4001: Line 11, Col 29", "e", 0x4001, "unknown script command (4001) at line 11, col 29"),
        ("!0032: Line 4", "", 0x0032, "critical overload, measurement aborted (0032) at line 4"),
        ("Z!0006", "Z", 0x0006, "not possible in this state (0006)"),
        ("r!000C", "r", 0x000C, "no script is loaded (000C)"),
        ("!0ABC: Line 1", "", 0x0ABC, "error without a name here (0ABC) at line 1"),
    ],
)
def test_error_lines(line, command, code, words):
    error = decode_error(line)
    assert (error.command, error.code, error.words) == (command, code, words)


@pytest.mark.parametrize("line", ["", "e", "Z", "Peb8000000 ", "Tlook!0006", "e!40", "M0007"])
def test_what_is_no_error_line(line):
    assert decode_error(line) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.2, "4200m"), (10e-3, "10m"), (500e-6, "500u"), (-1e-3, "-1m"), (3600.0, "3600"), (0.0, "0"),
        (100e3, "100k"), (13e-6, "13u"), (0.25, "250m"), (1.23456789, "1234568u"), (1e-30, "0"),
    ],
)  # fmt: skip
def test_literals_are_integers_with_a_prefix(value, text):
    assert literal(value) == text


@given(st.floats(-1e15, 1e15))
def test_a_literal_means_the_value(value):
    text = literal(value)
    assert "." not in text
    digits, prefix = (text[:-1], text[-1]) if text[-1].isalpha() else (text, " ")
    assert abs(int(digits)) <= LARGEST_COUNT
    meant = decode_value(f"ab{int(digits) + 2**27:07X}{prefix}").value
    assert meant == pytest.approx(value, rel=3.8e-6, abs=1e-18)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e28])
def test_impossible_literals(value):
    with pytest.raises(ValueError, match="script"):
        literal(value)


# --- scripts ---------------------------------------------------------------------------------------------

PREFIX = {
    "a": 1e-18,
    "f": 1e-15,
    "p": 1e-12,
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "T": 1e12,
    "i": 1.0,
}


def number(text):
    return int(text[:-1]) * PREFIX[text[-1]] if text[-1].isalpha() else float(text)


def condition_of(branch):
    left, operator, right = branch.children[0].children
    value = right.children[0]
    return str(left.children[0]), str(operator), number(value) if right.data == "number" else str(value)


def bodies(tree):
    """Direct statements of a loop or branch."""
    return [child for child in tree.children if isinstance(child, Tree)]


def loops(tree):
    return [*tree.find_data("measurement"), *tree.find_data("loop")]


def ends_of(loop):
    """Conditions that leave the loop; every branch of their chain must leave it, or it hid the next."""
    found = set()
    for statement in bodies(loop):
        if statement.data != "choice":
            continue
        branches = [child for child in statement.children if isinstance(child, Tree)]
        leaving = [any(s.data == "leave" for s in bodies(branch)) for branch in branches]
        if any(leaving):
            assert all(leaving)
            found |= {condition_of(branch) for branch in branches}
    return found


def has(ends, variable, operators, test):
    return any(
        name == variable and op in operators and test(value)
        for name, op, value in ends
        if isinstance(value, float)
    )


def assert_limited(loop, limits):
    ends = ends_of(loop)
    near = 1.0 + 3.8e-6  # half a count of a literal
    assert has(ends, "p", (">=", ">"), lambda v: v <= limits.voltage_high_v + 1e-6)
    assert has(ends, "p", ("<=", "<"), lambda v: v >= limits.voltage_low_v - 1e-6)
    assert has(ends, "c", (">=", ">"), lambda v: v <= limits.current_a * near)
    assert has(ends, "c", ("<=", "<"), lambda v: v >= -limits.current_a * near)
    assert has(ends, "q", (">=", ">"), lambda v: v <= limits.charge_coulomb * near)
    assert has(ends, "q", ("<=", "<"), lambda v: v >= -limits.charge_coulomb * near)
    assert has(ends, "t", (">=", ">"), lambda v: v <= limits.duration_s * near)
    assert ("b", ">=", 2.0) in ends  # two readings in a row that are no numbers


def names(tree):
    return [
        str(child.children[0]) for child in tree.find_pred(lambda t: t.data in ("command", "measurement"))
    ]


def published_grammar():
    """PalmSens' own parser out of an installed pypalmsens, without importing that (it starts .NET)."""
    found = importlib.util.find_spec("pypalmsens")
    if found is None or found.origin is None or importlib.util.find_spec("antlr4") is None:
        return None
    folder = Path(found.origin).parent / "_methodscript" / "generated"
    if not folder.is_dir():
        return None
    parts = {}
    for name in ("MethodScriptLexer", "MethodScriptParser"):
        spec = importlib.util.spec_from_file_location(f"published_{name}", folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"published_{name}"] = module
        spec.loader.exec_module(module)
        parts[name] = getattr(module, name)
    return parts


def parse_published(parts, script):
    from antlr4 import CommonTokenStream, InputStream
    from antlr4.error.ErrorListener import ErrorListener

    class Errors(ErrorListener):
        def __init__(self):
            self.found = []

        def syntaxError(self, recognizer, symbol, line, column, message, error):  # noqa: N802
            self.found.append(f"line {line}:{column} {message}")

    errors = Errors()
    lexer = parts["MethodScriptLexer"](InputStream(script))
    parser = parts["MethodScriptParser"](CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(errors)
    parser.sourceFile()
    return errors.found


PUBLISHED = published_grammar()


def check_script(script, program):
    tree = GRAMMAR.parse(script + "\n")
    if PUBLISHED is not None:
        assert parse_published(PUBLISHED, script + "\n") == []
    lines = script.split("\n")
    assert all(0 < len(line) <= 255 for line in lines)
    assert lines[-2:] == ["on_finished:", "cell_off"]
    assert "h" not in lines
    declared = [line.split()[1] for line in lines if line.startswith("var ")]
    assert len(declared) == len(set(declared))
    measured = list(tree.find_data("measurement"))
    if isinstance(program, Ocv):
        assert "cell_on" not in lines
        return tree
    inside_limited = set()
    for loop in loops(tree):
        if loop.data == "measurement" and loop.children[0] in SWEEPS:
            continue  # one frequency; the loop around it is checked
        assert_limited(loop, program.limits)
        inside_limited |= {id(m) for m in loop.find_data("measurement")}
    assert all(id(m) in inside_limited for m in measured)
    for m in measured:
        if m.children[0] in SWEEPS:
            assert number(m.children[7].children[0]) == 1.0  # one point
        else:
            assert number(m.children[-1 - len(bodies_after(m))].children[0]) <= program.limits.duration_s * (
                1.0 + 3.8e-6
            )
    return tree


def bodies_after(measurement):
    """Statements of a measurement loop, which stand behind its arguments."""
    return [child for child in measurement.children[1:] if child.data not in ("name", "number", "text")]


volts = st.floats(-5.9, 5.9)


@st.composite
def limits(draw, model):
    low = draw(st.floats(model.low_v, model.high_v - 0.5))
    high = draw(st.floats(low + 0.3, model.high_v))
    return CellLimits(
        low,
        high,
        draw(st.floats(1e-8, model.most_a)),
        draw(st.floats(1e-6, 1e4)),
        draw(st.floats(1.0, 1e6)),
    )


@st.composite
def programs(draw):
    model = CAPABILITIES[draw(st.sampled_from(["es4_hr", "es4_lr", "pico"]))]
    bounds = draw(limits(model))
    middle = st.floats(bounds.voltage_low_v + 0.01, bounds.voltage_high_v - 0.01)
    current = draw(st.floats(max(model.least_a, 3e-9), bounds.current_a)) * draw(st.sampled_from([1.0, -1.0]))
    until = draw(st.floats(0.0, bounds.current_a))
    interval = draw(st.floats(0.02, min(60.0, bounds.duration_s)))
    makers = [
        lambda: Ocv(bounds.duration_s, interval),
        lambda: ConstantVoltage(draw(middle), until, bounds, interval),
        lambda: Eis(draw(st.floats(1e-3, 0.1)), draw(st.floats(1e3, 2e5)), draw(st.floats(10.0, 1e3)),
                    draw(st.integers(1, 5)), bounds),
        lambda: Eis(1e-3, 1e3, 10.0, 3, bounds, voltage_v=draw(middle)),
    ]  # fmt: skip
    if model.galvanostat:
        makers += [
            lambda: ConstantCurrent(current, draw(middle), bounds, interval),
            lambda: CcCv(current, draw(middle), until, bounds, interval),
            lambda: Geis(
                max(0.3 * abs(current), 1e-9),
                draw(st.floats(1e3, 1e5)),
                draw(st.floats(10.0, 1e3)),
                draw(st.integers(1, 5)),
                replace(bounds, charge_coulomb=1e4),
                0.5 * current,
            ),
        ]
    return draw(st.sampled_from(makers))(), model


@settings(max_examples=150, deadline=None)
@given(programs())
def test_every_script_is_in_the_grammar_and_every_loop_has_all_limits(drawn):
    program, model = drawn
    check_script(write_script(program, model), program)


@pytest.mark.skipif(PUBLISHED is None, reason="pypalmsens and antlr4-python3-runtime are not installed")
def test_the_published_grammar_can_say_no():
    assert parse_published(PUBLISHED, "store_var x 3.5 ja\n")


@pytest.mark.parametrize(
    "text", ["var p\n\n", "store_var x 3.5 ja\n", "loop 1i == 1i\n", "if a\nendif\n", "nonsense 3\n"]
)
def test_our_transcription_can_say_no(text):
    with pytest.raises(UnexpectedInput):
        GRAMMAR.parse(text)


@pytest.mark.parametrize(
    ("current_a", "until_v", "line"),
    [(13e-6, 4.0, "if p >= 4"), (-13e-6, 3.0, "if p <= 3")],
)
def test_charge_and_discharge_have_the_right_sign(current_a, until_v, line):
    lines = write_script(ConstantCurrent(current_a, until_v, LIMITS), HR).split("\n")
    assert line in lines
    assert ("meas_loop_cp p c 13u 1 7200" if current_a > 0 else "meas_loop_cp p c -13u 1 7200") in lines
    assert "set_range db 13u" in lines  # a range has no sign
    assert lines.index("set_i 0") < lines.index("cell_on")


def test_constant_voltage_follows_only_a_reached_voltage():
    tree = check_script(write_script(CcCv(13e-6, 4.0, 1e-6, LIMITS), HR), CcCv(13e-6, 4.0, 1e-6, LIMITS))
    holders = [b for b in tree.find_data("branch") if "meas_loop_ca" in names(b)]
    assert ("w", "==", 1.0) in {condition_of(b) for b in holders}
    sets_one = [
        condition_of(b)
        for b in tree.find_data("branch")
        for s in bodies(b)
        if s.data == "command"
        and s.children[0] == "store_var"
        and [str(c.children[0]) for c in s.children[1:3]] == ["w", "1i"]
    ]
    assert sets_one == [("p", ">=", 4.0)]


def test_hold_after_discharge_ends_when_the_current_has_come_up_to_minus_the_target():
    lines = write_script(CcCv(-13e-6, 3.0, 1e-6, LIMITS), HR).split("\n")
    assert "if c >= -1u" in lines
    assert "if c <= 1u" not in lines
    lines = write_script(ConstantVoltage(3.9, 1e-6, LIMITS), HR).split("\n")
    assert "if c >= -1u" in lines
    assert "if c <= 1u" in lines


def test_the_cell_is_switched_on_only_after_a_reading_inside_the_limits():
    for program in (
        ConstantCurrent(13e-6, 4.0, LIMITS),
        ConstantVoltage(3.9, 1e-6, LIMITS),
        Eis(0.01, 1e5, 1.0, 11, LIMITS),
    ):
        script = write_script(program, HR)
        tree = GRAMMAR.parse(script + "\n")
        guarded = [
            b
            for b in tree.find_data("branch")
            if condition_of(b) == ("k", "==", 1.0) and "cell_on" in names(b)
        ]
        assert len(guarded) == 1
        assert names(tree).count("cell_on") == names(guarded[0]).count("cell_on")
        lines = script.split("\n")
        assert lines.index("meas 100m p ab") < lines.index("cell_on")


def test_off_script_never_switches_on():
    for model in CAPABILITIES.values():
        script = off_script(model)
        GRAMMAR.parse(script + "\n")
        lines = script.split("\n")
        assert lines.index("cell_off") < next(
            i for i, line in enumerate(lines) if line.startswith("meas_loop_ocp")
        )
        assert "cell_on" not in lines


@pytest.mark.parametrize(
    ("program", "model", "why"),
    [
        (ConstantCurrent(13e-6, 4.0, LIMITS), "es4_lr", "voltage limit"),  # 4.05 V is beyond 3 V
        (ConstantCurrent(13e-6, 1.9, CellLimits(0, 2.0, 1e-3, 1, 60)), "pico", "galvanostat"),
        (ConstantCurrent(0.0, 4.0, LIMITS), "es4_hr", "current 0.0 A"),
        (ConstantCurrent(41e-6, 4.0, LIMITS), "es4_hr", "current"),
        (ConstantCurrent(13e-6, 4.06, LIMITS), "es4_hr", "voltage to be reached"),
        (ConstantCurrent(13e-6, math.nan, LIMITS), "es4_hr", "voltage to be reached"),
        (ConstantCurrent(13e-6, 4.0, LIMITS, interval_s=0.0), "es4_hr", "interval"),
        (ConstantVoltage(4.05, 1e-6, LIMITS), "es4_hr", "leaves no room"),
        (ConstantVoltage(4.0, -1e-6, LIMITS), "es4_hr", "current to fall to"),
        (CcCv(13e-6, 4.05, 1e-6, LIMITS), "es4_hr", "leaves no room"),
        (ConstantVoltage(4.0, 1e-6, CellLimits(2.5, 4.05, 0.2, 1, 60)), "es4_hr", "current limit"),
        (ConstantVoltage(4.0, 1e-6, CellLimits(4.5, 4.05, 1e-3, 1, 60)), "es4_hr", "no room"),
        (ConstantVoltage(4.0, 1e-6, CellLimits(2.5, 4.05, 1e-3, 0, 60)), "es4_hr", "charge limit"),
        (ConstantVoltage(4.0, 1e-6, CellLimits(2.5, 4.05, 1e-3, 1, 1e7)), "es4_hr", "duration"),
        (Ocv(-1.0), "es4_hr", "duration"),
        (Eis(0.01, 1e6, 1.0, 11, LIMITS), "es4_hr", "frequency"),
        (Eis(1.0, 1e5, 1.0, 11, LIMITS), "es4_hr", "amplitude"),
        (Eis(0.01, 1e5, 1.0, 0, LIMITS), "es4_hr", "number of frequencies"),
        (Eis(0.01, 1e5, 1e-4, 31, LIMITS), "es4_hr", "duration of the sweep"),
        (Eis(0.01, 1.0, 1e3, 11, LIMITS), "es4_hr", "from high to low"),
        (Eis(0.01, 1e5, 1.0, 11, LIMITS, voltage_v=4.04), "es4_hr", "voltage to hold"),  # peak 14 mV
        (Geis(1e-6, 1e3, 1.0, 9, CellLimits(0, 2.0, 1e-3, 1, 60)), "pico", "no galvanostat"),
        (Geis(1e-6, 2e5, 1.0, 11, LIMITS), "es4_hr", "frequency"),
        (Geis(20e-6, 1e4, 1.0, 11, LIMITS, 13e-6), "es4_hr", "bias and sine together"),  # 13 + 28 uA > 40
        (Geis(1e-6, 1e4, 0.1, 11, CellLimits(2.5, 4.05, 4e-5, 1e-5, 600), 2e-6), "es4_hr", "charge of"),
    ],
)
def test_out_of_range_before_anything_is_sent(program, model, why):
    with pytest.raises(OutOfRange, match=why):
        write_script(program, CAPABILITIES[model])


def test_sweep_frequencies_are_spaced_evenly_on_a_logarithmic_scale():
    lines = write_script(Eis(0.01, 1e5, 1.0, 6, LIMITS), HR).split("\n")
    assert "store_var f 100k dc" in lines
    assert "mul_var f 100m" in lines  # 1e5 .. 1 in 5 steps of a decade
    assert "loop m < 6i" in lines
    assert "meas_loop_eis x r j 10m f f 1i e" in lines


GEIS_SCRIPT = """\
var x
var r
var j
var f
var e
var m
var u
var h
var y
store_var f 10k dc
store_var m 0i ja
var p
var c
var t
var s
var d
var q
var g
var b
var n
var k
var w
store_var q 0 ja
store_var s 0 eb
store_var g 0 ba
store_var p 0 ab
store_var b 0i ja
store_var n 0i ja
store_var w 0i ja
set_pgstat_chan 0
set_pgstat_mode 6
set_max_bandwidth 10k
set_range ab 5
set_autoranging ab 50m 5
set_range db 17071068p
set_autoranging db 17071068p 17071068p
"""


def test_a_galvanostatic_sweep_byte_by_byte():
    """Settings in the order of the published example: mode, bandwidth, ab, db; then set_i 0, cell_on."""
    script = write_script(Geis(5e-6, 1e4, 1e2, 3, LIMITS, 10e-6), HR)
    assert script.startswith(GEIS_SCRIPT + "meas 100m p ab\n")  # 10 uA + sqrt(2) 5 uA = 17.071068 uA
    lines = script.split("\n")
    assert lines.index("set_i 0") + 1 == lines.index("cell_on")
    at = lines.index("meas_loop_geis x r j 5u f f 1i 10u")
    assert lines[at : at + 4] == [lines[at], "endloop", "meas 50m p ab", "meas 50m c ba"]
    assert 'send_string "phase geis"' in lines


def test_a_potentiostatic_sweep_may_hold_a_voltage_of_its_own():
    lines = write_script(Eis(0.01, 1e4, 1e2, 3, LIMITS, voltage_v=3.9), HR).split("\n")
    assert lines.index("store_var e 3900m ab") < lines.index("set_e e") < lines.index("cell_on")
    assert "copy_var p e" not in lines
    lines = write_script(Eis(0.01, 1e4, 1e2, 3, LIMITS), HR).split("\n")
    assert "copy_var p e" in lines


def foreseen(lines):
    """What stands between the test whether there is a next point and the end of the loop."""
    at = next(i for i, line in enumerate(lines) if line.startswith("if m < "))
    return lines[at + 1 : lines.index("if w == 0i", len(lines) - 12)]


def test_the_swing_of_the_next_point_is_foreseen():
    """Peak 1 uA, two points a decade apart: |Z| may grow tenfold, so 10 uA times |Z| must fit."""
    lines = write_script(Geis(1e-6 / math.sqrt(2.0), 1e3, 1e2, 2, LIMITS), HR).split("\n")
    ahead = foreseen(lines)
    assert ahead[:5] == ["copy_var r u", "mul_var u r", "copy_var j y", "mul_var y j", "add_var u y"]
    factor = number(ahead[5].removeprefix("mul_var u "))
    assert factor == pytest.approx((10e-6) ** 2, rel=1e-6)
    assert ahead[6] == "store_var h 4050m ja"
    assert "store_var h 2500m ja" in ahead


def test_autoranging_stays_inside_what_the_model_has():
    """Down to 1/1000 of the limit, but never below its smallest range: 100 nA on the HR, 1 nA on the LR."""
    small = CellLimits(0.5, 2.5, 20e-6, 1.0, 600.0)
    hold = ConstantVoltage(2.0, 1e-6, small)
    assert "set_autoranging ba 100n 20u" in write_script(hold, HR).split("\n")
    assert "set_autoranging ba 20n 20u" in write_script(hold, CAPABILITIES["es4_lr"]).split("\n")


def test_a_run_shorter_than_its_interval_has_one_reading():
    assert "meas_loop_ocp p 500m 500m" in write_script(Ocv(0.5, 1.0), HR).split("\n")
