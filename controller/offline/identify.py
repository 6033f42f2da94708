"""``python -m controller.offline.identify RECORD``: a plant and gains from a record of ``operando tune``.

Also from a table of one's own (CSV with the columns ``time_s``, ``temperature_k``, ``power_w`` and, if it was
measured, ``ambient_k``). Writes ``tune.json`` and ``tune.svg``, and prints what goes into the station file.
A room that was measured, with its error (``--room "296.2 K" --room-within "0.3 K"``), tells a warm room
from a small loss where the record is too short to. ``operando tune`` keeps what it was told of the room in
the record; here it can be corrected.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller.apart import program
from controller.offline import one_thread  # noqa: F401  # before numpy

import numpy as np  # isort: skip

from controller.autotune import RelayResult, gains_from_plant, gains_from_relay
from controller.config.quantities import QuantityError, parse
from controller.offline.figures_thermal import plant_figure
from controller.offline.files_out import replacing, write_json
from controller.offline.plot_style import saved
from controller.pid import Gains
from edge.thermal import ThermalFit, ThermalRecord, identify_best

EXIT_DONE, EXIT_FILES, EXIT_GAPS = 0, 2, 6
LEAST_TOLERANCE = 0.05  # the error of the model itself: a holder has more than two bodies
LEAST_AMBIENT_K = 0.5
LEAST_LAG_S = 2.0
ROOM_OFF = 3.0  # errors of the measured room by which the fit may end away from it, unsaid
ALIKE = 0.3  # correlation of neighbouring residuals above which there is more than noise


@dataclass(frozen=True)
class Measured:
    """A record as it was read."""

    record: ThermalRecord
    period_s: float
    full_w: float
    own_loop: bool
    relay: RelayResult | None
    told: dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="operando tune", description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--out", type=Path, default=Path("tune"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--room", metavar="T", help="temperature of the room, as measured")
    parser.add_argument("--room-within", metavar="DT", default="0.5 K", help="its error, one sigma (0.5 K)")
    args = parser.parse_args(arguments)
    try:
        measured = read(args.record)
        if args.room is not None:
            measured = with_room(measured, parse(args.room, "K"), parse(args.room_within, "delta K"))
        fits = identify_best(measured.record)
    except (OSError, ValueError, KeyError, QuantityError) as error:
        print(f"{args.record}: {error}", file=sys.stderr)
        return EXIT_FILES
    result = report(measured, fits)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "tune.json", result)
    with replacing(args.out / "tune.svg") as scratch:
        scratch.write_bytes(saved(plant_figure(measured.record, fits[0], measured.told.get("at_k")), "svg"))
    if args.json:
        print(json.dumps(result))
    else:
        print("\n".join(words(result, args.out)))
    return EXIT_DONE if not result["warnings"] else EXIT_GAPS


def read(path: Path) -> Measured:
    """Return a record from the file of ``operando tune``, or from a table.

    Raises:
        ValueError: it is neither, or too short.
        OSError: it cannot be read.
    """
    if path.suffix == ".csv":
        return _table(path)
    told = json.loads(path.read_text())
    if told.get("kind") != "operando tune record":
        raise ValueError("is no record of operando tune")
    rows = np.array([[math.nan if value is None else value for value in row] for row in told["rows"]], float)
    if rows.size == 0:
        raise ValueError("holds no readings")
    power = np.clip(rows[:, 2], 0.0, None)
    if told["own_loop"]:  # the instrument moves its output all the time: the mean of both ends
        given = 0.5 * (power + np.append(power[1:], power[-1]))
    else:  # what the supply gave since the tick before
        given = np.append(power[1:], power[-1])
    relay = None if told.get("relay") is None else RelayResult(**told["relay"])
    measured = Measured(
        ThermalRecord.of(rows[:, 0] - rows[0, 0], rows[:, 1], given), float(told["period_s"]),
        float(told["full_w"]), bool(told["own_loop"]), relay,
        {key: value for key, value in told.items() if key != "rows"},
    )  # fmt: skip
    room = told.get("room_k")  # records from before had no such entry
    return measured if room is None else with_room(measured, float(room[0]), float(room[1]))


def with_room(measured: Measured, room_k: float, within_k: float) -> Measured:
    """Return the record with what is known of its room.

    Raises:
        ValueError: the record has the room in a column of its own, or the error is none.
    """
    one = measured.record
    if one.ambient_k is not None:
        raise ValueError("the record has its room's temperature already: --room says it twice")
    known = ThermalRecord.of(
        one.time_s, one.temperature_k, one.power, at_rest=one.at_rest, room_k=(room_k, within_k)
    )
    return replace(measured, record=known, told={**measured.told, "room_k": [room_k, within_k]})


def _table(path: Path) -> Measured:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"time_s", "temperature_k", "power_w"} <= set(rows[0]):
        raise ValueError("needs the columns time_s, temperature_k, power_w")
    columns = {
        key: np.array([float(row[key]) for row in rows])
        for key in ("time_s", "temperature_k", "power_w", "ambient_k")
        if key in rows[0]
    }
    record = ThermalRecord.of(
        columns["time_s"], columns["temperature_k"], columns["power_w"], columns.get("ambient_k"),
        at_rest=False,
    )  # fmt: skip
    period_s = float(np.median(np.diff(columns["time_s"])))
    full_w = float(columns["power_w"].max())
    return Measured(record, period_s, full_w, own_loop=False, relay=None, told={"station": path.name})


def report(measured: Measured, fits: list[ThermalFit]) -> dict[str, Any]:
    """Return everything that was found, as it stands in ``tune.json``."""
    best = fits[0]
    warnings = list(_warnings(best))
    result: dict[str, Any] = {
        "schema": "operando/tune/1", "made": time.strftime("%Y-%m-%d"), "record": measured.told,
        "structure": best.structure.value, "samples": best.samples, "rms_k": best.rms_k,
        "parameters": _parameters(best), "plant": _plant(measured, best), "warnings": warnings,
        "lag_one": best.lag_one, "remarks": _remarks(best, measured.record.room_k),
        "others": [
            {"structure": fit.structure.value, "rms_k": fit.rms_k, "bic": fit.bic} for fit in fits[1:]
        ],
    }  # fmt: skip
    if not measured.own_loop:
        gains = gains_from_plant(
            capacity_j_per_k=best.capacity, loss_w_per_k=best.loss, lag_s=best.lag_s, dead_s=best.dead_s,
            period_s=measured.period_s,
        )  # fmt: skip
        result["gains"] = _gains(gains)
        if measured.relay is not None:
            result["gains_from_relay"] = _gains(gains_from_relay(measured.relay))
    return result


def _parameters(fit: ThermalFit) -> dict[str, dict[str, float | str]]:
    """Return every parameter with its error and unit."""
    units = {
        "capacity": "J/K", "second_capacity": "J/K", "joint": "W/K", "loss": "W/K", "ambient_k": "K",
        "lag_s": "s", "dead_s": "s", "late_s": "s", "total_capacity": "J/K", "time_constant_s": "s",
    }  # fmt: skip
    return {
        name: {"value": float(getattr(fit, name)), "sigma": fit.sigma[name], "unit": unit}
        for name, unit in units.items()
        if name in fit.sigma
    }


def _plant(measured: Measured, fit: ThermalFit) -> dict[str, float]:
    """Return what the guard needs: one capacity, one loss, and how far apart they may be from the truth."""
    spread = max(fit.total_capacity_sigma / fit.total_capacity, fit.sigma["loss"] / fit.loss)
    return {
        "power_w": measured.full_w,
        "capacity_j_per_k": fit.total_capacity,
        "loss_w_per_k": fit.loss,
        "lag_s": max(LEAST_LAG_S, math.ceil(2.0 * max(abs(one) for one in fit.ahead_s))),
        "ambient_k": fit.ambient_k,
        "ambient_within_k": max(LEAST_AMBIENT_K, 3.0 * fit.sigma.get("ambient_k", 0.0)),
        "tolerance": max(LEAST_TOLERANCE, math.ceil(300.0 * spread) / 100.0),
    }


def _gains(gains: Gains) -> dict[str, float]:
    return {
        "kp_w_per_k": gains.kp_w_per_k, "ti_s": gains.ti_s, "td_s": gains.td_s,
        "filter_s": gains.filter_s or 1.0,
    }  # fmt: skip


def _warnings(fit: ThermalFit) -> list[str]:
    found = []
    for name in ("total_capacity", "loss"):
        value, sigma = float(getattr(fit, name)), fit.sigma[name]
        if sigma > 0.1 * value:
            found.append(f"{name.replace('_', ' ')} is known to {100 * sigma / value:.0f} % only")
    if fit.rms_k > 0.3:
        found.append(f"the plant misses the record by {fit.rms_k:.2f} K: something else heats or cools it")
    return found


def _remarks(fit: ThermalFit, room: tuple[float, float] | None) -> list[str]:
    """Return what a person should know, though nothing has failed."""
    found = []
    if room is not None:
        found.append(f"with the room at {room[0]:.2f} +- {room[1]:.2g} K, as measured")
    if room is not None and abs(fit.ambient_k - room[0]) > ROOM_OFF * room[1]:
        found.append(
            f"the record speaks for a room of another temperature, towards {fit.ambient_k:.2f} K: was it "
            "measured where the holder stands?"
        )
    if fit.lag_one >= ALIKE:
        found.append(
            f"neighbouring residuals are alike ({fit.lag_one:.2f}): there is more than noise, late ticks or "
            "a part that the plant lacks; the errors are wider for it"
        )
    return found


def words(result: dict[str, Any], folder: Path) -> list[str]:
    """Return what a person is told, ready to be pasted."""
    plant = result["plant"]
    lines = [
        f"{result['structure']}, {result['samples']} readings followed to {1e3 * result['rms_k']:.0f} mK",
        *(
            f"  {name:<16} {one['value']:.4g} +- {one['sigma']:.2g} {one['unit']}"
            for name, one in result["parameters"].items()
        ),
        *(f"  attention: {text}" for text in result["warnings"]),
        *(f"  {text}" for text in result["remarks"]),
        "", "for the station file, into the table of the heater:", "",
    ]  # fmt: skip
    if "gains" in result:
        lines.append(f"gains = {{ {_toml(result['gains'])} }}")
    who = 'identified_by = "operando tune", identified_on = ' + result["made"]
    lines += [
        f'plant = {{ power = "{plant["power_w"]:g} W", capacity = "{plant["capacity_j_per_k"]:.4g} J/K", '
        f'loss = "{plant["loss_w_per_k"]:.4g} W/K", lag = "{plant["lag_s"]:g} s", '
        f'ambient = "{plant["ambient_k"]:.2f} K", ambient_within = "{plant["ambient_within_k"]:.2g} K", '
        f'tolerance = "{100 * plant["tolerance"]:g} %", {who} }}',
        "",
    ]
    if "gains_from_relay" in result:
        lines.append(f"the relay test alone, without a model: {_toml(result['gains_from_relay'])}")
    return [*lines, f"written: {folder / 'tune.json'}, {folder / 'tune.svg'}"]


def _toml(gains: dict[str, float]) -> str:
    return (
        f'kp = "{gains["kp_w_per_k"]:.3g} W/K", ti = "{gains["ti_s"]:.3g} s", '
        f'td = "{gains["td_s"]:.2g} s", filter = "{gains["filter_s"]:.2g} s"'
    )


if __name__ == "__main__":
    sys.exit(program(main))
