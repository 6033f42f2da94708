"""A recording as a source of pulses: real photons cross the wire of a detector twin.

A spectrum has no order in it, so its events are shuffled and spread over the time of the replay. They were
counted after the dead time, so none is lost again: dead time appears only as a surplus in the fast counter,
by the recording's ratio of real to live time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hil_tests.sim.physics.beam import Beam
from hil_tests.sim.physics.photons import Pulses

LARGEST_CHANNELS = 16_384  # what the 14 bits of a list-mode event can say


@dataclass(frozen=True)
class Recording:
    """Counts per channel, and for how long they were counted."""

    counts: npt.NDArray[np.int64]
    live_s: float
    real_s: float


def read_spe(path: Path) -> Recording:
    """Read an ORTEC ASCII spectrum: ``$MEAS_TIM:`` live and real seconds, ``$DATA:`` first and last channel.

    Raises:
        ValueError: it is no such file, or not all of it is there.
    """
    lines = path.read_text(encoding="latin-1").splitlines()
    try:
        live_s, real_s = (float(word) for word in lines[_after(lines, "$MEAS_TIM:")].split()[:2])
        start = _after(lines, "$DATA:")
        first, last = (int(word) for word in lines[start].split()[:2])
        counts = np.array([int(line) for line in lines[start + 1 : start + 2 + last - first]], dtype=np.int64)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: not an ORTEC .Spe file: {error}") from error
    if counts.size != last - first + 1 or first != 0 or counts.min() < 0 or not 0 < live_s <= real_s:
        raise ValueError(f"{path}: {counts.size} channels from {first} to {last}, {live_s} of {real_s} s")
    if counts.size > LARGEST_CHANNELS:
        raise ValueError(f"{path}: {counts.size} channels, more than list mode can say")
    return Recording(counts, live_s, real_s)


class Replay:
    """Gives the events of a recording as pulses, once.

    Args:
        recording: what to give.
        rng: seeded; shuffles.
        start_s: lab time of the first.
        duration_s: lab time they are spread over; default the recording's real time.
        beam: for pixel-clock pulses, with the reader's name there.
        reader: name at the beam.
    """

    def __init__(
        self,
        recording: Recording,
        rng: np.random.Generator,
        *,
        start_s: float = 0.0,
        duration_s: float | None = None,
        beam: Beam | None = None,
        reader: str = "",
    ) -> None:
        self.recording = recording
        duration = recording.real_s if duration_s is None else duration_s
        channel = np.repeat(np.arange(recording.counts.size), recording.counts)
        rng.shuffle(channel)
        self._channel = channel
        self._time_s = start_s + np.sort(rng.random(channel.size)) * duration
        surplus = round(channel.size * (recording.real_s / recording.live_s - 1.0))
        lost_s = start_s + rng.random(surplus) * duration
        self._fast_s = np.sort(np.concatenate((self._time_s, lost_s)))
        self._given = self._fast_given = 0
        self._beam = beam
        self._reader = reader

    @property
    def left(self) -> int:
        """Events that have not been given yet."""
        return int(self._channel.size - self._given)

    def until(self, now_s: float) -> Pulses:
        """Return the events that are due."""
        end = int(np.searchsorted(self._time_s, now_s, side="right"))
        fast_end = int(np.searchsorted(self._fast_s, now_s, side="right"))
        begin, self._given = self._given, end
        fast_begin, self._fast_given = self._fast_given, fast_end
        batches = self._beam.take(self._reader) if self._beam is not None else []
        edges = np.concatenate([batch.pulses_s for batch in batches]) if batches else np.zeros(0)
        return Pulses(
            until_s=now_s,
            time_s=self._time_s[begin:end],
            energy_kev=np.zeros(end - begin),
            fast_s=self._fast_s[fast_begin:fast_end],
            pixel_clock_s=edges,
            channel=self._channel[begin:end].astype(np.int64),
        )


def _after(lines: list[str], keyword: str) -> int:
    return lines.index(keyword) + 1
