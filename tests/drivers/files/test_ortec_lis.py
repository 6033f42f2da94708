"""ORTEC list mode: words by hand, time that runs on over blocks, the measured file, and wrong ones."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.files import ortec_lis
from drivers.files.errors import FileError
from tests.data_sets import GPL, need, reference
from tests.drivers.files import makers
from tests.drivers.files.makers import event, real_time

GOOD = makers.lis([event(100, 7), real_time(2), event(101, 5), 1 << 30 | 3, event(102, 60_000), 12345])


def columns(recording) -> tuple[np.ndarray, np.ndarray]:
    blocks = list(recording.blocks())
    return np.concatenate([b.channel for b in blocks]), np.concatenate([b.time_ticks for b in blocks])


def test_words_by_hand(put):
    """200 ns ticks; a real-time word of 2 is 20 ms = 100 000 ticks; other words carry no event."""
    recording = ortec_lis.read(put(GOOD))
    channel, ticks = columns(recording)
    assert channel.tolist() == [100, 101, 102]
    assert ticks.tolist() == [7, 100_005, 160_000]
    assert recording.n_events == 3
    assert (recording.live_s, recording.real_s) == (300.0, 317.14)
    assert recording.energy_kev == pytest.approx((0.0, 0.3657, 0.0))
    assert recording.spectrum().counts[[100, 101, 102]].tolist() == [1, 1, 1]
    assert recording.spectrum().counts.size == 8192


def test_the_time_base_runs_on_from_block_to_block(put):
    words = [w for k in range(50) for w in (real_time(3 * k), event(k, k), event(k, k + 1))]
    path = put(makers.lis(words))
    whole = columns(ortec_lis.read(path))
    for size in (1, 2, 7):
        with mock.patch.object(ortec_lis, "WORDS_PER_BLOCK", size):
            pieces = columns(ortec_lis.read(path))
        assert np.array_equal(whole[0], pieces[0])
        assert np.array_equal(whole[1], pieces[1])


def test_the_measured_file():
    entry = reference("gamma")["ba133_listmode.Lis"]
    recording = ortec_lis.read(need("gamma/ba133_listmode.Lis", "Ba-133 events and times", GPL))
    channel, ticks = columns(recording)
    assert recording.n_events == channel.size == entry["events"] == 467_295
    assert (channel.min(), channel.max()) == (entry["adc_min"], entry["adc_max"]) == (37, 8005)
    assert ticks[0] * recording.tick_s == pytest.approx(entry["first_event_s"], abs=1e-9)
    assert ticks[-1] * recording.tick_s == pytest.approx(entry["last_event_s"], abs=1e-9)
    assert np.all(np.diff(ticks) >= 0)
    assert (recording.live_s, recording.real_s) == (entry["live_time_s"], entry["real_time_s"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (GOOD[:200], "expected 256 header bytes and whole 4-byte words, found 200 bytes"),
        (GOOD[:-1], "whole 4-byte words"),
        (b"\0" * 300, "byte 0: expected -13, the mark of an ORTEC list file, found 0"),
        (makers.lis([event(1, 1)], style=4), "byte 4: expected list style 2 (PRO list mode), found 4"),
        (makers.lis([event(1, 1)], gain=-5), "byte 231: expected a conversion gain"),
        (
            makers.lis([real_time(5), event(1, 1), real_time(4)]),
            "byte 264: expected a real time that does not run",
        ),
        (makers.lis([real_time(5), 99]), "words: expected at least one event, found none"),
    ],
)
def test_wrong_files_are_one_clear_error(put, data: bytes, expected: str):
    path = put(data)
    with pytest.raises(FileError) as caught:
        ortec_lis.read(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


def test_a_gigantic_file_is_refused(tmp_path):
    path = tmp_path / "huge.Lis"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="at most"):
        ortec_lis.read(path)


@given(words=st.lists(st.integers(0, (1 << 32) - 1), max_size=80), head=st.binary(max_size=300))
def test_any_words_and_any_header_are_read_or_refused(put, words: list[int], head: bytes):
    for data in (makers.lis(words), head + makers.lis(words)[len(head) :]):
        try:
            recording = ortec_lis.read(put(data))
        except FileError:
            continue
        channel, ticks = columns(recording)
        assert channel.size == ticks.size == recording.n_events
        assert channel.max() < recording.n_channels
        assert recording.spectrum().counts.sum() == recording.n_events
