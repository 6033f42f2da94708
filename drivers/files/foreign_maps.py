"""Choosing the reader of a map: EDS, micro-XRF, ToF-SIMS; by the first bytes where the format has a mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from drivers.files import geopixe, hdf5_map, hdf5_safe, imzml, npz_map, tiff_stack, vendor_maps
from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.npz_arrays import arrays_of
from drivers.files.recordings import RecordedMap
from drivers.files.recordings_images import RecordedImages, RecordedMassMap

MAX_PIXELS = 1 << 24
FORMATS = (
    ".npz (spectra, events or named maps), .GeoPIXE, HDF5 (NXdata or --dataset), TIFF stack, "
    ".imzML, and with the extra vendor-maps .bcf and .pts"
)
ForeignMap = RecordedMap | RecordedImages | RecordedMassMap


def read(path: Path, dataset: str | None = None, axes: str | None = None) -> ForeignMap:
    """Read a map of any known format. ``dataset`` and ``axes`` are for HDF5 only. Raises FileError."""
    file_size(path, hdf5_safe.MAX_BYTES)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if head.startswith(hdf5_safe.MARK):
        return hdf5_map.read(path, dataset, axes)
    if dataset or axes:
        raise FileError(path, "", "an HDF5 file, since --dataset or --axes is given")
    suffix = path.suffix.lower()
    if suffix in vendor_maps.MARKS:
        return vendor_maps.read(path)
    if suffix == ".imzml":
        return imzml.read(path)
    if head.startswith(b"PK\x03\x04"):
        return _npz(path)
    if head[:4] in tiff_stack.MARKS:
        return tiff_stack.read(path)
    if b"{" in head[2:4] or suffix == ".geopixe":
        return geopixe.read(path)
    raise FileError(path, "byte 0", f"a map: {FORMATS}", token=head[:16])


def _npz(path: Path) -> RecordedMap | RecordedImages:
    """Read spectra or events where their names are there, else arrays of two dimensions and one shape."""
    arrays = arrays_of(path)
    if "counts" in arrays or {"y", "x", "channel"} <= set(arrays):
        return npz_map.read(path)
    planes = {name: array for name, array in arrays.items() if array.ndim == 2}
    shapes = {array.shape for array in planes.values()}
    if len(shapes) != 1:
        raise FileError(path, "", "counts[y, x, channel], events, or maps of one shape", ", ".join(arrays))
    ((ny, nx),) = shapes
    if not 0 < ny * nx <= MAX_PIXELS:
        raise FileError(path, "", f"1 to {MAX_PIXELS} pixels", f"{ny} x {nx}")
    names = tuple(planes)
    first = planes[names[0]]

    def plane(number: int) -> NDArray[Any]:
        return planes[names[number]]

    return RecordedImages(path, names, ny, nx, first.dtype, plane)
