"""What systemd is told, against a socket of its kind; the watchdog starves when one of four is stale."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.notify import (
    ALL_FRESH,
    ALL_OFF,
    FRESH_S,
    HEARD_S,
    PARTS,
    SETTING_UP,
    Freshness,
    Notifier,
    stale_in,
)


class World:
    """Control's four counters, a clock, and systemd's end of the socket."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 100.0
        self.counts = {name: [0, 0] for name in PARTS}
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(str(folder / "notify"))
        self.systemd.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": str(folder / "notify"), "HOME": "/"}
        self.notifier = Notifier(self.environ, lambda: self.now_s)
        self.freshness = Freshness(
            {n: (lambda n=n: tuple(self.counts[n])) for n in PARTS}, lambda: self.now_s
        )

    def told(self) -> list[str]:
        lines: list[str] = []
        while True:
            try:
                lines += self.systemd.recv(4096).decode().splitlines()
            except BlockingIOError:
                return lines

    def go_on(self, seconds: float, *, without: str = "", half: str = "") -> list[str]:
        """Beat and feed as the host does; ``without`` stands still, of ``half`` one of two numbers does."""
        lines = []
        for _ in range(round(seconds / 0.5)):
            self.now_s += 0.5
            for name in PARTS:
                if name != without:
                    self.counts[name][0] += 1
                    self.counts[name][1] += name != half
            self.notifier.heard(self.freshness.beat())
            self.notifier.feed()
            lines += self.told()  # systemd reads at once; a socket's queue is short
        return lines


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.systemd.close()


def test_ready_comes_once_when_the_run_has_begun(world: World) -> None:
    world.notifier.heard(SETTING_UP)
    assert "READY=1" not in world.told()
    assert world.go_on(20).count("READY=1") == 1


def test_all_fresh_feeds_with_every_beat(world: World) -> None:
    assert world.go_on(20).count("WATCHDOG=1") == 40


@pytest.mark.parametrize("part", PARTS)
def test_one_stale_part_starves_it_and_is_named(world: World, part: str) -> None:
    world.go_on(5)
    during = world.go_on(FRESH_S[part] + 0.5, without=part)
    assert "WATCHDOG=1" in during  # not at the first moment
    after = world.go_on(20, without=part)
    assert "WATCHDOG=1" not in after
    assert f"STATUS=not fresh: {part}" in [*during, *after]
    again = world.go_on(5)  # systemd has not acted yet: it recovers
    assert "WATCHDOG=1" in again
    assert "STATUS=the run is under way" in again


def test_one_of_two_instruments_that_is_silent_starves_it(world: World) -> None:
    world.go_on(FRESH_S["drivers"] + 1, half="drivers")
    assert "WATCHDOG=1" not in world.go_on(10, half="drivers")


def test_a_control_that_is_not_heard_starves_it(world: World) -> None:
    world.go_on(5)
    world.now_s += HEARD_S + 0.1
    assert not world.notifier.feed()
    assert any("has not been heard" in line for line in world.told())


def test_the_end_of_a_run_is_not_taken_for_a_hang(world: World) -> None:
    world.go_on(5)
    world.now_s += 60
    world.notifier.heard(ALL_OFF)
    assert world.notifier.feed()
    world.told()
    world.notifier.control_ended()
    assert "STOPPING=1" in world.told()
    world.now_s += 600  # a long report
    assert world.notifier.feed()
    assert "WATCHDOG=1" in world.told()


def test_the_beat_names_what_is_stale() -> None:
    assert stale_in(ALL_FRESH) == []
    assert stale_in(ALL_FRESH & ~0b0100) == ["journal"]


def test_the_processes_of_the_host_do_not_speak_for_it(world: World) -> None:
    assert world.environ == {"HOME": "/"}


def test_without_systemd_nothing_is_sent() -> None:
    Notifier({}).control_ended()


def test_a_socket_that_is_gone_or_full_holds_nobody_up(world: World) -> None:
    for _ in range(5000):  # far more than its queue takes; nobody reads
        world.notifier.send("STATUS=" + "x" * 100)
    world.systemd.close()
    world.notifier.send("STATUS=nobody")


def test_an_abstract_socket(tmp_path: Path) -> None:
    name = f"operando-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name)
        systemd.settimeout(5)
        Notifier({"NOTIFY_SOCKET": "@" + name}).send("READY=1")
        assert systemd.recv(100) == b"READY=1"
