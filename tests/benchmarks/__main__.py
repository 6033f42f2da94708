"""``python -m tests.benchmarks``: everything, or what is named; ``--ticks`` shortens the system benchmark."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: one core against one core

from tests.benchmarks import compton, events, fits, heating, host, ion_beam, particles, safe, system, threads
from tests.benchmarks.conditions import conditions

PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "events": lambda args: events.accumulate(args.rounds),
    "ion-beam": lambda args: ion_beam.ion_beam(args.rounds),
    "decoder": lambda args: events.decoder(args.rounds),
    "fits": lambda args: fits.fits(args.rounds),
    "compton": lambda args: compton.compton(args.rounds),
    "particles": lambda args: particles.particles(args.rounds),
    "threads": lambda args: threads.threads(args.rounds),
    "heating": lambda args: heating.heating(args.heating_figure),
    "guard": lambda args: host.guard(),
    "journal": lambda args: host.journal(args.rounds),
    "start-up": lambda args: host.start_up(args.rounds),
    "safe": lambda args: safe.measure(args),
    "system": lambda args: system.measure(args),
}


def main() -> int:
    """Run the benchmarks in order and print each as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help=" ".join(PARTS)
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each race (default 9)")
    safe.add_arguments(parser)
    system.add_arguments(parser)
    heating.add_arguments(parser)
    args = parser.parse_args()
    print(conditions(), flush=True)
    for name in args.only:
        print(PARTS[name](args), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
