"""The helper that looks at HDF5 files first: good ones pass, one that hangs or kills it is a clear error."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from drivers.files import hdf5_safe, hdf5_vet
from drivers.files.errors import FileError
from tests.data_sets import CLONED


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a/b", data=np.arange(6).reshape(2, 3), chunks=(1, 3), compression="gzip")
        file["a"].attrs["name"] = "text"
    return path


def test_good_files_pass_and_the_helper_serves_them_all(good):
    hdf5_vet.vet(good)
    helper = hdf5_vet._Vet.helper
    began = time.monotonic()
    for _ in range(20):
        hdf5_vet.vet(good)
    assert hdf5_vet._Vet.helper is helper
    assert time.monotonic() - began < 10
    with hdf5_safe.opened(good) as file:
        assert file["a/b"][1, 2] == 5


def test_a_file_that_hangs_the_library_is_refused_and_the_next_one_is_read(good, monkeypatch):
    """Found by fuzzing: a text attribute whose heap is broken; HDF5 2.0.0 never returns from reading it."""
    monkeypatch.setattr(hdf5_vet, "LIMIT_S", 0.2)
    monkeypatch.setattr(hdf5_vet, "WALK_S", 1.0)
    path = CLONED / "fuzz" / "hdf5-map" / "hang-in-attribute"
    with pytest.raises(FileError, match="hangs or crashes"), hdf5_safe.opened(path):
        pass
    monkeypatch.undo()
    hdf5_vet.vet(good)


def test_a_helper_that_was_killed_is_no_fault_of_the_file(good):
    hdf5_vet.vet(good)
    helper = hdf5_vet._Vet.helper
    assert helper is not None
    os.kill(helper._process.pid, signal.SIGKILL)
    hdf5_vet.vet(good)
    assert hdf5_vet._Vet.helper is not helper


def test_a_file_that_kills_every_helper_is_refused(good, monkeypatch):
    """No such file is at hand: the helper is told to die of any."""
    monkeypatch.setattr(hdf5_vet, "COMMAND", [sys.executable, "-c", "print('ok', flush=True); input()"])
    hdf5_vet._end()
    with pytest.raises(FileError, match="hangs or crashes"):
        hdf5_vet.vet(good)
    monkeypatch.undo()
    hdf5_vet.vet(good)
