"""The output-enable line of a Keithley 2400 (pin 8 of the digital I/O): required or not, asserted or not.

While it is required, the output goes off when pin 8 goes high, and cannot be turned on. Two sets of names:
``:OUTPut:INTerlock:STATe``, ``:TRIPped?`` (user's manual 2400S-900-01, page 18-58), and of newer
instruments ``:OUTPut:IENABle``, ``:OUTPut:ENABle:TRIPped?`` (the later manual, page 18-56). An instrument
answers nothing to the names that it does not know. ``TRIPped?`` is 1 when the output may be turned on, 0 when
it is blocked, and says nothing while the line is not required.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from drivers.errors import Refused
from drivers.keithley_scpi import number

NAMES = ((":OUTP:INT:STAT", ":OUTP:INT:TRIP?"), (":OUTP:IENAB", ":OUTP:ENAB:TRIP?"))
UNDEFINED = "-113"
BLOCKED = "802"
OPEN = (
    "the output-enable line (pin 8 of the digital I/O) is not asserted: while it is not held low the output "
    "cannot be turned on. Look at what should hold it: the watchdog's relay, the lid of a fixture, the plug"
)
NOT_OURS = (
    "; the station file does not say that it is wired ([device.X.interlock]), but the instrument itself "
    "requires it: wire it, or switch the requirement off at the instrument"
)
UNKNOWN = "this instrument knows no command for its output-enable line (pin 8): its state cannot be read"


class EnableLine:
    """What the instrument says of the line.

    Args:
        name: of the device, for messages.
        wired: whether a person says in the station file what is wired to it.
        ask: returns the answer to a query; raises Refused with the error queue.
        tell: sends a command.
    """

    def __init__(
        self, name: str, ask: Callable[[str], Awaitable[str]], tell: Callable[[str], Awaitable[None]], *,
        wired: bool,
    ) -> None:  # fmt: skip
        self._name, self._ask, self._tell, self._wired = name, ask, tell, wired
        self._names: tuple[str, str] | None = None
        self.required = False

    async def prepare(self) -> None:
        """Find the names, make the line decide if it is wired. Raises Refused if it is open, or unknown."""
        known, self._names, self.required = self._names, None, False
        for state, asserted in NAMES if known is None else (known,):
            try:
                answer = await self._ask(f"{state}?")
            except Refused as error:
                if UNDEFINED not in error.message:
                    raise
                continue
            self._names, self.required = (state, asserted), number(answer) == 1.0
            break
        if self._names is None:
            if self._wired:
                raise Refused(UNKNOWN, device=self._name)
            return
        if self._wired:
            await self._tell(f"{self._names[0]} ON")
            answer = await self._ask(f"{self._names[0]}?")
            self.required = number(answer) == 1.0
            if not self.required:
                raise Refused("1 was written", device=self._name, request=self._names[0], reply=answer)
        if await self.is_open():
            raise Refused(self.why_open(), device=self._name)

    async def is_open(self) -> bool:
        """Return whether the line keeps the output off now."""
        if self._names is None or not self.required:
            return False
        return number(await self._ask(self._names[1])) != 1.0

    def why_open(self) -> str:
        """Return in words what is wrong and what to do."""
        return OPEN if self._wired else OPEN + NOT_OURS

    def note(self) -> str:
        """Return for `operando check` how the line stands."""
        if self._names is None:
            return f"{UNKNOWN}; nothing ends a program when the host is gone"
        if not self.required:
            return "the output-enable line (pin 8) is not used: nothing ends a program when the host is gone"
        if self._wired:
            return (
                "the output-enable line (pin 8) is required, and asserted now: it must be held low by "
                "something with a watchdog, and that is what ends a program when the host is gone"
            )
        return (
            "the output-enable line (pin 8) is required by the instrument, and asserted now, but the station "
            "file does not say what holds it: nobody can tell whether it ends a program when the host is gone"
        )
