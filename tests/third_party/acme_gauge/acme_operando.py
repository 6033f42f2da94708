"""acme_operando.py: a vacuum gauge that answers "P?" with mbar and "F?" with the state of its filament."""

from drivers.errors import BadReply
from drivers.roles import Identity, Role


def parse_line(buffer: bytes) -> str | None:
    if not buffer.endswith(b"\n"):
        return None  # not enough yet
    return buffer.decode("ascii", "replace").strip()


class Gauge:
    roles = frozenset({Role.MONITOR})
    channels = {"pressure": "mbar", "filament": None}  # name -> unit; None for a switch  # noqa: RUF012

    def __init__(self, line, *, name, clock, settings):
        self.name = name
        self._line = line
        self._zero_mbar = float(settings.get("zero_mbar", 0.0))  # a key of our own in the station file

    async def _ask(self, request: bytes) -> str:
        return await self._line.ask(request, parse_line, timeout_s=0.5, device=self.name)

    async def read_values(self):
        text, filament = await self._ask(b"P?\n"), await self._ask(b"F?\n")
        if text == "----":  # out of range: not known, and never the value before
            return {"pressure": None, "filament": filament == "ON"}
        try:
            pressure_mbar = float(text)
        except ValueError:
            raise BadReply("is no pressure", device=self.name, reply=text) from None
        return {"pressure": pressure_mbar - self._zero_mbar, "filament": filament == "ON"}

    async def identify(self) -> Identity:
        maker, model, serial = (await self._ask(b"ID?\n")).split(",")
        return Identity(maker, model, serial)

    async def prepare(self) -> list[str]:
        return ["its filament stays on when the host is gone"]

    async def off(self) -> None:
        pass  # nothing to switch off

    async def close(self) -> None:
        await self._line.close()
