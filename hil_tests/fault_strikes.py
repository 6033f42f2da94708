"""Strikes of the fault catalogue that are not the bench's: processes, broker, disk, memory, clock.

``{ do = "clock_jump", by_s = 3600 }`` in a row calls the function of that name with the scene and the row's
table. It returns what tells that the strike is over, or nothing if it does not pass by itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil_tests.delivered import backlog
from hil_tests.harness import HOST, ROLES, eventually, processes_of

if TYPE_CHECKING:
    from hil_tests.fault_going_on import Sign
    from hil_tests.fault_run import Scene

Table = Mapping[str, Any]

DELIVERED = 20  # messages that may be on their way while everything is well
BLOCK = bytes(1 << 16)
FLOOD = """
import os, sys, time, paho.mqtt.client as paho
host, port, user, password, ends = sys.argv[1:]
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.max_queued_messages_set(1000)
client.username_pw_set(user, password)
client.connect(host, int(port))
client.loop_start()
sent, body = 0, os.urandom(200)
while time.time() < float(ends):
    client.publish("operando/v1/bench/tele", body, 0)
    client.publish("elsewhere/%d" % (sent % 100), body, 0)
    sent += 2
    if sent % 200 == 0:
        time.sleep(0)
print(sent)
"""
HOG = "while True: pass"


def wire_struck(scene: Scene, table: Table) -> Sign | None:
    """Return what tells that a fault of the wire has hit as many replies as it is to hit."""
    target, kind, count = table["target"], table["kind"], int(table.get("count", 1))
    if scene.row.reach != "goes on" or kind not in WIRE_KINDS:
        return None

    def hit() -> int:
        return int(scene.world.ask("counters")["twins"][target]["wire_faults"].get(kind, 0))

    before = hit()
    return lambda: hit() >= before + count


WIRE_KINDS = (
    "lost", "flipped", "doubled", "late", "silence", "previous", "swapped", "noise", "wrong_unit",
)  # fmt: skip


def replugged(scene: Scene, table: Table) -> Sign:
    """Pull a cable and put it back ``after_s`` wall seconds later, under another number."""
    target = table["of"]
    scene.world.fault(target, "unplug")
    back = threading.Event()

    def plug() -> None:
        scene.world.fault(target, "replug")
        back.set()

    _later(scene, float(table.get("after_s", 0.1)), plug)
    return back.is_set


def list_overflows(scene: Scene, table: Table) -> Sign:
    """The list of a detector holds a single word, until a pass was lost over it."""
    scene.world.fault(table["of"], "fifo", words=1)

    def noticed() -> bool:
        bad = [row for row in scene.run.events("pass") if not row["body"]["good"]]
        if bad:
            scene.world.fault(table["of"], "fifo")
        return bool(bad)

    return noticed


# --- processes -------------------------------------------------------------------------------------------


def signalled(scene: Scene, table: Table) -> Sign | None:
    """Send ``signal`` to ``process``; ``for_s`` wall seconds later SIGCONT.

    Over, where the run goes on: another process is in the place of one that died, or it runs on.
    """
    role, number = table["process"], signal.Signals[table["signal"]]
    run = scene.run
    pid = run.process.pid if role == "cli" else run.pid(role)
    os.kill(pid, number)
    if "for_s" in table:
        awake = threading.Event()

        def wake() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            awake.set()

        _later(scene, float(table["for_s"]), wake)
        return awake.is_set
    if scene.row.reach != "goes on" or role == "cli":
        return None
    return lambda: set(processes_of(run.folder, ROLES[role])) - {pid}


def power_cut(scene: Scene, table: Table) -> None:
    """Everything of the host dies at once, the command line too."""
    run = scene.run
    pids = [pid for role in HOST for pid in processes_of(run.folder, ROLES[role])]
    for pid in [run.process.pid, *pids]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# --- broker ----------------------------------------------------------------------------------------------


def broker_down(scene: Scene, table: Table) -> Sign:
    """The station's broker is killed and is back after ``lab_s`` lab seconds.

    What it has acknowledged it has delivered first: for the rest it does not stand.
    """
    broker = scene.things["broker"]
    link = scene.run.pid("link")
    os.kill(link, signal.SIGSTOP)
    time.sleep(0.5)  # what was acknowledged reaches the subscriber
    broker.kill()
    os.kill(link, signal.SIGCONT)
    return _and_delivered(scene, float(table["lab_s"]) / scene.row.speed, broker.start)


def broker_frozen(scene: Scene, table: Table) -> Sign:
    """The station's broker stands still for ``lab_s`` lab seconds."""
    broker = scene.things["broker"]
    broker.freeze()
    return _and_delivered(scene, float(table["lab_s"]) / scene.row.speed, broker.thaw)


def broker_refuses(scene: Scene, table: Table) -> Sign:
    """The station's broker is there, and takes nobody's password for ``lab_s`` lab seconds."""
    broker = scene.things["broker"]
    passwords = broker.folder / "passwords"
    good = passwords.read_bytes()
    link = scene.run.pid("link")
    os.kill(link, signal.SIGSTOP)
    time.sleep(0.5)
    broker.kill()
    passwords.write_text("")
    broker.start()
    os.kill(link, signal.SIGCONT)

    def mend() -> None:
        broker.kill()
        passwords.write_bytes(good)
        broker.start()

    return _and_delivered(scene, float(table["lab_s"]) / scene.row.speed, mend)


def broker_full(scene: Scene, table: Table) -> Sign:
    """The station's broker gets so little memory that it hangs up, for ``lab_s`` lab seconds."""
    broker = scene.things["broker"]
    usual = broker.config.read_text()
    link = scene.run.pid("link")
    os.kill(link, signal.SIGSTOP)
    time.sleep(0.5)
    broker.kill()
    broker.config.write_text(f"memory_limit {table['bytes']}\n{usual}")
    broker.start()
    os.kill(link, signal.SIGCONT)

    def mend() -> None:
        broker.kill()
        broker.config.write_text(usual)
        broker.start()

    return _and_delivered(scene, float(table["lab_s"]) / scene.row.speed, mend)


def broker_disk_full(scene: Scene, table: Table) -> Sign:
    """The disk on which the station's broker keeps its messages is full for ``lab_s`` lab seconds."""
    disk_full(scene, table)
    return _and_delivered(scene, float(table["lab_s"]) / scene.row.speed, scene.things["ballast"].unlink)


def broker_flooded(scene: Scene, table: Table) -> Sign:
    """A foreign client publishes as fast as it can for ``wall_s`` seconds, with the viewer's account."""
    words = eventually(
        lambda: (path := scene.run.run_dir / "watch.txt").is_file() and path.read_text(), "watch.txt"
    ).split()
    told = {key: words[words.index(key) + 1] for key in ("-h", "-p", "-u", "-P")}
    password = told["-P"]
    if password.startswith('"$'):  # of a broker of the station: it is not in the file
        from tests.controller.mosquitto import USERS

        password = USERS["viewer"]
    ends = time.time() + float(table["wall_s"])
    command = [sys.executable, "-c", FLOOD, told["-h"], told["-p"], told["-u"], password, str(ends)]
    flood = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    scene.later.append(lambda: _end(flood))
    return lambda: flood.poll() is not None and backlog(scene.run) < DELIVERED


def _and_delivered(scene: Scene, down_s: float, mend: Callable[[], Any]) -> Sign:
    """Let the broker come back later; over when everything that waited has gone."""
    back = threading.Event()

    def come_back() -> None:
        mend()
        back.set()

    _later(scene, down_s, come_back)
    return lambda: back.is_set() and backlog(scene.run) < DELIVERED


# --- machine ---------------------------------------------------------------------------------------------


def file_limit(scene: Scene, table: Table) -> None:
    """A process can append to no file any more: what a full disk is to it, also without root (EFBIG)."""
    resource.prlimit(scene.run.pid(table["of"]), resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


def disk_full(scene: Scene, table: Table) -> None:
    """Fill the small disk of the setting to its last byte."""
    path = scene.things["disk"] / "ballast"
    with path.open("wb", buffering=0) as ballast:
        for block in (BLOCK, b"0"):
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(block)
    scene.things["ballast"] = path


def clock_jump(scene: Scene, table: Table) -> None:
    """The wall clock of every process of the run jumps."""
    scene.things["clock"].jump(float(table["by_s"]))


def cpu_hogs(scene: Scene, table: Table) -> Sign:
    """As many busy processes as there are processors, at the usual priority, for ``wall_s`` seconds."""
    over = threading.Event()
    count = int(table.get("processes", os.cpu_count() or 1))
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]

    def end() -> None:
        for hog in hogs:
            _end(hog)
        over.set()

    scene.later.append(end)
    _later(scene, float(table["wall_s"]), end)
    return over.is_set


def memory_gone(scene: Scene, table: Table) -> Sign | None:
    """A process gets no more memory than ``spare_mb`` beyond what it has; then it is asked to work on."""
    role = table["of"]
    pid = scene.run.pid(role)
    spare = int(float(table.get("spare_mb", 0.0)) * (1 << 20))
    resource.prlimit(pid, resource.RLIMIT_AS, (_virtual_bytes(pid) + spare, resource.RLIM_INFINITY))
    if scene.row.reach != "goes on" or not table.get("dies", False):
        return None
    return lambda: set(processes_of(scene.run.folder, ROLES[role])) - {pid}


def killed_by_the_kernel(scene: Scene, table: Table) -> Sign | None:
    """The memory of the host's processes and of a greedy one is limited together; the kernel picks.

    Needs root and a memory controller (version 1). The greedy process is the preferred victim, as
    a program that just grew is: it must be that one, and the run must not notice.
    """
    group = Path("/sys/fs/cgroup/memory") / f"operando-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    pids = [pid for role in HOST for pid in processes_of(scene.run.folder, ROLES[role])]
    code = "import time\nheld = []\nwhile True:\n    held.append(bytearray(1 << 22))\n    time.sleep(0.01)"
    greedy = subprocess.Popen([sys.executable, "-c", code])
    for pid in [*pids, greedy.pid]:
        (group / "cgroup.procs").write_text(str(pid))
    used = sum(_resident_bytes(pid) for pid in pids)
    (group / "memory.limit_in_bytes").write_text(str(used + (int(table["spare_mb"]) << 20)))

    def clean() -> None:
        _end(greedy)
        (group / "memory.limit_in_bytes").write_text("-1")
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (group.parent / "cgroup.procs").write_text(pid)
        group.rmdir()

    scene.later.append(clean)
    return lambda: greedy.poll() is not None


def _virtual_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _later(scene: Scene, wall_s: float, what: Callable[[], None]) -> None:
    timer = threading.Timer(wall_s, what)
    timer.start()

    def end() -> None:
        timer.cancel()
        timer.join(10.0)

    scene.later.append(end)


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(10.0)
    if process.stdout is not None:
        process.stdout.close()


STRIKES: dict[str, Callable[[Scene, Table], Sign | None]] = {
    "replugged": replugged,
    "list_overflows": list_overflows,
    "power_cut": power_cut,
    "broker_down": broker_down,
    "broker_frozen": broker_frozen,
    "broker_refuses": broker_refuses,
    "broker_flooded": broker_flooded,
    "broker_full": broker_full,
    "broker_disk_full": broker_disk_full,
    "file_limit": file_limit,
    "disk_full": disk_full,
    "clock_jump": clock_jump,
    "cpu_hogs": cpu_hogs,
    "memory_gone": memory_gone,
    "killed_by_the_kernel": killed_by_the_kernel,
}
