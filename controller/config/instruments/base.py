"""What the tables of all instruments have in common, and what a station is told about each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from controller.config.base import Table
from controller.config.quantities import Quantity

if TYPE_CHECKING:
    from controller.config.limits import CellWindow
    from controller.config.station import Limits

Positive = Annotated[int, Field(gt=0)]


class Instrument(Table):
    """What every ``[device.X]`` table of a built-in driver has.

    The keys mirror the instrument's sheet; the rules of a model are those that need no other table.
    """

    plays: ClassVar[frozenset[str]] = frozenset()  # the roles of a station that this instrument can play
    line_kinds: ClassVar[tuple[str, ...]] = ()  # a serial server makes tcp of a serial port
    modbus: ClassVar[bool] = False  # several of them share a line, told apart by unit_id
    one_of: ClassVar[str] = ""  # key that tells several devices of one unit apart
    energises: ClassVar[bool] = False  # a heater: it needs a relay of the I/O box in series
    usual_line: ClassVar[Mapping[str, int]] = {}  # "port", "baud": as it leaves its maker, for new files
    usual_period: ClassVar[str] = "1 s"  # for new files
    begins_with: ClassVar[
        Mapping[str, tuple[str, ...]]
    ] = {}  # role, "" is any -> optional keys that it needs

    driver: str
    period_s: Annotated[float, Quantity("s", above=0.0, high=60.0)] = Field(alias="period")

    @property
    def drives(self) -> tuple[str, ...]:
        """Names of the devices that this one is made of."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Return the settings for the driver: SI values under names that end in their unit."""
        return self.model_dump(exclude={"driver", "line"}, exclude_none=True)

    def hard_limits(self, limits: Limits, cell: CellWindow | None) -> Mapping[str, Any]:
        """Return more settings: what the driver must refuse, whatever it is asked for.

        Args:
            limits: the station's.
            cell: tighter ones of chemistry and sample, where an experiment is known.
        """
        return {}


class Device(Instrument):
    """An instrument on a line."""

    line: str


class Composite(Instrument):
    """A device made of others: it has no line of its own; ``parts`` are the keys that name the others."""

    parts: ClassVar[tuple[str, ...]] = ()
    made_of: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # part -> built-in drivers that can be it
    off_parts: ClassVar[tuple[str, ...]] = ()  # those that off needs; their lines alone are waited for

    @property
    def drives(self) -> tuple[str, ...]:
        """Names of the devices that this one is made of."""
        return tuple(str(getattr(self, part)) for part in self.parts)
