"""Limits that belong to what is in the cell: no file can widen them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chemistry:
    """A limit that no file can widen, and why."""

    temperature_high_k: float
    reason: str


MARGIN_K = 20.0  # Pt100 of 1 K, and the plate is hotter than the cell while it heats
CHEMISTRIES = {
    # CRC Handbook of Chemistry and Physics: lithium melts at 453.65 K; the science notes use 453.7 K
    "lithium metal": Chemistry(453.7 - MARGIN_K, "lithium melts at 453.7 K, margin 20 K"),
    # ITS-90 fixed point: indium freezes at 429.7485 K
    "lithium indium": Chemistry(429.7 - MARGIN_K, "indium melts at 429.7 K, margin 20 K"),
    # CRC Handbook: sodium melts at 370.944 K
    "sodium metal": Chemistry(370.9 - MARGIN_K, "sodium melts at 370.9 K, margin 20 K"),
}
