"""The lists in BENCH.md that come from the code: faults of every twin, values that may be set, commands.

    python -m hil_tests.bench_page        writes them, and sim/fault_kinds.json, which ``describe`` reads

A kind is found by trying: every word that stands anywhere in the simulators is given to every twin, and what
it does not refuse as unknown is a kind. So no kind can be forgotten. What it means is the text of ``inject``.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hil_tests.bench import Bench
from hil_tests.sim import api, rack
from hil_tests.sim.settable import SETTABLE
from hil_tests.sim.wire import faults as wire

SIMULATORS = Path(__file__).parent / "sim"
PAGE = Path(__file__).parent / "BENCH.md"
BEGIN, END = "<!-- from the code: python -m hil_tests.bench_page -->", "<!-- end -->"
UNKNOWN = re.compile(r"\bno (such )?fault\b|^unknown fault")
MORE = {
    "HexitecTwin": "Faults of the stream, ``count`` of them: ``lost``, ``doubled``, ``swapped``, ``late`` "
    "packets, ``wrong_size``; ``skip``: so many frame numbers left out; ``renumber``: numbers go on from "
    "``first``; ``silence`` for ``wall_s``.",
}
WORD = re.compile(r"[a-z][a-z0-9_]{2,20}")


@functools.cache
def words() -> tuple[str, ...]:
    """Return every string in the simulators that could be the name of a fault."""
    found = set()
    for path in SIMULATORS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
                found.add(node.value)
    return tuple(sorted(found))


def takes(twin: Any, kind: str) -> bool:
    """Return whether a twin knows a kind, whatever else is wrong with the table."""
    try:
        twin.inject({"kind": kind})
    except ValueError as error:
        return not UNKNOWN.search(str(error))
    except Exception:  # it knew the kind, and missed a key or its port
        return True
    return True


@functools.cache
def twins() -> Mapping[str, tuple[str, Any]]:
    """Return every twin that a rack can hold by the name of its class: (its target, it). None is started."""
    bench = Bench("quickstart")
    around = rack.Around(bench.world, bench.clock, bench.io, bench.world.photons)
    found: dict[str, tuple[str, Any]] = {type(bench.io).__name__: ("io", bench.io)}
    for drivers in rack.CHOICES.values():
        for entry in drivers.values():
            for target, twin in entry(around).twins.items():
                found.setdefault(type(twin).__name__, (target, twin))
    return found


@functools.cache
def kinds() -> Mapping[str, list[str]]:
    """Return the kinds of faults of every twin by the name of its class.

    Those of the wire are left out where a twin has them all.
    """
    found = {}
    for name, (_, twin) in sorted(twins().items()):
        mine = [word for word in words() if takes(twin, word)]
        whole = set(wire_kinds()) <= set(mine)
        found[name] = [word for word in mine if not (whole and word in wire_kinds())]
    return found


def wire_kinds() -> list[str]:
    """Return the kinds of faults of the wire."""
    known = wire.WireFaults()
    return [word for word in words() if known.knows(word)]


def meaning(name: str) -> str:
    """Return what the code says of the kinds of a twin: its ``inject``, or the top of its file."""
    kind = type(twins()[name][1])
    text = inspect.getdoc(kind.inject) or ""
    if "see the top" in text:
        paragraphs = (inspect.getdoc(inspect.getmodule(kind)) or "").split("\n\n")
        text = "\n".join(part for part in paragraphs if "``" in part)
    return " ".join(f"{text} {MORE.get(name, '')}".split())


def tables() -> str:
    """Return the part of the page that comes from the code."""
    parts = ["### Commands\n", "| `do` | does |\n|---|---|"]
    parts += [f"| `{name}` | {about} |" for name, about in api.COMMANDS.items()]
    parts += ["\n### Values\n", "| `what` | unit | means |\n|---|---|---|"]
    parts += [f"| `{name}` | {one.unit} | {one.about} |" for name, one in SETTABLE.items()]
    parts += ["\n### Faults of every wire\n", " ".join(f"`{kind}`" for kind in wire_kinds())]
    parts += ["\n" + (wire.__doc__ or "").partition("\n\n")[2].strip()]
    parts += ["\n### Faults of the twins\n"]
    for name, found in kinds().items():
        target = twins()[name][0]
        listed = " ".join(f"`{kind}`" for kind in found)
        parts.append(f"**{name}** (target `{target}`): {listed}\n\n{meaning(name)}\n")
    return "\n".join(parts).strip() + "\n"


def page(text: str) -> str:
    """Return the page with its lists made anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{tables()}{END}{tail}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(prog="python -m hil_tests.bench_page", description=__doc__)
    parser.parse_args(arguments)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    api.KINDS.write_text(json.dumps(kinds(), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
