"""Rules of an experiment file that concern more than one table.

They look at the file itself and tolerate whatever else is wrong with it, so that a wrong unit in one step
does not hide a missing reference scan. What depends on the station is in ``limits``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.config.calibrations import BUILT_IN, Calibration, canonical
from controller.config.files import Source
from controller.config.problems import Path, Problem, did_you_mean, listed, problem
from controller.config.steps import PASSES_CHARGE, SHARES

REST = {"do": "rest", "duration": "1 s"}  # stands in for a step that cannot be read


def check(source: Source) -> list[Problem]:
    """Return every broken rule that needs no other file."""
    rules = _Rules(source)
    return [
        *rules.names(),
        *rules.beam(),
        *rules.images(),
        *rules.order(),
        *rules.together(),
        *rules.goals(),
        *rules.layers(),
        *rules.lines(),
    ]


def check_calibration(source: Source, name: str, table: Calibration | None) -> list[Problem]:
    """Return what is wrong with the choice of calibration table: unknown, or of another composition."""
    path: Path = ("analysis", "calibration")
    if table is None:
        if name.endswith(".toml"):
            return [problem(source, path, "is no file beside the experiment file, and no built-in table")]
        return [problem(source, path, "is no calibration table" + did_you_mean(name, BUILT_IN))]
    found = []
    for index, layer in enumerate(_tables(_table(source.data.get("sample")).get("layer"))):
        fractions = _table(layer.get("mass_fractions"))
        numbers = {key: float(value) for key, value in fractions.items() if isinstance(value, int | float)}
        if layer.get("kind") != "host" or not numbers or not isinstance(layer.get("host"), str):
            continue
        faults = table.composition_faults(layer["host"], numbers)
        if faults:
            found.append(
                problem(
                    source,
                    path,
                    f"does not apply to sample.layer[{index}] ({layer.get('name')}): {'; '.join(faults)}",
                )
            )
    return found


def with_rests(raw: object, faulty: list[Path]) -> object:
    """Return a copy of the steps in which those that cannot be read are rests."""
    steps = copy.deepcopy(raw)
    for path in sorted(faulty, key=len, reverse=True):
        inner: Path = ()
        for end in range(2, len(path) + 1, 2):
            if path[end - 2] != "step" or not isinstance(path[end - 1], int):
                break
            inner = path[:end]
        here: Any = {"step": steps}
        for part in inner[:-1]:
            try:
                here = here[part]
            except (KeyError, IndexError, TypeError):
                break
        else:
            if inner and isinstance(here, list):
                here[int(inner[-1])] = dict(REST)
    return steps


@dataclass(frozen=True)
class _RawStep:
    path: Path
    table: Mapping[str, Any]
    parents: tuple[str, ...]

    @property
    def do(self) -> str:
        return str(self.table.get("do"))

    @property
    def by_hand(self) -> Mapping[str, Any]:
        """The tables of a manual step: what it allows."""
        return self.table if self.do == "manual" else {}


def _walk(tables: object, path: Path = (), parents: tuple[str, ...] = ()) -> Iterator[_RawStep]:
    for index, table in enumerate(_tables(tables)):
        here = (*path, "step", index)
        yield _RawStep(here, table, parents)
        yield from _walk(table.get("step"), here, (*parents, str(table.get("do"))))


class _Rules:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.steps = list(_walk(source.data.get("step")))
        self.sample = _table(source.data.get("sample"))
        self.analysis = _table(source.data.get("analysis"))
        self.layer_tables = _tables(self.sample.get("layer"))
        self.layer_names = [str(layer["name"]) for layer in self.layer_tables if "name" in layer]
        self.scans = [str(step.table.get("name")) for step in self.steps if step.do == "scan"]
        self.elements = [str(line.get("element")) for line in _tables(self.analysis.get("line"))]

    def broken(self, path: Path, complaint: str, limit: str = "") -> Problem:
        return problem(self.source, path, complaint, limit)

    def names(self) -> Iterator[Problem]:
        """Steps and layers have names of their own."""
        seen: dict[str, Path] = {}
        for step in self.steps:
            name = step.table.get("name")
            if not isinstance(name, str):
                continue
            if name in seen:
                yield self.broken(
                    (*step.path, "name"), "is the name of an earlier step: names must be unique"
                )
            seen.setdefault(name, step.path)
        for index, layer in enumerate(self.layer_tables):
            if layer.get("name") in [other.get("name") for other in self.layer_tables[:index]]:
                yield self.broken(("sample", "layer", index, "name"), "is the name of another layer")

    def beam(self) -> Iterator[Problem]:
        """Whoever scans says what to count, and in which layers."""
        scans = [step for step in self.steps if step.do in ("scan", "calibrate") or "scan" in step.by_hand]
        if scans and "analysis" not in self.source.data:
            text = f"is missing: {scans[0].do} needs to know which elements to count"
            yield self.broken(("analysis",), text)
        if (scans or self.analysis) and "layer" not in self.sample:
            yield self.broken(("sample", "layer"), "is missing: what the beam sees is told apart by layers")

    def images(self) -> Iterator[Problem]:
        """Images can be reduced: dark and open beam come with them, and the reference is one of them."""
        exposed = [
            step for step in self.steps if step.do == "expose" and step.table.get("detector") == "radiography"
        ]
        if not exposed:
            return
        if "radiography" not in self.source.data:
            text = "is missing: it says where the open beam is and what to look at"
            yield self.broken(("radiography",), text)
        purposes = [str(step.table.get("purpose", "sample")) for step in exposed]
        for needed, what in (("dark", "dark images"), ("flat", "images of the open beam")):
            if "sample" in purposes and needed not in purposes[: purposes.index("sample")]:
                first = exposed[purposes.index("sample")]
                yield self.broken(
                    first.path, f'has no {what} before it: add an exposure with purpose = "{needed}"'
                )
        reference = _table(self.source.data.get("radiography")).get("reference")
        names = [str(step.table.get("name")) for step in exposed]
        if isinstance(reference, str) and reference not in names:
            yield self.broken(
                ("radiography", "reference"),
                f"is the name of no exposure of the camera{did_you_mean(reference, names)}",
            )

    def order(self) -> Iterator[Problem]:
        """The reference scan exists, and nothing is charged before it; without scans there is none."""
        if not self.scans and "analysis" not in self.source.data:
            return
        reference = self.analysis.get("reference")
        found = [step for step in self.steps if step.do == "scan" and step.table.get("name") == reference]
        if isinstance(reference, str) and not found:
            hint = did_you_mean(reference, self.scans) if self.scans else "; there is no scan"
            yield self.broken(("analysis", "reference"), f"is the name of no scan step{hint}")
        if found and "repeat" in found[0].parents:
            yield self.broken(
                ("analysis", "reference"), "names a scan inside repeat: the reference is one scan, done once"
            )
        for key in ("zero", "full"):
            name = _table(self.analysis.get("relative")).get(key)
            if isinstance(name, str) and name not in self.scans:
                yield self.broken(
                    ("analysis", "relative", key),
                    f"is the name of no scan step{did_you_mean(name, self.scans)}",
                )
        begun = found[0].path[:2] if found else None
        for step in self.steps:
            charges = (
                step.do in PASSES_CHARGE
                or (step.do == "eis" and {"voltage", "current"} & set(step.table))
                or "cell" in step.by_hand
            )
            if not charges or (begun is not None and step.path[:2] > begun):
                continue
            verb = "charge" if step.do in ("eis", "manual") else step.do
            if found:
                why = f'the reference scan "{reference}" comes only later'
            else:
                why = "there is no reference scan" if reference is not None else "no reference scan is named"
            if begun is not None and step.path[:2] == begun:
                why = f'the reference scan "{reference}" runs at the same time'
            yield self.broken(
                step.path,
                f"would {verb} the cell before it was seen as prepared: {why}, and a change that has "
                "begun cannot be measured afterwards",
            )

    def together(self) -> Iterator[Problem]:
        """Scans end somehow, and two steps never want the same instrument at the same time."""
        for step in self.steps:
            follows = step.do in ("scan", "calibrate") and "until" not in step.table
            if follows and step.parents[-1:] != ("parallel",):
                yield self.broken(
                    (*step.path, "until"),
                    "is missing: this scan would never end; give it one, such as { passes = 4 } (only inside "
                    "parallel may a scan follow the others)",
                )
            if step.do == "parallel":
                yield from self._parallel(step)

    def _parallel(self, step: _RawStep) -> Iterator[Problem]:
        children = [child for child in self.steps if child.path[:-2] == step.path]
        for child in children:
            inner = [one for one in self.steps if one.path[: len(child.path)] == child.path]
            if any(one.do == "manual" for one in inner):
                yield self.broken(child.path, "(manual) cannot run beside others: it hands over everything")
        taken: dict[str, str] = {}
        for child in children:
            inside = [other for other in self.steps if other.path[: len(child.path)] == child.path]
            for use in dict.fromkeys(SHARES[other.do] for other in inside if other.do in SHARES):
                if use in taken:
                    yield self.broken(
                        child.path,
                        f"({child.do}) needs the {use} at the same time as {taken[use]}, next to it",
                    )
                taken.setdefault(use, f"{child.do}")
        if children and all(
            child.do in ("scan", "calibrate") and "until" not in child.table for child in children
        ):
            yield self.broken(step.path, "would never end: every step in it waits for the others")

    def goals(self) -> Iterator[Problem]:
        """Counting goals name elements that are counted and layers that exist."""
        hosts = [str(layer.get("name")) for layer in self.layer_tables if layer.get("kind") == "host"]
        for step in self.steps:
            until = _table(step.table.get("until"))
            counts, uncertainty = _table(until.get("counts")), _table(until.get("uncertainty"))
            path = (*step.path, "until")
            element = counts.get("element")
            if isinstance(element, str) and element not in self.elements:
                yield self.broken(
                    (*path, "counts", "element"),
                    f"is not counted: the analysis lines are {listed(self.elements)}",
                )
            for key, table in (("counts", counts), ("uncertainty", uncertainty)):
                layer = table.get("layer")
                if isinstance(layer, str) and layer not in self.layer_names:
                    yield self.broken(
                        (*path, key, "layer"), f"is no layer: there are {listed(self.layer_names)}"
                    )
                elif (
                    isinstance(layer, str)
                    and table.get("quantity") in ("x", "soc_beam")
                    and layer not in hosts
                ):
                    yield self.broken(
                        (*path, key, "layer"),
                        f"hosts no lithium: {table['quantity']} exists only for {listed(hosts)}",
                    )

    def layers(self) -> Iterator[Problem]:
        """The interface is one of the sample, and neighbours can be told apart."""
        interface = self.analysis.get("interface")
        if isinstance(interface, list) and all(isinstance(name, str) for name in interface):
            pairs = list(zip(self.layer_names, self.layer_names[1:], strict=False))
            unknown = [name for name in interface if name not in self.layer_names]
            path: Path = ("analysis", "interface")
            if unknown and self.layer_names:
                yield self.broken(
                    path, f"names {listed(unknown)}, which is no layer: there are {listed(self.layer_names)}"
                )
            elif len(interface) == 2 and tuple(interface) not in pairs:
                possible = " or ".join(f"[{listed(pair)}]" for pair in pairs)
                yield self.broken(
                    path, f"are not neighbours in the order of the layers: possible is {possible}"
                )
        for index, layer in enumerate(self.layer_tables):
            path = ("sample", "layer", index, "normaliser")
            normaliser = layer.get("normaliser")
            if not isinstance(normaliser, str) or "analysis" not in self.source.data:
                continue
            if normaliser == "Li" or normaliser not in self.elements:
                others = [element for element in self.elements if element != "Li"]
                yield self.broken(path, f"is not among the other elements that are counted: {listed(others)}")
            if normaliser == "P" and "LLZO" in map(canonical, _table(layer.get("mass_fractions"))):
                yield self.broken(path, "cannot be told from Zr La: 29 eV apart at 145 eV resolution; use Zr")
            if index and self.layer_tables[index - 1].get("normaliser") == normaliser:
                yield self.broken(
                    path, "is that of the layer before: the boundary between them could not be seen"
                )

    def lines(self) -> Iterator[Problem]:
        """Each element once, lithium among them, a calibration where a layer hosts lithium."""
        for index, element in enumerate(self.elements):
            if element in self.elements[:index]:
                yield self.broken(("analysis", "line", index, "element"), "is listed twice")
        if self.elements and "Li" not in self.elements:
            yield self.broken(("analysis", "line"), 'lack lithium: add { element = "Li", detector = "pige" }')
        lines = _tables(self.analysis.get("line"))
        kinds = {(str(line.get("element")), str(line.get("line", "Ka"))) for line in lines}
        if ("P", "Ka") in kinds and ("Zr", "La") in kinds:
            index = next(i for i, element in enumerate(self.elements) if element == "Zr")
            yield self.broken(
                ("analysis", "line", index, "line"),
                "cannot be told from P Ka: 29 eV apart at 145 eV resolution; use Ka",
            )
        hosts = any(layer.get("kind") == "host" for layer in self.layer_tables)
        if self.analysis and hosts and "calibration" not in self.analysis:
            yield self.broken(
                ("analysis", "calibration"),
                f"is missing: x of a host layer needs a table, such as {listed(BUILT_IN)}",
            )


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [_table(item) for item in value] if isinstance(value, list) else []
