"""Text configuration of Amptek's processors: ``NAME=VALUE;``, applied one by one up to the first error.

Names from the Programmer's Guide as listed in the protocol sheet; SYNC and CLKL (list mode) are the guide's
names, their values here are INT, NOTIMETAG, EXT, FRAME and nanoseconds (assumed).
"""

from __future__ import annotations

from collections.abc import Callable

from hil_tests.sim.amptek_fw6 import BAD_COMMAND, BAD_PARAMETER, Rejected

SYNC_MODES = {"INT": 0, "NOTIMETAG": 1, "EXT": 2, "FRAME": 3}
LIST_CLOCKS = {"1000": 1e-6, "100": 1e-7}
CHANNELS = ("256", "512", "1024", "2048", "4096", "8192")
LONGEST_BYTES = 512


def _number(low: float, high: float) -> Callable[[str], bool]:
    def valid(value: str) -> bool:
        try:
            return low <= float(value) <= high
        except ValueError:
            return False

    return valid


def _off_or(valid: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda value: value == "OFF" or valid(value)


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


_FREE: Callable[[str], bool] = lambda value: bool(value)  # noqa: E731  # a table reads better with it
RULES: dict[str, tuple[str, Callable[[str], bool]]] = {  # default, what is valid
    "CLCK": ("AUTO", _one_of("AUTO", "20", "80")),
    "TPEA": ("9.600", _number(0.05, 102.4)),
    "GAIF": ("1.0000", _number(0.75, 1.25)),
    "GAIN": ("1.000", _number(0.75, 500.0)),
    "GAIA": ("1", _number(1, 32)),
    "RESL": ("204", _number(0, 32767)),
    "TFLA": ("0.200", _number(0.05, 102.4)),
    "TPFA": ("100", _number(50, 3200)),
    "THSL": ("0.500", _number(0.0, 24.9)),
    "TLLD": ("OFF", _off_or(_number(0, 8191))),
    "THFA": ("10.00", _number(0.0, 511.0)),
    "PURE": ("ON", _one_of("ON", "OFF", "MAX")),
    "RTDE": ("OFF", _one_of("ON", "OFF")),
    "MCAS": ("NORM", _one_of("NORM", "MCS", "FAST", "PUR", "RTD")),
    "MCAC": ("1024", _one_of(*CHANNELS)),
    "MCAE": ("OFF", _one_of("ON", "OFF")),
    "MCSL": ("0", _number(0, 8191)),
    "MCSH": ("8191", _number(0, 8191)),
    "PRET": ("OFF", _off_or(_number(0.0, 99_999_999.9))),
    "PRER": ("OFF", _off_or(_number(0.0, 4_294_967.2))),
    "PREC": ("OFF", _off_or(_number(0, 4_294_967_295))),
    "PREL": ("OFF", _off_or(_number(0.0, 4_294_967.2))),
    "HVSE": ("OFF", _off_or(_number(-1500.0, 1500.0))),
    "TECS": ("OFF", _off_or(_number(0.0, 299.0))),
    "PAPS": ("ON", _one_of("ON", "OFF", "8.5", "5")),
    "AINP": ("POS", _one_of("POS", "NEG")),
    "INOF": ("DEF", _FREE),
    "GPED": ("RI", _FREE),
    "SCOE": ("RI", _FREE),
    "SCOT": ("12", _number(0, 100)),
    "CON1": ("DAC", _FREE),
    "CON2": ("AUXOUT2", _FREE),
    "SYNC": ("INT", _one_of(*SYNC_MODES)),
    "CLKL": ("1000", _one_of(*LIST_CLOCKS)),
}


class Configuration:
    """Values by name."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.configured = False
        self.reset()

    def reset(self) -> None:
        """Set every value to its default."""
        self.values = {name: default for name, (default, _) in RULES.items()}
        self.configured = False

    def number(self, name: str) -> float | None:
        """Return a value as a number; None for OFF."""
        value = self.values[name]
        return None if value == "OFF" else float(value)

    def apply(self, text: bytes) -> list[str]:
        """Apply commands; return the names in order.

        Raises:
            Rejected: the first wrong command, which is in the data; those before it are applied.
        """
        names = []
        for command in _commands(text):
            name, _, value = command.partition("=")
            if name == "RESC":
                if value.upper() == "Y":
                    self.reset()
                continue
            if name not in RULES:
                raise Rejected(BAD_COMMAND, f"{command};".encode("ascii"))
            value = value.upper()
            if not RULES[name][1](value):
                raise Rejected(BAD_PARAMETER, f"{command};".encode("ascii"))
            self.values[name] = value
            self.configured = True
            names.append(name)
        return names

    def read_back(self, text: bytes) -> bytes:
        """Answer ``NAME=?;`` or ``NAME=;`` with ``NAME=VALUE;``."""
        answers = []
        for command in _commands(text):
            name = command.partition("=")[0]
            if name == "RESC":
                answers.append("RESC=?;")
                continue
            if name not in RULES:
                raise Rejected(BAD_COMMAND, f"{command};".encode("ascii"))
            answers.append(f"{name}={self.values[name]};")
        return "".join(answers).encode("ascii")


def _commands(text: bytes) -> list[str]:
    try:
        decoded = text.decode("ascii")
    except UnicodeDecodeError:
        raise Rejected(BAD_COMMAND, text[:32]) from None
    return [command.strip() for command in decoded.split(";") if command.strip()]
