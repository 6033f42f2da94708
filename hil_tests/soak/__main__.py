"""``python -m hil_tests.soak``: carry out what has not been finished for this state of the tree.

With ``--table`` nothing is carried out: the newest outcome of each item is printed as a page.

Exit code 0 when no item has failed (skipped ones are named), 1 when one has, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hil_tests.soak.items import ITEMS
from hil_tests.soak.runner import ROOT, Book, Outcome, tree_state
from hil_tests.soak.table import gather, page


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    args = _parser().parse_args(arguments)
    if args.table is not None:
        try:
            print(page(list(ITEMS), gather(args.table or [ROOT])), end="")
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    tree = tree_state()
    book = Book(ROOT / ".soak", tree)
    print(f"tree {tree}, outcomes and logs in {book.folder.relative_to(ROOT)}")
    if args.list:
        for name in ITEMS:
            outcome = book.outcome(name)
            print(f"{name:<18} {_line(outcome) if outcome else 'not done'}")
        return 0
    failed = False
    for name in args.only or ITEMS:
        outcome = book.outcome(name)
        if args.again or outcome is None or outcome.state != "passed":
            print(f"{name} ...", flush=True)
            outcome = book.do(name, ITEMS[name])
        _show(outcome)
        failed |= outcome.state == "failed"
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hil_tests.soak",
        description="What takes too long for make test. A finished item is not repeated for the same commit.",
        epilog="example:\n  python -m hil_tests.soak --only wheels moeller2021\n"
        "  python -m hil_tests.soak --table . ../other-clone > hil_tests/SOAK.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--list", action="store_true", help="say what has been done for this state of the tree"
    )
    parser.add_argument(
        "--table", nargs="*", type=Path, metavar="CLONE",
        help="print the newest outcome of each item, gathered from these clones (default: this one)",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=ITEMS, metavar="NAME", help="; ".join(ITEMS))
    parser.add_argument("--again", action="store_true", help="also what has passed already")
    return parser


def _line(outcome: Outcome) -> str:
    return f"{outcome.state} in {outcome.seconds:.0f} s on {outcome.date}"


def _show(outcome: Outcome) -> None:
    print(f"{outcome.name}: {_line(outcome)}")
    for line in outcome.text.splitlines():
        print(f"    {line}")


if __name__ == "__main__":
    sys.exit(main())
