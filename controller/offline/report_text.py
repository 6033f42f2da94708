"""The words and tables of the report: all of them from the summary of the run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from controller.offline import report_lines, report_method, words
from controller.offline.markup import Content, Markup, cell, escape, framed, join, section, table, tag
from controller.offline.show import by_interest, confirmation
from controller.offline.told import Told

Plain = Mapping[str, Any]

AGREEMENT: dict[bool | None, str] = {True: "good", False: "bad", None: ""}
COUNTED = ("_counts", "_per_charge")
SMALLEST_EFFECT = 5e-5  # on x; what is smaller is not listed
NUISANCES = {
    "normalisation": "normalisation by an element (stated)",
    "cell_to_cell": "cell to cell (stated)",
    "beam_charge": "beam charge (stated)",
    "calibration_table": "calibration table",
    "energy_scale": "energy scale",
    "background_slope": "slope of the continuum under the line",
    "dead_time_pige": "dead time, PIGE",
    "dead_time_pixe": "dead time, PIXE",
    "angle": "tilt of the interface",
    "angle_reference": "tilt of the interface, reference",
    "shift": "place of the interface",
    "shift_reference": "place of the interface, reference",
}


def header(summary: Plain) -> Markup:
    """Return title, outcome, and when and where it was."""
    code = summary["exit_code"]
    level = "warn" if code == 6 or (code == 0 and summary["trips"]) else "good" if code == 0 else "bad"
    word, more = words.ending(summary)
    began = summary.get("began")
    when = "" if began is None else time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(began))
    durations = summary["durations"]
    took = f"{words.seconds(durations.get('lab_s'))} of lab time"
    if durations.get("speed") not in (None, 1.0) and durations.get("wall_s") is not None:
        took += f", {words.seconds(durations.get('wall_s'))} on the wall clock (virtual bench)"
    facts = [("run", summary["run"]), ("station", summary["station"]), ("began", when), ("took", took)]
    sample = summary.get("sample") or {}
    if sample.get("name"):
        facts.insert(2, ("sample", sample["name"]))
    told = Markup(" &nbsp;·&nbsp; ".join(f"{escape(k)} <b>{escape(v)}</b>" for k, v in facts if v))
    return join(
        [
            tag("h1", summary.get("title") or summary["experiment"]),
            tag("p", tag("span", word, class_=f"status {level}"), more, class_="lead"),
            tag("p", told, class_="meta"),
        ]
    )


def tiles(summary: Plain, told: Told) -> Markup:
    """Return what a hurried reader needs: states of charge, change, agreement; without them what was done."""
    charge = summary["charge"]
    passed = words.charge(charge.get("coulomb"), charge.get("sigma"))
    hosts = [layer for layer in summary["layers"] if layer["kind"] == "host"]
    cards: list[Markup] = []
    for layer in hosts:
        name = f"{layer['name']}: " if len(hosts) > 1 else ""
        beam, counted = (words.cells(q, layer["quantities"].get(q, {})) for q in ("soc_beam", "soc_charge"))
        change, agree = layer.get("change") or {}, layer.get("agree")
        level = "" if change.get("seen") is None else "good" if change["seen"] else "warn"
        smallest = change.get("smallest_soc")
        least = "" if smallest is None else f"smallest SoC detectable {words.fixed(100 * smallest, 1)} %"
        z = "" if layer.get("z") is None else f"z = {words.fixed(layer['z'], 2)}"
        verdict = "not compared" if agree is None else "agree" if agree else "disagree"
        cards += [
            _tile(f"{name}state of charge, beam", *_pm(beam), _both(beam)),
            _tile(f"{name}state of charge, charge passed", *_pm(counted), passed),
            _tile(f"{name}change of lithium", *_seen(change), least, level),
            _tile(f"{name}beam and charge", verdict, "", z, AGREEMENT[agree]),
        ]
    cards += [_appeared_tile(layer) for layer in summary["layers"] if layer.get("appeared")]
    cards = cards or [_tile(what, *_parted(value), more) for what, value, more in told.headlines]
    return tag("div", *cards, class_="tiles") if cards else Markup("")


def results(summary: Plain) -> Markup:
    """Return the table of every quantity of every layer with both errors."""
    if not summary["layers"]:
        why = [tag("li", flag, class_="warn") for flag in summary.get("flags", [])]
        listed = [tag("ul", *why, class_="plain")] if why else []
        return section("result", "Result", tag("p", "The reduction gave no result for this run."), *listed)
    rows: list[Markup] = []
    heads = ("quantity", "value", "± stat", "± sys", "± total", "unit")
    for layer in by_interest(summary["layers"]):
        note = tag("span", _layer_note(layer))
        if layer.get("appeared"):
            note = join([note, tag("div", words.appeared(layer), class_="appeared")])
        title = tag("th", f"{layer['name']} ", note, colspan="6", scope="rowgroup", role="rowheader")
        rows.append(tag("tr", title, class_="group", role="row"))
        names = [name for name in words.NAMES if name in layer["quantities"]]
        names += [name for name in layer["quantities"] if name not in names and not name.endswith(COUNTED)]
        for name in names:
            shown = words.cells(name, layer["quantities"][name])
            if layer.get("appeared") and shown.total == words.MISSING:
                continue  # compared with nothing, as its note says
            label = words.name_of(name, layer["name"], summary.get("sample"))
            cells = [cell(label, first=True), cell(shown.value, heads[1], "n strong")]
            parts = (shown.stat, shown.sys, shown.total)
            cells += [cell(part, head, "n") for part, head in zip(parts, heads[2:5], strict=True)]
            if shown.total == words.MISSING and shown.value != words.MISSING:  # words in place of a number
                told = tag("td", shown.value, class_="n", colspan="4", role="cell")
                cells = [cell(label, first=True), told]
            rows.append(tag("tr", *cells, cell(shown.unit, heads[5]), role="row"))
    top = (
        tag("th", h, class_="n" if 0 < k < 5 else "", scope="col", role="columnheader")
        for k, h in enumerate(heads)
    )
    whole = framed(tag("tr", *top, role="row"), rows, "Results by layer")
    return section(
        "result", "Result",
        tag("p", _reading(summary)), whole, _counts(summary), _budgets(summary),
    )  # fmt: skip


def happened(summary: Plain, told: Told) -> Markup:
    """Return every interlock, gap, quarantined pass, question, request of a person, flag of the reduction."""
    items = _happened(summary, told.talk)
    nothing = "Nothing: no trip, no gap, no lost pass, no question, and nobody asked for anything."
    return section(
        "events", "What happened on the way",
        tag("ul", *items, class_="plain") if items else tag("p", nothing), tag("p", _outputs_off(summary)),
        tag("h3", "Limits that held"), report_method.limits(told.limits),
    )  # fmt: skip


def radiographs(states: Sequence[Plain]) -> Markup:
    """Return the table of the radiographs: state of charge, dose, and lithium-6 or depth of the regions."""
    rows: list[tuple[Content, ...]] = []
    for state in states:
        found = state.get("lithium6_of_regions") or [one["optical_depth"] for one in state["regions"]]
        told = [
            tag("div", f"{one['name']}: {words.triple(q)}")
            for one, q in zip(state["regions"], found, strict=True)
        ]
        soc = state.get("soc")
        charge = None if soc is None else words.span((soc["low"], soc["high"]), "%", 2, 100.0)
        dose = f"{words.fixed(state['dose']['value'], 1)} ADU"
        rows.append((state["name"], str(state["frames"]), charge, dose, join(told)))
    return table(("exposure", "images", "state of charge", "dose", "regions ± counting ± systematic"), rows)


def scans(summary: Plain) -> Markup:
    """Return the table of the scans: passes, events, beam, state of the cell."""
    rows: list[tuple[Content, ...]] = []
    for scan in summary["scans"]:
        raster = scan.get("raster")
        field = None
        if raster:
            field = (
                f"{raster['nx']} × {raster['ny']}, {words.fixed(raster['width_um'], 0)} × "
                f"{words.fixed(raster['height_um'], 0)} µm"
            )
        passes = str(scan.get("good_passes", len(scan.get("passes", []))))
        if scan.get("quarantined_passes"):
            passes += f" (+{scan['quarantined_passes']} not counted)"
        events = join([tag("div", f"{d} {words.count(n)}") for d, n in (scan.get("received") or {}).items()])
        dose = scan.get("protons_per_cm2")
        rows.append(
            (
                scan["name"], scan["purpose"], field, passes, events,
                None if dose is None else words.powers(dose),
                words.span(scan.get("temperature_k"), "K", 1) or None,
                words.span(scan.get("voltage_v"), "V", 3) or None,
            )
        )  # fmt: skip
    heads = ("scan", "purpose", "raster", "passes", "events", "protons / cm²", "temperature", "voltage")
    return table(heads, rows)


def _foreign(driver: Plain) -> list[Markup]:
    """Return where a driver of somebody else's is from; of ours the version of the program says it."""
    package = driver.get("distribution")
    if not driver or package == "operando":
        return []
    version = driver.get("version") or "of unknown version"
    who = f"{package} {version}" if package else f"{driver.get('code')}, of no installed package"
    return [tag("div", f"driver {driver['name']} from elsewhere: {who}")]


def instruments(summary: Plain, told: Told) -> Markup:
    """Return who answered, what each cannot protect, what a person confirmed, and the calibrations."""
    rows = []
    roles: dict[str, list[str]] = {}
    for role, device in (summary.get("roles") or {}).items():
        roles.setdefault(device, []).append(role)
    for name, one in summary["instruments"].items():
        who = one.get("identity", {})
        told_notes = [tag("div", str(note).removeprefix(f"{name}: ")) for note in one.get("notes", [])]
        told_notes += _foreign(one.get("driver") or {})
        notes = join(told_notes) if told_notes else None
        played = [role for role in roles.get(name, []) if role != name]
        device = join(
            [tag("b", name), tag("div", ", ".join(played), class_="role")] if played else [tag("b", name)]
        )
        model = " ".join(str(who[key]) for key in ("manufacturer", "model") if who.get(key))
        rows.append((device, model or None, who.get("serial"), who.get("firmware"), notes))
    listed = (
        table(("device", "instrument", "serial", "firmware", "notes"), rows, label="Instruments")
        if rows
        else tag("p", "None answered.")
    )
    people = [tag("li", confirmation(one)) for one in summary["confirmed_by_person"]]
    confirmed = tag("ul", *people, class_="plain") if people else tag("p", "Nothing needed confirming.")
    return section(
        "instruments", "Instruments and calibrations", listed, tag("h3", "Confirmed by a person"), confirmed,
        *report_lines.lines(summary.get("lines") or {}),
        *([tag("h3", "Calibrations"), report_method.calibrations(told.calibrations)]
          if told.calibrations else []),
        _calibration(summary),
    )  # fmt: skip


def provenance(summary: Plain, told: Told) -> Markup:
    """Return how to do it again, files with checksums, versions, seeds and counters."""
    numbers = {**summary["versions"], **{f"seed of {k}": str(v) for k, v in summary["seeds"].items()}}
    counters = [(k.replace("_", " "), v) for k, v in summary["counters"].items() if not isinstance(v, dict)]
    problems = [tag("li", text, class_="warn") for text in summary["problems"]]
    parts: list[Content] = [tag("h3", "Do it again"), report_method.again(told)]
    if problems:
        parts += [tag("h3", "What could not be made or read"), tag("ul", *problems, class_="plain")]
    parts += [tag("h3", "Files"), report_method.files(summary, told.files)]
    left = [
        tag("h3", "Versions and seeds"),
        table(("of", "version"), list(numbers.items()), label="Versions"),
    ]
    right = [tag("h3", "Counters"), table(("counter", "number"), counters, numbers=(1,), label="Counters")]
    parts.append(tag("div", tag("div", *left), tag("div", *(right if counters else [])), class_="columns"))
    return section("provenance", "Where it comes from", *parts)


# --- inside --------------------------------------------------------------------------------------------


def _tile(what: str, value: str, error: str, more: str, level: str = "", *, wide: bool = False) -> Markup:
    shown = tag(
        "div", value, tag("span", error, class_="pm") if error else "", class_=f"value {level}".strip()
    )
    return tag(
        "div",
        tag("div", what, class_="what"),
        shown,
        tag("div", more, class_="more"),
        class_="tile wide" if wide else "tile",
    )


def _appeared_tile(layer: Plain) -> Markup:
    """Return what a person at the beam looks for: lithium where there was none."""
    one = layer["appeared"]
    number = words.cells("", {**one["counts"], "unit": "1"})
    had = f"none, fewer than {words.count(one['reference_below'])} counts"
    if not one.get("none_before", True):
        had = f"{words.cells('', {**one['reference'], 'unit': '1'}).short} counts"
    more = f"{words.fixed(one['sigmas'], 1)} σ; the reference had {had}. No state of charge here"
    where = f"lithium appeared in the {layer['name']}"
    return _tile(where, number.value, f" ± {number.total} counts", more, "warn", wide=True)


def _pm(shown: words.Cells) -> tuple[str, str]:
    if shown.total == words.MISSING:
        return shown.value, ""
    unit = f" {shown.unit}" if shown.unit else ""
    return shown.value, f" ± {shown.total}{unit}"


def _parted(value: str) -> tuple[str, str]:
    """Return a value and its error apart: the error is smaller, and may stand on a line of its own."""
    number, between, error = value.partition(" ± ")
    return number, f"{between}{error}"


def _both(shown: words.Cells) -> str:
    if shown.total == words.MISSING:
        return "not measured" if shown.value == words.MISSING else ""
    return f"± {shown.stat} stat, ± {shown.sys} sys"


def _seen(change: Plain) -> tuple[str, str]:
    """Return whether the change is seen, and how clearly."""
    if change.get("seen") is None:
        return words.MISSING, ""
    return ("seen" if change["seen"] else "not resolved"), f" {words.fixed(change['sigmas'], 1)} σ"


def _layer_note(layer: Plain) -> str:
    kind = "" if layer["kind"] == layer["name"] else str(layer["kind"])
    parts = [kind, str((layer.get("change") or {}).get("text", ""))]
    if layer["kind"] == "host":
        parts.append(words.agreement(layer))
    parts.append(words.made_of(layer.get("interval")))
    return " · ".join(part for part in parts if part and part != words.MISSING)


def _reading(summary: Plain) -> str:
    """Explain the columns, and what the numbers refer to."""
    reference = summary.get("reference")
    against = f" Relative values are against the scan “{reference}”." if reference else ""
    return (
        "Each value with its statistical and its systematic error, one sigma, and both in quadrature. Beam "
        "and charge are compared, never merged: z is their difference over its error." + against
    )


def _counts(summary: Plain) -> Markup:
    """Return what was counted: every element in every layer, net, and per beam charge."""
    rows: list[tuple[Content, ...]] = []
    for layer in by_interest(summary["layers"]):
        quantities = layer["quantities"]
        for name in quantities:
            if not name.endswith("_counts"):
                continue
            element = name.removesuffix("_counts")
            net, rate = (words.cells("", quantities.get(f"{element}{end}", {})) for end in COUNTED)
            rows.append(
                (
                    layer["name"],
                    element.capitalize(),
                    net.value,
                    net.stat,
                    net.sys,
                    rate.value,
                    rate.stat,
                    rate.sys,
                )
            )
    if not rows:
        return Markup("")
    heads = ("layer", "element", "net counts", "± stat", "± sys", "per nC of beam", "± stat", "± sys")
    return join([tag("h3", "What was counted"), table(heads, rows, numbers=range(2, 8))])


def _budgets(summary: Plain) -> Markup:
    """Return, per host layer, what the systematic error of x is made of."""
    found = []
    for layer in summary["layers"]:
        budget = {k: v for k, v in (layer.get("budget") or {}).items() if v and v >= SMALLEST_EFFECT}
        if not budget or layer["kind"] != "host" or "x" not in layer["quantities"]:
            continue
        rows = [
            (NUISANCES.get(name, name.replace("_", " ")), words.fixed(effect, 4))
            for name, effect in sorted(budget.items(), key=lambda pair: -pair[1])
        ]
        found += [
            tag("h3", f"{layer['name']}: what the systematic error of x is made of"),
            table(("source", "effect on x, one sigma"), rows, numbers=(1,)),
        ]
    return join(found)


def _happened(summary: Plain, talk: Sequence[Plain]) -> list[Markup]:
    """Return every event in the order of time; those of the whole run last."""
    begun = [step["begun_lab_s"] for step in summary["steps"]]
    zero = min(begun) if begun else 0.0
    found: list[tuple[Plain, str, str, str]] = []  # with its times; level, who, what
    for trip in summary["trips"]:
        text = f"{trip.get('text', trip.get('id'))}. Action: {trip.get('action') or 'none'}."
        found.append((trip, "bad", "guard", text))
    for gap in summary["gaps"]:
        found.append((gap, "" if gap.get("end") else "warn", str(gap.get("module", "gap")), gap["text"]))
    for one in summary["quarantined"]:
        text = f"“{one['name']}”, pass {one['n']}, does not count: {one['why']}"
        found.append((one, "warn", "scan", text))
    for one in summary.get("commands", []):
        if one.get("do"):  # answers stand with their questions
            found.append((one, "person", "a person", f"{one['do']} ({one.get('by') or 'name not told'})"))
    found += [(one, "person", str(one["who"]), str(one["text"])) for one in talk]
    found.sort(key=lambda item: (item[0].get("lab_s") is None, item[0].get("lab_s") or 0.0))
    found += [({}, "warn", "reduction", flag) for flag in summary.get("flags", [])]
    return [
        tag("li", _at(times, zero), tag("b", f"{who}: "), text, class_=level)
        for times, level, who, text in found
    ]


def _outputs_off(summary: Plain) -> str:
    """Say what became of each output at the end."""
    results = summary.get("outputs_off", [])
    if not results:
        return "Nothing is recorded of how the outputs were switched off."
    told = [
        f"{one['output']} confirmed off after {words.fixed(one.get('seconds', 0.0), 3)} s"
        if one.get("confirmed")
        else f"{one['output']} did NOT confirm off ({one.get('error') or 'no answer'})"
        for one in results
    ]
    return "At the end: " + ", ".join(told) + "."


def _at(times: Plain, zero: float) -> Markup:
    """Return when something was, in minutes since the run began, and on the clock where that is known."""
    if times.get("lab_s") is None:
        return Markup("")
    wall_s = times.get("wall_s") or times.get("t")
    clock = "" if wall_s is None else time.strftime(" · %H:%M:%S UTC", time.gmtime(wall_s))
    return tag("span", f"{words.fixed((times['lab_s'] - zero) / 60.0, 1)} min{clock} ", class_="when")


def _calibration(summary: Plain) -> Markup:
    """Return the table that x was read from, with the conditions under which it holds."""
    table_of = summary.get("calibration")
    if not table_of and not summary["layers"]:
        return Markup("")
    if not table_of:
        return join([tag("h3", "Calibration"), tag("p", "No calibration table was used: there is no x.")])
    fractions = ", ".join(f"{100 * v:.3g} % {k}" for k, v in (table_of.get("mass_fractions") or {}).items())
    rows = [
        ("table", table_of.get("name")), ("host", table_of.get("host")), ("matrix, by mass", fractions),
        ("protons", f"{table_of.get('energy_kev', 0):g} keV"),
        ("angle of the gamma detector", f"{table_of.get('angle_deg', 0):g}°"),
        ("error of the table, in x", table_of.get("sigma_x")), ("source", table_of.get("source")),
    ]  # fmt: skip
    return join(
        [
            tag("h3", "Calibration of lithium"),
            table(("of the table", "value"), rows, label="Calibration table of lithium"),
        ]
    )
