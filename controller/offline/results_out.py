"""The results of one command: JSON, tables, a summary of many files, arrays, figures; each appears whole."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.offline.campaign_work import sha256
from controller.offline.files_out import replacing
from controller.offline.product import Product
from controller.offline.values import pm, table

SCHEMA = "operando/reduce/1"
MAX_COLUMNS = 6
HEADS = ("file", "quantity", "value", "sigma_stat", "sigma_sys", "unit", "not reduced because")


@dataclass(frozen=True)
class Result:
    """What came of one job: a product, or why there is none.

    Attributes:
        file: what it is named after.
        inputs: all files that went in.
        product: None when it could not be reduced.
        why: then.
    """

    file: Path
    inputs: tuple[Path, ...]
    product: Product | None
    why: str = ""


def document(technique: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return result.json."""
    return {
        "schema": SCHEMA, "technique": technique,
        "files": [{**one.product.data, **_origin(one)} for one in results if one.product is not None],
        "not_reduced": [{"file": str(one.file), "why": one.why} for one in results if one.product is None],
    }  # fmt: skip


def text(args: argparse.Namespace, results: Sequence[Result]) -> str:
    """Return the tables for people; of several files, a line of each comes first."""
    tables = [one.product.text for one in results if one.product is not None]
    return "\n\n".join([summary(args, results), *tables] if len(results) > 1 else tables)


def summary(args: argparse.Namespace, results: Sequence[Result]) -> str:
    """Return a table with a line per file, in the order in which they were given."""
    rows = [_row(args, one) for one in results]
    names = list(dict.fromkeys(name for row in rows for name in row))[:MAX_COLUMNS]
    units = {n: next(row[n]["unit"] for row in rows if n in row) for n in names}
    heads = ["file", *(f"{name} / {units[name]}" if units[name] not in ("", "1") else name for name in names)]
    cells = [
        [one.file.name, *(_cell(row.get(name)) for name in names)]
        if one.product is not None else [f"{one.file.name} (not reduced)", *("-" for _ in names)]
        for one, row in zip(results, rows, strict=True)
    ]  # fmt: skip
    reduced = sum(one.product is not None for one in results)
    return f"{reduced} of {len(results)} reduced\n{table(heads, cells)}"


def write(args: argparse.Namespace, results: Sequence[Result]) -> list[Path]:
    """Write everything into ``args.out``; each file appears whole or not at all."""
    from controller.offline.arrays_out import write_arrays  # h5py only when something is written

    args.out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(document(args.technique, results), indent=1, allow_nan=False) + "\n"
    written = [
        _whole(args.out / "result.json", content.encode()),
        _whole(args.out / "tables.txt", (text(args, results) + "\n").encode()),
    ]
    if len(results) > 1:
        written.append(_whole(args.out / "summary.csv", _csv(results).encode()))
    made = [(one.file, one.product) for one in results if one.product is not None]
    if any(product.arrays for _, product in made):
        write_arrays(args.out / "result.h5", [(stem(file), product.arrays) for file, product in made])
        written.append(args.out / "result.h5")
    taken: set[str] = set()
    for file, product in made:
        name = stem(file) if stem(file) not in taken else f"{stem(file)}-{len(taken) + 1}"
        taken.add(name)
        for figure, picture in product.figures:
            written.append(_whole(args.out / f"{name}-{figure}.{args.figures}", picture))
    return written


def stem(file: Path) -> str:
    """Return the name without its ending; a folder has none."""
    return file.name if file.is_dir() else file.stem


def _origin(one: Result) -> dict[str, Any]:
    if one.inputs == (one.file,):
        return {"sha256": sha256(one.file)}
    return {"inputs": [{"file": path.name, "sha256": sha256(path)} for path in one.inputs]}


def _row(args: argparse.Namespace, one: Result) -> Mapping[str, Any]:
    if one.product is None:
        return {}
    data = one.product.data
    found = args.chosen.row(data) if args.chosen.row is not None else data
    return {name: value for name, value in found.items() if _is_quantity(value)}


def _is_quantity(value: object) -> bool:
    return isinstance(value, Mapping) and {"value", "sigma_stat", "sigma_sys", "unit"} <= value.keys()


def _cell(quantity: Mapping[str, Any] | None) -> str:
    if quantity is None or quantity["value"] is None:
        return "-"
    sigmas = [quantity[name] for name in ("sigma_stat", "sigma_sys") if quantity[name]]
    return pm(quantity["value"], *sigmas)


def _csv(results: Sequence[Result]) -> str:
    """Return every quantity of every file, one to a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADS)
    for one in results:
        if one.product is None:
            writer.writerow([str(one.file), "", "", "", "", "", one.why])
            continue
        for name, q in _quantities(one.product.data, ""):
            writer.writerow([str(one.file), name, q["value"], q["sigma_stat"], q["sigma_sys"], q["unit"], ""])
    return out.getvalue()


def _quantities(node: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (place, quantity); an entry of a list is called by its name where it has one."""
    if _is_quantity(node):
        yield place, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _quantities(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            name = value.get("name", number) if isinstance(value, Mapping) else number
            yield from _quantities(value, f"{place}[{name}]")


def _whole(path: Path, data: bytes) -> Path:
    with replacing(path) as scratch:
        scratch.write_bytes(data)
    return path
