"""A bench that many tests of whole runs share: it goes on, as a real one would, and is mended in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hil_tests.harness import World, warm_scenario

LAB_SPEED = 10.0  # the fastest at which trip times are claimed


@pytest.fixture(scope="session")
def _shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[World]]:
    benches: list[World] = []  # one, or none
    yield benches
    for bench in benches:
        bench.stop()


@pytest.fixture
def world(_shared_bench: list[World], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The shared bench: a warm room, ten lab seconds a second, nothing wrong with it."""
    if not _shared_bench:
        folder: Path = tmp_path_factory.mktemp("bench")
        _shared_bench.append(
            World.start(folder, speed=LAB_SPEED, seed=11, scenario=warm_scenario(folder / "warm.toml"))
        )
    bench = _shared_bench[-1]
    bench.mend()
    yield bench
    if bench.spent or bench.process.poll() is not None:
        _shared_bench.remove(bench)
        bench.stop()
    else:
        bench.mend()
