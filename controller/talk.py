"""Talking to a running host from the command line, over its local socket."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.desk import not_cleared
from controller.local import LocalError, ask, watch
from controller.paths import StateDir, StationBusy, StationLock

EXIT_INSTRUMENT = 3
SAFE_TIMEOUT_S = 10.0
SUPERVISOR_TIMEOUT_S = 7.0  # control's answer, and if there is none every output by itself


def person() -> str:
    """Return who gives a command, for the journal: the account, and that it was at this machine."""
    try:
        return f"{getpass.getuser()} at this machine"
    except (KeyError, OSError):  # an account without a name
        return "a person at this machine"


def talk(args: argparse.Namespace) -> int:
    """Run one of status, pause, proceed, stop, abort, safe, answer, clear, watch."""
    state = _state(args)
    try:
        if args.verb == "watch":
            return _watch(state)
        request: dict[str, Any] = {"do": args.verb, "by": person()}
        if args.verb == "clear":
            request["id"] = args.id
            request["acknowledge"] = args.acknowledge
        if args.verb == "answer":
            request["id"], request["choice"] = _meant(args.words)
        if args.verb == "safe":
            reply = _safe(state, request)
        else:
            reply = ask(state.socket("control"), request, timeout_s=SAFE_TIMEOUT_S)
    except LocalError as error:
        if args.verb == "status":
            return _status_without_control(state, str(error), as_json=args.json)
        if args.verb not in ("clear", "answer") or not state.journal.is_file():
            print(error, file=sys.stderr)
            return EXIT_INSTRUMENT
        latch, found = (args.id, args.acknowledge) if args.verb == "clear" else _meant(args.words)
        if not latch:
            print(f"{error}: nobody asks", file=sys.stderr)
            return EXIT_INSTRUMENT
        reply = _clear(state, args.station_name, latch, found)
    if args.json:
        print(json.dumps(reply, default=str))
    else:
        _print(args.verb, reply)
    return 0 if reply.get("ok") else EXIT_INSTRUMENT


def _safe(state: StateDir, request: dict[str, Any]) -> dict[str, Any]:
    """Tell control and the supervisor at once: whichever lives acts, and a frozen one holds up nobody.

    The supervisor's answer counts, for it sees to it that control has acted; without it, control's own.
    """
    control = threading.Thread(target=_tell, args=(state.socket("control"), request), daemon=True)
    control.start()
    try:
        return ask(state.socket("supervisor"), request, timeout_s=SUPERVISOR_TIMEOUT_S)
    except LocalError as error:
        try:
            reply = ask(state.socket("control"), {"do": "safe_results"}, timeout_s=SAFE_TIMEOUT_S)
        except LocalError:
            raise error from None
        reply.setdefault("text", f"safe: done by control; the supervisor did not answer ({error})")
        return reply


def _tell(socket: Path, request: dict[str, Any]) -> None:
    with contextlib.suppress(LocalError):
        ask(socket, {**request, "ack": True}, timeout_s=SAFE_TIMEOUT_S)


def _meant(words: Sequence[str]) -> tuple[str, str]:
    """Return which question is meant, empty for the only one, and what was answered."""
    return (words[0], " ".join(words[1:])) if len(words) > 1 else ("", words[0])


def _state(args: argparse.Namespace) -> StateDir:
    """Return the state folder asked for, or the station's own, or that of a bench run started here."""
    if args.state is not None:
        return StateDir(args.state.absolute())
    state = StateDir.of(args.station_name)
    if state.socket("supervisor").exists():
        return state
    for folder in sorted(Path("runs").glob("*/state"), reverse=True):
        candidate = StateDir(folder.absolute())
        if candidate.socket("supervisor").exists():
            return candidate
    return state


def _clear(state: StateDir, station: str, trip_id: str, found: str) -> dict[str, Any]:
    """Clear a latch while no host runs: one that finds a latch ends at once, so there is none to ask."""
    from controller.journal_rows import JournalError
    from controller.journal_store import Journal

    lock = StationLock(state)
    try:
        lock.acquire({"doing": "operando clear"})
        with Journal.open(state.journal, station=station) as journal:
            journal.boot("clear")
            asked = {latch.id: str(latch.body.get("acknowledge", "")) for latch in journal.latches()}
            if asked.get(trip_id) and not found.strip():
                return not_cleared(trip_id, asked[trip_id])
            cleared = journal.clear_latch(trip_id, f"{person()}: {found}" if found else person())
            held = [latch.id for latch in journal.latches()]
    except (StationBusy, JournalError) as error:
        return {"ok": False, "error": str(error)}
    finally:
        lock.release()
    still = f"; still latched: {', '.join(held)}" if held else ""
    text = f"{trip_id} {'cleared' if cleared else 'is not latched'}{still}"
    return {"ok": True, "text": text} if cleared else {"ok": False, "error": text}


def _watch(state: StateDir) -> int:
    from rich.console import Console

    from controller.display import follow

    try:
        follow(watch(state.socket("control")), Console())
    except KeyboardInterrupt:
        return 0
    return 0


def _status_without_control(state: StateDir, error: str, *, as_json: bool) -> int:
    """Say what is known without control: what journal and supervisor know, and nothing measured."""
    from controller.idle import idle, idle_lines

    try:
        supervisor = ask(state.socket("supervisor"), {"do": "status"}, timeout_s=SUPERVISOR_TIMEOUT_S)
    except LocalError:
        supervisor = {}
    told = idle(state, error, supervisor)
    if as_json:
        print(json.dumps(told, default=str))
    else:
        print(error, file=sys.stderr)
        lines = list(idle_lines(told)) if told["host"] == "silent" or told["last_run"] else []
        print("\n".join(lines or [str(told["journal"])]))
    return EXIT_INSTRUMENT


def _print(verb: str, reply: dict[str, Any]) -> None:
    if not reply.get("ok"):
        print(f"{verb}: {reply.get('error', 'refused')}", file=sys.stderr)
        return
    if verb == "status":
        from rich.console import Console

        from controller.display import one_line
        from controller.panel import panel

        console = Console()
        if console.is_terminal and not console.is_dumb_terminal:
            console.print(panel(reply, console.width))
        else:
            print(one_line(reply))
        return
    print(reply.get("text") or f"{verb}: done")
    for result in reply.get("results") or []:
        state = "off, confirmed" if result["confirmed"] else f"NOT CONFIRMED: {result['error']}"
        print(f"  {result['output']:<8} {state}  ({result['seconds'] * 1e3:.0f} ms)")
