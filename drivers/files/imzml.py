"""imzML: mass spectra on a raster (ToF-SIMS, MALDI), an XML file beside a binary ``.ibd`` (pyimzML).

The XML is screened before it is parsed: no entities of its own (they can grow without limit), a bounded size.
Each spectrum's place in the ``.ibd`` is checked against the size of that file before anything is read.
Format: Schramm et al., J. Proteomics 75 (2012) 5106.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.recordings_images import MassSpectrum, RecordedMassMap
from drivers.files.tiff_stack import DECODER_ERRORS

MAX_XML_BYTES = 1 << 30
MAX_BINARY_BYTES = 1 << 41
MAX_SPECTRA = 1 << 24
MAX_VALUES = 1 << 24  # in one spectrum
MAX_SIDE = 1 << 16
DTYPES = {"f": "<f4", "d": "<f8", "i": "<i4", "l": "<i8"}
PIECE_BYTES = 1 << 20


def read(path: Path) -> RecordedMassMap:
    """Read the index of the spectra; the spectra stay in the ``.ibd`` file. Raises FileError."""
    file_size(path, MAX_XML_BYTES)
    _screen(path)
    parser = _parse(path)
    binary = _binary(path)
    size = file_size(binary, MAX_BINARY_BYTES)
    types = _types(path, parser)
    table = _table(path, parser)
    step = [np.dtype(kind).itemsize for kind in types]
    for k, name in enumerate(("m/z", "intensity")):
        offset, length = table[:, 2 + 2 * k], table[:, 3 + 2 * k]
        if (offset < 0).any() or (length < 0).any() or (length > MAX_VALUES).any():
            raise FileError(path, f"{name} arrays", f"0 to {MAX_VALUES} values at places in the .ibd file")
        if (offset + length * step[k] > size).any():
            raise FileError(
                binary, "", f"the {name} arrays that {path.name} names", f"{size} bytes (truncated)"
            )
    if not np.array_equal(table[:, 3], table[:, 5]):
        raise FileError(path, "spectra", "as many m/z values as intensities")
    x, y = table[:, 0] - table[:, 0].min(), table[:, 1] - table[:, 1].min()
    nx, ny = int(x.max()) + 1, int(y.max()) + 1
    if nx > MAX_SIDE or ny > MAX_SIDE or nx * ny > MAX_SPECTRA:
        raise FileError(path, "positions", f"a raster of at most {MAX_SPECTRA} pixels", f"{nx} x {ny}")
    pixel = y * nx + x
    if np.unique(pixel).size != pixel.size:
        raise FileError(path, "positions", "one spectrum per pixel (no depth profiles)")

    def spectra() -> Iterator[MassSpectrum]:
        return _spectra(binary, pixel, table, types)

    return RecordedMassMap(path, nx, ny, len(pixel), int(table[:, 3].sum()), spectra, _pitch(parser))


def _screen(path: Path) -> None:
    """Refuse a document type declaration: imzML has none, and entities could expand without limit."""
    last = b""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            both = last + piece
            if b"\0" in piece or b"<!DOCTYPE" in both or b"<!ENTITY" in both:
                raise FileError(path, "", "plain XML without a document type or entities")
            last = piece[-16:]


def _parse(path: Path) -> Any:
    try:
        from pyimzml.ImzMLParser import ImzMLParser
    except ImportError as error:
        raise FileError(path, "", "the package pyimzml: pip install operando[maps]") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd numbers in fields that are not used here
            return ImzMLParser(str(path), parse_lib="ElementTree", ibd_file=None)
    except DECODER_ERRORS as error:
        raise FileError(path, "", "a whole imzML file", f"{type(error).__name__}: {error}") from error


def _binary(path: Path) -> Path:
    for suffix in (".ibd", ".IBD", ".Ibd"):
        if path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix)
    raise FileError(path, "", f"the binary file {path.with_suffix('.ibd').name} beside it")


def _types(path: Path, parser: Any) -> tuple[str, str]:
    kinds = (parser.mzPrecision, parser.intensityPrecision)
    if kinds[0] not in DTYPES or kinds[1] not in DTYPES:
        raise FileError(path, "referenceableParamGroup", "the number formats of m/z and intensity", kinds)
    groups = parser.metadata.referenceable_param_groups.values()
    if any("zlib compression" in group.param_by_name for group in groups):
        raise FileError(path, "referenceableParamGroup", "arrays without compression", "zlib compression")
    return DTYPES[kinds[0]], DTYPES[kinds[1]]


def _table(path: Path, parser: Any) -> NDArray[np.int64]:
    """Return x, y, m/z offset, m/z length, intensity offset, intensity length per spectrum."""
    if not parser.coordinates or len(parser.coordinates) > MAX_SPECTRA:
        raise FileError(path, "spectrumList", f"1 to {MAX_SPECTRA} spectra", len(parser.coordinates))
    columns = (
        [c[0] for c in parser.coordinates], [c[1] for c in parser.coordinates], parser.mzOffsets,
        parser.mzLengths, parser.intensityOffsets, parser.intensityLengths,
    )  # fmt: skip
    try:
        table = np.array(columns, dtype=np.int64).T
    except (OverflowError, ValueError) as error:
        raise FileError(path, "spectrumList", "positions and offsets of at most 64 bits") from error
    if np.abs(table).max() > 1 << 60:
        raise FileError(path, "spectrumList", "positions and offsets that a file can have")
    return table


def _spectra(
    binary: Path, pixel: NDArray[np.int64], table: NDArray[np.int64], types: tuple[str, str]
) -> Iterator[MassSpectrum]:
    try:
        with binary.open("rb") as file:
            for k, place in enumerate(pixel):
                arrays = []
                for kind, (offset, length) in zip(types, table[k, 2:].reshape(2, 2), strict=True):
                    file.seek(int(offset))
                    raw = file.read(int(length) * np.dtype(kind).itemsize)
                    arrays.append(np.frombuffer(raw, kind).astype(np.float64))
                mass, intensity = arrays
                if mass.size != intensity.size or not (
                    np.isfinite(mass).all() and np.isfinite(intensity).all()
                ):
                    raise FileError(binary, f"spectrum {k}", "finite numbers to the end of the file")
                yield MassSpectrum(int(place), mass, intensity)
    except (OSError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(binary, "", "a whole .ibd file", str(error)) from error


def _pitch(parser: Any) -> tuple[float, float] | None:
    """Return the pixel size along y and x in µm (the unit that the format prescribes)."""
    x = parser.imzmldict.get("pixel size x")
    y = parser.imzmldict.get("pixel size y", x)
    good = all(isinstance(v, int | float) and np.isfinite(v) and v > 0 for v in (x, y))
    return (float(y), float(x)) if good else None
