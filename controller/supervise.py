"""The supervisor: starts and restarts the processes, and drives every output off when control cannot.

Deliberately small. It never talks to an instrument while control lives; it holds the drivers preloaded so
that ``offpath`` needs no import when it counts. Exit code: control's own, or 4 when the supervisor acted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import offpath
from controller.broker import watch_line
from controller.config import ConfigErrors, Station, load_station
from controller.config.instruments.hexitec import Hexitec
from controller.finishing import FINISH_S, missing
from controller.local import LocalServer
from controller.logs import bound_logs
from controller.notify import Notifier
from controller.onlookers import Surroundings, onlookers
from controller.paths import StateDir, StationBusy, StationLock

HEARTBEAT_S = 0.5
FEED_S = 1.0  # systemd's watchdog, if there is one
LOGS_TURNS = 10  # of it between two looks at the sizes of the logs
CONTROL_FROZEN_S = 5.0  # no heartbeat for this long: control is as good as dead
KILLED_S = 0.25  # a killed control that waits for its disk may end much later; its lines are not waited for
CONFIRM_S = 0.1  # what `safe` gives control before the supervisor acts itself
SAFE_REPLY_S = 2.5  # a little longer than an output may take to confirm
RESTART_WINDOW_S = 60.0
RESTART_LIMIT = 5
DRAIN_S = 5.0
STARTING_S = 15.0  # a control that does not listen yet may take this long to do so
EXIT_GUARD, EXIT_ABORTED = 4, 5
START_TIMEOUT_S = 30.0


class StartError(Exception):
    """A process of the host did not come up; ``code`` is the exit code that says whose fault it is."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Child:
    """One process of the host."""

    name: str
    command: Sequence[str]
    process: asyncio.subprocess.Process
    started: list[float]


class Supervisor:
    """Runs one host to its end."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.state = StateDir(args.state)
        self.run_dir: Path = args.run_dir
        self._children: dict[str, Child] = {}
        self._heard = time.monotonic()
        self._acted = False
        self._ending = False
        self._aborted_early = False
        self._main: asyncio.Task[int] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._station: Station | None = None  # read beforehand: `safe` must not wait for a file
        self._ready: offpath.Prepared | None = None  # nor for an import
        self._preparing: asyncio.Task[None] | None = None
        self._why = ""  # control was ended from here, if it was
        self._notify = Notifier()
        self._off_path = asyncio.Lock()  # two at once would talk over each other on every wire

    async def run(self) -> int:
        """Start everything, wait for control to end, leave nothing energised and nothing running."""
        lock = StationLock(self.state)
        lock.acquire({"pid": os.getpid(), "since": time.time(), "experiment": str(self.args.experiment)})
        server = LocalServer(self.state.socket("supervisor"), self._handle)
        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, signal.Signals(number).name)
        feeding = asyncio.create_task(self._feed())
        try:
            await server.start()  # who is answered here may send signals
            return await self._run()
        except asyncio.CancelledError:
            if not self._aborted_early:
                raise
            print("aborted before anything was energised", file=sys.stderr)
            return EXIT_ABORTED
        finally:
            self._ending = True
            await self._stop_children()
            await server.stop()
            feeding.cancel()
            lock.release()

    async def _run(self) -> int:
        if self.args.bench:
            self.args.station = await self._start_bench(json.loads(self.args.bench))
        with contextlib.suppress(ConfigErrors, OSError):  # control refuses it in better words
            self._station = load_station(self.args.station)
        self._preparing = asyncio.create_task(self._prepare())  # done before control has energised anything
        broker = await self._start_broker() if self.args.broker == "embedded" else self.args.broker
        self._tell_how_to_watch(broker)
        for name, command in self._helpers(broker).items():
            await self._start(name, command)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        control = await self._start(
            "control",
            [
                sys.executable, "-m", "controller.host", "--station", str(self.args.station),
                "--state", str(self.state.path), "--run-dir", str(self.run_dir),
                "--experiment", str(self.args.experiment), "--heartbeat", str(theirs.fileno()),
                *(["--resume"] if self.args.resume else []),
                *(["--trace-wire", str(self.args.trace_wire)] if self.args.trace_wire else []),
            ],
            pass_fds=(theirs.fileno(),),
        )  # fmt: skip
        theirs.close()
        onlooking = self._onlookers(broker)
        for name, command in onlooking.items():
            await self._start(name, command)
        kept = ("reduce", "link", "broker", *self._acquiring(), *onlooking)
        watchers = [
            asyncio.create_task(self._heartbeat(ours)),
            asyncio.create_task(self._watch_frozen(control)),
            *(asyncio.create_task(self._keep(name)) for name in kept),
        ]
        code = await control.process.wait()
        self._ending = True
        self._notify.control_ended()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        ours.close()
        if code < 0 or self._acted or code not in (0, 2, 3, 4, 5, 6):
            await self._make_safe(self._why or f"control ended with {_ending(code)}")
            code = EXIT_GUARD
        await self._finish()
        return code

    # --- processes -------------------------------------------------------------------------------------

    def _acquiring(self) -> dict[str, list[str]]:
        """Return the processes that take frames from cameras, by name."""
        devices = self._station.devices.items() if self._station is not None else ()
        command = [sys.executable, "-m", "controller.acquire"]
        return {
            f"acquire-{name}": [*command, *table.acquire]
            for name, table in devices
            if isinstance(table, Hexitec)
        }

    def _onlookers(self, broker: str) -> dict[str, list[str]]:
        """Return the processes that only look on, by name."""
        if self._station is None:
            return {}
        around = Surroundings(
            self._station, Path(self.args.station), self.state, self.run_dir.resolve(), broker
        )
        return {name: [sys.executable, "-m", *rest] for name, rest in onlookers(around).items()}

    def _helpers(self, broker: str) -> dict[str, list[str]]:
        python = [sys.executable, "-m"]
        return {
            **self._acquiring(),
            "reduce": [*python, "controller.reduce_main", "--socket", str(self.state.socket("reduce"))],
            "link": [
                *python, "controller.link", "--journal", str(self.state.journal),
                "--socket", str(self.state.socket("link")), "--station", self.args.name, "--broker", broker,
            ],
        }  # fmt: skip

    async def _start(self, name: str, command: Sequence[str], *, pass_fds: Sequence[int] = ()) -> Child:
        log = (self.run_dir / "logs" / f"{name}.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log, pass_fds=tuple(pass_fds),
            start_new_session=True,
        )  # fmt: skip
        log.close()
        started = self._children[name].started if name in self._children else []
        child = Child(name, command, process, [*started, time.monotonic()])
        self._children[name] = child
        return child

    async def _start_bench(self, arguments: Sequence[str]) -> Path:
        """Start the virtual bench as a process of its own and return the station file it wrote."""
        line = await self._start_and_read("bench", [sys.executable, "-m", "hil_tests.bench", *arguments])
        return Path(line)

    async def _start_broker(self) -> str:
        """Start the embedded broker and return its connection as JSON."""
        command = [sys.executable, "-m", "controller.broker", "--dir", str(self.state.path / "broker")]
        return await self._start_and_read("broker", [*command, "--station", self.args.name])

    def _tell_how_to_watch(self, broker: str) -> None:
        """Write the exact mosquitto_sub line into the run's folder, readable by its owner only."""
        if broker == "none":
            return
        path = self.run_dir / "watch.txt"
        path.touch(mode=0o600)
        path.write_text(watch_line(json.loads(broker), self.args.name) + "\n")

    async def _start_and_read(self, name: str, command: Sequence[str]) -> str:
        """Start a process that says one line when it is ready; return that line."""
        log = (self.run_dir / "logs" / f"{name}.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        log.close()
        started = self._children[name].started if name in self._children else []
        self._children[name] = Child(name, command, process, [*started, time.monotonic()])
        assert process.stdout is not None  # noqa: S101 - asked for above
        line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
        if not line:
            code = await asyncio.wait_for(process.wait(), START_TIMEOUT_S)
            said = (self.run_dir / "logs" / f"{name}.log").read_text().strip().splitlines()
            wrong_arguments = 2 if code == 2 else 3
            raise StartError(f"{name}: {said[-1] if said else _ending(code)}", wrong_arguments)
        return line.decode().strip()

    async def _keep(self, name: str) -> None:
        """Start a process again when it ends; give up, and say so, when it keeps dying."""
        while name in self._children:
            child = self._children[name]
            code = await child.process.wait()
            if self._ending:
                return
            recent = [at for at in child.started if time.monotonic() - at < RESTART_WINDOW_S]
            self._log(f"{name} ended with {_ending(code)}", restarts=len(recent))
            if len(recent) >= RESTART_LIMIT:
                self._log(f"{name} keeps ending: not started again")
                return
            await asyncio.sleep(0.2 * len(recent))
            if name == "broker":
                try:
                    await self._start_broker()
                except (StartError, TimeoutError) as error:  # the next turn counts it and tries again
                    self._log(f"broker did not start again: {error}")
            else:
                await self._start(name, child.command)

    async def _stop_children(self) -> None:
        """End what is left: politely by closing stdin and SIGTERM, then SIGKILL."""
        living = [c for c in self._children.values() if c.process.returncode is None]
        for child in living:
            if child.process.stdin is not None:
                child.process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        for child in living:
            try:
                await asyncio.wait_for(child.process.wait(), 3.0)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    child.process.kill()
                await child.process.wait()

    async def _finish(self) -> None:
        """Give link a moment to deliver, then write summary, report and exports."""
        reduce = self._children.get("reduce")
        if reduce is not None and reduce.process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reduce.process.wait(), DRAIN_S)
        finish = await self._start(
            "finish", [sys.executable, "-m", "controller.offline.finish", str(self.run_dir)]
        )
        try:
            await asyncio.wait_for(finish.process.wait(), FINISH_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(
                    finish.process.pid, signal.SIGKILL
                )  # a session of its own: what it started ends, too
            await finish.process.wait()
            text = missing(self.run_dir, FINISH_S)
            self._log(text)
            print(text, file=sys.stderr, flush=True)

    # --- watching control ------------------------------------------------------------------------------

    async def _heartbeat(self, link: socket.socket) -> None:
        """Beat every 0.5 s and listen for control's beats."""
        loop = asyncio.get_running_loop()

        async def listen() -> None:
            while beats := await loop.sock_recv(link, 64):
                self._heard = time.monotonic()
                self._notify.heard(beats[-1])

        listener = asyncio.create_task(listen())
        try:
            while not listener.done():
                with contextlib.suppress(BlockingIOError):
                    await loop.sock_sendall(link, b"s")
                await asyncio.sleep(HEARTBEAT_S)
        except OSError:
            return  # control is gone: its exit code tells the rest
        finally:
            listener.cancel()

    async def _feed(self) -> None:
        """Tell systemd's watchdog that all is well, as long as it is; keep the logs in bounds."""
        for turn in itertools.count():
            self._notify.feed()
            if turn % LOGS_TURNS == 0:
                await asyncio.to_thread(bound_logs, self.run_dir / "logs")
            await asyncio.sleep(FEED_S)

    async def _watch_frozen(self, control: Child) -> None:
        """Kill a control that no longer beats: frozen must be as harmless as dead."""
        self._heard = time.monotonic() + 20.0  # start-up: imports on a slow card
        while control.process.returncode is None:
            await asyncio.sleep(HEARTBEAT_S)
            if time.monotonic() - self._heard > CONTROL_FROZEN_S:
                self._acted = True  # what happened is written down when everything is off
                self._why = f"control was silent for more than {CONTROL_FROZEN_S:g} s: killed"
                if not await self._kill_control():  # once more when it has ended, which ends this task
                    await asyncio.shield(asyncio.ensure_future(self._make_safe(self._why)))
                    return

    async def _kill_control(self) -> bool:
        """Kill control; return whether it is gone. What waits for a disk dies only when the disk answers."""
        control = self._children.get("control")
        if control is not None and control.process.returncode is None:
            control.process.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(control.process.wait(), KILLED_S)
        return control is None or control.process.returncode is not None

    async def _prepare(self) -> None:
        """Build the off path beforehand: a driver that cannot be built shows itself in control."""
        if self._station is not None:
            with contextlib.suppress(Exception):
                self._ready = await asyncio.to_thread(offpath.prepare, self._station)

    async def _make_safe(self, why: str) -> list[dict[str, Any]]:
        """Drive every output off through the preloaded path and write down what was confirmed."""
        async with self._off_path:
            began = time.monotonic()
            ready, self._ready = self._ready, None
            results = await offpath.drive_off(ready or self._station or self.args.station)
            seconds = round(time.monotonic() - began, 4)
        await asyncio.to_thread(self._log, why, results=results, seconds=seconds)
        return results

    # --- commands --------------------------------------------------------------------------------------

    async def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        verb = request.get("do")
        if verb == "safe":
            return await self._safe(str(request.get("by", "a person")))
        if verb == "status":
            states = {name: child.process.returncode is None for name, child in self._children.items()}
            return {"ok": True, "processes": states, "run_dir": str(self.run_dir)}
        return {"ok": False, "error": f"the supervisor knows safe and status, not {verb!r}"}

    async def _safe(self, by: str) -> dict[str, Any]:
        """Outputs off, now: control first; one that does not take it within 100 ms is killed."""
        with contextlib.suppress(TimeoutError, OSError, ValueError):
            reply = await self._control_makes_safe(by)
            if reply.get("ok"):
                return {"ok": True, "by": "control", "results": reply.get("results")}
        self._acted = True
        self._why = self._why or "safe was asked for and control did not confirm"
        await self._kill_control()
        results = await self._make_safe(self._why)
        return {"ok": all(r["confirmed"] for r in results), "by": "supervisor", "results": results}

    async def _control_makes_safe(self, by: str) -> dict[str, Any]:
        """Ask control; return what became of it. Raises TimeoutError when it does not take it at once."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONFIRM_S):
                reader, writer = await asyncio.open_unix_connection(str(self.state.socket("control")))
                writer.write(json.dumps({"do": "safe", "ack": True, "by": by}).encode() + b"\n")
                await reader.readline()
            async with asyncio.timeout(SAFE_REPLY_S):
                writer.write(b'{"do": "safe_results"}\n')
                reply: dict[str, Any] = json.loads(await reader.readline())
        finally:
            if writer is not None:
                writer.close()
        return reply

    def _on_signal(self, name: str) -> None:
        """Abort: through control when there is one, else by not starting it."""
        if "control" in self._children:
            self._telling = asyncio.ensure_future(self._tell_control({"do": "abort", "by": name}))
        elif self._main is not None and not self._ending:
            self._aborted_early = True
            self._main.cancel()

    async def _tell_control(self, request: dict[str, str]) -> None:
        """Pass a signal on as a command; a control that does not take it is killed and made safe."""
        control, deadline = self._children["control"], time.monotonic() + STARTING_S
        while control.process.returncode is None:
            try:
                async with asyncio.timeout(1.0):
                    reader, writer = await asyncio.open_unix_connection(str(self.state.socket("control")))
                    writer.write(json.dumps(request).encode() + b"\n")
                    await reader.readline()
                    writer.close()
            except (ConnectionRefusedError, FileNotFoundError):
                if time.monotonic() < deadline:
                    await asyncio.sleep(0.1)
                    continue
            except (TimeoutError, OSError):
                pass
            else:
                return
            self._acted = True
            await self._kill_control()

    def _log(self, what: str, **more: Any) -> None:
        """Append to the small fsynced file that the next control journals before anything else."""
        line = json.dumps({"t": time.time(), "what": what, "run": self.run_dir.name, **more}, default=str)
        with contextlib.suppress(OSError):  # a full disk must not keep it from what it was doing
            fd = os.open(self.state.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(fd, line.encode() + b"\n")
                os.fsync(fd)
            finally:
                os.close(fd)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m controller.supervise``; people use ``operando run``."""
    parser = argparse.ArgumentParser(prog="controller.supervise", description=__doc__)
    parser.add_argument("--station", type=Path, help="the station file (a virtual bench writes its own)")
    parser.add_argument("--bench", help="arguments of the virtual bench to start, as a JSON list")
    parser.add_argument("--name", required=True, help="name of the station")
    parser.add_argument("--experiment", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--broker", default="embedded", help="embedded, none, or a connection as JSON")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--trace-wire", type=Path)
    args = parser.parse_args(argv)
    (args.run_dir / "logs").mkdir(parents=True, exist_ok=True)
    try:
        return asyncio.run(Supervisor(args).run())
    except StartError as error:
        print(error, file=sys.stderr)
        return error.code
    except (StationBusy, TimeoutError) as error:
        print(str(error) or "a process of the host was not ready in time", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
