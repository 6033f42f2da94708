"""From voltages and lines to where the beam was: two DACs deflect, a line blanks, a shutter lets through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hil_tests.sim.labjack_dio import DigitalLines
from hil_tests.sim.labjack_stream_out import DAC_TARGETS, binary_to_volts
from hil_tests.sim.labjack_t7_stream import Scans
from hil_tests.sim.physics.beam import Beam, Stretches

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Deflector:
    """Tells the beam where it was, from one moment to the next.

    Args:
        beam: gets the stretches.
        dio: the digital lines.
        settings: ``x_dac``, ``y_dac``, ``centre_v``, ``x_um_per_v``, ``y_um_per_v``, ``pixel_clock`` and
            ``blank``.
    """

    def __init__(self, beam: Beam, dio: DigitalLines, settings: Mapping[str, Any]) -> None:
        self.pulses = 0
        self._beam = beam
        self._dio = dio
        self._settings = settings
        self._clock_high = False
        self._pulses_s: list[float] = []

    def edge(self, now_s: float) -> None:
        """Look at the pixel-clock line after a command; a rising edge is a pulse."""
        high = self._dio.high(self._settings["pixel_clock"])
        if high and not self._clock_high:
            self._pulses_s.append(now_s)
            self.pulses += 1
        self._clock_high = high

    def rest(self, begin_s: float, until_s: float, dac_v: list[float], *, shutter_open: bool) -> None:
        """Nothing changed from ``begin_s`` to ``until_s``."""
        x, y = self.position_um(np.array(dac_v).reshape(2, 1))
        on = shutter_open and not self._dio.high(self._settings["blank"])
        self._send(np.array([begin_s]), until_s, x, y, np.array([on]), self._take_pulses())

    def scanned(
        self, begin_s: float, until_s: float, dac_v: list[float], scans: Scans, *, shutter_open: bool
    ) -> None:
        """Scans have changed voltages and lines; ``dac_v`` is brought up to date."""
        n = scans.time_s.size
        volts = np.empty((2, n + 1))
        volts[:, 0] = dac_v
        for number, target in enumerate(DAC_TARGETS):
            values = scans.outputs.get(target)
            volts[number, 1:] = dac_v[number] if values is None else binary_to_volts(values)
        dac_v[:] = volts[:, -1].tolist()
        latch = self._dio.streamed(scans.outputs, n)
        self._dio.latch = int(latch[-1])
        levels = self._dio.levels_of(latch)
        clock = (levels >> self._settings["pixel_clock"] & 1).astype(bool)
        edges = scans.time_s[clock[1:] & ~np.concatenate(([self._clock_high], clock[1:-1]))]
        self.pulses += edges.size
        self._clock_high = bool(clock[-1])
        on = ~(levels >> self._settings["blank"] & 1).astype(bool) & shutter_open
        pulses = np.concatenate((self._take_pulses(), edges))
        begin = np.concatenate(([begin_s], scans.time_s))
        first = _changes(volts, on)
        x, y = self.position_um(volts[:, first])
        self._send(begin[first], until_s, x, y, on[first], pulses)

    def position_um(self, volts: Floats) -> tuple[Floats, Floats]:
        """Return the position that two rows of DAC voltages make."""
        s = self._settings
        x = (volts[s["x_dac"]] - s["centre_v"]) * s["x_um_per_v"]
        return x, (volts[s["y_dac"]] - s["centre_v"]) * s["y_um_per_v"]

    def _take_pulses(self) -> Floats:
        pulses, self._pulses_s = np.array(self._pulses_s), []
        return pulses

    def _send(self, begin: Floats, until_s: float, x: Floats, y: Floats, on: Bools, pulses: Floats) -> None:
        self._beam.push(
            Stretches(
                begin_s=begin,
                end_s=np.append(begin[1:], until_s),
                x_um=x,
                y_um=y,
                on_sample=on,
                current_a=np.full(begin.size, self._beam.current_a),
                pulses_s=pulses,
            )
        )


def _changes(volts: Floats, on: Bools) -> Bools:
    """Mark where something changed that matters: a blanked beam may point anywhere."""
    moved = (np.diff(volts, axis=1) != 0.0).any(axis=0) & on[1:]
    return np.concatenate(([True], moved | (on[1:] != on[:-1])))
