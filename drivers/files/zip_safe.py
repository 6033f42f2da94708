"""Opening a zip archive that may be broken or hostile: whatever goes wrong in it is one FileError."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drivers.files.bounded import file_size
from drivers.files.errors import FileError

MAX_BYTES = 1 << 30
ERRORS = (  # all that the standard library was seen to raise on hostile archives, while opening and reading
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
    OSError, ValueError, IndexError, OverflowError, MemoryError,
)  # fmt: skip


@contextmanager
def opened(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[zipfile.ZipFile]:
    """Open an archive for reading; errors of the body that come from the archive become FileError, too."""
    file_size(path, max_bytes)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileError:
        raise
    except ERRORS as error:
        raise FileError(path, "", "a whole .npz archive", f"{type(error).__name__}: {error}") from error
