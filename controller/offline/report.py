"""``report.html``: one page that holds everything, without a script or anything from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from controller.offline import (
    plots_maps,
    plots_overview,
    plots_radiographs,
    plots_soc,
    plots_spectra,
    plots_sweeps,
    plots_timeline,
    report_exposures,
    report_method,
    report_sweeps,
    report_text,
)
from controller.offline.captions import CAPTIONS
from controller.offline.descriptions import described
from controller.offline.files_out import write_text
from controller.offline.gather import UNEXPOSED, gather
from controller.offline.markup import Content, Markup, escape, join, section, tag
from controller.offline.run_files import RunFiles
from controller.offline.svg import Picture, page_style, picture
from controller.offline.told import CHECKSUMS, Told, tell
from controller.offline.view import View

SECTIONS = (
    ("result", "Result"), ("impedance", "Impedance"), ("soc", "State of charge"), ("maps", "Maps"),
    ("profiles", "Profiles"), ("exposures", "Exposures"), ("radiographs", "Radiographs"),
    ("spectra", "Spectra"), ("run", "The run"), ("events", "What happened"),
    ("instruments", "Instruments"), ("provenance", "Where it comes from"),
)  # fmt: skip
SCANNED = ("result", "soc", "maps", "profiles", "spectra")  # sections of what scans the beam, or was to
BEAM_STEPS = ("scan", "calibrate", "background")
PRINTED_TITLE = 78  # letters of the title at the head of a printed page

Plain = Mapping[str, Any]
Plot = tuple[str, Callable[[], Figure | None]]  # name, and how to draw it


def write_report(run: RunFiles, summary: Plain, path: Path) -> list[str]:
    """Write the report of a run; return in words what could not be drawn."""
    view, told = gather(run, summary), tell(run, summary)
    pictures, problems = draw(view)
    write_text(path, page(summary, pictures, told))
    known = "".join(f"{one.sha256}  {one.name}\n" for one in told.files if one.sha256 is not None)
    write_text(path.with_name(CHECKSUMS), known)
    return [*view.missing, *problems]


def draw(view: View) -> tuple[dict[str, Picture], list[str]]:
    """Return the figures by name, and in words which of them failed."""
    found: dict[str, Picture] = {}
    problems = []
    with page_style():
        for name, make in _plots(view):
            try:
                figure = make()
                if figure is not None:
                    title, caption = CAPTIONS[name]
                    found[name] = picture(figure, name, title, caption, described(name, view))
            except Exception as error:
                problems.append(f"figure {name} could not be made: {error or type(error).__name__}")
    return found, problems


def page(summary: Plain, pictures: Mapping[str, Picture], told: Told | None = None) -> str:
    """Return the whole page."""
    folder = files("controller.offline")
    body = join(_body(summary, pictures, told or Told()))
    return Template((folder / "page.html").read_text()).substitute(
        title=escape(f"{summary['run']}: {summary.get('title') or summary['experiment']}"),
        generator=escape(f"operando {summary['versions'].get('operando', '')}".strip()),
        style=(folder / "page.css").read_text() + margins(summary), body=body.text,
    )  # fmt: skip


# --- inside --------------------------------------------------------------------------------------------


def _plots(view: View) -> Iterator[Plot]:
    """Yield every figure that there is something for."""
    run, exposed = view.timeline, [one for one in view.spectra if one.purpose not in UNEXPOSED]
    if run is not None:
        yield "timeline", lambda: plots_timeline.timeline(run)
    if view.points:
        yield "soc", lambda: plots_soc.state_of_charge(view.points)
    if view.maps:
        yield "maps", lambda: plots_maps.element_maps(view.maps)
    if view.soc_maps:
        yield "soc_maps", lambda: plots_maps.soc_maps(view.soc_maps)
    if view.overviews:
        yield "overviews", lambda: plots_overview.overviews(view.overviews)
    if view.profiles:
        geometry = next((one.geometry for one in view.maps if one.geometry is not None), None)
        yield "profiles", lambda: plots_maps.profiles(view.profiles, geometry, view.hosts)
    if view.sweeps:
        yield "impedance", lambda: plots_sweeps.impedance(view.sweeps)
    if view.radiographs:
        yield "radiograph_profiles", lambda: plots_radiographs.profiles(view.radiographs)
        yield "radiograph_regions", lambda: plots_radiographs.regions(view.radiographs)
    if exposed:
        yield "lithium", lambda: plots_spectra.line_regions(exposed)
        yield "spectra", lambda: plots_spectra.whole_spectra(exposed)


def margins(summary: Plain) -> str:
    """Return what stands at the head and the foot of every printed page: title, run, page n of m."""
    title = str(summary.get("title") or summary["experiment"])
    title = title if len(title) <= PRINTED_TITLE else f"{title[: PRINTED_TITLE - 1]}…"
    began = summary.get("began")
    day = "" if began is None else time.strftime(", %d %B %Y", time.gmtime(began))
    version = str(summary["versions"].get("operando", ""))
    return f"""@page {{
  @top-left {{ content: {_quoted(title)}; }}
  @top-right {{ content: {_quoted(str(summary["run"]))}; }}
  @bottom-left {{ content: {_quoted(f"operando {version}, station {summary['station']}{day}")}; }}
  @bottom-right {{ content: "page " counter(page) " of " counter(pages); }}
}}
"""


def _quoted(text: str) -> str:
    """Return text as a string of CSS; what could end it, or the style, is written as a number."""
    return '"' + "".join(c if c.isalnum() or c in " .,:;-_()|=+…" else f"\\{ord(c):x} " for c in text) + '"'


def _wanted(summary: Plain, told: Told) -> list[tuple[str, str]]:
    """Return the sections of a run: nothing of a beam that was neither planned nor there."""
    beam = bool(summary["scans"] or summary["layers"]) or not told.plan
    beam = beam or any(one.do in BEAM_STEPS for one in told.plan)
    there = {
        **dict.fromkeys(SCANNED, beam), "impedance": bool(summary.get("impedance")),
        "radiographs": bool(summary.get("radiographs")), "exposures": bool(summary.get("exposures")),
    }  # fmt: skip
    return [one for one in SECTIONS if there.get(one[0], True)]


def _body(summary: Plain, pictures: Mapping[str, Picture], told: Told) -> Iterator[Content]:
    yield report_text.header(summary)
    sections = _wanted(summary, told)
    links = [tag("a", title, href=f"#{anchor}") for anchor, title in sections]
    yield tag("nav", *links, **{"aria-label": "Sections"})
    yield report_text.tiles(summary, told)
    makers = _sections(summary, pictures, told)
    for anchor, _ in sections:
        yield makers[anchor]()
    version = summary["versions"].get("operando", "")
    yield tag("footer", f"Written by operando {version} from the files of {summary['run']}.")


def _sections(summary: Plain, pictures: Mapping[str, Picture], told: Told) -> dict[str, Callable[[], Markup]]:
    """Return what writes each section."""

    def drawn(*names: str) -> list[Markup]:
        return [_figure(pictures[name]) for name in names if name in pictures]

    no_map = "There is no map: the run ended before a scan had a good pass."
    no_soc, no_events = "No group of passes has a state of charge.", "No events were recorded."
    return {
        "result": lambda: report_text.results(summary),
        "impedance": lambda: section(
            "impedance", "Impedance", report_sweeps.sweeps(summary), *drawn("impedance")
        ),
        "soc": lambda: _figures("soc", "State of charge", drawn("soc"), no_soc),
        "maps": lambda: _figures("maps", "Maps", drawn("maps", "soc_maps", "overviews"), no_map),
        "profiles": lambda: _figures("profiles", "Profiles", drawn("profiles"), "No scan could be levelled."),
        "exposures": lambda: section(
            "exposures", "Exposures", report_exposures.exposures(summary["exposures"])
        ),
        "radiographs": lambda: section(
            "radiographs", "Radiographs", report_text.radiographs(summary["radiographs"]),
            *drawn("radiograph_profiles", "radiograph_regions"),
        ),
        "spectra": lambda: _figures("spectra", "Spectra", drawn("lithium", "spectra"), no_events),
        "run": lambda: section(
            "run", "The run", *drawn("timeline"), tag("h3", "Steps: planned and done"),
            report_method.steps(summary, told.plan),
            *([tag("h3", "Scans"), report_text.scans(summary)] if summary["scans"] else []),
        ),
        "events": lambda: report_text.happened(summary, told),
        "instruments": lambda: report_text.instruments(summary, told),
        "provenance": lambda: report_text.provenance(summary, told),
    }  # fmt: skip


def _figures(anchor: str, title: str, drawn: Sequence[Markup], nothing: str) -> Markup:
    return section(anchor, title, *(drawn or [tag("p", nothing)]))


def _figure(drawn: Picture) -> Markup:
    moved = tag(
        "div", Markup(drawn.svg), class_="scroll", tabindex="0", role="group", **{"aria-label": drawn.title}
    )
    return tag("figure", moved, tag("figcaption", drawn.caption))
