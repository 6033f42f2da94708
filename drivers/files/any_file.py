"""Choosing the reader: by the first bytes where the format has a mark, never by the name alone."""

from __future__ import annotations

from pathlib import Path

from drivers.files import aps_mca, geopixe, npz_map, ortec_lis, ortec_spe
from drivers.files.bounded import file_size
from drivers.files.errors import FileError
from drivers.files.recordings import Recording

MAX_BYTES = 64 << 30
FORMATS = ".Spe (ORTEC ASCII), .Lis (ORTEC list mode), .mca (APS), .GeoPIXE, .npz"


def read(path: Path) -> Recording:
    """Read a recording of any known format. Raises FileError."""
    file_size(path, MAX_BYTES)
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if head.startswith(b"PK\x03\x04"):
        return npz_map.read(path)
    if head[:4] == b"\xf3\xff\xff\xff":
        return ortec_lis.read(path)
    if b"{" in head[2:4] or path.suffix.lower() == ".geopixe":
        return geopixe.read(path)
    text = head.lstrip()
    if text.startswith(b"$"):
        return [ortec_spe.read(path)]
    if text.startswith(b"VERSION:"):
        return aps_mca.read(path)
    raise FileError(path, "byte 0", f"a recording: {FORMATS}", token=head[:16])
