"""Killed and taken up again: a few journeys of the many of ``make soak``, and that no site is forgotten."""

from __future__ import annotations

from pathlib import Path

from hil_tests.durability.campaign import (
    ELSEWHERE,
    OF_FAULTS,
    bench_and_broker,
    expected_sites,
    random_journey,
    told_only_what_is_on_disk,
)
from hil_tests.durability.sites import sites, writing_methods
from tests.controller.wire import Foreign


def test_every_call_site_of_the_journal_is_found() -> None:
    """Some that are known, of each kind: awaited, through the recorder, in a lambda, in a function."""
    names = {site.name for site in sites()}
    assert len(names) == len(sites())
    assert {
        "host.py:Host._sequence:journal.start_run",
        "host.py:Host._sequence:recorder.event#2",
        "host.py:Host._resume:close_crashed",
        "link_server.py:LinkServer._heard:journal.acknowledge",
        "sequence.py:Sequencer.checkpoint:journal.checkpoint",
        "desk.py:Desk._clear:journal.clear_latch",
        "scanning.py:Scanning._close_pass:recorder.scan_pass",
    } <= names
    assert not {"read", "latches", "open_runs", "last_checkpoint", "count"} & writing_methods()
    for name in ELSEWHERE:
        assert any(site.startswith(name) for site in names), f"{name} is no longer in the host"
    assert all(name.rpartition(".")[2] not in OF_FAULTS for name in expected_sites())


def test_killed_three_times_and_taken_up(tmp_path: Path) -> None:
    """Nothing promised is lost, no coulomb and no pass counts twice, the documents are whole."""
    with bench_and_broker(tmp_path) as (world, station, broker):
        listener = Foreign(broker.port, "viewer", "viewer-password")
        line = random_journey(
            world, station, tmp_path / "run", "make test", ("control", "power", "host"), starting_share=0.0,
            steps_s=5.0,
        )  # fmt: skip
        assert told_only_what_is_on_disk(tmp_path / "run" / "state" / "journal.sqlite", listener) > 100
        listener.close()
        assert line.kills
