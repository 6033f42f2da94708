"""How much a run writes: ``python -m hil_tests.wear --minutes 2``, plate, cell and beam on, in real time.

Counts what the processes of the host hand to the disk (``write_bytes`` of /proc/PID/io), by process, and the
growth of the run's files. A file system adds its own journal, and a card writes whole erase blocks for less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from hil_tests.harness import HOST, ROLES, World, processes_of, start_energised, warm_scenario


def written(folder: Path) -> dict[str, int]:
    """Return the bytes that each role has written so far."""
    found = {}
    for role in HOST:
        for pid in processes_of(folder, ROLES[role]):
            lines = dict(
                line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines() if ": " in line
            )
            found[role] = found.get(role, 0) + int(lines["write_bytes"])
    return found


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--dir", type=Path, help="on the disk to be measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        world = World.start(folder / "bench", speed=1.0, scenario=warm_scenario(folder / "warm.toml"))
        try:
            run = start_energised(world, folder / "host", charge_s=86_400.0)
            try:
                before, files, began_s = written(folder / "host"), size(folder / "host"), time.monotonic()
                time.sleep(60.0 * args.minutes)
                hours = (time.monotonic() - began_s) / 3600.0
                after, grown = written(folder / "host"), size(folder / "host") - files
            finally:
                run.kill_all()
        finally:
            world.stop()
    for role, total in after.items():
        print(f"{role:<11} {(total - before.get(role, 0)) / hours / 1e6:8.1f} MB/h")
    print(f"{'all':<11} {(sum(after.values()) - sum(before.values())) / hours / 1e6:8.1f} MB/h")
    print(f"files grow  {grown / hours / 1e6:8.1f} MB/h   ({60 * hours:.1f} min in real time)")


if __name__ == "__main__":
    main()
