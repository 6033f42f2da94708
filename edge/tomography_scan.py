"""A tomographic scan as it comes: projections, flats, darks in any order and parts, to sinograms and slices.

``TomographyReducer`` keeps some rows of the detector and nothing else. Flats and darks are sums of integers;
projections stay as they were recorded, known by their angle. So parts of a scan, merged in any order, give
the same bits as the scan in one piece, and it does not matter whether projections come from a camera one by
one or from a file in blocks.

Memory: rows x columns x (bytes of a pixel as recorded x projections + 16), and one sinogram while a slice is
made. ``rows_at_once`` says how many rows fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge import tomography
from edge.tomography import Centre, Image, Sinogram
from edge.uncertainty import Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Pixels = NDArray[Any]

MAX_HELD_BYTES = 2 << 30
MAX_REFERENCES = 4096  # flats, and darks, of all parts together
FIXED_BITS = 24  # a reference is counted in 2^-24: whole counts and float32 above 1 are exact
MAX_COUNTS = 1 << 26  # of a pixel; MAX_REFERENCES of them fit 63 bits
CENTRE_ROWS = 5  # at most, of which the axis is found


@dataclass(frozen=True)
class SliceRules:
    """How a sinogram becomes a slice.

    Attributes:
        centre_px: axis of rotation, None: found.
        method: "fbp" or "dfi".
        rings: "all", "sorting" or "none".
        zinger: threshold in units of the noise, 0 leaves all.
    """

    centre_px: float | None = None
    method: str = "fbp"
    rings: str = "all"
    zinger: float = tomography.ZINGER_SIGMA


@dataclass(frozen=True)
class Slab:
    """Some rows of a whole scan, projections in the order of their angles.

    Attributes:
        rows: numbers of the detector rows, rising.
        angles_deg: rising, shape (n,).
        flat, dark: means, shape (rows, columns), counts.
        images: per angle (rows, columns), as recorded; shared with the reducer, not to be changed.
    """

    rows: tuple[int, ...]
    angles_deg: Floats
    flat: Floats
    dark: Floats
    images: tuple[Pixels, ...]
    n_flats: int
    n_darks: int

    @property
    def double(self) -> bool:
        """Whether it is a full turn: a double field of view."""
        return tomography.is_double_field(self.angles_deg)

    def sinogram(self, row: int, zinger: float = tomography.ZINGER_SIGMA) -> Sinogram:
        """Return the transmission of one detector row, see ``tomography.sinogram``.

        Raises:
            ValueError: if the row is not among ``rows``, or a column has no light.
        """
        if row not in self.rows:
            raise ValueError(f"row {row} is not among the rows that were kept")
        k = self.rows.index(row)
        projections = np.stack([image[k] for image in self.images])
        return tomography.transmitted(projections, self.flat[k], self.dark[k], zinger)

    def centre(self, rules: SliceRules, rows: Sequence[int] | None = None) -> Centre:
        """Return the axis of rotation of these rows, or the one that was given.

        Raises:
            ValueError: as ``tomography.centre_of_half_turn``.
        """
        if rules.centre_px is not None:
            return Centre(Estimate(rules.centre_px, 0.0, 0.0, "px"), {"given": rules.centre_px})
        sample = [self.sinogram(row, rules.zinger) for row in rows or centre_rows(self.rows)]
        if self.double:
            return tomography.centre_of_full_turn([one.transmission for one in sample])
        return tomography.centre_of_half_turn([one.absorbance for one in sample], self.angles_deg)

    def slice(self, one: Sinogram, centre: Centre, rules: SliceRules) -> Image:
        """Return the slice of a sinogram, attenuation per pixel, see ``tomography.reconstruct``.

        Raises:
            ValueError: as ``tomography.reconstruct``.
        """
        angles, axis, absorbance = self.angles_deg, centre.estimate.value, one.absorbance
        if self.double:
            wide, angles, axis = tomography.joined(one.transmission, angles, axis)
            absorbance = np.asarray(-np.log(np.maximum(wide, tomography.FLOOR)), np.float32)
        clean = tomography.without_rings(absorbance, rules.rings)
        return tomography.reconstruct(clean, angles, axis, rules.method)


class TomographyReducer:
    """Streaming reducer of a scan: ``add``, ``add_flats``, ``add_darks``, ``merge``, ``result``."""

    def __init__(self, rows: Sequence[int], n_columns: int, limit_bytes: int = MAX_HELD_BYTES) -> None:
        """Start empty.

        Args:
            rows: numbers of the detector rows that are kept, rising.
            n_columns: pixels of a row.
            limit_bytes: of the projections held; more are refused.

        Raises:
            ValueError: if there are no rows or columns, or the rows do not rise.
        """
        if not rows or n_columns < 1 or rows[0] < 0 or any(b <= a for a, b in pairwise(rows)):
            raise ValueError("a scan needs columns, and rows that rise from 0")
        self.rows, self.n_columns, self.limit_bytes = tuple(rows), n_columns, limit_bytes
        self.held_bytes = 0
        self._images: dict[float, Pixels] = {}
        self._flats = _Mean.empty(len(self.rows), n_columns)
        self._darks = _Mean.empty(len(self.rows), n_columns)

    @property
    def n_projections(self) -> int:
        """How many projections there are so far."""
        return len(self._images)

    def add(self, projections: ArrayLike, angles_deg: ArrayLike) -> None:
        """Add projections (n, rows, columns) with their angles (n,), in any order; one alone without n.

        Raises:
            ValueError: if shapes or numbers are wrong, an angle is there already, or the memory is used up;
                then nothing was added.
        """
        images = self._checked(projections)
        angles = [float(angle) for angle in np.atleast_1d(np.asarray(angles_deg, np.float64))]
        if len(angles) != images.shape[0] or not np.isfinite(angles).all():
            raise ValueError(f"{images.shape[0]} projections need as many angles, got {len(angles)}")
        twice = [angle for angle in angles if angle in self._images]
        if twice or len(set(angles)) != len(angles):
            raise ValueError(f"two projections at the same angle ({(twice or angles)[0]:g} degrees)")
        self._hold(images.nbytes)
        own = images.copy()  # never the whole frame, nor a buffer that a camera writes into again
        self._images |= dict(zip(angles, own, strict=True))

    def add_flats(self, images: ArrayLike) -> None:
        """Add open beams, (n, rows, columns) or one. Raises ValueError, then nothing was added."""
        self._flats.add(self._checked(images))

    def add_darks(self, images: ArrayLike) -> None:
        """Add images without beam, (n, rows, columns) or one. Raises ValueError, then nothing was added."""
        self._darks.add(self._checked(images))

    def merge(self, other: TomographyReducer) -> None:
        """Take over another part of the scan; the parts may come in any order.

        Raises:
            ValueError: if it has other rows or columns, a projection at an angle that is there already, or
                more than fits; then nothing was merged.
        """
        if other.rows != self.rows or other.n_columns != self.n_columns:
            raise ValueError("two parts of a scan must have the same rows and columns")
        both = self._images.keys() & other._images.keys()
        if both:
            raise ValueError(f"two parts of a scan both have a projection at {min(both):g} degrees")
        for mine, theirs in ((self._flats, other._flats), (self._darks, other._darks)):
            mine.check(theirs.number)
        self._hold(other.held_bytes)
        self._flats.merge(other._flats)
        self._darks.merge(other._darks)
        self._images |= other._images

    def result(self) -> Slab:
        """Return what came so far in the order of the angles; more may be added afterwards.

        Raises:
            ValueError: with fewer than two projections, without flats or without darks.
        """
        if len(self._images) < 2:
            raise ValueError(f"{len(self._images)} projections are no scan")
        missing = [name for name, mean in (("flats", self._flats), ("darks", self._darks)) if not mean.number]
        if missing:
            raise ValueError(f"the scan has no {' and no '.join(missing)}")
        angles = sorted(self._images)
        return Slab(
            self.rows, np.array(angles), self._flats.mean(), self._darks.mean(),
            tuple(self._images[angle] for angle in angles), self._flats.number, self._darks.number,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return the sums as plain arrays, for ``restored``."""
        angles = sorted(self._images)
        shape = (0, len(self.rows), self.n_columns)
        images = np.stack([self._images[angle] for angle in angles]) if angles else np.zeros(shape, np.uint8)
        return {
            "rows": np.array(self.rows), "columns": self.n_columns, "angles_deg": np.array(angles),
            "images": images, "flats": self._flats.total, "n_flats": self._flats.number,
            "darks": self._darks.total, "n_darks": self._darks.number,
        }  # fmt: skip

    @classmethod
    def restored(cls, state: Mapping[str, Any], limit_bytes: int = MAX_HELD_BYTES) -> TomographyReducer:
        """Return the reducer that ``state`` came from. Raises ValueError."""
        found = cls([int(row) for row in state["rows"]], int(state["columns"]), limit_bytes)
        if len(state["angles_deg"]):
            found.add(state["images"], state["angles_deg"])
        found._flats = _Mean(np.array(state["flats"], np.int64), int(state["n_flats"]))
        found._darks = _Mean(np.array(state["darks"], np.int64), int(state["n_darks"]))
        return found

    def _checked(self, images: ArrayLike) -> Pixels:
        """Return images as (n, rows, columns) of a type that is kept."""
        given = np.asarray(images)
        if given.ndim == 2:
            given = given[None]
        if given.shape[1:] != (len(self.rows), self.n_columns):
            raise ValueError(f"images of {given.shape} do not fit {len(self.rows)} rows of {self.n_columns}")
        if given.dtype.kind not in "uif" or (given.dtype.kind != "f" and given.dtype.itemsize > 4):
            raise ValueError(f"counts are whole numbers of up to 32 bits or floats, not {given.dtype}")
        kept = np.dtype(np.float32) if given.dtype.kind == "f" else given.dtype.newbyteorder("=")
        given = given.astype(kept, copy=False)
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise ValueError("counts must be finite")
        return given

    def _hold(self, size: int) -> None:
        if self.held_bytes + size > self.limit_bytes:
            raise ValueError(
                f"{len(self.rows)} rows of these projections need more than {self.limit_bytes} bytes: "
                "ask for fewer rows"
            )
        self.held_bytes += size


@dataclass
class _Mean:
    """A mean of images as an integer sum in units of 2^-24."""

    total: Integers
    number: int = 0

    @classmethod
    def empty(cls, rows: int, columns: int) -> _Mean:
        return cls(np.zeros((rows, columns), np.int64))

    def check(self, more: int) -> None:
        if self.number + more > MAX_REFERENCES:
            raise ValueError(f"more than {MAX_REFERENCES} flats or darks")

    def add(self, images: Pixels) -> None:
        self.check(images.shape[0])
        if images.size and float(np.abs(images.astype(np.float64)).max()) > MAX_COUNTS:
            raise ValueError(f"a pixel of a flat or dark is above {MAX_COUNTS} counts")
        for image in images:
            self.total += np.rint(np.ldexp(image.astype(np.float64), FIXED_BITS)).astype(np.int64)
        self.number += images.shape[0]

    def merge(self, other: _Mean) -> None:
        self.total += other.total
        self.number += other.number

    def mean(self) -> Floats:
        return np.asarray(np.ldexp(self.total.astype(np.float64), -FIXED_BITS) / self.number, np.float64)


def centre_rows(rows: Sequence[int]) -> tuple[int, ...]:
    """Return up to ``CENTRE_ROWS`` of the rows, spread: of these the axis is found."""
    if len(rows) <= CENTRE_ROWS:
        return tuple(rows)
    return tuple(rows[:: max(1, len(rows) // CENTRE_ROWS)][:CENTRE_ROWS])


def rows_at_once(n_angles: int, n_columns: int, pixel_bytes: int, budget_bytes: int) -> int:
    """Return how many rows a reducer may keep so that its projections stay within a budget; at least one."""
    return max(1, budget_bytes // max(1, n_angles * n_columns * pixel_bytes))
