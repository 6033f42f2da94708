"""What ``make run`` prints last: how the run ended, what came out with its errors, and where the files are.

Shows ``summary.json`` and nothing else: every number is one of that file, rounded to its error. Plain text
where the output is no terminal, plain letters where it knows no others.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from controller.apart import program
from controller.offline import words

EXIT_DONE, EXIT_FILES = 0, 2
WIDTH = 100
LABEL = 56  # columns of the names of quantities, so that the tables of all layers stand in line
LONGEST_VALUE = 14  # of a number with its unit
COLOURS = {0: "green", 6: "yellow"}
ASCII = str.maketrans(
    {
        "±": "+-", "µ": "u", "−": "-", "—": "-", "–": "-", "→": "->", "·": "-", "×": "x", "₂": "2", "ₓ": "x",
        "\u202f": " ", "“": '"', "”": '"', "─": "-", "⁻": "-", "¹": "1", "²": "2", "³": "3", "⁰": "0",
        "Ω": "ohm", "√": "sqrt ", "⁴": "4", "⁵": "5", "⁶": "6", "⁷": "7", "⁸": "8", "⁹": "9",
    }
)  # fmt: skip
FILES = {
    "report": "figures, timeline, results, everything that happened",
    "nexus": "maps, profiles, spectra, readings (HDF5)",
    "cell": "cell data, Battery Data Format columns",
    "profiles": "profiles along the interface normal",
    "impedance": "impedance spectra",
    "summary": "this result for programs",
}

Plain = dict[str, Any]


def result(summary: Mapping[str, Any], folder: Path | None = None, *, width: int = WIDTH) -> RenderableType:
    """Return what is shown of a summary; ``folder`` is put before the names of the files."""
    parts: list[RenderableType] = [_head(summary)]
    if not summary["steps"] and not summary["layers"]:
        return Padding(Group(*parts, *_warnings(summary)), (1, 0, 0, 1), expand=False)
    for layer in by_interest(summary["layers"]):
        parts += [Text(), *_layer(layer, summary, wide=width >= WIDTH)]
    for state in summary.get("radiographs", ()):
        parts += [Text(), Text(_radiograph(state))]
    exposures = summary.get("exposures", ())
    parts += [Text(), *(Text(_exposure(one)) for one in exposures)] if exposures else []
    # What has no scanner counts no layers, and neither does a run that has made nothing but exposures.
    expected = "scanner" in (summary.get("roles") or ("scanner",)) and (summary["scans"] or not exposures)
    if not summary["layers"] and expected:
        parts += [Text(), Text("No result: the reduction gave none for this run.", style="bold yellow")]
    warnings = list(_warnings(summary))
    if warnings:
        parts += [Text(), Text("To know", style="bold"), *warnings]
    parts += [Text(), _details(summary), Text(), *_files(summary, folder)]
    return Padding(Group(*parts), (1, 0, 0, 1), expand=False)


def _radiograph(state: Mapping[str, Any]) -> str:
    """Return one line about a state that a camera saw."""
    found = state.get("lithium6_of_regions") or [one["optical_depth"] for one in state["regions"]]
    told = [
        f"{one['name']} {q['value']:.4g} ± {math.hypot(q['sigma_stat'], q['sigma_sys']):.2g} {q['unit']}"
        for one, q in zip(state["regions"], found, strict=True)
    ]
    what = "lithium-6" if state.get("lithium6_of_regions") else "optical depth"
    soc = f" at SoC {100.0 * state['soc']['mean']:.2f} %" if state.get("soc") else ""
    return f"{state['name']}{soc}, {state['frames']} images: {what} " + (", ".join(told) or "of no region")


def _exposure(one: Mapping[str, Any]) -> str:
    """Return one line about an exposure: what was counted and lost, and what came out with its error."""
    told = [f"{words.count(one['frames'])} frames"]
    if one.get("photons") is not None:
        told.append(f"{words.count(one['photons'])} photons")
    quantity = one.get("s") or {}
    if quantity.get("value") is not None:
        shown = words.cells("s", quantity)
        told.append(f"S = {shown.value} ± {shown.stat} stat ± {shown.sys} sys")
    dark = one.get("dark") or {}
    if dark.get("level"):
        told.append(f"dark level {words.cells('level', dark['level']).short}")
    told.append(f"{words.count(one['lost'])} lost" if one["lost"] else "none lost")
    problem = (
        one.get("why") or one.get("problem") or ("" if one.get("ok", True) else "not counted to its end")
    )
    purpose = "" if one.get("purpose", "sample") == "sample" else f" ({one['purpose']})"
    name = one.get("name") or f"exposure {one['n']}"
    return f"{name}{purpose}, {one['role']}: {', '.join(told)}" + (
        f"; attention: {problem}" if problem else ""
    )


def print_result(summary: Mapping[str, Any], stream: TextIO, folder: Path | None = None) -> None:
    """Print a summary for people."""
    if stream.isatty() and can_show(stream):
        console = Console(file=stream, highlight=False)
        console.print(result(summary, folder, width=console.width))
        return
    console = Console(file=stream, highlight=False, width=WIDTH, no_color=True)
    with console.capture() as captured:
        console.print(result(summary, folder))
    text = "".join(line.rstrip() + "\n" for line in captured.get().splitlines())
    encoding = stream.encoding or "ascii"
    stream.write(
        text if can_show(stream) else text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    )


def can_show(stream: TextIO) -> bool:
    """Return whether an output knows every letter that is used here."""
    try:
        "".join(chr(letter) for letter in ASCII).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# --- inside --------------------------------------------------------------------------------------------


def _head(summary: Mapping[str, Any]) -> RenderableType:
    """Return how the run ended, in one line, and what it took, in the next."""
    word, more = words.ending(summary)
    colour = COLOURS.get(summary["exit_code"], "red")
    first = Text.assemble((word, f"bold {colour}"), (f": {more}" if more else "", colour))
    durations = summary["durations"]
    took = f"{words.seconds(durations.get('lab_s'))} of lab time"
    speed = durations.get("speed")
    if speed not in (None, 1.0) and durations.get("wall_s"):
        reached = durations["lab_s"] / durations["wall_s"]
        took += f" in {words.seconds(durations['wall_s'])} ({reached:.0f} times real time, virtual bench)"
    charge = summary["charge"]
    passed = words.charge(charge.get("coulomb"), charge.get("sigma"))
    second = [] if durations.get("lab_s") is None else [Text(f"{took} · {passed} passed", style="dim")]
    title = Rule(Text(str(summary["run"]), style="bold"), align="left", style="dim")
    named = [Text(str(summary["title"]))] if summary.get("title") else []
    return Group(title, *named, first, *second)


def by_interest(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the layers that have a state of charge first."""
    return sorted(layers, key=lambda layer: layer["kind"] != "host")


def _layer(
    layer: Mapping[str, Any], summary: Mapping[str, Any], *, wide: bool = True
) -> Iterator[RenderableType]:
    """Yield one layer: the verdict in words, what it is made of, and the table of its quantities."""
    change = layer.get("change") or {}
    seen = change.get("seen")
    appeared = words.appeared(layer)
    colour = "dim" if seen is None else "green" if seen and not appeared else "yellow"
    kind = "" if layer["kind"] == layer["name"] else f" ({layer['kind']})"
    head = Text.assemble((str(layer["name"]), "bold"), f"{kind}: ")
    head.append(str(change.get("text", "")), style=f"bold {colour}")
    yield head
    if appeared:
        yield _indented(appeared, "yellow")
    if layer["kind"] == "host" and layer.get("z") is not None:
        yield Text("  " + words.agreement(layer), style="bold red" if layer.get("agree") is False else "bold")
    yield _indented(words.made_of(layer.get("interval")))
    names = [name for name in words.NAMES if name in layer["quantities"]]
    if layer["kind"] == "host":
        wanted = ("li_relative", "x", "soc_beam", "soc_charge")
        names = [name for name in words.NAMES if name in names or name in wanted]
    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1))
    table.add_column("", min_width=LABEL if wide else None, no_wrap=wide)
    table.add_column("value", justify="right", header_style="dim", no_wrap=True)
    why_not: dict[str, list[str]] = {}  # words in place of a number would not fit into its column
    for title in ("± stat", "± sys", "± total"):
        table.add_column(title, justify="right", header_style="dim", no_wrap=True)
    for name in names:
        shown = words.cells(name, layer["quantities"].get(name, {}))
        label = words.name_of(name, layer["name"], summary.get("sample"))
        value = f"{shown.value} {shown.unit}".rstrip()
        if shown.total == words.MISSING and len(value) > LONGEST_VALUE and appeared:
            continue  # compared with nothing; what there is to say of it stands above
        if shown.total == words.MISSING and len(value) > LONGEST_VALUE:
            why_not.setdefault(value, []).append(label)
            continue
        table.add_row(label, Text(value, "bold"), shown.stat, shown.sys, shown.total)
    if table.row_count:
        yield Padding(table, (0, 0, 0, 2))
    for why, labels in why_not.items():
        if why != change.get("text"):  # else the verdict has said it already
            yield _indented(f"{'; '.join(labels)}: {why}", "yellow")
    counts = _counts(layer)
    if counts:
        yield _indented(f"counts: {counts}")


def _indented(text: str, style: str = "dim") -> Padding:
    """Return text that stays indented where it is wrapped."""
    return Padding(Text(text, style=style), (0, 0, 0, 2))


def _counts(layer: Mapping[str, Any]) -> str:
    """Return the net counts of each element with their errors."""
    told = []
    for name, quantity in layer["quantities"].items():
        if name.endswith("_counts"):
            element = name.removesuffix("_counts").capitalize()
            told.append(f"{element} {words.cells(name, {**quantity, 'unit': '1'}).short}")
    return ", ".join(told)


def _warnings(summary: Mapping[str, Any]) -> Iterator[Text]:
    """Yield everything that a reader of the result must know: trips, gaps, quarantined passes, failures."""
    begun = [step["begun_lab_s"] for step in summary.get("steps", [])]

    def at(one: Mapping[str, Any]) -> str:
        lab_s = one.get("lab_s")
        return (
            "" if lab_s is None or not begun else f" (minute {words.fixed((lab_s - min(begun)) / 60.0, 0)})"
        )

    for trip in summary["trips"]:
        text = f"  guard{at(trip)}: {trip.get('text', trip.get('id'))} → {trip.get('action', '')}"
        yield Text(text, style="red")
    for gap in summary["gaps"]:
        if not gap.get("end"):
            yield Text(f"  gap{at(gap)}: {gap['text']}", style="yellow")
    for one in summary["quarantined"]:
        text = f"  scan “{one['name']}” pass {one['n']}{at(one)} does not count: {one['why']}"
        yield Text(text, style="yellow")
    for one in summary.get("outputs_off", []):
        if not one.get("confirmed"):
            yield Text(f"  {one['output']} did not confirm off: {one.get('error', '')}", style="bold red")
    for flag in summary.get("flags", []):
        yield Text(f"  reduction: {flag}", style="yellow")
    for problem in summary["problems"]:
        yield Text(f"  {problem}", style="yellow")


def _details(summary: Mapping[str, Any]) -> Table:
    """Return scans, dose, and what no instrument tells and a person confirmed."""
    table = Table.grid(padding=(0, 2))
    scans = ", ".join(
        f"{scan['name']} {scan['good_passes']}" for scan in summary["scans"] if "good_passes" in scan
    )
    if scans:
        table.add_row(Text("passes", style="dim"), scans)
    dose = summary.get("dose") or {}
    if dose.get("protons_per_cm2") is not None:
        text = f"{words.powers(dose['protons_per_cm2'])} protons/cm² on the scanned field"
        table.add_row(Text("dose", style="dim"), text)
    for one in summary["confirmed_by_person"]:
        table.add_row(Text("confirmed", style="dim"), confirmation(one))
    if summary.get("calibration"):
        table.add_row(Text("x from", style="dim"), f"calibration table {summary['calibration']['name']}")
    return table


def confirmation(one: Mapping[str, Any]) -> str:
    """Return what a person confirmed because no register tells it."""
    output = one.get("safe_output")
    power = "" if output is None else f", output {words.fixed(100.0 * output, 0)} %"
    return (
        f"{one.get('device')}, {one.get('what')}: {one.get('setting')}{power}; "
        f"by {one.get('by')} on {one.get('on')} (no register tells it)"
    )


def _files(summary: Mapping[str, Any], folder: Path | None) -> Iterator[RenderableType]:
    """Yield the folder, and the files that people want with what is in them."""
    table = Table.grid(padding=(0, 2))
    files = summary["files"]
    for name in FILES:
        if name in files:
            table.add_row(Text(f"  {files[name]}", style="bold cyan", no_wrap=True), Text(FILES[name], "dim"))
    if folder is not None:
        yield Text.assemble("Files in ", (str(folder), "bold"))
    yield table


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m controller.offline.show``; ``operando run`` calls it at the end."""
    parser = argparse.ArgumentParser(prog="controller.offline.show", description="print the result of a run")
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="the folder of the run")
    parser.add_argument("--json", action="store_true", help="print summary.json")
    args = parser.parse_args(argv)
    path: Path = args.run_dir / "summary.json"
    try:
        text = path.read_text()
        summary = json.loads(text)
    except OSError:
        print(f"{args.run_dir}: no summary.json; `operando report {args.run_dir}` makes it", file=sys.stderr)
        return EXIT_FILES
    except ValueError as error:
        print(f"{path} is damaged ({error}); `operando report {args.run_dir}` makes it anew", file=sys.stderr)
        return EXIT_FILES
    if args.json:
        print(text.rstrip())
    else:
        print_result(summary, sys.stdout, _near(args.run_dir))
    return EXIT_DONE


def _near(folder: Path) -> Path:
    """Return a folder as seen from where the user is, when it lies below."""
    try:
        return folder.absolute().relative_to(Path.cwd())
    except ValueError:
        return folder


if __name__ == "__main__":
    sys.exit(program(main))
