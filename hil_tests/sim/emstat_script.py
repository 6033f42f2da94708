"""Parser of MethodSCRIPT as the instrument has it: one pass, the first error ends it, with line and column.

Written from the command descriptions, not from anybody's grammar file. Lines and columns count from 1; line 1
is the one after the ``e`` or ``l``; the column is where the offending token begins (the documents show
positions in messages but not this rule).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

UNSUPPORTED, NOT_LICENSED, UNKNOWN_COMMAND, UNEXPECTED_CHARACTER = 0x001B, 0x001F, 0x4001, 0x4004
TOO_BIG, BAD_OPTION, NESTED_MEASUREMENT, NOT_HERE = 0x4005, 0x4008, 0x400B, 0x400C
UNEXPECTED_END, DUPLICATE, BAD_LITERAL, UNDECLARED = 0x4018, 0x4026, 0x4032, 0x420B

PREFIXES = {
    "a": 1e-18, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3,
    "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
}  # fmt: skip
LARGEST_INTEGER = 2**31 - 1

# v variable, n number or variable, t variable type, s text
COMMANDS = {
    "store_var": "vnt", "copy_var": "vv", "add_var": "vn", "sub_var": "vn", "mul_var": "vn", "div_var": "vn",
    "mod_var": "vn", "pow_var": "vn", "alter_vartype": "vt", "int_to_float": "v", "float_to_int": "v",
    "set_pgstat_chan": "n", "set_pgstat_mode": "n", "set_max_bandwidth": "n", "set_range": "tn",
    "set_range_minmax": "tnn", "set_autoranging": "tnn", "set_e": "n", "set_i": "n", "set_int": "n",
    "set_cr": "n", "set_acquisition_frac": "n", "set_acquisition_frac_autoadjust": "n",
    "set_script_output": "n", "await_int": "", "cell_on": "", "cell_off": "", "timer_start": "",
    "timer_get": "v", "wait": "n", "meas": "nvt", "pck_start": "", "pck_add": "v", "pck_end": "",
    "send_string": "s", "abort": "", "breakloop": "",
}  # fmt: skip
MEASUREMENTS = {
    "meas_loop_ca": "vvnnn",
    "meas_loop_cp": "vvnnn",
    "meas_loop_ocp": "vnn",
    "meas_loop_eis": "vvvnnnnn",
    "meas_loop_geis": "vvvnnnnn",
}
NOT_SIMULATED = {
    "meas_loop_lsv", "meas_loop_lsp", "meas_loop_cv", "meas_loop_dpv", "meas_loop_swv", "meas_loop_npv",
    "meas_loop_acv", "meas_loop_pad", "meas_fast_ca", "meas_fast_cv", "meas_ms_eis", "file_open",
    "file_close", "hibernate", "i2c_config", "i2c_write", "i2c_read", "set_gpio", "get_gpio", "set_gpio_cfg",
}  # fmt: skip

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)|(?P<comment>\#.*)|(?P<text>f?"[^"]*")
    |(?P<number>-?(?:0x[0-9a-fA-F]+i?|\d+[afpnumkMGTPEi]?)(?![A-Za-z0-9_]))
    |(?P<tag>on_finished:)|(?P<name>[a-z][a-z0-9_]*)|(?P<operator>==|!=|>=|<=|[><&|])|(?P<bracket>[()\[\]])""",
    re.VERBOSE,
)


class ScriptError(Exception):
    """A parse error; nothing is run."""

    def __init__(self, code: int, line: int, column: int) -> None:
        super().__init__(f"{code:04X} at line {line}, column {column}")
        self.code, self.line, self.column = code, line, column


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: float
    integer: bool


@dataclass(frozen=True)
class Variable:
    """A variable, or one element of an array."""

    name: str
    index: Number | Variable | None = None


Operand = Number | Variable
Argument = Number | Variable | str


@dataclass(frozen=True)
class Condition:
    """A comparison."""

    left: Operand
    operator: str
    right: Operand


@dataclass
class Command:
    """A command with its arguments and options (``name(arguments)``)."""

    line: int
    name: str
    arguments: list[Argument]
    options: dict[str, list[Argument]] = field(default_factory=dict)


@dataclass
class Block:
    """A loop: ``condition`` is None for a measurement loop, whose command is ``head``."""

    head: Command
    condition: Condition | None
    body: list[Statement] = field(default_factory=list)


@dataclass
class Choice:
    """if / elseif / else; the condition of else is None."""

    line: int
    branches: list[tuple[Condition | None, list[Statement]]] = field(default_factory=list)


Statement = Command | Block | Choice


@dataclass
class Script:
    """A parsed script."""

    variables: list[str] = field(default_factory=list)
    arrays: dict[str, int] = field(default_factory=dict)
    body: list[Statement] = field(default_factory=list)
    on_finished: list[Statement] = field(default_factory=list)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


def parse(
    lines: Sequence[str], *, unsupported: Collection[str] = (), unlicensed: Collection[str] = ()
) -> Script:
    """Parse the lines of a script. Raises ScriptError, also for commands that this instrument has not."""
    lacking = dict.fromkeys(unlicensed, NOT_LICENSED) | dict.fromkeys(unsupported, UNSUPPORTED)
    return _Parser(lacking).parse(lines)


class _Parser:
    def __init__(self, lacking: Mapping[str, int]) -> None:
        self._lacking = lacking
        self.script = Script()
        self._target = self.script.body
        self._open: list[Block | Choice] = []
        self._line = 0
        self._tokens: list[_Token] = []
        self._end = 1

    def parse(self, lines: Sequence[str]) -> Script:
        for number, text in enumerate(lines, 1):
            self._line, self._end = number, len(text) + 1
            self._tokens = _tokens(text, number)
            if self._tokens:
                self._statement(self._tokens.pop(0))
                if self._tokens:
                    raise self._error(UNEXPECTED_CHARACTER, self._tokens[0])
        if self._open:
            raise ScriptError(UNEXPECTED_END, len(lines) + 1, 1)
        return self.script

    def _statement(self, first: _Token) -> None:
        keywords = {
            "var": self._var, "array": self._array, "if": self._if, "elseif": self._elseif,
            "else": self._else, "endif": self._endif, "loop": self._loop, "endloop": self._endloop,
        }  # fmt: skip
        if first.kind == "tag":
            if self._open or self._target is self.script.on_finished:
                raise self._error(NOT_HERE, first)
            self._target = self.script.on_finished
        elif first.text in keywords:
            keywords[first.text](first)
        elif first.text in self._lacking:
            raise self._error(self._lacking[first.text], first)
        elif first.text in MEASUREMENTS:
            if any(isinstance(block, Block) and block.condition is None for block in self._open):
                raise self._error(NESTED_MEASUREMENT, first)
            self._begin(Block(self._command(first, MEASUREMENTS[first.text]), None))
        elif first.text in COMMANDS:
            if first.text == "breakloop" and not any(isinstance(block, Block) for block in self._open):
                raise self._error(NOT_HERE, first)
            self._add(self._command(first, COMMANDS[first.text]))
        else:
            raise self._error(UNSUPPORTED if first.text in NOT_SIMULATED else UNKNOWN_COMMAND, first)

    def _var(self, _first: _Token) -> None:
        self.script.variables.append(self._new_name())

    def _array(self, _first: _Token) -> None:
        name, size = self._new_name(), self._operand()
        if not isinstance(size, Number) or not size.integer:
            raise ScriptError(BAD_LITERAL, self._line, self._end)
        self.script.arrays[name] = int(size.value)

    def _new_name(self) -> str:
        token = self._next("name")
        if token.text in self.script.variables or token.text in self.script.arrays:
            raise self._error(DUPLICATE, token)
        return token.text

    def _if(self, _first: _Token) -> None:
        choice = Choice(self._line)
        self._add(choice)
        self._open.append(choice)
        choice.branches.append((self._condition(), []))

    def _elseif(self, first: _Token) -> None:
        self._choice(first).branches.append((self._condition(), []))

    def _else(self, first: _Token) -> None:
        self._choice(first).branches.append((None, []))

    def _choice(self, first: _Token) -> Choice:
        last = self._open[-1] if self._open else None
        if not isinstance(last, Choice) or last.branches[-1][0] is None:
            raise self._error(NOT_HERE, first)
        return last

    def _endif(self, first: _Token) -> None:
        if not self._open or not isinstance(self._open[-1], Choice):
            raise self._error(NOT_HERE, first)
        self._open.pop()

    def _loop(self, _first: _Token) -> None:
        self._begin(Block(Command(self._line, "loop", []), self._condition()))

    def _endloop(self, first: _Token) -> None:
        if not self._open or not isinstance(self._open[-1], Block):
            raise self._error(NOT_HERE, first)
        self._open.pop()

    def _begin(self, block: Block) -> None:
        self._add(block)
        self._open.append(block)

    def _add(self, statement: Statement) -> None:
        if not self._open:
            self._target.append(statement)
        elif isinstance(last := self._open[-1], Block):
            last.body.append(statement)
        else:
            last.branches[-1][1].append(statement)

    def _condition(self) -> Condition:
        left = self._operand()
        operator = self._next("operator").text
        return Condition(left, operator, self._operand())

    def _command(self, first: _Token, signature: str) -> Command:
        command = Command(self._line, first.text, [])
        for kind in signature:
            command.arguments.append(self._argument(kind))
        while self._tokens and self._tokens[0].kind == "name":
            name = self._tokens.pop(0)
            if not self._tokens or self._tokens[0].text != "(":
                raise self._error(BAD_OPTION, name)
            self._tokens.pop(0)
            command.options[name.text] = []
            while self._tokens and self._tokens[0].text != ")":
                command.options[name.text].append(self._operand())
            self._next("bracket")
        return command

    def _argument(self, kind: str) -> Argument:
        if kind == "s":
            return self._next("text").text
        if kind == "t":
            return self._next("name").text
        if kind == "n":
            return self._operand()
        token = self._tokens[0] if self._tokens else None
        operand = self._operand()
        if token is not None and not isinstance(operand, Variable):
            raise self._error(UNEXPECTED_CHARACTER, token)
        return operand

    def _operand(self) -> Operand:
        token = self._next("number", "name")
        if token.kind == "number":
            return self._number(token)
        if token.text in self.script.arrays:
            self._next("bracket")
            index = self._operand()
            self._next("bracket")
            return Variable(token.text, index)
        if token.text not in self.script.variables:
            raise self._error(UNDECLARED, token)
        return Variable(token.text)

    def _number(self, token: _Token) -> Number:
        text = token.text
        integer = text.endswith("i")
        digits = text.rstrip("i")
        hexadecimal = "0x" in digits
        suffix = "" if hexadecimal or digits[-1].isdigit() else digits[-1]
        whole = int(digits.removesuffix(suffix) if suffix else digits, 0 if hexadecimal else 10)
        if abs(whole) > LARGEST_INTEGER:
            raise self._error(TOO_BIG, token)
        return Number(float(whole) * PREFIXES[suffix], integer or hexadecimal)

    def _next(self, *kinds: str) -> _Token:
        if not self._tokens:
            raise ScriptError(UNEXPECTED_END, self._line, self._end)
        token = self._tokens.pop(0)
        if token.kind not in kinds:
            raise self._error(UNEXPECTED_CHARACTER, token)
        return token

    def _error(self, code: int, token: _Token) -> ScriptError:
        return ScriptError(code, self._line, token.column)


def _tokens(text: str, line: int) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            digit = text[at].isdigit() or (text[at] == "-" and text[at + 1 : at + 2].isdigit())
            raise ScriptError(BAD_LITERAL if digit else UNEXPECTED_CHARACTER, line, at + 1)
        kind = str(found.lastgroup)
        if kind not in ("space", "comment"):
            tokens.append(_Token(kind, found.group(), at + 1))
        at = found.end()
    return tokens
