"""The ion-beam reduction of a recorded run, from its raw events, bit for bit as it was done live.

``python -m controller.offline.ion_beam RUN [--out DIR] [--json]`` reads ``RUN/raw`` only: the index with what
control told the reduce process, and the words of the detectors. Nothing in RUN is changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from controller.rawfile import INDEX_NAME, read_index
from controller.reduce.session import Session

DONE, WRONG, GAPS = 0, 2, 6


def reduce_run(
    run_dir: Path, *, settings: dict[str, Any] | None = None, products: Path | None = None
) -> dict[str, Any]:
    """Return the result of a run from its raw files.

    Args:
        run_dir: folder of the run.
        settings: instead of those of the run: other regions, lines, calibration.
        products: also write maps, profiles and spectra into this folder.

    Raises:
        FileNotFoundError: if there is no index of raw events.
        ValueError: if the index tells of no run, or the settings are wrong.
    """
    session = Session(folder=run_dir, products=products)
    begun = False
    for message in _replayed(run_dir):
        if message["k"] == "run":
            begun = True
            message = message if settings is None else {**message, "settings": settings}
        for _ in session.handle(message):
            pass
    if not begun:
        raise ValueError(f"{run_dir}: the index of the raw events tells of no run")
    answers = list(session.handle({"k": "finish"}))
    result: dict[str, Any] = answers[-1]["result"]
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="operando reduce ion_beam", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the result and the products here")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args(argv)
    failed = 0
    for run in args.runs:
        try:
            out = None if args.out is None else args.out / run.name
            result = reduce_run(run, products=None if out is None else out / "products")
            if out is not None:
                (out / "result.json").write_text(json.dumps(result, indent=1))
        except (OSError, ValueError) as error:
            failed += 1
            print(f"operando reduce: {error}", file=sys.stderr)
            continue
        print(json.dumps(result) if args.json else "\n".join(lines(result)))
    if not failed:
        return DONE
    return GAPS if failed < len(args.runs) else WRONG


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result in words."""
    yield f"{result['run']}: {len(result['scans'])} scans"
    for layer in result["layers"]:
        interval = layer["interval"]
        yield f"  {layer['name']} ({interval['scan']}, passes {interval['passes']}): {layer['verdict']}"
        for name, quantity in layer["quantities"].items():
            if not name.endswith(("_counts", "_per_charge")):
                total = (quantity["sigma_stat"] ** 2 + quantity["sigma_sys"] ** 2) ** 0.5
                yield f"    {name:20s} {quantity['value']:8.4f} +- {total:.4f}"
        if layer["z"] is not None:
            agree = "agree" if layer["agree"] else "do not agree"
            yield f"    beam and charge {agree}: z = {layer['z']:+.2f}"
    for flag in result["flags"]:
        yield f"  note: {flag}"


def _replayed(run_dir: Path) -> Iterator[dict[str, Any]]:
    if not (run_dir / "raw" / INDEX_NAME).is_file():
        raise FileNotFoundError(f"{run_dir}: no index of raw events (raw/{INDEX_NAME})")
    return read_index(run_dir / "raw")


if __name__ == "__main__":
    sys.exit(main())
