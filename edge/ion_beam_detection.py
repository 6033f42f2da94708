"""Is a line there at all? Decision threshold, detection limit, upper limit of every line in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.detection import Decision, decide
from edge.uncertainty import Estimate, garwood_interval

ALPHA = 0.00135  # accepted rate of false claims, 3 sigma: a run tests a dozen lines per scan
BETA = GAMMA = 0.05
SIGNALS = ("li_relative", "li_relative_charge")
RELATIVE = (*SIGNALS, "x", "soc_beam", "soc_beam_relative")  # quantities that rest on the reference scan
CERTAIN = 0.95  # two-sided: how sure the background is not larger than what it is taken for


@dataclass(frozen=True)
class LineDecision:
    """The decision on one line in one layer."""

    element: str
    decision: Decision

    @property
    def text(self) -> str:
        """In words: the counts, or what they are below."""
        if self.decision.detected:
            return f"{self.element} detected, {self.decision.value:.0f} +- {self.decision.sigma:.0f} counts"
        return f"{self.element} not detected, < {self.decision.upper_limit:.3g} counts"

    def to_dict(self) -> dict[str, object]:
        """Return plain values, all in counts."""
        d = self.decision
        return {
            "detected": d.detected,
            "decision_threshold": d.threshold,
            "detection_limit": d.detection_limit,
            "upper_limit": d.upper_limit,
            "lower_limit": d.lower_limit,
            "alpha": d.alpha,
            "beta": d.beta,
            "gamma": d.gamma,
            "unit": "counts",
            "text": self.text,
        }


def decide_line(element: str, counts: Estimate) -> LineDecision:
    """Decide whether net counts are a line.

    The variance that no line at all would have is that of the background, sigma_stat^2 - max(net, 0). It is a
    number of counts and as uncertain as one: at a few counts, a line would be claimed far too often where the
    background happens to be low. So u^2(0) is its exact upper limit (Garwood, 97.5 %), plus sigma_sys^2; each
    count of the line adds one.

    Args:
        element: whose line.
        counts: net counts with both errors.

    Returns: the decision; an undetected line has an upper limit and no more.
    Raises: ValueError for negative errors.
    Source: ISO 11929-1:2019; L. A. Currie, Anal. Chem. 40 (1968) 586.
    """
    background = max(counts.sigma_stat**2 - max(counts.value, 0.0), 0.0)
    background = float(garwood_interval(background, CERTAIN)[1])
    decision = decide(
        counts.value,
        counts.sigma_stat,
        counts.sigma_sys,
        background + counts.sigma_sys**2,
        1.0,
        alpha=ALPHA,
        beta=BETA,
        gamma=GAMMA,
    )
    return LineDecision(element, decision)


def decisions(quantities: Mapping[str, Estimate]) -> dict[str, LineDecision]:
    """Return the decision on every line that has finite counts, by element."""
    found = {}
    for name, counts in quantities.items():
        if name.endswith("_counts") and abs(counts.value) < float("inf") and counts.total < float("inf"):
            element = name.removesuffix("_counts").capitalize()
            found[element] = decide_line(element, counts)
    return found


def missing(found: Mapping[str, LineDecision], needed: tuple[str, ...]) -> list[str]:
    """Return a sentence for each line that something rests on and that is not there."""
    return [
        f"{found[element].text}"
        for element in needed
        if element in found and not found[element].decision.detected
    ]


def undetected(
    layer: Mapping[str, Any], before: Mapping[str, Mapping[str, Any]], normaliser: str | None
) -> dict[str, dict[str, Any]]:
    """Return which quantities of a layer are no numbers, because a line under them is not detected.

    A ratio to a line that is not there says nothing: it has no limit either. Where only the lithium of the
    scan itself is missing, a relative signal has an upper limit: that of the 95 % coverage interval for a
    value known not to be negative (ISO 11929-1, the one of ``decide``).

    Args:
        layer: with its ``quantities`` and ``detection`` as plain values.
        before: ``detection`` of the same layer in the reference scan.
        normaliser: element that lithium is divided by, None for layers without.

    Returns: by name of the quantity: ``text`` and ``upper_limit`` (None where there is none).
    """
    found: dict[str, dict[str, Any]] = {}
    for name, quantity in layer["quantities"].items():
        if name not in RELATIVE:
            continue
        over = [] if name == "li_relative_charge" or normaliser is None else [normaliser]
        lost = [f"{e} not detected in the reference" for e in ("Li", *over) if _gone(before, e)]
        lost += [f"{e} not detected" for e in over if _gone(layer["detection"], e)]
        limit = None
        if not lost and _gone(layer["detection"], "Li"):
            lost = ["Li not detected"]
            if name in SIGNALS:
                error = quantity["sigma_stat"] ** 2 + quantity["sigma_sys"] ** 2
                limit = decide(
                    quantity["value"], quantity["sigma_stat"], quantity["sigma_sys"], error, 0.0, gamma=GAMMA
                ).upper_limit
        if lost:
            found[name] = {"text": lost[0], "upper_limit": limit}
    return found


def _gone(detection: Mapping[str, Mapping[str, Any]], element: str) -> bool:
    return element in detection and not detection[element]["detected"]
