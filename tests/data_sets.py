"""Finding measured data: in the clone (tests/data), else under OPERANDO_DATA (default ../shared/data).

A reference value whose data are not there is not passed over in silence: ``need`` skips the test with a
reason that tests/conftest.py prints at the end under "reference values not run".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CLONED = ROOT / "tests" / "data"
NOT_RUN = "reference values not run: "


def outside() -> Path:
    """Return the folder of the data that are not in the clone."""
    return Path(os.environ.get("OPERANDO_DATA") or ROOT.parent / "shared" / "data")


def find(name: str) -> Path | None:
    """Return a data file such as "gamma/soil_be7_ucb009.Spe", or None."""
    for folder in (CLONED, outside()):
        if (folder / name).is_file():
            return folder / name
    return None


def need(name: str, values: str, why: str = "the file is not in the clone") -> Path:
    """Return a data file; without it skip the test and report which values were not checked."""
    path = find(name)
    if path is None:
        pytest.skip(f"{NOT_RUN}{values} ({name}): {why} and {outside()} does not hold it; set OPERANDO_DATA")
    return path


GPL = "GPL-3.0 data are not copied into this repository"


def reference(folder: str) -> dict[str, Any]:
    """Return the reference values of a folder (kept in the clone)."""
    return dict(json.loads((CLONED / folder / "reference.json").read_text()))
