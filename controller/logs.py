"""Keeps the logs of a run in bounds: what a process says too much of loses its oldest part.

Every process of the host appends to its own file in the run's ``logs``, which the supervisor opened for it.
So a log is turned over by copying it and emptying it in place: the process goes on writing into the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

LIMIT_BYTES = 4 << 20  # of each; with the one before it, 8 MB for a process, 50 MB for a run at the very most


def bound_logs(folder: Path, limit_bytes: int = LIMIT_BYTES) -> list[str]:
    """Turn over every log above the limit: NAME.log to NAME.log.1, which replaces an older one.

    Args:
        folder: of the logs; nothing happens when there is none.
        limit_bytes: above which a log is turned over.

    Returns: the names of those. A disk that is full leaves a log as it is, but emptied all the same.
    """
    turned = []
    for path in sorted(folder.glob("*.log")):
        with contextlib.suppress(OSError):
            if path.stat().st_size <= limit_bytes:
                continue
            try:
                _keep_end(path, path.with_name(path.name + ".1"), limit_bytes)
            finally:
                os.truncate(path, 0)
                turned.append(path.name)
    return turned


def _keep_end(path: Path, to: Path, limit_bytes: int) -> None:
    """Copy the last part of a log: one that grew fast may be far above the limit."""
    with path.open("rb") as source, to.open("wb") as target:
        os.chmod(to, 0o600)
        source.seek(max(path.stat().st_size - limit_bytes, 0))
        shutil.copyfileobj(source, target)
