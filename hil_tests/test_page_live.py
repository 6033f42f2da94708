"""The live page of a real run, in a real browser: what is drawn is what the journal has.

One run on a bench with bright photons, so that two passes of some seconds give maps, profiles and spectra;
heater and I/O are read less often, since no times of trips are claimed here. The tests go on from one
another: live, silent, without a server, tripped.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest

from controller.web.address import read
from hil_tests.browser import Watched, browser
from hil_tests.fault_going_on import calm
from hil_tests.harness import (
    REPOSITORY,
    ROLES,
    Run,
    World,
    edited_station,
    ending,
    energised,
    eventually,
    scan_step,
    warm_scenario,
)

pytestmark = pytest.mark.soak  # a whole run and a browser, held against each other: needs a quiet machine

SPEED, RATES = 4.0, 30.0
ARRAYS = {64: "<u1", 69: "<u2", 70: "<u4", 77: "<i2", 78: "<i4", 85: "<f4", 86: "<f8"}
SOUGHT_S = 12.0  # a reading may be this old when it is shown
START_S = 240.0  # of wall time, for a host that begins on a busy machine
LIVE = "document.documentElement.dataset.link === 'live'"
LOST = "document.documentElement.dataset.link === 'lost'"


@dataclass
class Live:
    world: World
    run: Run
    address: str
    seen: Watched

    def rows(self, kind: str, module: str | None = None) -> list[dict[str, Any]]:
        return [row for row in self.run.events(kind) if module in (None, row["module"])]

    def product(self, stream: str) -> dict[str, Any]:
        """Return the newest product of a stream, read from its own file."""
        row = [row for row in self.rows("product") if row["body"]["stream"] == stream][-1]
        return cbor2.loads(Path(row["body"]["path"]).read_bytes(), tag_hook=_array)

    def table(self, details: str) -> list[list[str]]:
        """Open the table behind a plot and return its cells."""
        self.seen.page.evaluate(f"document.querySelector('{details}').open = true")
        return self.cells(f"{details} table")

    def cells(self, selector: str) -> list[list[str]]:
        script = """selector => [...document.querySelectorAll(selector + ' tbody tr')]
            .map(row => [...row.children].map(cell => cell.innerText.trim()))"""
        return self.seen.page.evaluate(script, selector)

    def reading(self, name: str, part: str = "figure") -> str:
        return self.seen.text(f"#numbers [data-key='{name}'] .{part}").replace("\u00a0", " ")


def _array(*given: Any) -> Any:
    """Return a typed array; releases of cbor2 differ in what else they hand over."""
    tag = next(one for one in given if isinstance(one, cbor2.CBORTag))
    return np.frombuffer(tag.value, ARRAYS[tag.tag]) if tag.tag in ARRAYS else tag.value


@contextmanager
def bright_bench(folder: Path) -> Iterator[World]:
    """A bench in a warm room with many times as many photons: counts within seconds, no physics."""
    folder.mkdir(parents=True)
    scenario = warm_scenario(folder / "warm.toml")
    words = ["--dir", folder, "--scenario", scenario, "--speed", SPEED, "--seed", 5, "--rates", RATES]
    with (folder / "bench.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", ROLES["bench"], *map(str, words)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin:
        line = process.stdout.readline().decode().strip()
        assert line, (folder / "bench.log").read_text()
        world = World(Path(line), process)
        try:
            yield world
        finally:
            world.stop()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    prepared = scan_step("as prepared", (12, 18), 20.0, "until = { passes = 2 }")
    path = energised(folder / "e.toml", charge_s=1000.0, pixels=(12, 18), prepared=prepared)
    with bright_bench(folder / "bench") as bench:
        world = calm(bench, folder / "calm")
        station = edited_station(world, folder / "station.toml", lambda text: text + "\n[web]\nport = 0\n")
        run = Run.start(folder / "run", path, "--station", str(station))
        with ending(run), browser() as chrome:
            address = eventually(
                lambda: read(run.state).get("address"), "the page", tell=run.tell, seconds=START_S
            )
            yield Live(bench, run, address, chrome.open(address))


def shown(text: str) -> float:
    """Return a number as it is shown, with its true minus sign."""
    return float(re.sub(r"[^0-9.eE-]", "", text.replace("−", "-")))


def test_every_panel_shows_what_the_journal_has(live: Live) -> None:
    seen = live.seen
    seen.until(LIVE, seconds=START_S)
    two = "operando.model.passes.filter(one => one.good && one.name === 'charging').length >= 2"
    seen.until(f"{two} && operando.model.products.has('profile/Li')", seconds=START_S)
    live.run.ask("pause", by="a test")
    seen.until("document.querySelector('#running-word').textContent === 'Paused'")
    eventually(lambda: settled(live), "everything shown is of the last pass", tell=live.run.tell)

    assert seen.text("#safe-word") == "Safe"
    assert live.run.run_dir.name in seen.text("#run-about")
    for look in (readings, steps, passes, maps, profile, spectra, state_of_charge, trends, events, health):
        look(live)
    assert seen.errors == []
    assert seen.strangers(live.address) == []


def settled(live: Live) -> bool:
    last = [r["body"]["meta"] for r in live.rows("product") if r["body"]["stream"] == "profile/Li"][-1]
    script = (
        "(() => { const p = operando.model.products.get('profile/Li'); return [p.scan, p.passes.length]; })()"
    )
    told = live.rows("progress")[-1]["body"]["quantities"]  # reduce owes it for the last pass, too
    return "cathode.soc_beam" in told and live.seen.page.evaluate(script) == [
        last["scan"], len(last["passes"])
    ]  # fmt: skip


def readings(live: Live) -> None:
    """What stands in large figures was measured within the last seconds."""
    for name, module, key, scale, digits in (
        ("heater/temperature", "heater", "temperature_k", 1.0, 1),
        ("cell/charge", "cell", "charge_coulomb", 3.6e-3, 3),
        ("beam/current", "io", "beam_a", 1e-12, 2),
    ):

        def measured(
            name: str = name, module: str = module, key: str = key, scale: float = scale, digits: int = digits
        ) -> bool:
            rows = live.rows("sample", module)
            new = [r["body"].get(key) for r in rows if rows[-1]["wall_s"] - r["wall_s"] < SOUGHT_S]
            if module == "cell":  # the circuit was opened for the pause, and counted until then
                new += [r["body"].get(key) for r in live.rows("cell_event", "cell")]
            return live.reading(name) in {f"{v / scale:.{digits}f}" for v in new if v is not None}

        eventually(measured, f"{name} is what was measured", tell=lambda n=name: live.reading(n))
    target = live.rows("sample", "heater")[-1]["body"]["target_k"]
    assert f"target {target:.1f} K" in live.reading("heater/temperature", "more")


def steps(live: Live) -> None:
    rows = {r["body"]["path"][0]: r["body"] for r in live.rows("step") if len(r["body"]["path"]) == 1}
    told = live.seen.page.evaluate(
        "[...document.querySelectorAll('#timeline > li')].map(li => [li.dataset.state, li.innerText])"
    )
    assert len(told) == 3
    for index, (state, text) in enumerate(told):
        assert state == ("done" if rows[index]["state"] == "ended" else "running")
        assert rows[index]["do"] == "parallel" or rows[index]["title"] in text
    assert "charge 10.0 uA to 4.00 V" in told[2][1]


def passes(live: Live) -> None:
    rows = [row["body"] for row in live.rows("pass")][-6:]
    cells = live.cells("#counts table:last-of-type")
    for row, (name, _, counts, beam, good) in zip(reversed(rows), cells, strict=True):
        assert name.endswith(f" {row['n']}")
        assert shown(counts) == sum(row["events"].values())
        assert shown(beam) == pytest.approx(row["charge_coulomb"] * 1e9, rel=0.01)
        assert good.startswith("good" if row["good"] else "quarantined")


def maps(live: Live) -> None:
    cells = {row[0]: row for row in live.table("#maps-table")}
    for element, name in (("Li", "Lithium (Li)"), ("Co", "Cobalt (Co)"), ("P", "Phosphorus (P)")):
        product = live.product(f"map/{element}")
        value, sigma = (shown(part) for part in cells[name][3].split("±"))
        assert value == pytest.approx(float(np.nansum(product["values"])), abs=max(0.1 * sigma, 0.06))
        assert sigma == pytest.approx(float(np.sqrt(np.nansum(product["sigma"] ** 2))), rel=0.06)
        assert int(cells[name][2]) == len(product["passes"])
    live.seen.page.focus("#maps figure canvas[tabindex]")
    live.seen.page.keyboard.press("ArrowRight")  # from the middle of the map
    told = live.seen.text("#maps figure .readout")
    product = live.product("map/Li")
    ny, nx = product["shape"]
    values, sigmas = (product[key].reshape(ny, nx) for key in ("values", "sigma"))
    value, error = (shown(part) for part in told.partition(" counts")[0].split("±"))
    assert error == pytest.approx(float(sigmas[ny // 2, nx // 2 + 1]), rel=0.06)
    assert value == pytest.approx(float(values[ny // 2, nx // 2 + 1]), abs=0.1 * error)
    live.seen.page.keyboard.press("Escape")


def profile(live: Live) -> None:
    product = live.product("profile/Li")
    rows = live.table("#profiles-table")[: len(product["values"])]
    columns = (product[key] for key in ("position_um", "values", "sigma"))
    for (position, told), um, value, sigma in zip(rows, *columns, strict=True):
        assert shown(position) == pytest.approx(float(um), rel=1e-3, abs=0.01)
        value_told, sigma_told = (shown(part) for part in told.split("±"))
        assert sigma_told == pytest.approx(float(sigma), rel=0.06)
        assert value_told == pytest.approx(float(value), abs=0.1 * float(sigma))


def spectra(live: Live) -> None:
    rows = {row[0]: row for row in live.table("#spectra-table")}
    for detector, element, edge in (("pige", "Li", 0.02), ("pixe", "Co", 0.006)):
        product = live.product(f"spectrum/{detector}")
        told = next(row for name, row in rows.items() if name.startswith(element))
        low, high = (shown(part) for part in told[1].split("to"))
        kev, counts = product["energy_kev"], product["values"]
        least, most = (counts[(kev >= low + d) & (kev < high - d)].sum() for d in (edge, -edge))
        assert 0 < least <= shown(told[2]) <= most


def state_of_charge(live: Live) -> None:
    quantities = live.rows("progress")[-1]["body"]["quantities"]
    beam, relative = quantities["cathode.soc_beam"], quantities["cathode.li_relative"]
    total = float(np.hypot(beam["sigma_stat"], beam["sigma_sys"]))
    value, sigma = (shown(part) for part in live.seen.text("#soc-from-beam").rstrip(" %").split("±"))
    assert sigma == pytest.approx(100 * total, rel=0.06)
    assert value == pytest.approx(100 * beam["value"], abs=0.1 * sigma)
    newest = live.table("#soc-table")[0]
    assert shown(newest[1].split("±")[0]) == pytest.approx(value, abs=0.1 * sigma)
    z = abs(relative["value"] - 1) / float(np.hypot(relative["sigma_stat"], relative["sigma_sys"]))
    assert f"{z:.1f} σ" in live.seen.text("#lithium-text")
    word = live.seen.text("#lithium-word")
    appeared = live.rows("progress")[-1]["body"]["appeared"]
    if appeared:  # lithium where the reference had none stands before what the host layer does
        ((layer, one),) = appeared.items()
        assert word == f"In the {layer}"
        assert f"{one['counts']['value']:.0f} ± " in live.seen.text("#lithium-text")
        assert f"({one['sigmas']:.1f} σ)" in live.seen.text("#lithium-text")
    else:
        known = {"No change seen yet": z < 2, "Perhaps: not certain": 2 <= z < 3}
        assert known.get(word, z >= 3)


def trends(live: Live) -> None:
    rows = live.table("#trends-table")
    for column, module, key, scale in (
        (1, "heater", "temperature_k", 1.0),
        (3, "cell", "voltage_v", 1.0),
        (5, "cell", "charge_coulomb", 3.6e-3),
    ):
        found = [row["body"].get(key) for row in live.rows("sample", module)]
        measured = [value / scale for value in found if value is not None]
        told = [shown(row[column]) for row in rows if row[column] not in ("–", "")]
        assert told, f"{module} {key} is not in the table"
        for value in told:
            assert min(abs(value - one) for one in measured) <= 0.06, f"{value} of {key} was never measured"


def events(live: Live) -> None:
    lines = [re.sub(r"\s+", " ", row["body"]["text"]) for row in live.rows("log")]
    script = "[...document.querySelectorAll('#events li > span')].map(one => one.innerText)"
    told = live.seen.page.evaluate(script)
    assert any("pause" in text for text in told[:3])
    for text in told:
        assert any(re.sub(r"\s+", " ", text).endswith(line) for line in lines), text


def health(live: Live) -> None:
    text = live.seen.text("#health")
    told = [row["body"]["v"] for row in live.rows("state", "run") if isinstance(row["body"].get("v"), dict)]
    devices = [value for value in told if "cell" in value and "identity" in value["cell"]]
    assert devices[-1]["cell"]["identity"]["serial"] in text
    for name in ("heater", "cell", "io", "pixe", "pige"):
        assert re.search(rf"^{name}\b", text, re.MULTILINE), f"the line {name} is not shown"


def test_what_is_old_never_looks_good(live: Live) -> None:
    """Link is frozen: nothing comes although everything is connected. Then it goes on."""
    live.seen.until(f"{LIVE} && document.querySelector('#safe-word').textContent === 'Safe'")
    live.run.signal("link", signal.SIGSTOP)
    try:
        # In one look: control ends a frozen link after 10 s, and then all is well again.
        live.seen.until(
            f"""{LOST} && ['safe', 'running'].every(name =>
                document.getElementById(name + '-word').textContent === 'Not known')
            && [...document.querySelectorAll('#numbers > div')].every(one => one.dataset.quality === 'stale'
                && (one.dataset.key === 'scan' || /\\sold/.test(one.querySelector('.more').textContent)))
            && document.getElementById('maps-age').textContent.startsWith('OLD')
            && document.getElementById('safe-text').textContent.includes('Look at the station')"""
        )
    finally:
        live.run.signal("link", signal.SIGCONT)
    live.seen.until(f"{LIVE} && document.querySelector('#safe-word').textContent === 'Safe'")


def test_the_server_of_the_page_dies_and_comes_back(live: Live) -> None:
    """The history of the whole run is there again, over the time without a server too."""
    live.run.signal("web", signal.SIGKILL)
    live.seen.until(LOST)
    live.seen.until(f"{LIVE} && operando.model.complete")
    held = live.rows("sample", "heater")
    script = (
        "(() => { const s = operando.model.series.get('heater/temperature').t; return [s[0], s.at(-1)]; })()"
    )
    eventually(
        lambda: abs(live.seen.page.evaluate(script)[0] - held[0]["wall_s"]) < 5.0, "the history is filled in"
    )
    assert live.seen.page.evaluate(script)[1] > held[-1]["wall_s"] - SOUGHT_S


def test_a_trip_is_told_with_what_to_do(live: Live) -> None:
    live.seen.page.evaluate(
        """(() => { globalThis.said = []; const read = id => document.getElementById(id).innerText;
        new MutationObserver(() => said.push([read('safe-word'), read('speak-now'), read('latches')]))
        .observe(document.body, {subtree: true, childList: true, characterData: true}); })()"""
    )
    live.world.fault("io", "permit", given=False)
    live.seen.until("said.some(([word, spoken]) => word === 'Tripped' && /permit/i.test(spoken))")
    assert live.run.ended(seconds=START_S) == 4
    latches = live.seen.page.evaluate("said.filter(([word]) => word === 'Tripped').at(-1)[2]")
    tripped = [row["body"]["text"].lower().rstrip(".") for row in live.rows("trip")]
    assert any(text in latches.lower() for text in tripped)
    assert "operando clear" in latches
    live.seen.until(LOST)
    assert "Tripped when last heard" in live.seen.text("#safe-text")
