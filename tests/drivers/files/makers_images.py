"""Writers of tomograms, volumes and maps for tests, by the libraries that own the formats."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def hdf5(**datasets: Any) -> bytes:
    """Return an HDF5 file; "exchange__data" is /exchange/data."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values
    return buffer.getvalue()


def tomogram(angles: int = 5, rows: int = 2, columns: int = 6, **changes: Any) -> bytes:
    """Return an APS data exchange file."""
    rng = np.random.default_rng(1)
    parts = {
        "exchange__data": rng.integers(100, 900, (angles, rows, columns)).astype("u2"),
        "exchange__data_white": np.full((3, rows, columns), 1000, "u2"),
        "exchange__data_dark": np.full((2, rows, columns), 50, "u2"),
        "exchange__theta": np.linspace(0.0, 144.0, angles),
    } | changes
    return hdf5(**{name: value for name, value in parts.items() if value is not None})


def nxdata(counts: np.ndarray, energy: np.ndarray | None = None) -> bytes:
    """Return a NeXus file with one NXdata."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["NX_class"], entry.attrs["default"] = "NXentry", "map"
        group = entry.create_group("map")
        group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "counts"
        group["counts"] = counts
        if energy is not None:
            group["energy"] = energy
            group["energy"].attrs["units"] = "keV"
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def imzml(path: Path, spectra: dict[tuple[int, int], list[tuple[float, int]]]) -> Path:
    """Write an imzML file with its .ibd, in the processed layout, from the published format description."""
    binary, entries = bytearray(b"\0" * 16), []
    for number, ((x, y), peaks) in enumerate(spectra.items(), 1):
        places = []
        for column, code in ((0, "d"), (1, "f")):
            places.append(len(binary))
            binary += struct.pack(f"<{len(peaks)}{code}", *(peak[column] for peak in peaks))
        arrays = "".join(
            f'<binaryDataArray encodedLength="0"><referenceableParamGroupRef ref="{ref}"/>'
            f'<cvParam cvRef="IMS" accession="IMS:1000102" name="external offset" value="{place}"/>'
            '<cvParam cvRef="IMS" accession="IMS:1000103" name="external array length" '
            f'value="{len(peaks)}"/>'
            "<binary/></binaryDataArray>"
            for ref, place in zip(("mz", "int"), places, strict=True)
        )
        entries.append(
            f'<spectrum id="s{number}" index="{number}" defaultArrayLength="0"><scanList count="1"><scan>'
            f'<cvParam cvRef="IMS" accession="IMS:1000050" name="position x" value="{x}"/>'
            f'<cvParam cvRef="IMS" accession="IMS:1000051" name="position y" value="{y}"/>'
            f'</scan></scanList><binaryDataArrayList count="2">{arrays}</binaryDataArrayList></spectrum>'
        )
    group = (
        '<referenceableParamGroup id="{0}"><cvParam cvRef="MS" accession="{1}" name="{2}" value=""/>'
        '<cvParam cvRef="MS" accession="{3}" name="{4}" value=""/></referenceableParamGroup>'
    )
    text = (
        '<?xml version="1.0" encoding="ISO-8859-1"?><mzML xmlns="http://psi.hupo.org/ms/mzml" version="1.1">'
        '<fileDescription><fileContent/></fileDescription><referenceableParamGroupList count="2">'
        + group.format("mz", "MS:1000514", "m/z array", "MS:1000523", "64-bit float")
        + group.format("int", "MS:1000515", "intensity array", "MS:1000521", "32-bit float")
        + '</referenceableParamGroupList><scanSettingsList count="1"><scanSettings id="scan">'
        '<cvParam cvRef="IMS" accession="IMS:1000046" name="pixel size x" value="5"/>'
        '</scanSettings></scanSettingsList><instrumentConfigurationList count="1">'
        '<instrumentConfiguration id="i"/></instrumentConfigurationList><run id="r">'
        f'<spectrumList count="{len(entries)}">{"".join(entries)}</spectrumList></run></mzML>'
    )
    path.write_bytes(text.encode("latin-1"))
    path.with_suffix(".ibd").write_bytes(bytes(binary))
    return path
