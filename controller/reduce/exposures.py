"""The exposures of a run in the reduce process: what control tells of them in, progress and maps out.

Kinds of frames are told apart by ``source["kind"]`` of the message; ``ring`` is a photon-counting camera
behind an acquire process (``ring_exposure``). Messages: ``exposure`` {n, role, name, purpose, keep, source},
``exposure_end`` {n, position, counters}, or {n, interrupted, seen} where the host had died, and the record is
all there is; answers: ``exposure_progress``, ``hits`` (a part of the record is on the disk),
``exposure_checked``, and products.
"""

from __future__ import annotations

import json
import logging
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from controller.reduce.hit_files import Rules, put, recorded
from controller.reduce.messages import number
from controller.reduce.products import ProductFolder, encode
from controller.reduce.ring_exposure import RingExposure
from drivers.files.hexitec_calibration import read_npz
from edge.compton import Analysis, Setup, analyse
from edge.compton_frames import Counts, DarkLevel, EnergyBins, PixelScale
from edge.uncertainty import Estimate

log = logging.getLogger("reduce")

Message = dict[str, Any]
PROGRESS_S = 1.0  # wall
ANALYSE_S = 5.0
ANALYSIS_SHARE = 3.0  # S and maps are computed again after this many times as long as they took
END_PATIENCE_S = 10.0
EDGE_KEV = 200.0


class Exposures:
    """Called from the one thread that serves messages."""

    def __init__(
        self, run: str, folder: Path, products: ProductFolder | None, clock: Callable[[], float]
    ) -> None:
        self._run, self._raw, self._products, self._clock = run, folder / "raw", products, clock
        self._dark: dict[str, DarkLevel] = {}
        self._open: dict[int, tuple[Message, RingExposure]] = {}
        self._told_s = self._analysed_s = -1e9
        self._took_s = 0.0
        self.results: dict[int, dict[str, Any]] = {}

    def begin(self, message: Message) -> Iterator[Message]:
        """Take the beginning of an exposure; yield why it cannot be counted, if so."""
        n, source = number(message, "n"), message.get("source")
        if n in self._open or n in self.results:
            return
        if not isinstance(source, Mapping) or source.get("kind") != "ring":
            raise ValueError(f"exposure {n}: frames from {source!r} are not known here")
        name = _name(message)
        self._raw.mkdir(parents=True, exist_ok=True)
        if message.get("purpose") == "dark" and (self._raw / f"{name}.dark.npz").is_file():
            self.results[n] = {}  # counted before this process was started again
            return
        try:
            rules = None if message.get("purpose") == "dark" else self._rules(str(message["role"]), source)
            one = RingExposure(source, self._raw, name, rules, keep=self._room(message, source))
        except (ValueError, OSError) as error:
            yield {"k": "exposure_refused", "n": n, "role": message["role"], "why": str(error)}
            return
        self._open[n] = (message, one)
        if not one.recovered and "end" not in message:  # else its end may be the next message
            one.begin()

    def end(self, message: Message) -> Iterator[Message]:
        """Take the end: everything up to ``position`` is counted, then the result goes out."""
        n = number(message, "n")
        if n not in self._open:
            return
        begun, one = self._open.pop(n)
        counters = dict(message.get("counters") or {})
        if message.get("interrupted"):
            one.leave()
            for part in recorded(self._raw, one.name):  # the host may have died before it had their rows
                yield {"k": "hits", "n": n, **part}
            counters = {"frames": one.frames + one.unread, "held": 0, "missing": one.absent}
        else:
            one.end(number(message, "position"), END_PATIENCE_S)
        yield from self._parts(n, one)
        found: dict[str, Any] = {
            "n": n, "role": begun["role"], "name": begun["name"], "purpose": begun["purpose"], **one.quick(),
            "kept": one.kept, "counters": counters, "problem": one.problem,
        }  # fmt: skip
        if message.get("interrupted"):
            found |= {"interrupted": True, **_lost_with_host(begun, message, counters["frames"])}
        expected = int(counters.get("frames", 0)) - int(counters.get("held", 0))
        problems = [one.problem] if one.problem else []
        if one.frames + one.unread != expected:
            problems.append(f"{one.frames} frames counted and {one.unread} unread of {expected} received")
        level = one.dark_level()
        if level is not None:
            self._dark[str(begun["role"])] = level
            self._save_dark(one.name, level)
            found["dark"] = {
                "level": _quantity(level.level), "noise": _quantity(level.noise),
                "frames": level.frames, "outside": level.outside,
            }  # fmt: skip
        counts = one.snapshot()
        if counts is not None and counts.frames:
            analysis = self._analyse(counts)
            found |= describe(counts, analysis)
            yield from self._pictures(begun, counts, analysis, partial=False)
        self.results[n] = found
        self._save(one.name, found)
        yield {"k": "exposure_checked", **found, "ok": not problems, "why": "; ".join(problems)}

    def poll(self, *, behind: bool) -> Iterator[Message]:
        """Yield what there is to tell, now and then; called often."""
        now = self._clock()
        if not self._open or now - self._told_s < PROGRESS_S:
            return
        self._told_s = now
        for n, (begun, one) in self._open.items():
            if one.recovered and not one.running and "end" not in begun:
                one.begin()
            yield from self._parts(n, one)
            progress: Message = {"k": "exposure_progress", "n": n, "role": begun["role"], **one.quick()}
            due = now - self._analysed_s >= max(ANALYSE_S, ANALYSIS_SHARE * self._took_s)
            if due and not behind:
                counts = one.snapshot()
                if counts is not None and counts.frames:
                    analysis = self._analyse(counts)
                    progress |= describe(counts, analysis)
                    yield from self._pictures(begun, counts, analysis, partial=True)
                self._analysed_s = self._clock()
                self._took_s = self._analysed_s - now
            yield progress

    # --- inside ------------------------------------------------------------------------------------------

    def _room(self, message: Message, source: Mapping[str, Any]) -> int:
        """Return how many whole frames may be kept: those asked for, within the budget of the run."""
        kept = sum(path.stat().st_size for path in self._raw.glob("*.bin"))
        left = int(source.get("whole_frames_bytes", 0)) - kept
        return min(
            int(message.get("keep", 0)), max(left, 0) // (2 * int(source["rows"]) * int(source["columns"]))
        )

    def _rules(self, role: str, source: Mapping[str, Any]) -> Rules:
        """Return what makes photons of frames. Raises ValueError without dark frames."""
        shape = int(source["rows"]), int(source["columns"])
        level = self._dark.get(role) or self._load_dark(role)
        if level is None:
            raise ValueError("there are no dark frames of this run: expose with purpose = dark comes first")
        path = source.get("calibration")
        if isinstance(path, str):
            gain, offset = read_npz(Path(path))
        else:
            gain = np.full(shape, float(source["gain_kev"]))
            offset = np.full(shape, float(source["offset_kev"]))
        if not (gain.shape == offset.shape == shape == level.mean_adu.shape):
            raise ValueError(f"calibration {gain.shape}, dark frames {level.mean_adu.shape}, frames {shape}")
        scale = PixelScale(level.mean_adu, level.noise_adu, gain, offset, np.ones(shape, bool))
        bins = EnergyBins(0.2, round(EDGE_KEV / 0.2))
        add = source["sharing"] == "add"
        return Rules(scale, float(source["threshold_kev"]), bins, add, int(source["neighbours"]))

    def _save_dark(self, name: str, level: DarkLevel) -> None:
        def write(file: Any) -> None:
            np.savez(
                file, mean_adu=level.mean_adu, median_adu=level.median_adu, noise_adu=level.noise_adu,
                frames=level.frames, outside=level.outside, pooled_noise_adu=level.pooled_noise_adu,
            )  # fmt: skip

        put(self._raw / f"{name}.dark.npz", write)

    def _load_dark(self, role: str) -> DarkLevel | None:
        """Return the newest dark level on the disk: of before this process was started again."""
        found = sorted(self._raw.glob(f"{role}_[0-9]*.dark.npz"))
        if not found:
            return None
        try:
            with found[-1].open("rb") as file, np.load(file, allow_pickle=False) as table:
                maps = (table["mean_adu"], table["median_adu"], table["noise_adu"])
                numbers = int(table["frames"]), int(table["outside"]), float(table["pooled_noise_adu"])
                return DarkLevel(*maps, *numbers)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s: %s", found[-1], error)
            return None

    def _analyse(self, counts: Counts) -> Analysis:
        return analyse(counts.spectra, counts.bins, counts.usable, Setup())

    def _parts(self, n: int, one: RingExposure) -> Iterator[Message]:
        if one.writer is not None:
            for part in one.writer.report():
                yield {"k": "hits", "n": n, **part}

    def _save(self, name: str, found: Mapping[str, Any]) -> None:
        text = json.dumps(found, indent=1, default=_plain).encode() + b"\n"
        put(self._raw / f"{name}.json", lambda file: file.write(text))

    def _pictures(
        self, begun: Message, counts: Counts, analysis: Analysis, *, partial: bool
    ) -> Iterator[Message]:
        if self._products is None:
            return
        n, role = number(begun, "n"), str(begun["role"])
        about = {"exposure": n, "name": begun["name"], "purpose": begun["purpose"], "partial": partial}
        ny, nx = counts.hits.shape
        axes = {
            "shape": [ny, nx], "axes": "pixels", "x_um": np.arange(nx, dtype=np.float32),
            "y_um": np.arange(ny, dtype=np.float32),
        }  # fmt: skip
        photons = counts.singles + counts.doubles
        fields: dict[str, dict[str, Any]] = {
            f"map/{role}": {
                "element": role, "unit": "counts", "values": photons.ravel().astype(np.float32),
                "sigma": np.sqrt(photons.ravel()).astype(np.float32), **axes,
            },
            f"map/{role}_acceptance": {
                "element": f"{role}_acceptance", "unit": "1",
                "values": counts.acceptance.ravel().astype(np.float32),
                "sigma": counts.acceptance_sigma.ravel().astype(np.float32), **axes,
            },
            f"map/{role}_s": {
                "element": f"{role}_s", "unit": "1", "values": analysis.map.s.ravel().astype(np.float32),
                "sigma": analysis.map.sigma.ravel().astype(np.float32), **axes,
            },
            f"spectrum/{role}": {
                "detector": role, "unit": "counts", "values": analysis.spectrum.astype(np.uint32),
                "energy_kev": counts.bins.edges_kev()[:-1] + counts.bins.width_kev / 2.0,
            },
        }  # fmt: skip
        last = f"{counts.frames:010d}{'p' if partial else ''}"
        items = {
            f"{role}{n:03d}_{stream.replace('/', '_')}_{last}": (
                stream,
                encode({"run": self._run, **about, **entry}),
            )
            for stream, entry in fields.items()
        }
        for message in self._products.write(items):
            yield {**message, "meta": about}


def describe(counts: Counts, analysis: Analysis) -> dict[str, Any]:
    """Return the numbers of an exposure: photons, acceptance, S with its errors."""
    return {
        "photons": int(counts.singles.sum() + counts.doubles.sum()),
        "discarded": int(counts.discarded.sum()), "pixels": max(int(counts.usable.sum()), 1),
        "occupancy": _quantity(counts.occupancy()), "acceptance": _quantity(counts.mean_acceptance()),
        "s": _quantity(analysis.s),
    }  # fmt: skip


def _quantity(one: Estimate) -> Message:
    parts = [_plain(one.value), _plain(one.sigma_stat), _plain(one.sigma_sys)]
    if any(part is None for part in parts):  # a contract of summaries: all of them, or none
        parts = [None, None, None]
    return dict(zip(("value", "sigma_stat", "sigma_sys"), parts, strict=True)) | {"unit": one.unit}


def _lost_with_host(begun: Message, end: Message, frames: int) -> Message:
    """Return what an interrupted exposure had received, by its host's last note, that is not on the disk."""
    lost = max(0, number(end, "seen") - frames) if "seen" in end else 0
    return {"lost_with_host": lost, "lost_with_host_s": lost * float(begun["source"].get("frame_s", 0.0))}


def _name(message: Message) -> str:
    """Return the name of an exposure in the folder of raw data."""
    role = str(message["role"])
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", role):
        raise ValueError(f"{role!r} is no role")
    return f"{role}_{number(message, 'n'):04d}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
