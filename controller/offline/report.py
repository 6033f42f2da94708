"""``report.html``: one page that holds everything, without a script or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from controller.offline import (
    plots_maps,
    plots_radiographs,
    plots_soc,
    plots_spectra,
    plots_sweeps,
    plots_timeline,
    report_sweeps,
    report_text,
)
from controller.offline.captions import CAPTIONS
from controller.offline.files_out import write_text
from controller.offline.gather import UNEXPOSED, gather
from controller.offline.markup import Content, Markup, escape, join, section, tag
from controller.offline.run_files import RunFiles
from controller.offline.svg import Picture, page_style, picture
from controller.offline.view import View

SECTIONS = (
    ("result", "Result"), ("impedance", "Impedance"), ("soc", "State of charge"), ("maps", "Maps"),
    ("profiles", "Profiles"), ("radiographs", "Radiographs"),
    ("spectra", "Spectra"), ("run", "The run"), ("events", "What happened"),
    ("instruments", "Instruments"), ("provenance", "Where it comes from"),
)  # fmt: skip

Plain = Mapping[str, Any]
Plot = tuple[str, Callable[[], Figure | None]]  # name, and how to draw it


def write_report(run: RunFiles, summary: Plain, path: Path) -> list[str]:
    """Write the report of a run; return in words what could not be drawn."""
    view = gather(run, summary)
    pictures, problems = draw(view)
    write_text(path, page(summary, pictures))
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
                    found[name] = picture(figure, name, *CAPTIONS[name])
            except Exception as error:
                problems.append(f"figure {name} could not be made: {error or type(error).__name__}")
    return found, problems


def page(summary: Plain, pictures: Mapping[str, Picture]) -> str:
    """Return the whole page."""
    folder = files("controller.offline")
    body = join(_body(summary, pictures))
    return Template((folder / "page.html").read_text()).substitute(
        title=escape(f"{summary['run']}: {summary.get('title') or summary['experiment']}"),
        generator=escape(f"operando {summary['versions'].get('operando', '')}".strip()),
        style=(folder / "page.css").read_text(), body=body.text,
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


def _body(summary: Plain, pictures: Mapping[str, Picture]) -> Iterator[Content]:
    yield report_text.header(summary)
    optional = {"impedance": summary.get("impedance"), "radiographs": summary.get("radiographs")}
    sections = [one for one in SECTIONS if optional.get(one[0], True)]
    links = [tag("a", title, href=f"#{anchor}") for anchor, title in sections]
    yield tag("nav", *links)
    yield report_text.tiles(summary)
    yield report_text.results(summary)
    if summary.get("impedance"):
        drawn = [_figure(pictures["impedance"])] if "impedance" in pictures else []
        yield section("impedance", "Impedance", report_sweeps.sweeps(summary), *drawn)
    yield _figures("soc", "State of charge", pictures, ("soc",), "No group of passes has a state of charge.")
    nothing = "There is no map: the run ended before a scan had a good pass."
    yield _figures("maps", "Maps", pictures, ("maps", "soc_maps"), nothing)
    yield _figures("profiles", "Profiles", pictures, ("profiles",), "The scans could not be levelled.")
    if summary.get("radiographs"):
        names = ("radiograph_profiles", "radiograph_regions")
        drawn = [_figure(pictures[name]) for name in names if name in pictures]
        table = report_text.radiographs(summary["radiographs"])
        yield section("radiographs", "Radiographs", table, *drawn)
    yield _figures("spectra", "Spectra", pictures, ("lithium", "spectra"), "No events were recorded.")
    timeline = _figure(pictures["timeline"]) if "timeline" in pictures else Markup("")
    yield section(
        "run", "The run", timeline, tag("h3", "Steps"), report_text.steps(summary), tag("h3", "Scans"),
        report_text.scans(summary),
    )  # fmt: skip
    yield report_text.happened(summary)
    yield report_text.instruments(summary)
    yield report_text.provenance(summary)
    version = summary["versions"].get("operando", "")
    yield tag("footer", f"Written by operando {version} from the files of {summary['run']}.")


def _figures(
    anchor: str, title: str, pictures: Mapping[str, Picture], names: tuple[str, ...], nothing: str
) -> Markup:
    drawn = [_figure(pictures[name]) for name in names if name in pictures]
    return section(anchor, title, *(drawn or [tag("p", nothing)]))


def _figure(drawn: Picture) -> Markup:
    return tag("figure", Markup(drawn.svg), tag("figcaption", drawn.caption))
