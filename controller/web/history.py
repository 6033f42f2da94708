"""What was measured since the run began, in bounds: a point keeps smallest and largest of what it is for.

Adding the same samples twice changes nothing, and in any order: gaps are filled by adding everything again.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator

POINTS = 3000  # of a series; 28 bytes each
MOST_SERIES = 150
FINEST_S = 0.5

Columns = tuple["array[float]", "array[float]", "array[float]", "array[float]"]


class Series:
    """One series. Points are cells of a time grid whose width doubles when there are too many."""

    def __init__(self, unit: str = "", points: int = POINTS) -> None:
        self.unit = unit
        self._most = points
        self._width_s = FINEST_S
        self._cell = array("q")  # number of the grid cell
        self._t, self._v = array("d"), array("f")  # the last sample of the cell
        self._lo, self._hi, self._e = array("f"), array("f"), array("f")
        self.errors = False

    def __len__(self) -> int:
        return len(self._t)

    def add(self, t: float, value: float | None, e: float | None = None) -> None:
        """Add one sample; None is a stretch without a valid value."""
        if not math.isfinite(t):
            return
        v = math.nan if value is None or not math.isfinite(value) else value
        cell = math.floor(t / self._width_s)
        at = len(self._cell)
        if at and cell <= self._cell[-1]:
            at = bisect_left(self._cell, cell)
        if at < len(self._cell) and self._cell[at] == cell:
            self._merge(at, t, v, e)
        else:
            self._insert(at, cell, t, v, e)
            while len(self._cell) > self._most:  # one doubling need not bring any two together
                self._coarsen()

    def columns(self) -> Columns:
        """Return times, values, and smallest and largest, each with one entry per point."""
        return self._t, self._v, self._lo, self._hi

    def error_column(self) -> array[float] | None:
        """Return the errors, None where none was ever given."""
        return self._e if self.errors else None

    def _insert(self, at: int, cell: int, t: float, v: float, e: float | None) -> None:
        self.errors = self.errors or e is not None
        row = (t, v, v, v, math.nan if e is None else e)
        self._cell.insert(at, cell)
        for column, one in zip((self._t, self._v, self._lo, self._hi, self._e), row, strict=True):
            column.insert(at, one)

    def _merge(self, at: int, t: float, v: float, e: float | None) -> None:
        if math.isnan(v):
            return  # a cell with any value has one
        if math.isnan(self._v[at]):
            self._t[at], self._v[at], self._lo[at], self._hi[at] = t, v, v, v
        else:
            self._lo[at], self._hi[at] = min(self._lo[at], v), max(self._hi[at], v)
            if t < self._t[at]:
                return
            self._t[at], self._v[at] = t, v
        if e is not None:
            self._e[at], self.errors = e, True

    def _coarsen(self) -> None:
        """Join cells two by two."""
        rows = list(zip(self._t, self._v, self._lo, self._hi, self._e, strict=True))
        self._width_s *= 2.0
        for column in (self._cell, self._t, self._v, self._lo, self._hi, self._e):
            del column[:]
        for t, v, lo, hi, e in rows:
            cell = math.floor(t / self._width_s)
            error = None if math.isnan(e) else e
            if not self._cell or self._cell[-1] != cell:
                self._insert(len(self._cell), cell, t, v, error)
            else:
                self._merge(len(self._cell) - 1, t, v, error)
            if not math.isnan(v):
                self._lo[-1], self._hi[-1] = min(self._lo[-1], lo), max(self._hi[-1], hi)


class History:
    """All series of a run."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}

    def add(self, name: str, t: float, value: float | None, e: float | None = None, unit: str = "") -> bool:
        """Add one sample; return whether there is room for its series."""
        series = self.series.get(name)
        if series is None:
            if len(self.series) >= MOST_SERIES:
                return False
            series = self.series[name] = Series(unit)
        series.unit = unit or series.unit
        series.add(t, value, e)
        return True

    def clear(self) -> None:
        """Forget everything: another run."""
        self.series.clear()

    def __iter__(self) -> Iterator[tuple[str, Series]]:
        return iter(sorted(self.series.items()))
