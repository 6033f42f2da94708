"""Talking to a running host from the command line, over its local socket."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from controller.local import LocalError, ask, watch
from controller.paths import StateDir

EXIT_INSTRUMENT = 3
SAFE_TIMEOUT_S = 10.0


def talk(args: argparse.Namespace) -> int:
    """Run one of status, pause, proceed, stop, abort, safe, clear, watch."""
    state = _state(args)
    try:
        if args.verb == "watch":
            return _watch(state)
        request: dict[str, Any] = {"do": args.verb, "by": "a person at this machine"}
        if args.verb == "clear":
            request["id"] = args.id
        socket = state.socket("supervisor" if args.verb == "safe" else "control")
        reply = ask(socket, request, timeout_s=SAFE_TIMEOUT_S)
    except LocalError as error:
        print(error, file=sys.stderr)
        return EXIT_INSTRUMENT
    if args.json:
        print(json.dumps(reply, default=str))
    else:
        _print(args.verb, reply)
    return 0 if reply.get("ok") else EXIT_INSTRUMENT


def _state(args: argparse.Namespace) -> StateDir:
    """Return the state folder asked for, or the station's own, or that of a bench run started here."""
    if args.state is not None:
        return StateDir(args.state)
    state = StateDir.of(args.station_name)
    if state.socket("supervisor").exists():
        return state
    for folder in sorted(Path("runs").glob("*/state"), reverse=True):
        candidate = StateDir(folder.absolute())
        if candidate.socket("supervisor").exists():
            return candidate
    return state


def _watch(state: StateDir) -> int:
    from rich.console import Console

    from controller.display import follow

    try:
        follow(watch(state.socket("control")), Console())
    except KeyboardInterrupt:
        return 0
    return 0


def _print(verb: str, reply: dict[str, Any]) -> None:
    if not reply.get("ok"):
        print(f"{verb}: {reply.get('error', 'refused')}", file=sys.stderr)
        return
    if verb == "status":
        from rich.console import Console

        from controller.display import one_line, panel

        console = Console()
        if console.is_terminal:
            console.print(panel(reply))
        else:
            print(one_line(reply))
        return
    print(reply.get("text") or f"{verb}: done")
    for result in reply.get("results") or []:
        state = "off, confirmed" if result["confirmed"] else f"NOT CONFIRMED: {result['error']}"
        print(f"  {result['output']:<8} {state}  ({result['seconds'] * 1e3:.0f} ms)")
