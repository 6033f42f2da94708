"""Brings the station to the tests, and the results into the report."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.config.acceptance import Dummy
from hil_tests.acceptance import subject as subjects
from hil_tests.acceptance.report import Row, write
from hil_tests.acceptance.session import ASKED, MEASURE, OPEN, report
from hil_tests.acceptance.subject import ABSENT, Asked, Measure, Subject
from hil_tests.harness import World

BENCH_DUMMY_OHM = 100e3


ORDER = "identity", "heater", "cell", "beamline", "detectors", "stage"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who is there comes first; tests from elsewhere stay where they are."""
    names = [f"hil_tests/acceptance/test_{name}.py" for name in ORDER]
    places = [n for n, item in enumerate(items) if item.nodeid.partition("::")[0] in names]
    ours = sorted((items[n] for n in places), key=lambda item: names.index(item.nodeid.partition("::")[0]))
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def pytest_deselected(items: list[pytest.Item]) -> None:
    """What was left out with -k makes a report incomplete."""
    ours = [item for item in items if "hil_tests/acceptance/" in item.nodeid]
    if ours:
        rows = report(ours[0].config).rows
        rows.append(Row("Not chosen", f"{len(ours)} tests", "skip", reason="left out on the command line"))


@pytest.fixture(scope="module")
def asked(
    request: pytest.FixtureRequest, _shared_bench: list[World], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Asked]:
    """The station of the command line; without one, a virtual bench with a dummy resistor in it."""
    if ASKED in request.config.stash:
        yield request.config.stash[ASKED]
        return
    from hil_tests.conftest import shared_world

    world = shared_world(_shared_bench, tmp_path_factory)
    world.mend()
    world.put("cell.dummy_ohm", BENCH_DUMMY_OHM)
    dummy = Dummy.model_validate(
        {"resistance": f"{BENCH_DUMMY_OHM:g} ohm", "power": "0.25 W", "tolerance": "1 %"}
    )
    told = Asked(world.station, True, dummy, "make test", True)
    subjects.begin(report(request.config), told)
    yield told
    world.put("cell.dummy_ohm", 0.0)
    world.mend()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def subject(request: pytest.FixtureRequest, asked: Asked) -> AsyncIterator[Subject]:
    """The open instruments."""
    opened = await Subject.open(asked, report(request.config))
    yield opened
    await opened.close()


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """Notes what was measured, for the report."""
    item = request.node
    item.stash[MEASURE] = Measure(report(request.config), _title(item))
    found: Measure = item.stash[MEASURE]
    return found


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test at its end for every value that is outside its limits."""
    result = yield
    taken = pyfuncitem.stash.get(MEASURE, None)
    if taken is not None and taken.failures:
        pytest.fail("\n".join(taken.failures), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put into the report what ended a test before it could measure."""
    told = yield
    taken = item.stash.get(MEASURE, None)
    rows = report(item.config).rows
    if call.excinfo is not None and not (taken is not None and taken.failures and told.when == "call"):
        why = call.excinfo.value
        text = str(getattr(why, "msg", None) or why) or type(why).__name__
        device = getattr(why, "device", "") or ""
        if text.startswith(ABSENT):
            return told
        what = "could not be tested" if told.skipped else "went wrong"
        rows.append(Row(_title(item), what, "skip" if told.skipped else "fail", device, reason=text))
    return told


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report, with its name on the last line."""
    config = session.config
    written, path = report(config), config.getoption("--report", default=None)
    if ASKED in config.stash and written.rows:
        written.ended = subjects.now()
        stamp = written.began[:19].replace(":", "").replace("-", "").replace(" ", "-")
        path = path or Path(f"acceptance-{written.station}-{stamp}.html")
        data = write(written, path)
        print(f"\n{data['verdict']}: {path} is to be read and signed (sha256 {data['sha256'][:16]})")
    if OPEN in config.stash:
        config.stash[OPEN].close()


def _title(item: pytest.Item) -> str:
    """Return what a test is called in the report: the first line of its docstring."""
    doc: Any = getattr(getattr(item, "obj", None), "__doc__", None) or item.name
    return str(doc).strip().splitlines()[0].rstrip(".")
