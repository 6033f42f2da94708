"""What a stranger gets: the whole quickstart, and everything that it leaves behind, against what was true.

One run for all tests of this file, so the first of them waits for it: a minute and a half at the speed of
``make run``, seventy lab seconds a second, which two busy cores bear.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import h5py
import jsonschema
import pytest

from hil_tests.harness import EXPERIMENTS, Listener, Run, ending, operando

pytestmark = pytest.mark.slow

SPEED = 70
CAPACITY_COULOMB = 20e-6 * 3600.0  # of the experiment file: x from 1 to 0.5
X_PER_SOC = 0.5
LATEST_S = 400.0


@dataclass
class Quickstart:
    run: Run
    code: int
    summary: dict[str, Any]
    truth: dict[str, Any]
    heard: Listener

    def quantity(self, name: str) -> tuple[float, float]:
        """Return the value of a quantity of the cathode, and its whole error."""
        (layer,) = [layer for layer in self.summary["layers"] if layer["kind"] == "host"]
        found = layer["quantities"][name]
        return found["value"], (found["sigma_stat"] ** 2 + found["sigma_sys"] ** 2) ** 0.5

    def atoms(self, when: str) -> tuple[float, float]:
        """Return the atoms of lithium and of cobalt of the cathode that lie in the scanned field, per um2."""
        atoms = self.truth["sample"]["layers"]["cathode"][f"in_field_{when}"]
        return atoms["Li"], atoms["Co"]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    folder = tmp_path_factory.mktemp("quickstart")
    truth = folder / "truth.json"
    run = Run.start(
        folder, EXPERIMENTS / "quickstart.toml", "--bench", "--speed", str(SPEED), "--truth", str(truth)
    )
    with ending(run):
        heard = Listener.of(run)
        try:
            code = run.ended(seconds=LATEST_S)
        finally:
            heard.stop()
        summary = json.loads((run.run_dir / "summary.json").read_text())
        yield Quickstart(run, code, summary, json.loads(truth.read_text()), heard)


def test_it_ends_well_and_says_so(quickstart: Quickstart) -> None:
    assert quickstart.code == 0, quickstart.run.tell()
    summary = quickstart.summary
    assert (summary["outcome"], summary["exit_code"]) == ("done", 0)
    assert (summary["gaps"], summary["trips"], summary["problems"]) == ([], [], [])
    assert summary["seeds"] == {"bench": 1}
    assert json.loads(quickstart.run.out) == summary
    assert quickstart.run.err == ""


def test_the_summary_is_as_its_schema_says_and_every_file_is_there(quickstart: Quickstart) -> None:
    schema = json.loads(operando("schema", "summary").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(quickstart.summary, schema)
    for name in quickstart.summary["files"].values():
        path = quickstart.run.run_dir / name
        assert path.is_file(), name
        assert path.stat().st_size > 0 or path.suffix == ".log", name


def test_what_truly_happened_is_what_was_asked_for(quickstart: Quickstart) -> None:
    """Half of the cell's charge, and everything off at the end: known from the bench alone."""
    truth = quickstart.truth
    assert truth["charge_coulomb"]["terminals"] == pytest.approx(10.3e-6 * 3600.0, rel=0.02)
    io = truth["twins"]["io"]
    assert (io["relay_closed"], io["shutter_open"], io["blanked"]) == (False, False, True)
    assert truth["twins"]["cell"]["cell_on"] is False
    assert truth["temperature_k"]["cell"] < 335.0


def test_both_states_of_charge_are_true_within_their_errors(quickstart: Quickstart) -> None:
    (li_before, co_before), (li_now, co_now) = quickstart.atoms("as_prepared"), quickstart.atoms("now")
    x_true = li_now / co_now
    soc_true = (li_before / co_before - x_true) / X_PER_SOC
    soc, sigma = quickstart.quantity("soc_beam")
    assert 0.02 < sigma < 0.15
    assert abs(soc - soc_true) < 4.0 * sigma
    x, sigma_x = quickstart.quantity("x")
    assert abs(x - x_true) < 4.0 * sigma_x

    soc_charge, sigma_charge = quickstart.quantity("soc_charge")
    assert 0.01 < sigma_charge < 0.05  # 5 % of the capacity
    true_charge = quickstart.truth["charge_coulomb"]["lithium"] / CAPACITY_COULOMB
    assert abs(soc_charge - true_charge) < 4.0 * sigma_charge
    assert true_charge == pytest.approx(soc_true, abs=0.03)  # the field is nearly like the whole

    counted = quickstart.summary["charge"]
    terminals = quickstart.truth["charge_coulomb"]["terminals"]
    assert counted["coulomb"] == pytest.approx(terminals, abs=4.0 * counted["sigma"])
    assert counted["sigma"] < 0.01 * terminals


def test_the_change_is_resolved(quickstart: Quickstart) -> None:
    """What is there is more than four of the stated errors; what is seen scatters by one of them about it."""
    (layer,) = [layer for layer in quickstart.summary["layers"] if layer["kind"] == "host"]
    relative, sigma = quickstart.quantity("li_relative")
    (li_before, _), (li_now, _) = quickstart.atoms("as_prepared"), quickstart.atoms("now")
    assert (1.0 - li_now / li_before) / sigma > 4.0
    change = layer["change"]
    assert change["sigmas"] == pytest.approx((1.0 - relative) / sigma, rel=0.05)
    assert change["sigmas"] > 2.0
    assert change["seen"] is (change["sigmas"] > 3.0)
    difference = quickstart.quantity("soc_beam")[0] - quickstart.quantity("soc_charge")[0]
    both = (quickstart.quantity("soc_beam")[1] ** 2 + quickstart.quantity("soc_charge")[1] ** 2) ** 0.5
    assert layer["z"] == pytest.approx(difference / both, abs=0.1)


def test_plated_lithium_is_seen_in_the_separator(quickstart: Quickstart) -> None:
    """The bench plates ten times as much there as the salt holds: the ratio drowns in the salt's error."""
    atoms = quickstart.truth["sample"]["layers"]["separator"]
    assert atoms["in_field_now"]["Li"] > 10.0 * atoms["in_field_as_prepared"]["Li"]
    (layer,) = [layer for layer in quickstart.summary["layers"] if layer["kind"] == "separator"]
    one = layer["appeared"]
    assert one["sigmas"] > 5.0
    assert layer["change"]["text"] == one["text"]
    assert one["first"]["scan"] in ("charging", "after")  # by how many counts each pass happened to have
    ((payload,),) = quickstart.run.rows("SELECT payload FROM topics WHERE topic = 'state/result/appeared'")
    assert "lithium appeared" in bytes(payload).decode(), "the background at the end leaves what was found"


class Outside(HTMLParser):
    """Collects what a browser would fetch, and where one can go from there."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "srcset", "poster", "action", "background"):
                (self.links if tag == "a" else self.fetched).append(value or "")
            if name == "style" and "url(" in (value or ""):
                self.fetched.append((value or "").partition("url(")[2].strip("\"'"))


def test_the_report_needs_nothing_from_outside(quickstart: Quickstart) -> None:
    text = (quickstart.run.run_dir / "report.html").read_text()
    page = Outside()
    page.feed(text)
    assert {"html", "svg"} <= page.tags
    assert not page.tags & {"script", "iframe", "object", "embed", "link"}
    assert not [what for what in page.fetched if not what.startswith(("#", "data:"))]
    beside = [what for what in page.links if not what.startswith("#")]
    assert set(quickstart.summary["files"].values()) & set(beside)
    for what in beside:  # all of them files of the run, which goes with its report
        assert (quickstart.run.run_dir / what).resolve().is_relative_to(quickstart.run.run_dir.resolve()), (
            what
        )
        assert (quickstart.run.run_dir / what).is_file(), what
    assert "@import" not in text
    for start in text.split("url(")[1:]:
        assert start.lstrip("\"'").startswith(("#", "data:")), start[:60]
    assert len(text) < 5e6
    assert "state of charge" in text


def test_nexus_and_csv_open_with_other_peoples_software(quickstart: Quickstart) -> None:
    with h5py.File(quickstart.run.run_dir / "run.nxs") as file:
        entry = file[file.attrs["default"]]
        assert entry.attrs["NX_class"] in ("NXentry", b"NXentry")
        lithium = entry["map_Li_scan_1"]
        assert lithium.attrs["NX_class"] in ("NXdata", b"NXdata")
        assert lithium[lithium.attrs["signal"]].shape == (64, 64)
        assert lithium["gross"][()].sum() > 5000
        beam_off = entry["spectrum_pige_scan_4/beam_off"][()]
        assert beam_off.shape == (8192,)
        assert 0 < beam_off.sum() < entry["spectrum_pige_scan_1/values"][()].sum()
    with (quickstart.run.run_dir / "cell.bdf.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    # Battery Data Format: the three columns that it demands, and those of its others that we have.
    assert {"Test Time / s", "Voltage / V", "Current / A"} <= set(rows[0])
    assert {"Unix Time / s", "Step Count / 1", "Ambient Temperature / degC"} <= set(rows[0])
    times = [float(row["Test Time / s"]) for row in rows]
    assert times == sorted(times)
    passed = max(float(row["Charging Capacity / Ah"]) for row in rows)
    assert passed * 3600.0 == pytest.approx(quickstart.truth["charge_coulomb"]["passed_charge"], rel=0.01)
    assert max(float(row["Voltage / V"]) for row in rows) < 4.05


def test_it_was_all_on_the_network(quickstart: Quickstart) -> None:
    topics = {topic.removeprefix("operando/v1/bench/") for topic, _, _ in quickstart.heard.got}
    assert {"status", "describe", "tele", "state/heater/temperature", "state/cell/voltage"} <= topics
    assert {"doc/start", "doc/descriptor", "doc/event", "doc/stop"} <= topics
    assert {"data/map/Li", "data/map/Co", "data/profile/Li", "data/spectrum/pige"} <= topics
    starts, stops = quickstart.heard.named("doc/start"), quickstart.heard.named("doc/stop")
    assert stops[-1]["doc"]["run_start"] == starts[0]["doc"]["uid"]
    assert stops[-1]["doc"]["exit_status"] == "success"
    assert not [topic for topic in topics if topic.startswith("alarm/")]
