"""Exposures of a camera in the reduce process: images are summed as they come, and reduced while they come.

Control tells of each image when it lies on the disk (``image`` {n, file, number, ..., stamp}), with the state
of the cell at that moment; it is read there, below the folder of raw data. Sums are integers, so a result
does not depend on when it was asked for: told the same again, from the index of the raw data, it is the same
to the last bit. Exposures of one name are one state, whatever pauses lie between them.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from controller.offline.radiography import state_data
from controller.offline.radiography_options import Options
from controller.offline.radiography_recorded import DARK, FLAT, options_of, state_of
from controller.offline.radiography_run import Radiographs
from controller.offline.radiography_summary import Summary, summary
from controller.reduce.hit_files import put
from controller.reduce.messages import number
from controller.reduce.products import ProductFolder, encode
from drivers.files import images
from drivers.files.errors import FileError
from edge.radiography import Exposure, ImageSums
from edge.radiography_depth import transmission_map

log = logging.getLogger("reduce")

Message = dict[str, Any]
TOLD_S = 1.0  # wall
SHARE = 3.0  # a state is reduced again after this many times as long as it took
STAMPED = ("soc", "temperature_k", "voltage_v", "charge_coulomb")
COMMON = (DARK, FLAT)


@dataclass
class _State:
    """Images of one purpose and name."""

    sums: ImageSums
    full_adu: int
    stamps: list[Mapping[str, Any]] = field(default_factory=list)
    reduced: int = -1  # images at the last reduction


class _Live(Radiographs):
    """Radiographs whose images were summed as they came; names stand where files would."""

    def __init__(self, options: Options, states: Mapping[str, _State]) -> None:
        super().__init__(options, full_adu=min(one.full_adu for one in states.values()))
        self._states = states

    def exposure(self, paths: Sequence[Path]) -> Exposure:
        """Return the exposure of that name."""
        return self._states[str(paths[0])].sums.result()


class Images:
    """Called from the one thread that serves messages.

    Args:
        run: its name.
        folder: of the run.
        products: where products go; None writes none.
        settings: of ``[radiography]``; None where nothing is to be reduced.
        clock: wall seconds, to space what is only for display.
    """

    def __init__(
        self, run: str, folder: Path, products: ProductFolder | None,
        settings: Mapping[str, Any] | None, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._run, self._raw, self._products, self._clock = run, folder / "raw", products, clock
        self._settings = settings
        self._states: dict[str, _State] = {}
        self._open: dict[int, Message] = {}
        self._counted: dict[int, int] = {}
        self._why: dict[int, str] = {}
        self._told_s = self._reduced_s = -1e9
        self._took_s = 0.0
        self.results: dict[str, dict[str, Any]] = {}

    def knows(self, n: int) -> bool:
        """Whether an exposure is of a camera."""
        return n in self._counted

    def begin(self, message: Message) -> None:
        """Take the beginning of an exposure."""
        n = number(message, "n")
        if n not in self._counted:
            self._open[n], self._counted[n] = message, 0

    def add(self, message: Message) -> None:
        """Take one image. One that cannot be read is left out and told of at the end."""
        n, begun = number(message, "n"), self._open.get(number(message, "n"))
        if begun is None:
            return
        path = self._raw / str(message["file"])
        try:
            recorded = images.read(path)
            (image,) = recorded.frames()
            state = self._states.get(_key(begun))
            if state is None:
                state = self._states[_key(begun)] = _State(ImageSums(*image.shape), recorded.full_adu)
            state.sums.add(image)
        except (FileError, ValueError) as error:
            self._why[n] = f"image {message.get('number')} is left out: {error}"
            return
        state.full_adu = min(state.full_adu, recorded.full_adu)
        state.stamps.append(message.get("stamp") or {})
        self._counted[n] += 1

    def end(self, message: Message) -> Iterator[Message]:
        """Take the end of an exposure: reduce its state, tell what came of it."""
        n = number(message, "n")
        begun = self._open.pop(n, None)
        if begun is None:
            return
        found: dict[str, Any] = {
            "n": n, "role": begun["role"], "name": begun["name"], "purpose": begun["purpose"],
            "frames": self._counted[n], "counters": dict(message.get("counters") or {}),
        }  # fmt: skip
        key = _key(begun)
        if key in self._states:
            found["stamp"] = _stamp(self._states[key].stamps)
            try:
                yield from self._reduce(key, begun, partial=False)
            except ValueError as error:
                self._why[n] = str(error)
            if key in self.results:
                found["state"] = self.results[key]
        why = self._why.get(n, "")
        put_json(self._raw / f"{begun['role']}_{n:04d}.json", found)
        yield {"k": "exposure_checked", **found, "ok": not why, "why": why}

    def poll(self, *, behind: bool) -> Iterator[Message]:
        """Yield progress, and pictures of what has come so far."""
        now = self._clock()
        if not self._open or now - self._told_s < TOLD_S:
            return
        self._told_s = now
        for n, begun in self._open.items():
            if not behind and now - self._reduced_s >= SHARE * self._took_s and self._products is not None:
                try:
                    yield from self._reduce(_key(begun), begun, partial=True)
                except ValueError as error:
                    log.info("exposure %d: %s", n, error)
                self._reduced_s = self._clock()
                self._took_s = self._reduced_s - now
            yield {
                "k": "exposure_progress", "n": n, "role": begun["role"], "frames": self._counted[n],
                **self.results.get(_key(begun), {}),
            }  # fmt: skip

    def result(self) -> list[dict[str, Any]]:
        """Return every state that was reduced, in the order of its first exposure."""
        return list(self.results.values())

    # --- inside ------------------------------------------------------------------------------------------

    def _reduce(self, key: str, begun: Message, *, partial: bool) -> Iterator[Message]:
        """Reduce one state. Raises ValueError where its images do not allow it."""
        state = self._states.get(key)
        if state is None or self._settings is None or key in COMMON or state.reduced == state.sums.n_frames:
            return
        if any(name not in self._states for name in COMMON):
            raise ValueError("there are no images of dark and open beam yet")
        reference = self._settings.get("reference")
        options = options_of(
            self._settings, key, samples=(Path(key),), open_beam=(Path(FLAT),), dark=(Path(DARK),),
            reference=(Path(reference),) if reference and reference != key else (),
        )  # fmt: skip
        if options.reference and str(options.reference[0]) not in self._states:
            raise ValueError(f"the reference {options.reference[0]} has not been exposed yet")
        live = _Live(options, self._states)
        one = summary(live, 0)
        state.reduced = state.sums.n_frames
        self.results[key] = {
            "name": key, **_stamp(state.stamps), **state_data(one),
            "noise": {"adu_per_neutron": live.noise.adu_per_neutron, "source": live.noise.source},
        }  # fmt: skip
        if self._products is not None:
            yield from self._pictures(begun, live, one, state.sums.n_frames, partial=partial)

    def _pictures(
        self, begun: Message, live: Radiographs, one: Summary, frames: int, *, partial: bool
    ) -> Iterator[Message]:
        if self._products is None:
            return
        n, role = number(begun, "n"), str(begun["role"])
        sample, reference, _ = live.pair(0)
        t, sigma = transmission_map(sample.sample, reference, live.setting)
        ny, nx = t.shape
        pixel_um = live.options.pixel_um or 1.0
        about = {"exposure": n, "name": begun["name"], "purpose": begun["purpose"], "partial": partial}
        fields: dict[str, dict[str, Any]] = {
            f"map/{role}": {
                "element": role, "unit": "1", "values": t.ravel().astype(np.float32),
                "sigma": sigma.ravel().astype(np.float32), "shape": [ny, nx],
                "axes": "um" if live.options.pixel_um else "pixels",
                "x_um": (pixel_um * np.arange(nx)).astype(np.float32),
                "y_um": (pixel_um * np.arange(ny)).astype(np.float32),
            }
        }  # fmt: skip
        if one.lithium is not None:
            fields["radiograph/6Li"] = {
                "element": "6Li", "unit": one.lithium.unit,
                "y_um": (pixel_um * one.centre_px).astype(np.float32),
                "values": one.lithium.values.astype(np.float32),
                "sigma": one.lithium.sigma_stat.astype(np.float32),
            }  # fmt: skip
        last = f"{frames:06d}{'p' if partial else ''}"
        items = {
            f"{role}{n:03d}_{stream.replace('/', '_')}_{last}": (
                stream, encode({"run": self._run, **about, **entry})
            )
            for stream, entry in fields.items()
        }  # fmt: skip
        for message in self._products.write(items):
            yield {**message, "meta": about}


def put_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write what came of an exposure beside its raw data, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, default=_plain).encode() + b"\n"
    put(path, lambda file: file.write(text))


def _key(begun: Message) -> str:
    return state_of(str(begun["purpose"]), str(begun["name"]))


def _stamp(stamps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, lowest and highest of what the cell was like, and the lab time from first to last."""
    told: dict[str, Any] = {}
    for name in STAMPED:
        values = [float(v) for one in stamps if isinstance(v := one.get(name), int | float)]
        values = [value for value in values if math.isfinite(value)]
        if values:
            told[name] = {"mean": math.fsum(values) / len(values), "low": min(values), "high": max(values)}
    times = [float(t) for one in stamps if isinstance(t := one.get("lab_s"), int | float)]
    if times:
        told["lab_s"] = [min(times), max(times)]
    return told


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
