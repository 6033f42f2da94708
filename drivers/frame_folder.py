"""A camera whose software writes images into a folder: TIFF (or FITS) one by one, or growing HDF5 files.

The folder may be on a network file system: no notifications, late and repeated files, hangs. It is listed by
a process of its own (``frame_worker``, ``frame_watch``, ``frame_hdf5``); control never touches it.
"""

from __future__ import annotations

from typing import Any

from drivers.frame_process import FrameProcess


class FrameFolder(FrameProcess):
    """A watched folder.

    Settings: those of ``FrameProcess``, ``files``, ``settle_s``, ``patience_s``, ``delay_s``, and optionally
    ``number`` (regular expression), ``dataset`` and ``numbers`` (HDF5 paths).
    """

    def told(self) -> dict[str, Any]:
        """Return what the process is told; wall seconds."""
        own = self._settings
        hold_s = (own["exposure_s"] + own["delay_s"]) / self._clock.speed
        return {
            **super().told(), "kind": "folder", "folder": self._line.where, "files": own["files"],
            "number": own.get("number", ""), "dataset": own.get("dataset", ""),
            "numbers": own.get("numbers", ""), "settle_s": self.wall_s(own["settle_s"]),
            "patience_s": self.wall_s(own["patience_s"]), "hold_s": hold_s,
        }  # fmt: skip

    async def prepare(self) -> list[str]:
        """Start the process afresh; return what of this camera cannot be seen."""
        notes = await super().prepare()
        notes.append(
            f"{self.name}: the time of an image is when its file was last changed, by the clock of the file "
            "server; which exposure it belongs to is decided by when it was first seen here"
        )
        if self._settings.get("dataset") and not self._settings.get("numbers"):
            notes.append(f"{self.name}: without numbers from the detector a lost image cannot be seen")
        return notes
