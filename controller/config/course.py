"""An experiment as it will run, turn by turn: what has passed, and how warm it is, when each step begins.

A charge to 50 % passes less in the second turn of a repetition than in the first, when the cell began empty.
Turns that begin alike are told once, with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller.config.experiment import Placed
from controller.config.sample import Sample
from controller.config.steps import Parallel, Repeat
from controller.config.timing import AMBIENT_K, after_k, charge_of, planned_charge_coulomb, turns


@dataclass(frozen=True)
class Ahead:
    """How much more has passed in later ones of the turns that are told together: last, least, most; C."""

    last: float = 0.0
    least: float = 0.0
    most: float = 0.0

    def and_turns(self, more_coulomb: float) -> Ahead:
        """Return it for turns inside these, the last of which begins with so much more."""
        return Ahead(
            self.last + more_coulomb, self.least + min(more_coulomb, 0.0), self.most + max(more_coulomb, 0.0)
        )


@dataclass(frozen=True)
class Visit:
    """A step, as often as it begins alike."""

    placed: Placed
    net_coulomb: float  # passed since the start of the experiment, before the first of these turns
    start_k: float
    times: int = 1
    ahead: Ahead = Ahead()

    def once(self, sample: Sample | None) -> float | None:
        """Return the charge that the step passes in one of these turns; None where nothing bounds it."""
        return planned_charge_coulomb(Placed(self.placed.path, self.placed.step), sample, self.net_coulomb)


def visits(steps: Sequence[Placed], sample: Sample | None) -> list[Visit]:
    """Return every step in the order in which they run, containers before what they hold.

    Args:
        steps: of ``Experiment.walk``.
        sample: whose state of charge steps end on.
    """
    tops = [placed for placed in steps if not placed.parents]
    return list(_follow(tops, sample, Visit(tops[0], 0.0, AMBIENT_K))) if tops else []


# --- inside --------------------------------------------------------------------------------------------


def _follow(steps: Sequence[Placed], sample: Sample | None, at: Visit) -> Iterator[Visit]:
    """Yield steps one after the other, beginning with what had passed, how warm it was, and how often."""
    net, kelvin = at.net_coulomb, at.start_k
    for placed in steps:
        here = Visit(placed, net, kelvin, at.times, at.ahead)
        yield here
        if isinstance(placed.step, Repeat):
            yield from _turns(placed, placed.step, sample, here)
        elif isinstance(placed.step, Parallel):
            for one in _inside(placed):
                yield from _follow([one], sample, here)
        net += charge_of([placed.step], sample, net)
        kelvin = after_k(placed.step, kelvin)


def _turns(placed: Placed, step: Repeat, sample: Sample | None, at: Visit) -> Iterator[Visit]:
    """Yield the turns; the first one apart, for only that begins at the temperature before it."""
    kelvin = at.start_k
    for before, alike, delta in turns(step, sample, at.net_coulomb):
        for net, number in ((before, 1), (before + delta, alike - 1)):
            if number:
                ahead = at.ahead.and_turns((number - 1) * delta)
                yield from _follow(
                    _inside(placed), sample, Visit(placed, net, kelvin, at.times * number, ahead)
                )
                kelvin = after_k(step, kelvin)


def _inside(placed: Placed) -> list[Placed]:
    step = placed.step
    if not isinstance(step, Repeat | Parallel):
        return []
    parents = (*placed.parents, step)
    return [Placed((*placed.path, "step", index), one, parents) for index, one in enumerate(step.steps)]
