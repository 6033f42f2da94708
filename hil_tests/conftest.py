"""A bench that many tests of whole runs share: it goes on, as a real one would, and is mended in between."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil_tests.harness import World, warm_scenario

LAB_SPEED = 10.0  # the fastest at which trip times are claimed
ACCEPTANCE = Path(__file__).parent / "acceptance"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the acceptance test; with --station nothing else is collected."""
    add = parser.getgroup("acceptance", "acceptance test of real instruments").addoption
    add("--station", type=_file, metavar="FILE", help="the station file; only acceptance tests run then")
    add("--allow-energise", action="store_true", help="heat by 2 K, drive the dummy load, scan a closed beam")
    add("--dummy", type=_dummy, metavar="TEXT", help='as "100 kohm, 0.25 W, 1 %%": resistor instead of cell')
    add("--operator", metavar="NAME", help="who stands at the station (default: who is logged in)")
    add("--report", type=Path, metavar="FILE", help="default acceptance-STATION-TIME.html")
    add("--trace-wire", type=Path, metavar="FILE", help="record every byte on every wire")
    add("--state", type=Path, metavar="DIR", help="state directory of the station, for its lock")


def pytest_configure(config: pytest.Config) -> None:
    """With --station: the station is looked at, and locked, before anything is collected."""
    if config.getoption("--station", default=None) is not None:
        from hil_tests.acceptance.session import begin

        begin(config)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --station only the acceptance tests."""
    if config.getoption("--station", default=None) is None or collection_path.is_relative_to(ACCEPTANCE):
        return None
    return not ACCEPTANCE.is_relative_to(collection_path)


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is not there")
    return Path(text).absolute()


def _dummy(text: str) -> object:
    from controller.config.acceptance import Dummy

    try:
        resistance, power, tolerance = (part.strip() for part in text.split(","))
        return Dummy.model_validate({"resistance": resistance, "power": power, "tolerance": tolerance})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is not like "100 kohm, 0.25 W, 1 %": {error}') from error


@pytest.fixture(scope="session")
def _shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[World]]:
    benches: list[World] = []  # one, or none
    yield benches
    for bench in benches:
        bench.stop()


def shared_world(benches: list[World], tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return the shared bench, started if need be."""
    if not benches:
        folder: Path = tmp_path_factory.mktemp("bench")
        scenario = warm_scenario(folder / "warm.toml")
        benches.append(World.start(folder, speed=LAB_SPEED, seed=11, scenario=scenario))
    return benches[-1]


@pytest.fixture
def world(_shared_bench: list[World], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The shared bench: a warm room, ten lab seconds a second, nothing wrong with it."""
    bench = shared_world(_shared_bench, tmp_path_factory)
    bench.mend()
    yield bench
    if bench.spent or bench.process.poll() is not None:
        _shared_bench.remove(bench)
        bench.stop()
    else:
        bench.mend()
