"""Synthetic history, maps, profiles and spectra for the stage of the live page, as binary frames."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

SPAN_S = 5400.0  # of a past that the stage pretends
STALE_S = 754.0  # how long ago a lost host was last heard
LAYERS_UM = {"anode": (-140.0, -95.0), "separator": (-95.0, 0.0), "cathode": (0.0, 160.0)}
RUN = "20261122-001500-quickstart"
Body = dict[str, Any]


class Arrays:
    """History and products of one scene.

    Args:
        scene: its name.
        began: wall seconds at which the run began.
        pixels: of the maps, each way.
        random: of all noise.
    """

    def __init__(self, scene: str, began: float, pixels: int, random: np.random.Generator) -> None:
        self.scene, self.began, self.pixels, self.random = scene, began, pixels, random

    def series(self) -> list[bytes]:
        """Return the history of every quantity."""
        if self.scene == "early":
            return []
        t = self.began + np.linspace(0.0, SPAN_S - (STALE_S if self.scene == "stale" else 0.0), 1800)
        x = (t - self.began) / SPAN_S
        noise = self.random.normal(size=t.size)
        warm = np.clip((x - 0.33) / 0.05, 0.0, 1.0)
        temperature = (
            298.4
            + 34.6 * warm
            + 0.5 * np.sin(40 * x) * warm * np.exp(-12 * np.clip(x - 0.38, 0, 1))
            + 0.05 * noise
        )
        if self.scene == "tripped":
            temperature = temperature + 21.0 * np.clip((x - 0.96) / 0.03, 0.0, 1.0)
        charging = x > 0.4
        cv = np.clip((x - 0.85) / 0.15, 0.0, 1.0)
        current = np.where(charging, 1.8e-5 * np.exp(-1.2 * cv), 0.0)
        charge = np.cumsum(current) * (SPAN_S / t.size) * 0.42
        voltage = 3.60 + 0.36 * (1 - np.exp(-6 * np.clip(x - 0.4, 0, 1))) + 0.001 * noise
        soc = charge / 0.072
        made = {
            "heater/temperature": (t, temperature, None),
            "cell/voltage": (t, voltage, None),
            "cell/current": (t, current, None),
            "cell/charge": (t, charge, 1e-3 * charge + 1e-5),
            "heater/target": (t[x > 0.33], np.full((x > 0.33).sum(), 333.0), None),
            "soc/charge": (t[::8], soc[::8], 0.05 * soc[::8] + 0.0005),
        }
        chosen = np.flatnonzero(charging)[120::130]
        error = 0.19 / np.sqrt(1 + np.arange(chosen.size))
        made["soc/beam"] = (
            t[chosen],
            soc[chosen] + error * self.random.normal(size=chosen.size) * 0.6,
            error,
        )
        return [_series(name, *columns) for name, columns in made.items()]

    def products(self, n: int = 9) -> list[bytes]:
        """Return maps, profiles and spectra of pass ``n``; of the reference scan before."""
        if self.scene == "early":
            return []
        reference = self._products(1, "as prepared", "reference", 4, 0.0)
        return reference + self._products(2, "charging", "charging", n, 0.16)

    def one_map(self, n: int) -> bytes:
        """Return a map of lithium alone, 4 bytes a pixel, as pass ``n`` might give it."""
        shape = (self.pixels, self.pixels)
        head: Body = {
            "k": "product", "stream": "map/Li", "name": "charging", "scan": 2, "passes": [n],
            "partial": False,
            "purpose": "charging", "run": RUN, "t": time.time(), "hist": False, "element": "Li",
            "unit": "counts",
        }  # fmt: skip
        return _frame(head, {"values": self.random.normal(20.0, 4.0, shape).astype("f4")})

    def _products(self, scan: int, name: str, purpose: str, n: int, lost: float) -> list[bytes]:
        size, now = self.pixels, time.time() - (STALE_S if self.scene == "stale" else 4.0)
        x = np.linspace(0.8, 99.2, size, dtype="f4")
        y = np.linspace(-147.7, 147.7, size, dtype="f4")
        gx, gy = np.meshgrid(x, y)
        level = gy + 0.08 * (gx - 50) + 1.5 * np.sin(gx / 7)
        anode, cathode = 1 / (1 + np.exp((level + 95) / 3)), 1 / (1 + np.exp(-level / 3))
        separator = np.clip(1 - anode - cathode, 0, 1)
        grain = 1 + 0.25 * np.sin(gx / 4.1) * np.sin(gy / 6.3)
        rates = {
            "Li": 12.0 * anode + 0.3 * separator + 1.0 * cathode * (1 - lost) * grain,
            "Co": 13.1 * cathode * grain + 0.05,
            "P": 4.0 * separator + 0.5 * cathode,
        }
        head: Body = {
            "k": "product",
            "name": name,
            "scan": scan,
            "passes": list(range(1, n + 1)),
            "partial": n % 2 == 1,
            "purpose": purpose,
            "run": RUN,
            "t": now,
            "hist": False,
        }
        axes = {"x_um": x, "y_um": y}
        shape = (size, size)
        frames = []
        for element, rate in rates.items():
            background = 0.4 if element == "Li" else 0.8
            gross = self.random.poisson(np.maximum(n * (rate * 0.35 + background), 0))
            net = (gross - n * background).astype("f4")
            net[-3:, : size // 3] = np.nan  # lines that no pass has reached
            arrays = {
                "values": net.reshape(shape),
                "sigma": np.sqrt(gross + 1).astype("f4"),
                "gross": gross.astype("u4"),
                **axes,
            }
            frames.append(
                _frame({**head, "stream": f"map/{element}", "element": element, "unit": "counts"}, arrays)
            )
        frames.append(
            _frame(
                {**head, "stream": "map/charge", "element": "charge", "unit": "pC"},
                {
                    "values": np.full(shape, 1.32 * n, "f4")
                    * (1 + 0.01 * self.random.normal(size=shape).astype("f4")),
                    **axes,
                },
            )
        )
        if lost:
            soc = np.full(shape, np.nan, "f4")
            for j in range(0, size, 8):
                for i in range(0, size, 8):
                    if cathode[j : j + 8, i : i + 8].mean() > 0.9:
                        soc[j : j + 8, i : i + 8] = 0.34 + 0.06 * self.random.normal()
            frames.append(
                _frame(
                    {**head, "stream": "soc", "element": "soc", "unit": "1", "minimum_counts": 400},
                    {"values": soc, "sigma": np.full(shape, 0.06, "f4"), **axes},
                )
            )
        position = np.arange(-140.0, 160.0, 4.7)
        for element, rate in rates.items():
            on_line = np.interp(position, y, rate.mean(axis=1)) * 2.6
            sigma = np.sqrt(on_line + 0.4) * 0.35 / math.sqrt(n)
            arrays = {
                "position_um": position,
                "values": on_line + sigma * self.random.normal(size=position.size),
                "sigma": sigma,
            }
            if lost:
                before = {"Li": 1 / (1 - lost * np.interp(position, y, cathode.mean(axis=1)))}.get(
                    element, 1.0
                )
                arrays |= {
                    "reference_position_um": position + 1.3,
                    "reference_values": on_line * before,
                    "reference_sigma": sigma * 1.3,
                }
            frames.append(
                _frame(
                    {
                        **head,
                        "stream": f"profile/{element}",
                        "element": element,
                        "unit": "1/nC",
                        "layers_um": [list(b) for b in LAYERS_UM.values()],
                        "layers": list(LAYERS_UM),
                        "interface_um": 0.0,
                        "reference_name": "as prepared",
                    },
                    arrays,
                )
            )
        return frames + self._spectra(head, n)

    def _spectra(self, head: Body, n: int) -> list[bytes]:
        frames = []
        lines = {
            "pixe": (
                2048,
                0.01,
                [("P", 2.013, 900.0), ("Co", 6.93, 12000.0), ("Co Kb", 7.65, 1600.0), ("Fe", 6.4, 300.0)],
                0.07,
                30.0,
                2.0,
            ),
            "pige": (
                4096,
                0.25,
                [("Li", 477.6, 900.0), ("e+e-", 511.0, 500.0), ("Al", 843.8, 120.0)],
                2.4,
                40.0,
                300.0,
            ),
        }
        for detector, (channels, gain, peaks, width, level, decay) in lines.items():
            kev = gain * np.arange(channels)
            continuum = level * np.exp(-kev / decay) * n / 4 + 0.2
            model = continuum.copy()
            for _, at, area in peaks:
                model += area * n / 9 * gain / width / 2.5066 * np.exp(-0.5 * ((kev - at) / width) ** 2)
            near = np.zeros(channels, bool)
            windows = []
            for label, at, area in peaks:
                if label not in ("P", "Co", "Li"):
                    continue
                low, high = at - 2.2 * width, at + 2.2 * width
                near |= (kev > low - 4 * width) & (kev < high + 4 * width)
                windows.append(
                    {
                        "element": label,
                        "label": label,
                        "low_kev": low,
                        "high_kev": high,
                        "sidebands": [[low - 3 * width, low - width], [high + width, high + 3 * width]],
                        "net": area * n / 9,
                        "sigma": math.sqrt(area * n / 9) * 1.2,
                    }
                )
            frames.append(
                _frame(
                    {
                        **head,
                        "stream": f"spectrum/{detector}",
                        "detector": detector,
                        "unit": "counts",
                        "windows": windows,
                    },
                    {
                        "energy_kev": kev,
                        "values": self.random.poisson(model).astype("u4"),
                        "beam_off": self.random.poisson(continuum * 0.02).astype("u4"),
                        "fit": np.where(near, model, np.nan),
                        "continuum": np.where(near, continuum, np.nan),
                    },
                )
            )
        return frames


def _frame(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    told, parts, at = {}, [], 0
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        code = f"{array.dtype.kind}{array.dtype.itemsize}"
        told[name] = {"dtype": code, "shape": list(array.shape), "offset": at, "bytes": len(raw)}
        pad = -len(raw) % 8
        parts += [raw, bytes(pad)]
        at += len(raw) + pad
    text = json.dumps({**head, "arrays": told}).encode()
    text += b" " * (-(4 + len(text)) % 8)
    return struct.pack("<I", len(text)) + text + b"".join(parts)


def _series(name: str, t: np.ndarray, v: np.ndarray, e: np.ndarray | None) -> bytes:
    arrays = {"t": t.astype("f8"), "v": v.astype("f4")}
    return _frame(
        {"k": "series", "name": name, "unit": "", "why": "snapshot"},
        arrays if e is None else {**arrays, "e": e.astype("f4")},
    )
