from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from controller.offline import report_method, words
from controller.offline.finish import Finish
from controller.offline.report import draw, page, write_report
from controller.offline.run_files import RunFiles
from controller.offline.told import Planned
from controller.offline.view import View
from controller.summary import summarise
from tests.controller.offline.make_run import QUANTITIES, TRIP, make_run
from tests.controller.test_summary import RECORD, plated

VOID = {"meta", "br", "hr", "img", "link"}


class Reader(HTMLParser):
    """Checks nesting and collects what a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data.replace("\u00a0", " ").strip())


def finished(folder: Path) -> dict[str, Any]:
    finish = Finish(folder)
    finish._read()
    summary = finish.summary()
    assert write_report(RunFiles(folder), summary, folder / "report.html") == []
    return summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("report"))
    finished(path)
    return path


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    return Reader(text)


def test_it_needs_nothing_from_elsewhere(read: Reader, text: str) -> None:
    assert not {"script", "link", "iframe", "object"} & set(read.tags)
    for tag, name, value in read.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith(("#", "data:image/png;base64,")) or tag == "a", (tag, name, value[:60])
        assert not name.startswith("on")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_links_lead_to_the_runs_own_files_and_sections(folder: Path, read: Reader) -> None:
    names = {value for _, name, value in read.attributes if name == "id"}
    links = [value for tag, name, value in read.attributes if (tag, name) == ("a", "href")]
    assert links
    for link in links:
        assert link[1:] in names if link.startswith("#") else not link.startswith(("http", "/", "file")), link


def test_every_name_is_unique(read: Reader) -> None:
    ids = Counter(value for _, name, value in read.attributes if name == "id")
    assert [name for name, count in ids.items() if count > 1] == []


def test_every_reference_inside_a_figure_is_there(text: str, read: Reader) -> None:
    ids = {value for _, name, value in read.attributes if name == "id"}
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'xlink:href="#([^"]+)"', text))
    assert used
    assert used <= ids


def test_lithium_that_appeared_has_a_tile_of_its_own(folder: Path) -> None:
    summary = finished(folder)
    summary["layers"].append(summarise(RECORD, {"layers": [plated()]})["layers"][0])
    said = " ".join(Reader(page(summary, {})).words)
    said = " ".join(said.split())
    assert "lithium appeared in the separator 1 474 ± 66 counts 24.4 σ; the reference had none" in said
    assert "which had fewer than 97; claimed above 176. Nothing to compare with" in said
    assert said.count("No state of charge here") == 1


def test_a_step_that_is_repeated_says_how_often() -> None:
    once = Planned("charge", "charge", 1, 1, 0.0, 60.0, ())
    html = report_method.steps({"steps": []}, [once, replace(once, times=3)]).text
    assert html.count("charge, 3 times") == 1
    assert html.count("charge") == 2


def test_all_figures_are_there_with_captions(read: Reader) -> None:
    assert read.tags["figure"] == read.tags["figcaption"] == 7
    labels = [value for tag, name, value in read.attributes if (tag, name) == ("svg", "aria-label")]
    assert [label.partition(".")[0] for label in labels] == [
        "State of charge from beam and charge", "Element maps", "Local state of charge",
        "Profiles along the interface normal", "The lithium line", "Summed spectra", "The run in time",
    ]  # fmt: skip


def test_every_figure_is_described_with_its_numbers(folder: Path, read: Reader) -> None:
    labels = [value for tag, name, value in read.attributes if (tag, name) == ("svg", "aria-label")]
    told = {label.partition(".")[0]: label for label in labels}
    run = told["The run in time"]
    assert "Temperature between 297.0 and 333.0 K" in run
    assert "From constant current to constant voltage after 53.2 minutes." in run
    assert "13 good passes, 1 that do not count." in run
    product = RunFiles(folder).find("map/Co", 3)
    assert product is not None
    counts = words.count(float(product.load()["values"].sum()))
    assert f"Co, scan after: {counts} net counts in 16 times 48 pixels" in told["Element maps"]
    assert "cathode, scan after, passes 1 to 4: 52.3 ± 3.5 % from the beam" in " ".join(labels)


def test_tables_say_what_their_columns_are(read: Reader) -> None:
    heads = [value for tag, name, value in read.attributes if (tag, name) == ("th", "scope")]
    assert len(heads) == read.tags["th"]
    assert set(heads) == {"col", "rowgroup"}


def test_maps_are_pictures_with_scale_bars_units_and_colour_bars(read: Reader) -> None:
    assert read.tags["image"] >= 9 + 2 + 4  # nine maps, two of the state of charge, four colour bars
    assert read.words.count("50 µm") == 11
    assert sum("net counts per" in word for word in read.words) == 3


def test_axes_have_units(read: Reader) -> None:
    for label in (
        "temperature / K", "voltage / V", "current / µA", "charge / µAh", "energy / keV",
        "state of charge / %", "distance from the interface along its normal / µm",
        "lab time since the run began / min", "y / µm",
    ):  # fmt: skip
        assert label in read.words, label


def test_colours_are_those_of_the_page_light_and_dark_and_on_paper(text: str) -> None:
    style = text[text.index("<style>") : text.index("</style>")]
    blocks = re.findall(r":root \{([^}]*)\}", style)
    assert len(blocks) == 3
    used = set(re.findall(r"var\(--(\w+)\)", text))
    plain = set(re.findall(r"--(\w+):", blocks[0]))
    assert used <= plain | {"width"}  # each figure tells its own
    for block in blocks[1:]:
        assert plain - {"sans", "mono"} <= set(re.findall(r"--(\w+):", block))
    assert "prefers-color-scheme: dark" in style
    assert style.index("@media print") > style.rindex("\ntable {")  # it must come last to have its way


def test_numbers_are_those_of_the_result(read: Reader) -> None:
    for name, (value, stat, sys) in QUANTITIES.items():
        quantity = {"value": value, "sigma_stat": stat, "sigma_sys": sys, "unit": "1"}
        cells = words.cells(name, quantity)
        at = [i for i, word in enumerate(read.words) if word == cells.value]
        assert any(read.words[i + 1 : i + 3] == [cells.stat, cells.sys] for i in at), name


def test_everything_that_happened_is_told(read: Reader) -> None:
    told = " ".join(read.words)
    for part in (
        "49.9 min beam: the beam is away: the scan waits, blanked", "a person: pause (ada)",
        "“charging”, pass 3, does not count: pige advanced by 815 pixels, the scanner made 816",
        "reduction: charging: pixe pile-up reaches 1.2 % in a pixel",
        "heater, sensor break: latching, output 0 %; by virtual bench on 2026-01-01 (no register tells it)",
        "no host watchdog: limits and finite time stand inside each script", "lco-meep-2.91MeV", "CC → CV",
        "At the end: io confirmed off after 0.005 s, cell confirmed off after 0.109 s.",
        "operando reduce ion-beam 20260101-120000-quickstart", "scan “after”, passes 1 to 4",
    ):  # fmt: skip
        assert part in re.sub(r"\s+", " ", told), part


def test_events_stand_in_the_order_of_time(read: Reader) -> None:
    first = read.words.index("What happened on the way")
    told = read.words[first : read.words.index("Limits that held", first)]
    minutes = [float(word.split()[0]) for word in told if re.fullmatch(r"[\d.]+ min( · [\d:]+ UTC)?", word)]
    assert minutes == [24.8, 24.9, 44.2, 49.9, 50.9]
    flag = told.index("reduction:")
    assert told[flag : flag + 2] == [
        "reduction:",
        "charging: pixe pile-up reaches 1.2 % in a pixel",
    ]


def test_a_trip_is_told(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=2010.0, trip=True)
    finished(path)
    read = Reader((path / "report.html").read_text())
    told = re.sub(r"\s+", " ", " ".join(read.words))
    assert f"33.2 min · 12:00:00 UTC guard: {TRIP['text']}. Action: safe." in told
    assert "stopped by the guard" in told
    assert "trip" in read.words  # in the figure


def test_text_from_files_cannot_become_markup(folder: Path) -> None:
    finish = Finish(folder)
    finish._read()
    summary = finish.summary()
    summary["title"] = '<script>alert(1)</script> & "co"'
    summary["trips"] = [{"text": "<img src=x>", "lab_s": 120.0, "action": "safe"}]
    text = page(summary, {})
    assert not {"script", "img"} & set(Reader(text).tags)
    assert "&lt;script&gt;" in text


def test_what_is_missing_is_a_dash(folder: Path) -> None:
    finish = Finish(folder)
    finish._read()
    summary = json.loads(json.dumps(finish.summary()))
    layer = next(one for one in summary["layers"] if one["name"] == "cathode")
    layer["quantities"]["x"] = {"value": None, "sigma_stat": None, "sigma_sys": None, "unit": "1"}
    layer["quantities"]["soc_beam"] = dict(layer["quantities"]["x"])
    read = Reader(page(summary, {}))
    at = read.words.index("x in LiₓCoO₂")
    assert read.words[at + 1 : at + 5] == ["—"] * 4
    tile = read.words.index("state of charge, beam")
    assert [word for word in read.words[tile + 1 : tile + 5] if word][:2] == ["—", "not measured"]


def test_a_run_with_nothing_is_a_page_that_says_so(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=3.0, record=False, reduced=False)
    finished(path)
    told = " ".join(Reader((path / "report.html").read_text()).words)
    assert "The reduction gave no result for this run." in told
    assert "There is no map" in told


def test_a_figure_that_fails_hides_none_of_the_others() -> None:
    class Broken:
        def __bool__(self) -> bool:
            return True

    view = View(timeline=Broken(), maps=[], profiles=[], spectra=[], points=[], hosts=[])  # type: ignore[arg-type]
    pictures, problems = draw(view)
    assert pictures == {}
    assert len(problems) == 1
    assert problems[0].startswith("figure timeline could not be made: ")


def test_a_damaged_product_is_named(tmp_path: Path) -> None:
    path = make_run(tmp_path, until_s=1000.0)
    (path / "products" / "scan001_map_Co_0004.cbor").write_bytes(b"\xff")
    finish = Finish(path)
    finish._read()
    missing = write_report(RunFiles(path), finish.summary(), path / "report.html")
    assert len(missing) == 1
    assert "scan001_map_Co_0004.cbor" in missing[0]
    assert Reader((path / "report.html").read_text()).tags["figure"] == 5


def test_it_is_small_enough_to_send(folder: Path) -> None:
    assert (folder / "report.html").stat().st_size < 3_000_000
