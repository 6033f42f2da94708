"""What the potentiostat that is really there lacks of what an experiment asks for.

The rules of the files compare an experiment with the model's table. Firmware and licences are known only to
the instrument itself, which is asked by loading scripts that are never run: nothing is energised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from controller.config import effective_limits
from controller.config.cell_rules import complaints
from drivers.errors import Refused

if TYPE_CHECKING:
    from controller.config import Experiment, Station
    from drivers.roles import CellAbilities


@dataclass(frozen=True)
class Lack:
    """What an instrument has not, and which steps need it."""

    missing: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()


@runtime_checkable
class Probing(Protocol):
    """A potentiostat that can say what it has not."""

    async def probe(self) -> tuple[CellAbilities, list[str]]:
        """Return what it can do, and in words what is missing; nothing is energised."""
        ...


async def lacking(device: object, station: Station, experiment: Experiment | None) -> Lack:
    """Ask an instrument what it lacks; one that cannot be asked lacks nothing that is known.

    Raises:
        DriverError: the instrument did not answer.
    """
    if not isinstance(device, Probing):
        return Lack()
    able, missing = await device.probe()
    if experiment is None or not missing:
        return Lack(tuple(missing))
    window = effective_limits(station, experiment)
    unmet = [
        f"{placed.key} ({placed.step.do}) {complaint}"
        for placed in experiment.walk()
        for key, complaint, _ in complaints(placed.step, able, window)
        if key in ("do", "current")
    ]
    return Lack(tuple(missing), tuple(unmet))


async def require(device: object, station: Station, experiment: Experiment) -> list[str]:
    """Ask the potentiostat before a run with impedance sweeps; return what is missing, in words.

    Raises:
        Refused: a step of the experiment needs what is missing.
        DriverError: the instrument did not answer.
    """
    if not any(placed.step.do == "eis" for placed in experiment.walk()):
        return []
    lack = await lacking(device, station, experiment)
    if lack.unmet:
        raise Refused("; ".join([*lack.unmet, *lack.missing]), device=getattr(device, "name", "cell"))
    return list(lack.missing)
