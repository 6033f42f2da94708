"""A resistor in the holder instead of the cell, as for an acceptance test; the cell rests."""

from __future__ import annotations

from hil_tests.sim.physics.cell import Cell


class CellOrDummy(Cell):
    """The cell, or while ``dummy_ohm`` is not 0 a resistor at the same terminals."""

    dummy_ohm = 0.0

    def _step(self, dt_s: float) -> None:
        ohm = self.dummy_ohm
        if ohm <= 0.0:
            super()._step(dt_s)
        elif self.mode == "potentiostat":
            self._voltage_v = self._set_value
            self._current_a = self._set_value / (ohm + self.contact_ohm)
        else:
            self._current_a = self._set_value if self.mode == "galvanostat" else 0.0
            self._voltage_v = self._current_a * (ohm + self.contact_ohm)
