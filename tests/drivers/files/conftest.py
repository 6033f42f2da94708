"""A file to write to, and Hypothesis without a deadline (disks are slow now and then)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "files", deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("files")


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes bytes to a file and returns its path."""

    def write(data: bytes, name: str = "file.bin") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write
