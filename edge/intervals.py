"""Which passes a result is made of, and what the cell's own instruments said meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.scan_data import ScanData, Stamp
from edge.settings import Settings
from edge.soc import soc_from_charge
from edge.uncertainty import Estimate

Range = tuple[float, float]


@dataclass(frozen=True)
class Interval:
    """Passes of one scan, and the state of the cell over them as lowest and highest stamp."""

    scan: str
    passes: tuple[int, int]
    lab_s: Range | None = None
    soc_charge: Range | None = None
    temperature_k: Range | None = None
    voltage_v: Range | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


def interval_of(
    scan: ScanData, keys: Sequence[int] | None, reference: ScanData | None, settings: Settings
) -> Interval:
    """Return passes, times and the state of the cell over some blocks of a scan (None: all)."""
    stamps = _stamps(scan, keys)
    flat = [stamp for pair in stamps.values() for stamp in pair]
    soc = None
    charges = _charges(flat, reference)
    if charges and settings.capacity_coulomb is not None:
        soc = min(charges) / settings.capacity_coulomb, max(charges) / settings.capacity_coulomb
    return Interval(
        scan.start.name,
        (min(stamps), max(stamps)),
        _range(stamp.lab_s for stamp in flat),
        soc,
        _range(stamp.temperature_k for stamp in flat),
        _range(stamp.voltage_v for stamp in flat),
    )


def charge_side(
    scan: ScanData, keys: Sequence[int] | None, reference: ScanData | None, settings: Settings
) -> Estimate | None:
    """Return the state of charge from the coulombs since the reference scan, averaged over the stamps.

    None without a capacity, a reference, or a valid charge on both sides.
    """
    flat = [stamp for pair in _stamps(scan, keys).values() for stamp in pair]
    charges = _charges(flat, reference)
    if not charges or settings.capacity_coulomb is None:
        return None
    sigmas = [s.charge_sigma_coulomb for s in flat if s.charge_sigma_coulomb is not None]
    since_s = [s.charged_s if s.charged_s is not None else s.lab_s for s in flat]
    start = reference_stamp(reference)
    begun = 0.0 if start is None else (start.charged_s if start.charged_s is not None else start.lab_s) or 0.0
    elapsed_s = max((t for t in since_s if t is not None), default=begun) - begun
    return soc_from_charge(
        float(np.mean(charges)),
        float(np.mean(sigmas)) if sigmas else 0.0,
        settings.capacity_coulomb,
        settings.capacity_error,
        settings.leakage_a,
        elapsed_s,
    )


def reference_stamp(reference: ScanData | None) -> Stamp | None:
    """Return the stamp at the end of the reference scan's last pass."""
    if reference is None or not reference.blocks:
        return None
    last = max(reference.passes)
    return next(block.passes[last][1] for block in reference.blocks.values() if last in block.passes)


def _stamps(scan: ScanData, keys: Sequence[int] | None) -> dict[int, tuple[Stamp, Stamp]]:
    blocks = [scan.blocks[key] for key in (sorted(scan.blocks) if keys is None else keys)]
    return {n: pair for block in blocks for n, pair in sorted(block.passes.items())}


def _charges(stamps: Iterable[Stamp], reference: ScanData | None) -> list[float]:
    start = reference_stamp(reference)
    if start is None or start.charge_coulomb is None:
        return []
    return [s.charge_coulomb - start.charge_coulomb for s in stamps if s.charge_coulomb is not None]


def _range(values: Iterable[float | None]) -> Range | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None
