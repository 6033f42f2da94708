"""One layer in one interval, and what its quantities are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.lithium import Measured, Method
from edge.uncertainty import Estimate


@dataclass(frozen=True)
class LayerResult:
    """One layer in one interval."""

    name: str
    kind: str
    quantities: Mapping[str, Estimate]
    budget: Mapping[str, float] = field(default_factory=dict)  # of x, or of li_relative: per nuisance
    normaliser: str | None = None
    before: Mapping[str, Estimate] = field(default_factory=dict)  # counts of the reference, same region
    gained: Estimate | None = None  # lithium counts beyond those of the reference for the same beam charge


@dataclass(frozen=True)
class View:
    """What enters the quantities of a scan: method, its counts, and the reference's in the same regions."""

    method: Method
    now: Measured
    reference: Measured | None


Variants = Mapping[str, tuple[View, View]]
"""Per nuisance the view at plus and at minus one sigma; "central" is the one that they vary."""
