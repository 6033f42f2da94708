"""Every reader and every codec against mutated input: a result or its documented error, never anything else.

The targets are those of ``hil_tests/soak/fuzz_targets.py``, which coverage-guided fuzzing runs for longer.
What that has found stands in ``data/fuzz/TARGET/`` and is tried here again.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from drivers.files import hdf5_vet
from hil_tests.soak import fuzz_targets
from hil_tests.soak.fuzz_targets import READERS, TARGETS
from tests.data_sets import CLONED

ROOT = Path(__file__).parents[1]
FOUND = sorted(path for path in (CLONED / "fuzz").glob("*/*") if path.is_file())
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking a slow input takes for ever
WORDS = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"-1", b"1e999", b"nan", b"\n"]
NOT_READERS = {  # parts of readers, or data without a file
    "__init__", "bounded", "errors", "recordings", "recordings_images", "hdf5_safe", "hdf5_vet",
    "zip_safe", "npz_arrays", "vendor_maps_worker",
    "vendor_maps",  # RosettaSciIO's parsers: no small file of theirs can be written by hand
}  # fmt: skip


@functools.cache
def run_of(name: str) -> fuzz_targets.One:
    return fuzz_targets.one(name)


def need_library(name: str) -> None:
    library = fuzz_targets.missing(name)
    if library:
        pytest.skip(f"{library} is not installed")


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with some bytes changed, taken out, doubled, cut off, or a word of another seed put in."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        size = draw(st.integers(1, 16))
        match draw(st.integers(0, 5)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case 3:
                data[at : at + size] = draw(st.binary(min_size=size, max_size=size))
            case 4:
                del data[at:]
            case 5:
                data[at:at] = draw(
                    st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"-1", b"1e999", b"nan", b"\n"])
                )
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_mutation_gives_a_result_or_the_documented_error(name):
    need_library(name)
    run, seeds, examples = run_of(name), TARGETS[name].seeds(), TARGETS[name].examples

    @settings(max_examples=examples, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(mutated(seeds) | st.binary(max_size=200))
    def any_input(data: bytes) -> None:
        run(data)

    any_input()


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_is_valid_input(name):
    """Else the fuzzers would only ever see the first check of a reader."""
    need_library(name)
    TARGETS[name].make()(TARGETS[name].seeds()[0])


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_fuzzing_has_found_stays_fixed(path, monkeypatch):
    need_library(path.parent.name)
    monkeypatch.setattr(hdf5_vet, "LIMIT_S", 0.5)
    monkeypatch.setattr(hdf5_vet, "WALK_S", 1.0)
    run_of(path.parent.name)(path.read_bytes())


def test_every_reader_has_a_target():
    modules = {path.stem for path in (ROOT / "drivers" / "files").glob("*.py")} - NOT_READERS
    missing = modules - {module for target in TARGETS.values() for module in target.covers}
    assert not missing, f"readers without a fuzz target: {sorted(missing)} ({READERS}*)"


def test_a_finding_is_told_from_a_refusal(tmp_path, monkeypatch):
    """The harness itself: documented errors pass, another exception, a warning and a slow input do not."""
    import time
    import warnings

    def target(run):
        return fuzz_targets.Target(lambda: run, lambda: [b""], ("drivers.errors:BadReply",))

    def refuses(data):
        from drivers.errors import BadReply

        raise BadReply("no")

    def breaks(data):
        raise KeyError(1)

    def warns(data):
        warnings.warn("overflow", RuntimeWarning, stacklevel=1)

    for name, run in (
        ("refuses", refuses),
        ("breaks", breaks),
        ("warns", warns),
        ("slow", lambda data: time.sleep(0.02)),
    ):
        monkeypatch.setitem(TARGETS, name, target(run))
    monkeypatch.setattr(fuzz_targets, "MAX_S", 0.01)
    fuzz_targets.one("refuses")(b"")
    for name, error in (("breaks", KeyError), ("warns", RuntimeWarning), ("slow", fuzz_targets.TooMuch)):
        with pytest.raises(error):
            fuzz_targets.one(name)(b"")
