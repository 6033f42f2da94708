"""A run's folder as control and reduce leave it, made of documented formats and numbers that are known here.

Journal, index of the raw files and products are written by the modules that own these formats, record.json
and result.json by hand, as ``controller.host`` and ``edge.report`` make them.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from controller.journal_rows import Record
from controller.journal_store import Journal
from controller.rawfile import RawIndex
from controller.reduce.products import encode

ROOT = Path(__file__).parents[3]
RUN = "20260101-120000-quickstart"
WALL = 1767268800.0  # 2026-01-01 12:00:00 UTC
LAB = 100.0  # lab seconds when the run began
SPEED = 60.0
NX, NY, WIDTH, HEIGHT = 16, 48, 100.0, 300.0
TILT = math.radians(2.0)
INTERFACE = -20.0
RASTER = {
    "nx": NX, "ny": NY, "width_um": WIDTH, "height_um": HEIGHT, "dwell_s": 0.06, "centre_x_um": 0.0,
    "centre_y_um": 0.0,
}  # fmt: skip
SCANS = {1: ("as prepared", "reference", 4), 2: ("charging", "charging", 6), 3: ("after", "after", 4)}
STEPS = (  # path, do, title, begun, ended (lab seconds since the run began)
    ([0], "scan", 'scan "as prepared"', 5.0, 905.0), ([1], "ocv", "open-circuit voltage", 905.0, 935.0),
    ([2], "heat", "heat to 333.0 K", 935.0, 1155.0), ([3], "ocv", "open-circuit voltage", 1155.0, 1185.0),
    ([4], "parallel", "parallel", 1185.0, 4125.0), ([4, 0], "charge", "charge 14.0 uA", 1185.0, 4120.0),
    ([4, 1], "scan", 'scan "charging"', 1185.0, 4125.0), ([5], "parallel", "parallel", 4125.0, 5025.0),
    ([5, 0], "cool", "cool to 313.0 K", 4125.0, 4925.0), ([5, 1], "scan", 'scan "after"', 4125.0, 5025.0),
    ([6], "background", "background", 5025.0, 5085.0),
)  # fmt: skip
PASSES = {1: (5.0, 225.0), 2: (1185.0, 490.0), 3: (4125.0, 225.0)}  # begin of the first, duration of each
CHARGE_A, CC_END, CHARGE_END = 14e-6, 3200.0, 4120.0
LINES = (
    ("Li", "gamma", "pige", (475.0, 487.0), [[490.0, 505.0]]),
    ("Co", "Ka", "pixe", (6.73, 7.12), [[6.5, 6.65], [7.18, 7.33]]),
    ("P", "Ka", "pixe", (1.86, 2.16), [[1.76, 1.84], [2.225, 2.29]]),
)
QUANTITIES = {  # of the cathode in the scan "after": value, statistical, systematic
    "li_counts": (5210.0, 98.0, 31.0), "co_counts": (80123.0, 291.0, 120.0),
    "li_per_charge": (61.2, 1.15, 0.71), "li_per_normaliser": (0.06502, 0.00124, 0.0005),
    "li_relative_charge": (0.7391, 0.0114, 0.0128), "li_relative": (0.7512, 0.0121, 0.0109),
    "x": (0.7385, 0.0125, 0.0124), "soc_beam": (0.523, 0.025, 0.0248), "soc_charge": (0.4902, 0.0011, 0.0245),
}  # fmt: skip
SETTINGS = {"lithium_line": {"centroid_kev": 481.0, "fwhm_kev": 6.0}}
CONFIRMED = [
    {
        "device": "heater", "what": "sensor break", "setting": "latching", "safe_output": 0.0,
        "by": "virtual bench", "on": "2026-01-01",
    }
]  # fmt: skip
INSTRUMENTS = {
    "heater": {
        "identity": {"manufacturer": "Eurotherm", "model": "3216", "serial": None, "firmware": "2.04"},
        "notes": ["no watchdog: the relay of io cuts its power when the host is gone"],
    },
    "cell": {
        "identity": {"manufacturer": "PalmSens", "model": "EmStat4 HR", "serial": "ES4-1", "firmware": "1.3"},
        "notes": ["no host watchdog: limits and finite time stand inside each script"],
    },
}
OFF = [
    {"output": "io", "confirmed": True, "seconds": 0.005, "error": ""},
    {"output": "cell", "confirmed": True, "seconds": 0.109, "error": ""},
]
TRIP = {
    "id": "temperature", "channel": "heater.temperature", "value": 344.2, "limit": 343.0, "unit": "K",
    "action": "safe", "text": "heater.temperature 344.2 K is above the limit 343 K", "lab_s": LAB + 2000.0,
    "t": WALL, "latch": True,
}  # fmt: skip


def charge_coulomb(s: float) -> float:
    """Charge passed at a time since the run began: constant current, then a current that falls."""
    passed = CHARGE_A * max(0.0, min(s, CC_END) - 1190.0)
    if s > CC_END:
        tau = 700.0
        passed += CHARGE_A * tau * (1.0 - math.exp(-(min(s, CHARGE_END) - CC_END) / tau))
    return passed


def current_a(s: float) -> float | None:
    if not 1190.0 <= s <= CHARGE_END:
        return None
    return CHARGE_A if s <= CC_END else CHARGE_A * math.exp(-(s - CC_END) / 700.0)


def voltage_v(s: float) -> float:
    if s < 1190.0:
        return 3.05
    if s <= CC_END:
        return 3.86 + 0.14 * ((s - 1190.0) / (CC_END - 1190.0)) ** 2
    return 4.0 if s <= CHARGE_END else 3.95 - 0.00003 * (s - CHARGE_END)


def temperature_k(s: float) -> float:
    if s < 935.0:
        return 297.0
    if s < 4125.0:
        return 297.0 + 36.0 * min(1.0, (s - 935.0) / 160.0)
    return 297.0 + 36.0 * math.exp(-(s - 4125.0) / 900.0)


def stamp(s: float) -> dict[str, Any]:
    q = charge_coulomb(s)
    return {
        "lab_s": LAB + s, "temperature_k": temperature_k(s), "voltage_v": voltage_v(s),
        "current_a": current_a(s), "state": "cc", "charge_coulomb": q,
        "charge_sigma_coulomb": 0.002 * q + 1e-8 * max(0.0, s - 1190.0),
        "charged_s": max(0.0, s - 1190.0), "soc": q / 0.072, "soc_sigma": 0.01,
    }  # fmt: skip


def samples(until_s: float) -> Iterator[tuple[float, str, str, dict[str, Any]]]:
    """Yield (seconds since the run began, kind, module, body) of the readings."""
    for s in np.arange(0.0, until_s, 5.0):
        good = not 2500.0 <= s < 2520.0  # the sensor was away for 20 s
        yield s, "sample", "heater", {
            "temperature_k": temperature_k(s) if good else None,
            "target_k": 333.0 if 935.0 <= s < 4125.0 else None, "setpoint_k": 333.0,
            "output": 0.2, "problems": [] if good else ["sensor break"],
        }  # fmt: skip
    for s in np.arange(905.0, min(until_s, CHARGE_END), 10.0):
        if 935.0 <= s < 1155.0 or s >= until_s:
            continue
        charging = current_a(s) is not None
        bad = s == 2005.0
        yield s, "sample", "cell", {
            "elapsed_s": s, "phase": "ocv" if not charging else "cc" if s <= CC_END else "cv",
            "voltage_v": None if bad else voltage_v(s), "current_a": None if bad else current_a(s),
            "charge_coulomb": charge_coulomb(s), "valid": not bad, "problems": ["overload"] if bad else [],
        }  # fmt: skip


def passes(until_s: float) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield (end, body) of every pass; pass 3 of the charging scan was quarantined."""
    for scan, (_, _, number) in SCANS.items():
        begin, lasts = PASSES[scan]
        for n in range(1, number + 1):
            end = begin + n * lasts
            if end > until_s:
                return
            good = (scan, n) != (2, 3)
            yield end, {
                "scan": scan, "n": n, "good": good,
                "why": "" if good else "pige advanced by 815 pixels, the scanner made 816",
                "frame0": {"pixe": 0, "pige": 0}, "counters": {}, "stamp": stamp(end), "raw": {},
                "lines_done": NY, "events": {"pixe": 100_000 + n, "pige": 90_000 + n},
                "lost": {"pixe": 0, "pige": 0}, "charge_coulomb": 5.2e-9, "live_s": lasts - 9.0,
                "missed_refills": 0,
            }  # fmt: skip


def distance_um() -> np.ndarray:
    """Distance of every pixel from the interface, shape (NY, NX)."""
    x = (np.arange(NX) + 0.5) * WIDTH / NX - WIDTH / 2
    y = (np.arange(NY) + 0.5) * HEIGHT / NY - HEIGHT / 2
    return y[:, None] * math.cos(TILT) - x[None, :] * math.sin(TILT) - INTERFACE


def rates() -> dict[int, dict[str, tuple[float, float, float]]]:
    """Mean counts per pixel in anode, separator and cathode, by scan and element."""
    li = {1: (40.0, 3.0, 20.0), 2: (44.0, 3.1, 14.0), 3: (48.0, 3.2, 10.2)}
    return {s: {"Li": li[s], "Co": (2.0, 3.0, 160.0), "P": (1.0, 60.0, 6.0)} for s in SCANS}


def product_files(folder: Path, scans: dict[int, int]) -> Iterator[dict[str, Any]]:
    """Write maps, profiles and spectra; yield the journal bodies that name them."""
    folder.mkdir()
    rng = np.random.default_rng(7)
    d = distance_um()
    x = ((np.arange(NX) + 0.5) * WIDTH / NX - WIDTH / 2).astype(np.float32)
    y = ((np.arange(NY) + 0.5) * HEIGHT / NY - HEIGHT / 2).astype(np.float32)
    for scan, number in scans.items():
        name, purpose, _ = SCANS[scan]
        about = {
            "scan": scan, "name": name, "purpose": purpose, "passes": list(range(1, number + 1)),
            "partial": False,
        }  # fmt: skip
        axes = {"shape": [NY, NX], "x_um": x, "y_um": y}
        written: dict[str, dict[str, Any]] = {}
        for element, levels in rates()[scan].items():
            mean = np.select([d < -90.0, d < 0.0], levels[:2], levels[2])
            gross = rng.poisson(mean)
            written[f"map/{element}"] = {
                "element": element, "unit": "counts", "values": (gross - 1.0).astype(np.float32).ravel(),
                "sigma": np.sqrt(np.maximum(gross, 1.0)).astype(np.float32).ravel(),
                "gross": gross.astype(np.uint32).ravel(), "background": np.ones(NX * NY, np.float32), **axes,
            }  # fmt: skip
            written[f"profile/{element}"] = profile_of(element, d, gross)
        soc = np.where(d > 10.0, 0.5 + 0.03 * rng.standard_normal(d.shape), np.nan)
        if scan != 1:
            written["soc"] = {
                "element": "soc", "unit": "1", "values": soc.astype(np.float32).ravel(),
                "sigma": np.full(NX * NY, 0.05, np.float32), "minimum_counts": 400.0, **axes,
            }  # fmt: skip
        written |= {f"spectrum/{det}": spectrum_of(det, rng, rates()[scan]) for det in ("pixe", "pige")}
        for stream, fields in written.items():
            path = folder / f"scan{scan:03d}_{stream.replace('/', '_')}_{number:04d}.cbor"
            path.write_bytes(encode({"run": RUN, **about, **fields}))
            yield {"stream": stream, "path": str(path), "sha256": "", "bytes": 0, "meta": about}


def profile_of(element: str, d: np.ndarray, gross: np.ndarray) -> dict[str, Any]:
    edges = np.arange(-125.0, 160.0, HEIGHT / NY)
    where = np.digitize(d.ravel(), edges) - 1
    inside = (where >= 0) & (where < edges.size - 1)
    pixels = np.bincount(where[inside], minlength=edges.size - 1).astype(float)
    counts = np.bincount(where[inside], gross.ravel()[inside], minlength=edges.size - 1)
    charge = np.maximum(pixels, 1.0) * 0.03
    return {
        "element": element, "unit": "1/nC", "position_um": 0.5 * (edges[:-1] + edges[1:]),
        "values": counts / charge, "sigma": np.sqrt(np.maximum(counts, 1.0)) / charge,
        "sigma_sys": 0.01 * counts / charge, "sigma_position_um": np.full(pixels.size, 0.4), "gross": counts,
        "background": np.zeros(pixels.size), "exposure": charge, "angle_deg": math.degrees(TILT),
        "interface_um": INTERFACE, "layers_um": [[-124.0, -94.0], [-84.0, -6.0], [6.0, 150.0]],
    }  # fmt: skip


def spectrum_of(det: str, rng: np.random.Generator, levels: dict[str, Any]) -> dict[str, Any]:
    channels, gain = (2048, 0.01) if det == "pixe" else (8192, 0.25)
    energy = gain * np.arange(channels)
    if det == "pixe":
        shape = 60.0 * np.exp(-energy / 3.0)
        for centre, height in ((2.013, 900.0), (6.925, 2500.0), (7.649, 340.0)):
            shape = shape + height * np.exp(-0.5 * ((energy - centre) / 0.06) ** 2)
    else:
        shape = 40.0 * np.exp(-energy / 500.0) + 30.0 * (energy < 340.0) + 2.0
        area = 60.0 * levels["Li"][2]
        shape = shape + area * gain * np.exp(-0.5 * ((energy - 481.0) / 2.55) ** 2) / 6.4
        shape = shape + 90.0 * np.exp(-0.5 * ((energy - 511.0) / 1.2) ** 2)
    shape = np.where(energy > 0.3, shape, 0.0)
    return {
        "detector": det, "unit": "counts", "energy_kev": energy,
        "values": rng.poisson(shape).astype(np.uint32),
        "beam_off": rng.poisson(0.01 * shape).astype(np.uint32),
    }  # fmt: skip


def quantity(value: float, stat: float, sys: float, unit: str = "1") -> dict[str, Any]:
    return {"value": value, "sigma_stat": stat, "sigma_sys": sys, "unit": unit}


def interval(scan: int, first: int, last: int) -> dict[str, Any]:
    begin, lasts = PASSES[scan]
    a, b = begin + (first - 1) * lasts, begin + last * lasts
    ends = (stamp(a), stamp(b))
    return {
        "scan": SCANS[scan][0], "passes": [first, last], "lab_s": [LAB + a, LAB + b],
        "soc_charge": [e["soc"] for e in ends], "temperature_k": sorted(e["temperature_k"] for e in ends),
        "voltage_v": sorted(e["voltage_v"] for e in ends),
    }  # fmt: skip


def layers(scan: int, when: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a scan; the cathode of the last one has ``QUANTITIES``."""
    if scan == 1:
        host = {
            k: quantity(*QUANTITIES[k])
            for k in ("li_counts", "co_counts", "li_per_charge", "li_per_normaliser")
        }
        verdict, z = "reference", None
    elif scan == 3:
        host, verdict, z = {k: quantity(*v) for k, v in QUANTITIES.items()}, "change resolved", 0.765
    else:
        at = sum(when["soc_charge"]) / 2.0
        host = {
            "li_relative": quantity(1.0 - 0.48 * at, 0.02, 0.012),
            "x": quantity(1.0 - 0.5 * at, 0.021, 0.013),
            "soc_beam": quantity(at + 0.02, 0.042, 0.026), "soc_charge": quantity(at, 0.001, 0.05 * at),
        }  # fmt: skip
        verdict, z = ("change resolved" if at > 0.15 else "no change resolved"), 0.4
    for name in host:
        if name.endswith("_counts"):
            host[name]["unit"] = "counts"
        elif name.endswith("_per_charge"):
            host[name]["unit"] = "1/nC"
    other = {"li_relative_charge": quantity(1.03, 0.03, 0.025)} if scan != 1 else {}
    common = {"budget": {}, "interval": when, "flags": []}
    return [
        {"name": "anode", "kind": "metal", "quantities": other, "z": None, "agree": None,
         "verdict": "no change resolved" if scan != 1 else "reference", **common},
        {"name": "cathode", "kind": "host", "quantities": host, "z": z, "verdict": verdict,
         "agree": None if z is None else abs(z) <= 2.0, **common},
    ]  # fmt: skip


def result(scans: dict[int, int]) -> dict[str, Any]:
    """The final result as ``edge.report`` has it."""
    geometry = {
        "angle_deg": math.degrees(TILT), "sigma_angle_deg": 0.05, "interface_um": INTERFACE,
        "sigma_interface_um": 0.3, "pivot_x_um": 0.0, "blur_um": 2.0, "chi2_per_dof": 1.02,
        "layers_um": [[-124.0, -94.0], [-84.0, -6.0], [6.0, 150.0]], "followed_um": {}, "registration": None,
    }  # fmt: skip
    told = []
    for scan, number in scans.items():
        name, purpose, _ = SCANS[scan]
        when = interval(scan, 1, number)
        told.append(
            {"scan": scan, "name": name, "purpose": purpose, "passes": list(range(1, number + 1)),
             "refused": {}, "events": {}, "interval": when, "geometry": geometry,
             "layers": layers(scan, when)}
        )  # fmt: skip
    groups = [interval(2, n, n) for n in range(1, 7)] if 2 in scans else []
    return {
        "run": RUN, "schema": "operando/ion_beam/1", "technique": "ion_beam",
        "layers": told[-1]["layers"] if told else [], "scans": told,
        "series": {"charging": [{"interval": g, "layers": layers(2, g)} for g in groups]},
        "dead_time": {}, "energy_scale": {}, "continuum_slope_per_kev": {"value": 0.0, "sigma": 0.004},
        "budget": {}, "dose": {"protons_per_cm2_max": 1.9e15, "scans": [], "charge_coulomb": 7.3e-8},
        "flags": ["charging: pixe pile-up reaches 1.2 % in a pixel"],
        "provenance": {
            "reference": "as prepared", "interface": ["separator", "cathode"],
            "calibration": {
                "name": "lco-meep-2.91MeV", "host": "LiCoO2", "energy_kev": 2911.0, "angle_deg": 0.0,
                "mass_fractions": {"LiCoO2": 0.85, "C": 0.05, "MEEP-LiBOB": 0.05, "PVdF": 0.05},
                "sigma_x": 0.005, "source": "derived",
            },
            "lines": [
                {"element": e, "line": line, "detector": det, "method": "window", "window_kev": list(w),
                 "bands_kev": bands}
                for e, line, det, w, bands in LINES
            ],
        },
    }  # fmt: skip


def make_run(
    parent: Path, *, until_s: float = 5085.0, record: bool = True, reduced: bool = True, trip: bool = False,
    name: str = RUN, extract: bool = True,
) -> Path:  # fmt: skip
    """Make a run's folder under ``parent``.

    Args:
        parent: where.
        until_s: when it ended, in seconds since it began; 5085 is its regular end.
        record: whether control lived to write record.json and the journal's extract.
        reduced: whether there is a final result.
        trip: whether the guard ended it.
        name: of the folder.
        extract: whether the extract of the journal is there; else only the station's journal.
    """
    path = parent / name
    path.mkdir(parents=True)
    shutil.copyfile(ROOT / "hil_tests" / "experiments" / "quickstart.toml", path / "experiment.toml")
    steps = _steps(until_s)
    done = {s: sum(1 for _, b in passes(until_s) if b["scan"] == s) for s in SCANS}
    scans = {s: n for s, n in done.items() if n}
    index = RawIndex(path / "raw")
    index.write({"k": "run", "run": name, "dir": str(path), "settings": SETTINGS})
    for s in SCANS:
        if PASSES[s][0] < until_s:
            index.write(
                {"k": "scan", "scan": s, "name": SCANS[s][0], "purpose": SCANS[s][1], "raster": RASTER}
            )
    index.close()
    gaps = _gaps(until_s)
    _journal(path, name, until_s, steps, scans, gaps, trip=trip, whole=record, extract=extract)
    if reduced:
        (path / "result.json").write_text(json.dumps({**result(scans), "run": name}))
    if record:
        (path / "record.json").write_text(json.dumps(_record(name, until_s, steps, gaps, trip=trip)))
    return path


def _gaps(until_s: float) -> list[dict[str, Any]]:
    if until_s < 3100.0:
        return []
    return [
        {
            "module": "beam",
            "text": "the beam is away: the scan waits, blanked",
            "lab_s": LAB + 3000.0,
            "end": False,
        },
        {"module": "beam", "text": "the beam is back: the scan goes on", "lab_s": LAB + 3060.0, "end": True},
    ]


def _steps(until_s: float) -> list[dict[str, Any]]:
    return [
        {
            "path": path, "do": do, "title": title, "begun_lab_s": LAB + begun, "reason": "duration",
            "ended_lab_s": LAB + min(ended, until_s),
        }
        for path, do, title, begun, ended in STEPS
        if begun < until_s
    ]  # fmt: skip


def _record(
    name: str, until_s: float, steps: list[dict[str, Any]], gaps: list[dict[str, Any]], *, trip: bool
) -> dict[str, Any]:
    q = stamp(until_s)
    code, outcome = (
        (4, TRIP["text"]) if trip else (0, "done") if until_s >= 5085.0 else (5, "aborted by SIGTERM")
    )
    return {
        "run": name, "experiment": "quickstart", "exit_code": code, "station": "bench", "outcome": outcome,
        "speed": SPEED, "lab_s": until_s, "wall_s": until_s / 55.0, "began": WALL, "steps": steps,
        "gaps": gaps,
        "trips": [TRIP] if trip else [],
        "counters": {"ticks": 9000, "ticks_missed": 12, "lines": {"heater": {"requests": 5}}},
        "instruments": INSTRUMENTS,
        "charge": {
            "coulomb": q["charge_coulomb"], "sigma": q["charge_sigma_coulomb"], "uncounted_s": 0.0,
            "invalid_samples": 1, "soc": q["soc"], "soc_sigma": q["soc_sigma"],
        },
        "confirmed_by_person": CONFIRMED,
    }  # fmt: skip


def _journal(
    path: Path, name: str, until_s: float, steps: list[dict[str, Any]], scans: dict[int, int],
    gaps: list[dict[str, Any]], *, trip: bool, whole: bool, extract: bool,
) -> None:  # fmt: skip
    """Write the station's journal and, at a regular end, the run's extract of it."""

    def row(s: float, kind: str, module: str, body: dict[str, Any]) -> Record:
        return Record(kind, module, body, run=name, lab_s=LAB + s, wall_s=WALL + s / SPEED)

    rows = [row(0.5, "instruments", "host", INSTRUMENTS)]
    rows += [row(s, kind, module, body) for s, kind, module, body in samples(until_s)]
    for step in steps:
        begun = {k: v for k, v in step.items() if k not in ("reason", "ended_lab_s")}
        rows.append(row(step["begun_lab_s"] - LAB, "step", "sequence", {**begun, "state": "begun"}))
        if whole or step["ended_lab_s"] < LAB + until_s:
            rows.append(row(step["ended_lab_s"] - LAB, "step", "sequence", {**step, "state": "ended"}))
    rows += [row(end, "pass", "scan", body) for end, body in passes(until_s)]
    for s, detail in ((1190.0, "cc"), (CC_END, "cv")):
        if s < until_s:
            rows.append(row(s, "cell_event", "cell", {"event": "phase", "detail": detail}))
    rows += [row(gap["lab_s"] - LAB, "gap", gap["module"], gap) for gap in gaps]
    if until_s > 1500.0:
        rows.append(row(1490.0, "command", "local", {"do": "pause", "by": "ada"}))
        rows.append(row(1500.0, "command", "local", {"do": "proceed", "by": "ada"}))
    if trip:
        rows.append(row(2000.0, "trip", "guard", TRIP))
    if whole:
        rows.append(row(until_s, "safe", "host", {"results": OFF}))
    rows += [row(until_s, "product", "reduce", body) for body in product_files(path / "products", scans)]
    rows.sort(key=lambda r: r.wall_s)
    state = path / "state"
    state.mkdir()
    with Journal.open(state / "journal.sqlite", station="bench") as journal:
        journal.boot("run")
        journal.start_run(name, experiment="quickstart", directory=str(path), body={}, lab_s=LAB)
        journal.record_many(rows)
        if whole:
            journal.end_run(name, outcome="success", exit_code=0, reason="done", lab_s=LAB + until_s)
            if extract:
                journal.extract(name, path / "journal.sqlite")
