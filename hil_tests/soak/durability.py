"""Soak items: hosts killed at random moments and at every call site of the journal, and taken up again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from hil_tests.durability.campaign import (
    Line,
    Table,
    bench_and_broker,
    expected_sites,
    random_journey,
    site_journey,
    told_only_what_is_on_disk,
)
from hil_tests.durability.runs import TooSlow
from hil_tests.soak.runner import Failed, Item, Workshop
from tests.controller.wire import Foreign

KILLS = 100  # of each kind
KILLS_IN_A_RUN = 3
RESERVE_S = 300.0  # of the hour; a journey takes less


def items() -> Iterator[tuple[str, Item]]:
    """Yield the items by name."""
    yield "kills-host", lambda work: random_kills(work, "host")
    yield "kills-control", lambda work: random_kills(work, "control")
    yield "power-cuts", lambda work: random_kills(work, "power")
    yield "kills-at-call-sites", kills_at_call_sites


def random_kills(work: Workshop, kind: str) -> str:
    """Kill the whole host, or only control, or cut the power, at random moments of light runs, and resume."""
    table = Table(work.folder / "table.jsonl")
    while table.kills() < KILLS and _time_left(work):
        name = f"{kind}-{len(table.lines()):03d}"
        shutil.rmtree(work.folder / name, ignore_errors=True)
        with bench_and_broker(work.folder / f"{name}-bench") as (world, station, broker):
            listener = Foreign(broker.port, "viewer", "viewer-password")
            kinds = [kind] * min(KILLS_IN_A_RUN, KILLS - table.kills())
            try:
                line = random_journey(world, station, work.folder / name, name, kinds)
                came = told_only_what_is_on_disk(work.folder / name / "state" / "journal.sqlite", listener)
            except TooSlow as reason:
                work.say(f"{name}: done again, this machine was too busy: {reason}")
                continue
            except AssertionError as error:
                raise Failed(f"{name}: {error}\n(its files are in {work.folder / name})") from error
            finally:
                listener.close()
        _add(work, table, line, name, f"{came} messages, each of them on disk")
    return _told(work, table, f"{table.kills()} of {KILLS} kills", done=table.kills() >= KILLS)


def kills_at_call_sites(work: Workshop) -> str:
    """Kill control at every call site of the journal, before and after its commit, and resume."""
    table = Table(work.folder / "table.jsonl")
    wanted = [(site, when) for site in expected_sites() for when in ("before", "after")]
    done = {tuple(line["kills"][0].split(" ", 1)) for line in table.lines()}
    left = [(site, when) for site, when in wanted if (when, site) not in done]
    while left and _time_left(work):
        site, when = left[0]
        name = f"site-{len(wanted) - len(left):03d}"
        shutil.rmtree(work.folder / name, ignore_errors=True)
        with bench_and_broker(work.folder / f"{name}-bench") as (world, station, _):
            try:
                line = site_journey(world, station, work.folder / name, site, when)
            except TooSlow as reason:
                work.say(f"{name}: done again, this machine was too busy: {reason}")
                continue
            except AssertionError as error:
                raise Failed(f"{when} {site}: {error}\n(its files are in {work.folder / name})") from error
        del left[0]
        if line is None:
            raise Failed(f"{site} was not reached: name it in campaign.ELSEWHERE, with the reason")
        _add(work, table, line, name, "")
    survived = len(table.lines())
    return _told(work, table, f"{survived} of {len(wanted)} sites and sides", done=survived >= len(wanted))


def _add(work: Workshop, table: Table, line: Line, name: str, more: str) -> None:
    """Write one line of the table, and drop the files of a journey that went well."""
    table.add(line)
    work.say(f"{line}; {more}")
    for folder in (name, f"{name}-bench"):
        shutil.rmtree(Path(work.folder) / folder, ignore_errors=True)


def _told(work: Workshop, table: Table, head: str, *, done: bool) -> str:
    lines = table.lines()
    work.worked_s = sum(line["seconds"] for line in lines)
    attempts = sum(line["attempts"] for line in lines)
    worst = max((abs(_off(line)) for line in lines), default=0.0)
    text = (
        f"{head} survived in {len(lines)} runs with {attempts} starts; "
        f"worst charge {1e6 * worst:.1f} uC off, always within what is stated"
    )
    if not done:
        raise Failed(f"the hour is over: {text}; the rest is done when this is run again")
    return text


def _off(line: dict[str, dict[str, float]]) -> float:
    return line["account"]["counted_coulomb"] - line["account"]["true_coulomb"]


def _time_left(work: Workshop) -> bool:
    return work.ends - time.monotonic() > RESERVE_S
