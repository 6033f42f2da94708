"""Whatever stands in a file: sentences or a valid model, never a traceback."""

import copy
import datetime
import tomllib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.config import (
    ConfigErrors,
    Source,
    check_against,
    experiment_from,
    reduce_settings,
    station_from,
)
from controller.estimate import estimate

from .conftest import HERE

STATION = tomllib.loads((HERE / "station.toml").read_text())
EXPERIMENT = tomllib.loads((HERE / "experiment.toml").read_text())
JUNK = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.just(datetime.date(2026, 1, 1)),
    st.just([]),
    st.just({}),
    st.sampled_from(
        ["0 s", "1e-300 K", "1e300 V", "-5 uA", "C/0", "100 %", "1 um", "io", "cathode", "Co", "scan"]
    ),
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.just({}), st.just([])), max_size=3),
    st.dictionaries(
        st.sampled_from(["do", "name", "kind", "driver", "step", "x"]), st.text(max_size=4), max_size=3
    ),
)


def paths(data, path=()):
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from paths(value, (*path, key))


def spoil(data, path, junk, how):
    changed = copy.deepcopy(data)
    *way, last = path
    here = changed
    for part in way:
        here = here[part]
    if how == "delete":
        del here[last]
    elif how == "add" and isinstance(here, dict):
        here[f"{last}x"] = junk
    else:
        here[last] = junk
    return changed


SPOIL = st.sampled_from(["replace", "replace", "delete", "add"])


STATION_AS_IS = station_from(Source("station.toml", STATION))
EXPERIMENT_AS_IS = experiment_from(Source("experiment.toml", EXPERIMENT))
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refused(read, data, name):
    """Return what was read, or the errors, which must be sentences about that file."""
    try:
        return read(Source(name, data)), None
    except ConfigErrors as error:
        return None, error


def use(station, experiment):
    """Do everything that follows when both files are right."""
    if not check_against(station, experiment):
        reduce_settings(station, experiment)
        estimate(station, experiment).lines()


@settings(QUIET, max_examples=200)
@given(st.sampled_from(list(paths(STATION))), JUNK, SPOIL)
def test_a_spoilt_station(path, junk, how):
    station, error = refused(station_from, spoil(STATION, path, junk, how), "station.toml")
    if station is not None:
        use(station, EXPERIMENT_AS_IS)
        return
    assert error.problems
    assert all(problem.message.startswith("station.toml: ") for problem in error.problems)


@settings(QUIET, max_examples=250)
@given(st.sampled_from(list(paths(EXPERIMENT))), JUNK, SPOIL)
def test_a_spoilt_experiment(path, junk, how):
    experiment, error = refused(experiment_from, spoil(EXPERIMENT, path, junk, how), "experiment.toml")
    if experiment is not None:
        use(STATION_AS_IS, experiment)
        return
    assert error.problems
    assert all(problem.message.startswith("experiment.toml: ") for problem in error.problems)
    if error.partial is not None:
        check_against(STATION_AS_IS, error.partial)
