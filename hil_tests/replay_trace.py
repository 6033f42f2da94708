"""``python -m hil_tests.replay_trace FILE --dir DIR``: the instruments of a recorded trace, once more.

Writes ``DIR/station.toml``, prints its path as the first line when every port is open, and runs until its
standard input closes, SIGTERM or Ctrl-C. Then it prints what was answered as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from hil_tests.sim.owner import watch_owner
from hil_tests.sim.replay_trace import Replay, read


async def serve(args: argparse.Namespace) -> None:
    """Play until told to stop."""
    replay = Replay(read(args.trace))
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await replay.start()
    try:
        args.dir.mkdir(parents=True, exist_ok=True)
        station = args.dir.absolute() / "station.toml"
        station.write_text(replay.station_file(), encoding="utf-8")
        print(station, flush=True)
        watch_owner(loop, stopped)
        await stopped.wait()
    finally:
        await replay.stop()
    print(json.dumps({"lines": replay.counters(), "dropped": replay.recording.dropped}), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m hil_tests.replay_trace", description=__doc__)
    parser.add_argument("trace", type=Path, help="file that --trace-wire has written")
    parser.add_argument("--dir", type=Path, default=Path("replay"), help="where station.toml is written")
    try:
        asyncio.run(serve(parser.parse_args(arguments)))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
