"""Runs on the virtual bench for the soak items: start, read the summary, hold it against the truth."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from hil_tests.soak.runner import ROOT, Failed, Workshop

EXPERIMENTS = ROOT / "hil_tests" / "experiments"
FINISHED = (0, 6)  # done; done with gaps


@dataclass(frozen=True)
class Run:
    """A finished run: its summary and what was true."""

    summary: dict[str, Any]
    truth: dict[str, Any]

    def layer(self, name: str) -> dict[str, Any]:
        """Return a layer of the result."""
        for layer in self.summary["layers"]:
            if layer["name"] == name:
                return dict(layer)
        raise Failed(f"the summary has no layer {name!r}: {self.summary['outcome']}")

    def quantity(self, layer: str, name: str) -> tuple[float, float, float]:
        """Return value, statistical and systematic error of a quantity."""
        found = self.layer(layer)["quantities"].get(name)
        if found is None or found["value"] is None:
            raise Failed(f"{layer} has no {name}: {self.layer(layer).get('verdict')}")
        return found["value"], found["sigma_stat"], found["sigma_sys"]

    def true_soc(self, layer: str = "cathode") -> float:
        """Return the change of the state of charge, from atoms in the field: (1 - Li / Li before) / 0.5."""
        atoms = self.truth["sample"]["layers"][layer]
        share = float(atoms["in_field_now"]["Li"]) / float(atoms["in_field_as_prepared"]["Li"])
        return (1.0 - share) / 0.5

    def true_coulomb(self) -> float:
        """Return the charge that went through the cell's terminals."""
        return float(self.truth["charge_coulomb"]["terminals"])


def on_the_bench(
    work: Workshop, experiment: str, *, speed: float, seed: int, limit_s: float, cell: str = ""
) -> Run:
    """Run an experiment to its end, or return what an earlier attempt of this item has finished.

    Args:
        work: where it is done.
        experiment: its name.
        speed: of the bench.
        seed: of the bench.
        limit_s: it may take so long.
        cell: another instrument than usual for the cell.

    Raises:
        Failed: it ended otherwise than done.
    """
    folder = work.folder / f"{experiment}{cell and '-' + cell}-seed{seed:03d}"
    kept = folder / "kept.json"
    if kept.is_file():
        return Run(**json.loads(kept.read_text()))
    folder.mkdir(exist_ok=True)
    truth = folder / "truth.json"
    done = work.operando(
        "run", EXPERIMENTS / f"{experiment}.toml", "--bench", "--speed", f"{speed:g}", "--seed", str(seed),
        "--truth", truth, "--out", folder / "runs", "--json", *(("--with", f"cell={cell}") if cell else ()),
        limit_s=limit_s,
    )  # fmt: skip
    summaries = sorted((folder / "runs").glob("*/summary.json"))
    if done.returncode not in FINISHED:
        told = json.loads(summaries[-1].read_text())["outcome"] if summaries else done.stdout[-1500:]
        raise Failed(f"{experiment}, seed {seed}: exit code {done.returncode}: {told}")
    if not summaries or not truth.is_file():
        raise Failed(f"{experiment}, seed {seed}: no summary.json or no truth file\n{done.stdout[-1500:]}")
    run = Run(json.loads(summaries[-1].read_text()), json.loads(truth.read_text()))
    scratch = kept.with_suffix(".tmp")
    scratch.write_text(json.dumps({"summary": run.summary, "truth": run.truth}))
    scratch.replace(kept)
    return run


def chi_square_bound(n: int, z: float) -> float:
    """Return the quantile of chi-square with n degrees of freedom at z sigma of a normal distribution.

    n (1 - 2/(9n) + z sqrt(2/(9n)))^3; at n = 20 within 2 % of the tables between z = -3.1 and 3.1.
    Source: Wilson and Hilferty, PNAS 17 (1931) 684.
    """
    part = 2.0 / (9.0 * n)
    return float(n * (1.0 - part + z * math.sqrt(part)) ** 3)
