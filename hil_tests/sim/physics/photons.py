"""Photons of one detector, drawn where the beam was, and what the detector makes of them.

Counts are Poisson for each stretch of beam and component; times are uniform within the stretch; energies come
from tables with the detector's resolution in them. Then the electronics:

* two photons closer than ``pile_up_s`` are one pulse with the sum of their energies, for both channels;
* a photon closer than ``dead_s`` to the one before is lost to the slow channel (extending dead time);
* the gain may drift; pulses below the threshold are not counted by the slow channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hil_tests.sim.physics import spectra
from hil_tests.sim.physics.beam import Beam, Stretches, joined
from hil_tests.sim.physics.components import BERYLLIUM7, LITHIUM, Components
from hil_tests.sim.physics.sample import Sample

Floats = npt.NDArray[np.float64]

BERYLLIUM7_S = 53.22 * 86400.0  # half-life, ENSDF
BERYLLIUM7_BRANCH = 0.1044  # photons of 477.6 keV per decay, ENSDF


@dataclass(frozen=True)
class Pulses:
    """What left the electronics between two calls, times in lab seconds, rising.

    ``energy_kev`` belongs to ``time_s`` (counted by the slow channel); ``fast_s`` are the fast channel's;
    ``channel`` replaces the energies where a recording is replayed.
    """

    until_s: float
    time_s: Floats
    energy_kev: Floats
    fast_s: Floats
    pixel_clock_s: Floats
    channel: npt.NDArray[np.int64] | None = None


class PulseSource(Protocol):
    """Where a detector twin gets its pulses from."""

    def until(self, now_s: float) -> Pulses:
        """Return the pulses since the last call."""
        ...


@dataclass(frozen=True)
class Electronics:
    """Times in s, energies in keV."""

    dead_s: float
    pile_up_s: float
    threshold_kev: float


ELECTRONICS = {
    "sdd": Electronics(dead_s=8e-6, pile_up_s=4e-7, threshold_kev=0.75),
    "hpge": Electronics(dead_s=3e-5, pile_up_s=1e-6, threshold_kev=16.0),
}


@dataclass
class Activation:
    """7Be that the beam has made, in units of detected photons; grows with dose, decays in 53 days."""

    per_lithium: float  # nuclei of 7Be made per lithium photon emitted
    before_per_s: float = 0.0  # counting rate from irradiations before this run, at lab time 0
    _nuclei: float = 0.0

    @property
    def per_s(self) -> float:
        """Counting rate of the undisplaced line now."""
        return self._nuclei * math.log(2.0) / BERYLLIUM7_S * BERYLLIUM7_BRANCH + self.before_per_s

    def process(self, dt_s: float, lithium_counts: float) -> None:
        """Decay for ``dt_s`` and add what was made while so many lithium photons were expected."""
        keep = 0.5 ** (dt_s / BERYLLIUM7_S)
        self._nuclei = self._nuclei * keep + lithium_counts * self.per_lithium
        self.before_per_s *= keep


@dataclass
class _Tally:
    photons: int = 0
    slow: int = 0
    fast: int = 0
    components: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


class Photons:
    """The photons of one detector.

    Args:
        name: reader name at the beam.
        beam: where the beam was.
        sample: what was there.
        components: of the spectrum.
        electronics: dead time, pile-up, threshold.
        rng: seeded.
        factor: multiplies every rate (a stress of the software, no physics).
        activation: for the detector that sees 478 keV photons.
    """

    def __init__(
        self,
        name: str,
        beam: Beam,
        sample: Sample,
        components: Components,
        electronics: Electronics,
        rng: np.random.Generator,
        *,
        factor: float = 1.0,
        activation: Activation | None = None,
    ) -> None:
        self.name = name
        self.components = components
        self.electronics = electronics
        self.activation = activation
        self.gain = 1.0
        self.gain_drift_per_h = 0.0
        self.factor = factor
        self.tally = _Tally(components=np.zeros(len(components.names), np.int64))
        self._beam = beam
        self._sample = sample
        self._rng = rng
        self._last_arrival_s = -math.inf
        names = components.names
        self._lithium = names.index(LITHIUM) if LITHIUM in names else -1
        self._beryllium = names.index(BERYLLIUM7) if BERYLLIUM7 in names else -1

    def until(self, now_s: float) -> Pulses:
        """Draw the photons of every stretch the beam has been through; ``now_s`` only labels the result."""
        batches = self._beam.take(self.name)
        if not batches:
            nothing = np.zeros(0)
            return Pulses(now_s, nothing, nothing, nothing, nothing)
        stretches = joined(batches)
        arrival_s, energy_kev = self._arrivals(stretches)
        return self._electronics(stretches, arrival_s, energy_kev)

    def expected(self, stretches: Stretches) -> Floats:
        """Return the expected counts of each stretch and component (N, C)."""
        length = (stretches.end_s - stretches.begin_s)[:, None]
        c = self.components
        rates = np.broadcast_to(c.room, (stretches.begin_s.size, c.room.size)).copy()
        on = np.flatnonzero(stretches.on_sample & (stretches.current_a > 0.0))
        if on.size:
            place = self._sample.at(stretches.x_um[on], stretches.y_um[on])
            intensity = stretches.current_a[on] / self._beam.parameters.current_a
            rates[on] += c.rates(place.share, place.lithium_left) * intensity[:, None]
        if self._beryllium >= 0 and self.activation is not None:
            rates[:, self._beryllium] += self.activation.per_s
        counts: Floats = rates * length * self.factor
        return counts

    def _arrivals(self, stretches: Stretches) -> tuple[Floats, Floats]:
        expected = self.expected(stretches)
        if self.activation is not None:
            duration_s = float(stretches.end_s[-1] - stretches.begin_s[0])
            self.activation.process(duration_s, float(expected[:, self._lithium].sum()) / self.factor)
        counts = self._rng.poisson(np.maximum(expected, 0.0))
        self.tally.components += counts.sum(axis=0)
        which = np.repeat(np.arange(counts.size), counts.ravel())
        stretch, component = np.divmod(which, counts.shape[1])
        uniform = self._rng.random((2, which.size))
        begin, end = stretches.begin_s[stretch], stretches.end_s[stretch]
        time_s = begin + (end - begin) * uniform[0]
        energy = spectra.draw(self.components.tables, component, uniform[1])
        order = np.argsort(time_s)
        return time_s[order], energy[order]

    def _electronics(self, stretches: Stretches, arrival_s: Floats, energy_kev: Floats) -> Pulses:
        e = self.electronics
        gap = np.diff(arrival_s, prepend=self._last_arrival_s)
        if arrival_s.size:
            self._last_arrival_s = float(arrival_s[-1])
        fast = gap > e.pile_up_s
        starts = gap > e.dead_s
        pulse = np.cumsum(fast) - 1  # number of the pulse that a photon belongs to; -1: to one before
        owned = pulse >= 0
        summed = np.bincount(pulse[owned], weights=energy_kev[owned], minlength=int(fast.sum()))
        energy = summed[pulse[starts]] * (
            self.gain * (1.0 + self.gain_drift_per_h * stretches.until_s / 3600.0)
        )
        seen = energy > e.threshold_kev
        time_s = arrival_s[starts][seen]
        self.tally.photons += arrival_s.size
        self.tally.fast += int(fast.sum())
        self.tally.slow += time_s.size
        return Pulses(stretches.until_s, time_s, energy[seen], arrival_s[fast], stretches.pulses_s)
