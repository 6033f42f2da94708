"""``summary.json``: how a run ended and what came out, with a published schema. Pure: plain data in and out.

A quantity is a value with its statistical and its systematic one-sigma error and a unit, or it is missing:
then all three are null. One that came without an error is not passed on but named under ``problems``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from controller.line_health import line_schema

SCHEMA_ID = "operando/summary/1"
RESOLVED_SIGMA = 3.0  # a change counts as seen from here
EXIT_CODES = (0, 2, 3, 4, 5, 6)
RELATIVE = ("li_relative", "li_relative_charge")  # signals that are 1 in the reference scan
DOSES = ("protons_per_cm2", "protons_per_cm2_max")
WHAT_ENDS = {
    0: "done",
    2: "refused",
    3: "ended by an instrument",
    4: "stopped by the guard",
    5: "aborted by a person",
    6: "finished, but with gaps",
}

Plain = dict[str, Any]

_SIGMA: Plain = {"type": "number", "minimum": 0}
_NUMBER_OR_NULL: Plain = {"type": ["number", "null"]}
_WORDS: Plain = {"type": "array", "items": {"type": "string"}}
_LIST_OF_OBJECTS: Plain = {"type": "array", "items": {"type": "object"}}
_QUANTITY: Plain = {
    "description": "value, one-sigma errors of both kinds, unit; all numbers null when it was not measured",
    "type": "object",
    "required": ["value", "sigma_stat", "sigma_sys", "unit"],
    "properties": {
        "unit": {"type": "string"},
        "flags": {"type": "array", "items": {"type": "string"}},
        "provenance": {"type": "object"},
        "budget": {"type": "object", "additionalProperties": _SIGMA},
        "upper_limit": {
            **_NUMBER_OR_NULL,
            "description": "of 95 %, where the numbers are null because a line is not detected (see flags)",
        },
    },
    "oneOf": [
        {"properties": {"value": {"type": "number"}, "sigma_stat": _SIGMA, "sigma_sys": _SIGMA}},
        {"properties": {name: {"type": "null"} for name in ("value", "sigma_stat", "sigma_sys")}},
    ],
}
_CHANGE: Plain = {
    "description": "whether lithium in this layer differs from the reference scan",
    "type": "object",
    "required": ["seen", "sigmas", "smallest_soc", "text"],
    "properties": {
        "seen": {"type": ["boolean", "null"]},
        "sigmas": {**_NUMBER_OR_NULL, "description": "change over its total error"},
        "smallest_soc": {**_NUMBER_OR_NULL, "description": "smallest change of SoC seen with 3 sigma"},
        "text": {"type": "string"},
    },
}
_LAYER: Plain = {
    "type": "object",
    "required": ["name", "kind", "quantities"],
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["metal", "separator", "host"]},
        "quantities": {"type": "object", "additionalProperties": _QUANTITY},
        "z": {**_NUMBER_OR_NULL, "description": "SoC from the beam less SoC from the charge, in sigma"},
        "agree": {"type": ["boolean", "null"]},
        "interval": {"type": ["object", "null"], "description": "scan and passes that the result is made of"},
        "verdict": {"type": "string"},
        "appeared": {
            "description": "lithium where the reference had none, or less than half of it: net counts, those "
            "gained for the same beam charge, upper limit of the reference, decision threshold, "
            "significance, where it was first seen",
            "type": ["object", "null"],
            "required": ["counts", "gained", "reference_below", "threshold", "sigmas", "text"],
            "properties": {
                "counts": _QUANTITY,
                "gained": _QUANTITY,
                "reference": _QUANTITY,
                "none_before": {"type": "boolean"},
                "reference_below": _SIGMA,
                "threshold": _SIGMA,
                "sigmas": _SIGMA,
                "text": {"type": "string"},
                "first": {"type": "object"},
            },
        },
        "change": _CHANGE,
    },
}
_STEP: Plain = {
    "type": "object",
    "required": ["path", "do", "title", "begun_lab_s", "ended_lab_s"],
    "properties": {
        "path": {"type": "array", "items": {"type": "integer"}},
        "do": {"type": "string"},
        "title": {"type": "string"},
        "begun_lab_s": {"type": "number"},
        "ended_lab_s": _NUMBER_OR_NULL,
        "reason": {"type": "string"},
        "failed": {"type": "boolean", "description": "it did not end by itself: a trip, an instrument"},
    },
}
_SWEEP: Plain = {
    "description": "one impedance sweep, tested and fitted, or why not",
    "type": "object",
    "required": ["number", "step", "mode", "points", "complete", "circuit", "quantities", "why_not"],
    "properties": {
        "number": {"type": "integer"},
        "step": {"type": "string"},
        "mode": {"enum": ["potentiostatic", "galvanostatic"]},
        "lab_s": _NUMBER_OR_NULL,
        "soc": {**_NUMBER_OR_NULL, "description": "from the charge passed"},
        "temperature_k": _NUMBER_OR_NULL,
        "points": {"type": "integer"},
        "points_left_out": {"type": "integer", "description": "overloaded, or no numbers"},
        "complete": {"type": "boolean"},
        "circuit": {"type": "string"},
        "kramers_kronig": {
            "type": ["object", "null"],
            "properties": {"passed": {"type": "boolean"}, "rms": _SIGMA, "reason": {"type": "string"}},
        },
        "quantities": {
            "description": "r_s, r_ct, warburg",
            "type": "object",
            "additionalProperties": _QUANTITY,
        },
        "parameters": {"type": "object", "additionalProperties": _QUANTITY},
        "why_not": {"type": "string"},
    },
}
_INSTRUMENT: Plain = {
    "type": "object",
    "properties": {
        "identity": {"type": "object"},
        "notes": {"type": "array", "items": {"type": "string"}},
        "driver": {
            "description": "its name in the station file, and the installed package that it is from",
            "type": "object",
            "required": ["name", "distribution", "version"],
            "properties": {
                "name": {"type": "string"},
                "code": {"type": ["string", "null"], "description": "module and class"},
                "distribution": {"type": ["string", "null"]},
                "version": {"type": ["string", "null"]},
            },
        },
    },
}
_EXPOSURE: Plain = {
    "description": "one exposure of a frame detector: what was counted, what was lost, what came out",
    "type": "object",
    "required": ["n", "role", "frames", "lost", "ok"],
    "properties": {
        "n": {"type": "integer"},
        "role": {"type": "string"},
        "name": {"type": "string"},
        "purpose": {"enum": ["sample", "dark", "flat"]},
        "began_lab_s": _NUMBER_OR_NULL,
        "ended_lab_s": _NUMBER_OR_NULL,
        "frames": {"type": "integer", "description": "counted by reduce; 0 when it told nothing"},
        "lost": {"type": "integer", "description": "frames missing, incomplete, or overwritten uncounted"},
        "hits": {"type": "integer"},
        "photons": {"type": "integer", "description": "where photons are counted: in all pixels"},
        "acceptance": {**_QUANTITY, "description": "chance that a photon stays alone, mean of the pixels"},
        "occupancy": {**_QUANTITY, "description": "share of all samples that are above the threshold"},
        "s": {**_QUANTITY, "description": "S-parameter of the whole detector"},
        "dark": {"type": "object"},
        "stamp": {"type": "object", "description": "state of the cell in the images of a camera"},
        "counters": {"type": "object"},
        "ok": {"type": "boolean", "description": "what was counted is what the detector has sent"},
        "interrupted": {
            "type": "boolean",
            "description": "cut off with its host, ended when the run went on",
        },
        "lost_with_host": {
            "type": "integer",
            "description": "frames, at the least, that had come and were not on the disk when the host died; "
            "they are in no result, and were made again",
        },
        "lost_with_host_s": {"type": "number", "description": "the time of these, s"},
        "why": {"type": "string"},
        "problem": {"type": "string"},
    },
}
SCHEMA: Plain = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": SCHEMA_ID,
    "title": "Summary of one operando run",
    "type": "object",
    "required": [
        "schema", "run", "experiment", "station", "outcome", "exit_code", "layers", "scans", "charge", "dose",
        "gaps", "trips", "quarantined", "confirmed_by_person", "files", "problems", "versions", "seeds",
        "durations", "counters",
    ],
    "properties": {
        "schema": {"const": SCHEMA_ID},
        "run": {"type": "string", "description": "name of the run's folder"},
        "experiment": {"type": "string"},
        "title": {"type": "string"},
        "station": {"type": "string"},
        "began": {**_NUMBER_OR_NULL, "description": "wall seconds since 1970-01-01 UTC"},
        "outcome": {"type": "string", "description": "how it ended, in words"},
        "exit_code": {
            "enum": [*EXIT_CODES, None],
            "description": "; ".join(f"{code} {text}" for code, text in WHAT_ENDS.items())
            + "; null when the host did not live to tell",
        },
        "reference": {"type": ["string", "null"], "description": "name of the reference scan"},
        "sample": {"type": ["object", "null"], "description": "as the experiment file has it"},
        "calibration": {"type": ["object", "null"], "description": "table that x was read from"},
        "layers": {"type": "array", "items": _LAYER},
        "scans": _LIST_OF_OBJECTS,
        "impedance": {"type": "array", "items": _SWEEP},
        "charge": {
            "type": "object",
            "required": ["coulomb", "sigma"],
            "properties": {"coulomb": _NUMBER_OR_NULL, "sigma": {"type": ["number", "null"], "minimum": 0}},
        },
        "dose": {
            "type": ["object", "null"],
            "properties": {name: {"type": "number", "minimum": 0} for name in DOSES},
            "description": "of the whole run, as if all rasters lay on one place: the mean over the rasters, "
            "every pass counted, and that of the pixel that got most in good passes",
        },
        "gaps": _LIST_OF_OBJECTS,
        "trips": _LIST_OF_OBJECTS,
        "quarantined": {**_LIST_OF_OBJECTS, "description": "passes that do not count, and why"},
        "commands": {**_LIST_OF_OBJECTS, "description": "what people asked for while it ran"},
        "outputs_off": {**_LIST_OF_OBJECTS, "description": "what became of each off command at the end"},
        "flags": {**_WORDS, "description": "what the reduction points out"},
        "confirmed_by_person": _LIST_OF_OBJECTS,
        "instruments": {
            "type": "object",
            "description": "by device: who answered, what it cannot guard itself, where its driver is from",
            "additionalProperties": _INSTRUMENT,
        },
        "radiographs": {**_LIST_OF_OBJECTS, "description": "states that a camera saw, reduced"},
        "exposures": {"type": "array", "items": _EXPOSURE},
        "roles": {
            "type": "object", "additionalProperties": {"type": "string"},
            "description": "role -> device of the station; what is not here the station does not have",
        },
        "steps": {"type": "array", "items": _STEP},
        "files": {"type": "object", "additionalProperties": {"type": "string"}},
        "problems": {**_WORDS, "description": "what could not be made"},
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "seeds": {"type": "object", "additionalProperties": {"type": "integer"}},
        "durations": {
            "type": "object",
            "properties": dict.fromkeys(("lab_s", "wall_s", "speed"), _NUMBER_OR_NULL),
        },
        "counters": {"type": "object"},
        "lines": {
            "type": "object",
            "description": "by line: requests, replies, errors by kind, reopenings, bytes, latencies in ms; "
            "of a line that several instruments share also how it was shared",
            "additionalProperties": line_schema(),
        },
    },
}  # fmt: skip


def summarise(
    record: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    *,
    facts: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    seeds: Mapping[str, int] | None = None,
    problems: Sequence[str] = (),
    impedance: Sequence[Mapping[str, Any]] = (),
) -> Plain:
    """Return the summary of a run.

    Args:
        record: what control wrote at the end of the run (``record.json``), or what was rebuilt of it.
        result: the final result of reduce, None when there is none (then ``layers`` is empty).
        facts: scans, quarantined passes, commands and dose, from the run's journal.
        files: name of each result file by what it is, relative to the run's folder.
        versions: of everything that made the numbers.
        seeds: of everything random; none on real instruments.
        problems: what could not be made or read, in words.
        impedance: the sweeps with what came out of them, in order.
    """
    found, known = result or {}, facts or {}
    layers, faults = _layers(found.get("layers", []))
    counters = {key: value for key, value in record["counters"].items() if key != "lines"}
    summary = {
        "schema": SCHEMA_ID,
        "run": record["run"],
        "experiment": record["experiment"],
        "title": known.get("title", ""),
        "station": record["station"],
        "began": record.get("began"),
        "outcome": record["outcome"],
        "exit_code": record["exit_code"],
        "reference": found.get("provenance", {}).get("reference", known.get("reference")),
        "sample": known.get("sample"),
        "calibration": found.get("provenance", {}).get("calibration"),
        "layers": layers,
        "scans": _scans(known.get("scans", []), found.get("scans", [])),
        "impedance": [dict(one) for one in impedance],
        "charge": record["charge"],
        "dose": _dose(known.get("dose"), found.get("dose")),
        "gaps": record["gaps"],
        "trips": record["trips"],
        "quarantined": known.get("quarantined", []),
        "commands": known.get("commands", []),
        "outputs_off": known.get("safe", []),
        "flags": list(found.get("flags", [])),
        "confirmed_by_person": record["confirmed_by_person"],
        "instruments": record["instruments"],
        "exposures": [_exposure(one) for one in record.get("exposures", [])],
        "radiographs": [_brief(state) for state in found.get("radiographs", [])],
        "roles": dict(record.get("roles", {})),
        "steps": [{"ended_lab_s": None, **step} for step in record["steps"]],
        "files": dict(files or {}),
        "problems": [*problems, *faults],
        "versions": dict(versions or {}),
        "seeds": dict(seeds or {}),
        "durations": {name: record.get(name) for name in ("lab_s", "wall_s", "speed")},
        "counters": counters,
        "lines": record["counters"].get("lines", {}),
    }
    plain: Plain = finite(summary)
    return plain


def _brief(state: Mapping[str, Any]) -> Plain:
    """Return what a camera saw without its profiles: they are in ``result.json``."""
    left_out = ("profile", "lithium6", "state")
    return {name: value for name, value in state.items() if name not in left_out}


def _exposure(told: Mapping[str, Any]) -> Plain:
    """Return what came of an exposure; a quantity without its error is none."""
    one = _brief(told)
    counters = one.get("counters") or {}
    one["frames"] = int(one.get("frames") or 0)
    one["lost"] = sum(int(counters.get(name, 0)) for name in ("missing", "incomplete"))
    one["lost"] += int(one.get("unread") or 0)
    one["ok"] = bool(one.get("ok", False))
    for key in ("why", "problem"):
        if one.get(key) is None:
            one.pop(key, None)
    quantity = one.get("s")
    if quantity is not None and any(quantity.get(f"sigma_{kind}") is None for kind in ("stat", "sys")):
        one["s"] = {"value": None, "sigma_stat": None, "sigma_sys": None, "unit": "1"}
    return one


def total(quantity: Mapping[str, Any]) -> float | None:
    """Return both errors of a quantity in quadrature, None when it was not measured."""
    if quantity.get("value") is None:
        return None
    return math.hypot(quantity["sigma_stat"], quantity["sigma_sys"])


def change(layer: Mapping[str, Any]) -> Plain:
    """Say whether lithium in a layer has changed against the reference scan, in numbers and words.

    The signal is lithium per normaliser, else per charge, relative to the reference scan, where it is 1. The
    change counts as seen when the reduction says so, else from 3 sigma of the total error; the smallest
    change of SoC that would be seen is 3 sigma of the SoC from the beam.
    """
    quantities, verdict = layer.get("quantities", {}), str(layer.get("verdict", ""))
    told: Plain = {"seen": None, "sigmas": None, "smallest_soc": None, "text": "not measured"}
    lost = [layer["undetected"][name]["text"] for name in RELATIVE if name in layer.get("undetected", {})]
    if verdict == "not detected" and lost:
        return {**told, "text": lost[0]}
    appeared = layer.get("appeared")
    if verdict == "appeared" and appeared:
        return {**told, "seen": True, "sigmas": appeared["sigmas"], "text": appeared["text"]}
    if verdict == "reference":
        return {**told, "text": "this is the reference scan"}
    signal = _first(quantities, RELATIVE)
    if signal is None or signal[1] <= 0.0:
        return told
    sigmas = abs(signal[0] - 1.0) / signal[1]
    seen = verdict == "change resolved" if verdict else sigmas >= RESOLVED_SIGMA
    soc = _first(quantities, ("soc_beam",))
    told.update(seen=seen, sigmas=sigmas, smallest_soc=None if soc is None else RESOLVED_SIGMA * soc[1])
    if seen:
        told["text"] = f"the change is seen: {sigmas:.1f} sigma"
    elif soc is None or soc[1] <= 0.0:
        told["text"] = f"no change resolved ({sigmas:.1f} sigma)"
    else:
        digits = max(0, -math.floor(math.log10(100.0 * soc[1])))  # one digit of the error
        shown = (f"{100.0 * v:.{digits}f}".replace("-", "−") for v in (*soc, RESOLVED_SIGMA * soc[1]))
        value, sigma, smallest = shown
        told["text"] = f"no change resolved: {value} ± {sigma} %, smallest detectable {smallest} %"
    return told


def finite(value: Any) -> Any:
    """Return plain data with null for every number that is not one: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _layers(given: Sequence[Mapping[str, Any]]) -> tuple[list[Plain], list[str]]:
    """Return the layers with what may be shown of them, and what had to be left out."""
    layers: list[Plain] = []
    faults: list[str] = []
    for one in given:
        layer: Plain = finite(one)
        kept: Plain = {}
        for name, quantity in layer.get("quantities", {}).items():
            missing = layer.get("undetected", {}).get(name)
            if missing is not None:
                nothing = dict.fromkeys(("value", "sigma_stat", "sigma_sys"))
                said = {"flags": [missing["text"]], "upper_limit": missing["upper_limit"]}
                kept[name] = {"unit": quantity.get("unit", "1"), **nothing, **said}
            elif quantity.get("value") is None:
                kept[name] = {**quantity, "value": None, "sigma_stat": None, "sigma_sys": None}
            elif quantity.get("sigma_stat") is None or quantity.get("sigma_sys") is None:
                faults.append(f"{layer['name']}: {name} came without its error and is left out")
                continue
            else:
                kept[name] = dict(quantity)
            kept[name].setdefault("unit", "1")
        layer["change"] = change(layer)
        layer["quantities"] = kept
        layers.append(layer)
    return layers, faults


def _scans(own: Sequence[Mapping[str, Any]], reduced: Sequence[Mapping[str, Any]]) -> list[Plain]:
    """Join what control and what reduce know of each scan, by its number."""
    by_number = {scan.get("scan"): dict(scan) for scan in own}
    for scan in reduced:
        number = scan.get("scan")
        by_number[number] = {**scan, **by_number.get(number, {})}
    return list(by_number.values())


def _first(quantities: Mapping[str, Any], names: Sequence[str]) -> tuple[float, float] | None:
    """Return value and total error of the first of these quantities that was measured."""
    for name in names:
        sigma = total(quantities.get(name, {}))
        if sigma is not None:
            return float(quantities[name]["value"]), sigma
    return None


def _dose(own: Mapping[str, Any] | None, reduced: Mapping[str, Any] | None) -> Plain | None:
    """Join the mean dose, from the beam monitor, and that of the pixel that got most, from reduce."""
    if own is None and reduced is None:
        return None
    most = (reduced or {}).get("protons_per_cm2_max")
    return {**(own or {}), **({} if most is None else {"protons_per_cm2_max": most})}
