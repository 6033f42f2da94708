"""For tests of whole runs: a user at the command line, and the world on the other end of the wires.

``World`` is the virtual bench with its own socket: what is true there (relay, heater, cell, blank, shutter,
coulombs, atoms) is asked for, never what the host believes. ``Run`` is one ``operando run`` or ``resume`` as
a process, followed over its local socket, killed by role, and read from its files afterwards. Everything
waits with a deadline and says what it was waiting for.
"""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
EXPERIMENTS = Path(__file__).parent / "experiments"
SCENARIOS = Path(__file__).parent / "sim" / "scenarios"
OPERANDO = (sys.executable, "-m", "controller")
PATIENCE_S = 60.0  # wall seconds for anything that a loaded machine may take its time for
POLL_S = 0.02

ROLES = {
    "supervisor": "controller.supervise",
    "control": "controller.host",
    "reduce": "controller.reduce_main",
    "link": "controller.link",
    "broker": "controller.broker",
    "web": "controller.web",
    "bench": "hil_tests.bench",
    "finish": "controller.offline.finish",
}
HOST = ("supervisor", "control", "reduce", "link", "broker", "web")


MENDED: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {  # what takes the faults of a heater back
    "heater": (
        ("neighbour", {"answers": False}),
        ("wrong_unit", {"count": 0}),
        ("sensor", {"state": "good"}),
        ("reset", {"boot_s": 0.0}),  # its sensor-break alarm latches until it is switched off
        ("stuck_output", {"fraction": None}),
        ("runaway", {"watt": 0.0}),
        ("deaf", {"given": False}),
    ),
    "thermometer": (("sensor", {"state": "good"}), ("leads", {"ohm": 0.0})),
    "supply": (
        ("replug", {}),
        ("sag", {"fraction": 1.0}),
        ("deaf", {"given": False}),
        ("locked", {"given": False}),
        ("reset", {"boot_s": 0.0}),
    ),
}


def eventually(
    probe: Callable[[], Any],
    what: str,
    *,
    seconds: float = PATIENCE_S,
    poll_s: float = POLL_S,
    tell: Callable[[], str] = str,
) -> Any:
    """Return the first true answer of ``probe``; fail, naming what was waited for, when none comes."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s of wall time\n{tell()}")
        time.sleep(poll_s)


def ask_socket(path: Path | str, request: Mapping[str, Any], *, timeout_s: float = 20.0) -> dict[str, Any]:
    """Send one JSON line, return the JSON line that comes back."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        client.connect(str(path))
        client.sendall(json.dumps(request).encode() + b"\n")
        with client.makefile() as lines:
            reply: dict[str, Any] = json.loads(lines.readline())
            return reply


def processes_of(folder: Path, module: str = "") -> list[int]:
    """Return the processes whose command line names something in ``folder`` and, if given, a module."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has just ended
            continue
        if state != "Z" and any(str(folder) in text for text in arguments) and module in ("", *arguments):
            found.append(int(entry.name))
    return found


@dataclass(frozen=True)
class Outputs:
    """What is truly on, as the physics sees it."""

    lab_s: float
    wall_s: float
    relay_closed: bool
    cell_on: bool
    blanked: bool
    shutter_open: bool
    output_percent: float
    heater_joule: float
    pulses: int

    @property
    def off(self) -> bool:
        """Heater without power, circuit open, beam blanked, shutter closed."""
        return self.beam_and_heat_off and not self.cell_on

    @property
    def beam_and_heat_off(self) -> bool:
        """What the watchdog of the I/O box can switch off without any host."""
        return not self.relay_closed and self.blanked and not self.shutter_open

    @property
    def on(self) -> bool:
        """Plate, cell and beam are energised (the beam is blanked between lines)."""
        return self.relay_closed and self.cell_on and self.shutter_open


def start_energised(world: World, folder: Path, *, charge_s: float = 600.0) -> Run:
    """Start a run and return when the plate is heated, the cell charged and the beam scanned."""
    path = energised(folder / "energised.toml", charge_s=charge_s)
    run = Run.start(folder, path, "--station", str(world.station))
    try:
        run.until(lambda status: status["cell_state"] in ("cc", "cv") and status["scan"], "charge and scan")
        world.until(lambda outputs: outputs.on, "everything is on", run=run)
    except BaseException:
        run.kill_all()
        raise
    return run


class World:
    """The virtual bench behind one station file."""

    def __init__(self, station: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.station = station
        self.process = process
        table = tomllib.loads(station.read_text())["bench"]
        self.speed = float(table["speed"])
        self.spent = False  # not for another test
        self._socket, self._nonce = table["socket"], table["nonce"]

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        speed: float,
        seed: int = 1,
        scenario: Path | str = "quickstart",
        fault: str = "",
        more: Sequence[str] = (),
    ) -> World:
        """Start ``operando bench`` as a user would, and wait for its station file."""
        folder.mkdir(parents=True, exist_ok=True)
        command = [*OPERANDO, "bench", "--dir", str(folder), "--scenario", str(scenario)]
        command += ["--speed", str(speed), "--seed", str(seed), "--truth", str(folder / "truth.json"), *more]
        if fault:
            (folder / "faults.toml").write_text(fault)
            command += ["--fault", str(folder / "faults.toml")]
        log = (folder / "bench.log").open("wb")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=REPOSITORY)
        log.close()
        assert process.stdout is not None
        line = process.stdout.readline().decode().strip()  # an empty line when it could not start
        assert line, (folder / "bench.log").read_text()
        return cls(Path(line), process)

    def stop(self) -> None:
        """End the bench and wait until it is gone."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        folder = self.station.parent
        eventually(lambda: not processes_of(folder, ROLES["bench"]), "the bench ends with its owner")

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Send a command to the bench."""
        reply = ask_socket(self._socket, {"nonce": self._nonce, "do": do, **more})
        assert reply.pop("ok") is True, reply
        return reply

    def fault(self, target: str, kind: str, **more: Any) -> None:
        """Make something go wrong."""
        self.ask("fault", target=target, kind=kind, **more)
        # A serial line that is plugged in again may get another number, as a real port without a by-id name.
        # And a cell that was shorted is empty.
        self.spent = self.spent or kind == "short" or (kind == "unplug" and target in ("heater", "cell"))

    def put(self, what: str, value: float) -> None:
        """Set a physics value."""
        self.ask("set", what=what, value=value)

    def truth(self) -> dict[str, Any]:
        """Return everything that is true now."""
        truth: dict[str, Any] = self.ask("truth")["truth"]
        return truth

    def outputs(self) -> Outputs:
        """Return what is on now."""
        told, wall_s = self.ask("counters"), time.monotonic()
        twins = told["twins"]
        return Outputs(
            lab_s=told["lab_s"],
            wall_s=wall_s,
            relay_closed=twins["io"]["relay_closed"],
            cell_on=twins["cell"]["cell_on"],
            blanked=twins["io"]["blanked"],
            shutter_open=twins["io"]["shutter_open"],
            output_percent=_output_percent(twins),
            heater_joule=twins["heater" if "heater" in twins else "supply"]["heater_joule"],
            pulses=twins["io"]["pulses"],
        )

    def until(
        self,
        met: Callable[[Outputs], bool],
        what: str,
        *,
        seconds: float = PATIENCE_S,
        run: Run | None = None,
    ) -> Outputs:
        """Wait until the true outputs meet a condition; fail at once when ``run`` ends before that."""
        last: list[Outputs] = []

        def tell() -> str:
            return f"{last}\n{run.tell() if run is not None else ''}"

        def probe() -> Outputs | None:
            last[:] = [self.outputs()]
            if met(last[0]):
                return last[0]
            assert run is None or run.process.poll() is None, f"{what}: the run ended before\n{tell()}"
            return None

        found: Outputs = eventually(probe, what, seconds=seconds, tell=tell)
        return found

    def stays_off(self) -> None:
        """Assert that everything is off and that no heat comes: two looks, lab seconds apart."""
        first = self.outputs()
        assert first.off, first
        second = eventually(
            lambda: (now := self.outputs()).lab_s > first.lab_s + 2.0 and now, "lab time", poll_s=0.1
        )
        assert second.off, second
        assert second.heater_joule == first.heater_joule
        assert second.pulses == first.pulses

    def mend(self) -> None:
        """Take every fault back, except that of a serial line."""
        heaters = [one for one in ("heater", "thermometer", "supply") if one in self.ask("counters")["twins"]]
        for target in (*heaters, "cell", "io", "pixe", "pige"):
            self.fault(target, "mended")
        for target in ("io", "pixe", "pige"):
            self.fault(target, "replug")
        for target in ("pixe", "pige"):
            self.fault(target, "fifo")
        for heater in heaters:
            for kind, nothing in MENDED[heater]:
                self.fault(heater, kind, **nothing)
        for kind, key in (("overload", "count"), ("nan", "count"), ("set_error", "volt"), ("contact", "ohm")):
            self.fault("cell", kind, **{key: 0})
        for kind in ("relay", "shutter"):
            self.fault("io", kind)
        for name in ("vacuum", "window"):
            self.fault("io", "switch", name=name, good=True)
        self.fault("io", "permit", given=True)
        self.fault("io", "beam_loss", lost=False)
        self.put("holder.stuck_power_w", 0.0)


def _output_percent(twins: Mapping[str, Any]) -> float:
    """Return what comes out for the heater, of full power; of a supply: anything at all counts as full."""
    if "heater" in twins:
        return float(twins["heater"]["output_percent"])
    return 100.0 if float(twins["supply"]["output_w"]) > 0.0 else 0.0


def as_at_a_terminal() -> None:
    """Let programs that are started from here hear Ctrl-C, also where pytest runs in the background."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


class Run:
    """One ``operando run`` (or ``resume``) with all its processes."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, state: Path) -> None:
        self.process = process
        self.folder = folder  # everything of this run is below it
        self.state = state
        self.run_dir: Path = Path()
        self.out = ""
        self.err = ""

    @classmethod
    def start(cls, folder: Path, experiment: Path, *arguments: str, state: Path | None = None) -> Run:
        """Type ``operando run EXPERIMENT ... --json`` and wait until the folder of the run is there."""
        state = state or folder / "state"
        known = set((folder / "runs").glob("*"))
        command = [*OPERANDO, "run", str(experiment), "--out", str(folder / "runs")]
        run = cls._spawn([*command, "--state", str(state), "--json", *arguments], folder, state)

        def made() -> bool:
            new = [path for path in (folder / "runs").glob("*") if path not in known]
            run.run_dir = new[0] if new else run.run_dir
            return bool(new) or run.process.poll() is not None

        eventually(made, "the folder of the run")
        return run

    @classmethod
    def resume(cls, run: Run) -> Run:
        """Type ``operando resume RUN``."""
        again = cls._spawn([*OPERANDO, "resume", str(run.run_dir), "--json"], run.folder, run.state)
        again.run_dir = run.run_dir
        return again

    @classmethod
    def _spawn(cls, command: Sequence[str], folder: Path, state: Path) -> Run:
        folder.mkdir(parents=True, exist_ok=True)
        extra = os.environ.get("OPERANDO_TEST_PATH", "")  # plug-ins and hooks of a test
        as_at_a_terminal()
        with (folder / "cli.out").open("wb") as out, (folder / "cli.err").open("wb") as err:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), extra)))},
            )  # fmt: skip
        return cls(process, folder, state)

    # --- while it runs ---------------------------------------------------------------------------------

    def ask(self, do: str, *, of: str = "control", **more: Any) -> dict[str, Any]:
        """Ask control or the supervisor over the local socket, without the command line in between."""
        return ask_socket(_socket_of(self.state, of), {"do": do, **more})

    def status(self) -> dict[str, Any] | None:
        """Return what control says of itself, None while it does not answer."""
        with contextlib.suppress(OSError, ValueError):
            return self.ask("status")
        return None

    def until(
        self, met: Callable[[dict[str, Any]], Any], what: str, *, seconds: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Wait until the status meets a condition; fail at once when the run has ended."""

        def probe() -> dict[str, Any] | None:
            status = self.status()
            if status is not None and met(status):
                return status
            assert self.process.poll() is None, f"{what}: the run ended before\n{self.tell()}"
            return None

        found: dict[str, Any] = eventually(probe, what, seconds=seconds, tell=self.tell)
        return found

    def until_line(self, text: str, *, seconds: float = PATIENCE_S) -> None:
        """Wait until the run's journal has a line for people with ``text`` in it."""
        eventually(lambda: text in self.lines(), f"the line {text!r}", seconds=seconds, tell=self.tell)

    def pid(self, role: str) -> int:
        """Return the process of a role."""
        found = processes_of(self.folder, ROLES[role])
        assert len(found) == 1, f"{role}: {found}\n{self.tell()}"
        return found[0]

    def signal(self, role: str, number: signal.Signals) -> None:
        """Send a signal to the process of a role, or to the command line itself."""
        os.kill(self.process.pid if role == "cli" else self.pid(role), number)

    def operando(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Type another command, with the state directory of this run."""
        return operando(*arguments, "--state", str(self.state))

    # --- when it has ended -----------------------------------------------------------------------------

    def ended(self, *, seconds: float = PATIENCE_S, kept: Sequence[str] = ()) -> int:
        """Return the exit code of the command line; no process of the run may be left, but those ``kept``."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run does not end\n{self.tell()}") from None
        self.out = (self.folder / "cli.out").read_text()
        self.err = (self.folder / "cli.err").read_text()
        allowed = {ROLES[role] for role in kept}
        eventually(lambda: not self.left_over(allowed), "no process left over", tell=self.tell, seconds=20.0)
        assert "Traceback" not in self.err, self.err
        return code

    def left_over(self, allowed: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        """Return the roles of processes that are still there."""
        return [
            role for role, module in ROLES.items()
            if module not in allowed and processes_of(self.folder, module)
        ]  # fmt: skip

    def kill_host(self, roles: Sequence[str] = HOST) -> None:
        """SIGKILL every process of the host at once, as a power cut of its computer would."""
        pids: set[int] = set()
        found = {self.process.pid}
        while found - pids:  # one that was being started while the first ones were stopped
            for pid in found - pids:  # stopped first: nobody sees another one die
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            pids |= found
            found = set(self.pids(roles))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        eventually(lambda: not self.pids(roles), "the host is gone", seconds=20.0)

    def pids(self, roles: Sequence[str]) -> list[int]:
        """Return the processes of these roles that are there."""
        return [pid for role in roles for pid in processes_of(self.folder, ROLES[role])]

    def kill_all(self) -> None:
        """Leave nothing behind, whatever the test did."""
        for pid in [self.process.pid, *processes_of(self.folder)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    @property
    def record(self) -> dict[str, Any]:
        """The run's record.json."""
        record: dict[str, Any] = json.loads((self.run_dir / "record.json").read_text())
        return record

    def events(self, kind: str = "", *, run_only: bool = True) -> list[dict[str, Any]]:
        """Return the rows of the station journal, oldest first, their bodies decoded."""
        query = "SELECT seq, run, wall_s, lab_s, kind, module, body FROM events ORDER BY seq"
        found = []
        for seq, run, wall_s, lab_s, name, module, body in self.rows(query):
            if kind in ("", name) and (not run_only or run == self.run_dir.name):
                row = {"seq": seq, "run": run, "wall_s": wall_s, "lab_s": lab_s, "kind": name}
                found.append({**row, "module": module, "body": json.loads(body)})
        return found

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the station journal, read-only."""
        journal = self.state / "journal.sqlite"
        if not journal.is_file():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10.0)) as base:
            begun = base.execute("SELECT count(*) FROM sqlite_master WHERE name = 'events'").fetchone()[0]
            return base.execute(query).fetchall() if begun else []

    def lines(self) -> str:
        """Return the lines for people, as the journal has them."""
        return "\n".join(str(row["body"].get("text")) for row in self.events("log"))

    def tell(self) -> str:
        """Return what there is to know, for the message of a failed test."""
        parts = []
        for path in [*sorted((self.run_dir / "logs").glob("*.log")), *sorted(self.folder.glob("cli.*"))]:
            text = path.read_text(errors="replace")[-1500:]
            if text.strip():
                parts.append(f"--- {path.name}\n{text}")
        with contextlib.suppress(sqlite3.Error):
            parts.append(f"--- lines\n{self.lines()[-3000:]}")
        parts.append(f"--- left over: {self.left_over()}, status: {self.status()}")
        return "\n".join(parts)


class Listener:
    """Another program on the network: everything that the broker sends, with the time of its arrival."""

    def __init__(self, host: str, port: int, user: str, password: str, on_message: Any = None) -> None:
        import paho.mqtt.client as paho

        self.got: list[tuple[str, bytes, bool]] = []
        self._then = on_message
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(user, password)
        self._client.on_connect = lambda client, *_: client.subscribe("operando/v1/#", qos=1)
        self._client.on_message = self._take
        self._client.connect(host, port)
        self._client.loop_start()

    @classmethod
    def of(cls, run: Run, on_message: Any = None) -> Listener:
        """Listen with the name and password of the line that the run prints for ``mosquitto_sub``."""
        path = run.run_dir / "watch.txt"
        words = eventually(lambda: path.is_file() and path.read_text(), "the line to watch with").split()
        host, port, user, password = (words[words.index(key) + 1] for key in ("-h", "-p", "-u", "-P"))
        return cls(host, int(port), user, password, on_message)

    def _take(self, _client: Any, _userdata: Any, message: Any) -> None:
        self.got.append((message.topic, message.payload, bool(message.retain)))
        if self._then is not None:
            self._then(message)

    def named(self, part: str) -> list[dict[str, Any]]:
        """Return the JSON payloads of all topics with ``part`` in them."""
        return [json.loads(payload) for topic, payload, _ in list(self.got) if part in topic and payload]

    def stop(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()


def operando(*arguments: str, seconds: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Type a command and wait for its end."""
    return subprocess.run(
        [*OPERANDO, *arguments], capture_output=True, text=True, timeout=seconds, check=False, cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def experiment(path: Path, steps: str = "", **changes: str) -> Path:
    """Write ``short.toml`` with other steps, and with ``changes`` of text; return the path."""
    text = (EXPERIMENTS / "short.toml").read_text()
    if steps:
        text = text[: text.index("[[step]]")] + steps
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def one_scan(path: Path, *, passes: int = 1, pixels: tuple[int, int] = (8, 12)) -> Path:
    """Write the shortest experiment there is: one small scan."""
    return experiment(path, scan_step("as prepared", pixels, 10.0, f"until = {{ passes = {passes} }}"))


def scan_step(
    name: str,
    pixels: tuple[int, int],
    dwell_ms: float,
    until: str = "",
    *,
    timeout: str = "5 min",
    header: str = "[[step]]",
) -> str:
    """Return the table of a scan; without ``until`` it follows the other steps of a ``parallel``."""
    shape = f'pixels = [{pixels[0]}, {pixels[1]}], size = ["100 um", "300 um"], dwell = "{dwell_ms:g} ms"'
    ends = f'{until}\ntimeout = "{timeout}"\n' if until else ""
    return f'{header}\ndo = "scan"\nname = "{name}"\nraster = {{ {shape} }}\n{ends}\n'


def energised(
    path: Path, *, charge_s: float = 300.0, pixels: tuple[int, int] = (16, 24), dwell_ms: float = 20.0,
    prepared: str = "",
) -> Path:  # fmt: skip
    """Write an experiment with everything on within lab seconds: plate, cell and beam, for ``charge_s``.

    ``prepared`` is its first step, if that shall not be the shortest of scans.
    """
    return experiment(
        path,
        f"""{prepared or scan_step("as prepared", (8, 12), 10.0, "until = { passes = 1 }")}
[[step]]
do = "heat"
to = "335 K"
within = "7.5 K"
ramp = "15 K/min"
timeout = "5 min"

[[step]]
do = "parallel"

[[step.step]]
do = "charge"
current = "10 uA"
voltage = "4.0 V"
until = {{ duration = "{charge_s:g} s" }}
timeout = "{charge_s + 60:g} s"

{scan_step("charging", pixels, dwell_ms, header="[[step.step]]")}""",
    )


def warm_scenario(path: Path, *, ambient_k: float = 328.0, **cell: float) -> Path:
    """Write the quickstart scenario in a warm room: its polymer conducts without waiting for the heater."""
    text = (
        (SCENARIOS / "quickstart.toml").read_text().replace("ambient_k = 298.15", f"ambient_k = {ambient_k}")
    )
    more = "".join(f"{name} = {value}\n" for name, value in cell.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("[holder]", f"{more}\n[holder]"))
    return path


def edited_station(world: World, path: Path, edit: Callable[[str], str]) -> Path:
    """Write the station file of a bench, changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(edit(world.station.read_text()))
    return path


@contextlib.contextmanager
def a_bench(folder: Path, *, warm: bool = True, **settings: Any) -> Iterator[World]:
    """Run a bench of one's own, in a warm room unless told otherwise."""
    if warm:
        settings["scenario"] = warm_scenario(folder / "warm.toml")
    world = World.start(folder, **settings)
    try:
        yield world
    finally:
        world.stop()


@contextlib.contextmanager
def ending(run: Run) -> Iterator[Run]:
    """Kill whatever is left of a run when the test is over."""
    try:
        yield run
    finally:
        run.kill_all()


def _socket_of(state: Path, name: str) -> Path:
    from controller.paths import StateDir

    return StateDir(state).socket(name)
