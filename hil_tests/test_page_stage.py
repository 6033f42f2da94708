"""The live page on its stage: every size and theme, what it says, keyboard, screen reader, what it counts.

States that a run reaches seldom. That the values are those of a run is tested in ``test_page_live.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from hil_tests.browser import SIZES, Browser, Watched, browser
from hil_tests.page_stage import CSP, served

pytestmark = pytest.mark.slow
DRAWN = "globalThis.operando?.model.complete && document.querySelector('#trends canvas') !== null"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


def opened(chrome: Browser, address: str, size: str = "laptop", theme: str = "light") -> Watched:
    watched = chrome.open(address, size, theme=theme)
    watched.until(DRAWN)
    return watched


def closed(watched: Watched, address: str) -> None:
    """Nothing went wrong, nothing was asked of anybody else."""
    assert watched.errors == []
    assert watched.strangers(address) == []
    watched.page.context.close()


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    with served("running") as address:
        yield address


def test_it_fits_phone_laptop_and_wall(chrome: Browser, running: str) -> None:
    for size, (width, height) in SIZES.items():
        seen = opened(chrome, running, size)
        wide, tall = seen.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert wide <= width, f"{size}: {wide} px wide"
        if size == "wall":
            assert tall <= height, f"the wall scrolls: {tall} px"
            cut = seen.page.evaluate(
                """[...document.querySelectorAll('.verdict strong, .number .value, #time-left')]
                .filter(one => one.getBoundingClientRect().right
                    > one.closest('.answer, .number').getBoundingClientRect().right)
                .map(one => one.innerText)"""
            )
            assert cut == []
            least = seen.page.evaluate(
                "Math.min(...[...document.querySelectorAll('.verdict, .number .value')]"
                ".map(one => parseFloat(getComputedStyle(one).fontSize)))"
            )
            assert least >= 44  # a capital of 32 px is 20 mm on a screen 1.2 m wide: readable from 4 m
        closed(seen, running)


NOTES = """[...document.querySelectorAll('.number .more')].filter(one => one.offsetHeight).map(one => {
  const range = document.createRange(), text = one.firstChild, lines = new Map();
  const floor = one.getBoundingClientRect().bottom;
  for (let k = 0; text && k < text.length; k++) {
    range.setStart(text, k); range.setEnd(text, k + 1);
    const { top, height } = range.getBoundingClientRect();
    const at = Math.round(top);
    if (height && top + height / 2 < floor) lines.set(at, (lines.get(at) ?? '') + text.data[k]);
  }
  return [...lines.values()].map(line => line.replaceAll('\u00a0', ' ').trim());
})"""


@pytest.mark.parametrize("size", ["phone", "laptop", "wall"])
def test_a_number_and_its_unit_stay_together_under_a_reading(
    chrome: Browser, running: str, size: str
) -> None:
    """On the wall, where there is one line, whole notes are left out, none is cut."""
    seen = opened(chrome, running, size)
    temperature, _, _, charge, *_ = seen.page.evaluate(NOTES)
    for lines in (temperature, charge):
        for part in " ".join(lines).split(" · "):
            assert sum(part.strip("· ") in line for line in lines) == 1, lines
    assert "target 333.0 K · ± 1.0 K" in " ".join(temperature)
    assert ("59.9 °C" in " ".join(temperature)) is (size != "wall")
    closed(seen, running)


def test_a_tab_in_the_background_tells_it(chrome: Browser) -> None:
    """As Mainsail does: the title has the answers and how far it is, the icon a ring of that part."""
    for scene, title in (
        ("running", r"^Safe · Running \d\d % · bench$"),
        ("tripped", r"^⚠ Tripped · Ended by a trip · bench$"),
        ("stale", r"^Not known · Not known · bench$"),
    ):  # fmt: skip
        with served(scene) as address:
            seen = opened(chrome, address)
            assert re.match(title, seen.page.title()), seen.page.title()
            icon = unquote(seen.page.get_attribute('link[rel="icon"]', "href") or "")
            assert icon.startswith("data:image/svg+xml,<svg ")
            assert ("dasharray" in icon) is (scene == "running")
            assert ("#d3302f" in icon) is (scene == "tripped")
            if scene == "running":
                part = float(re.search(r'dasharray="([\d.]+) ', icon)[1]) / (2 * np.pi * 13)  # type: ignore[index]
                assert part == pytest.approx(float(seen.page.title().split()[3]) / 100.0, abs=0.02)
            closed(seen, address)


def test_one_cursor_over_all_that_has_time(chrome: Browser, running: str) -> None:
    """What the cell did when the beam saw something: pointing at one plot reads out the others."""
    seen = opened(chrome, running)
    seen.page.hover("#soc .u-over", position={"x": 150, "y": 40})
    seen.until("[...document.querySelectorAll('#trends .readout')].every(one => /\\d/.test(one.innerText))")
    closed(seen, running)


def test_a_run_that_has_just_begun_has_an_axis_of_a_minute(chrome: Browser, running: str) -> None:
    seen = opened(chrome, running)
    assert seen.page.evaluate(
        "import('/plot.js')"
        ".then(({ spanned }) => [spanned(100, 103), spanned(100, 900), spanned(null, null)])"
    ) == [[100, 160], [100, 900], [0, 1]]
    closed(seen, running)


APPEARED = {
    "separator": {
        "counts": {"value": 1474.4, "sigma_stat": 44.5, "sigma_sys": 48.6, "unit": "counts"},
        "gained": {"value": 1429.1, "sigma_stat": 50.0, "sigma_sys": 48.0, "unit": "counts"},
        "reference_below": 97.1, "threshold": 176.0, "sigmas": 24.4, "text": "",
    }
}  # fmt: skip


def test_lithium_where_there_was_none_is_the_answer(chrome: Browser, running: str) -> None:
    seen = opened(chrome, running)
    seen.until("document.querySelector('#lithium-text').textContent.length > 30")
    seen.page.evaluate(
        """(told) => { const model = operando.model, now = model.states.get('result/counts');
        model.states.set('result/appeared', { ...now, v: told }); model.touch('states'); }""",
        APPEARED,
    )
    seen.until("document.querySelector('#lithium-word').textContent === 'In the separator'")
    text = seen.page.inner_text("#lithium-text")
    assert text.startswith(
        "1474 ± 66 counts of lithium in the separator, where the reference had none (24.4 σ)."
    )
    assert "Lithium of the cathode:" in text, "what is known of the other layers stays"
    assert seen.page.get_attribute("#lithium", "data-level") == "warn"
    seen.page.set_viewport_size({"width": 1920, "height": 1080})
    cut = "(one => one.scrollWidth > one.clientWidth + 1)(document.querySelector('#lithium .verdict'))"
    seen.page.evaluate("document.documentElement.dataset.view = 'wall'")
    assert not seen.page.evaluate(cut), "the word fits the wall"
    seen.page.context.close()


def test_a_background_does_not_take_the_place_of_a_spectrum(chrome: Browser, running: str) -> None:
    seen = opened(chrome, running)
    seen.until("operando.model.products.has('spectrum/pige')")
    script = """(purpose) => { const model = operando.model, have = model.products.get('spectrum/pige');
        model.product({ ...have, scan: have.scan + 1, purpose }, have.arrays);
        return model.products.get('spectrum/pige').purpose; }"""
    before = seen.page.evaluate("operando.model.products.get('spectrum/pige').purpose")
    assert before != "background"
    assert seen.page.evaluate(script, "background") == before
    assert seen.page.evaluate(script, "another") == "another"
    older = script.replace("have.scan + 1", "have.scan - 2")
    seen.page.evaluate("operando.model.products.get('spectrum/pige').purpose = 'background'")
    assert seen.page.evaluate(older, "after") == "after", "lines that come later than a newer background"
    seen.page.context.close()


@pytest.mark.parametrize(
    ("scene", "theme"), [("running", "light"), ("running", "dark"), ("tripped", "light"), ("stale", "dark"),
                         ("early", "light"), ("ended", "dark")],
)  # fmt: skip
def test_a_screen_reader_finds_its_way(chrome: Browser, scene: str, theme: str) -> None:
    """axe-core: labels, landmarks, headings, contrast of text."""
    with served(scene) as address:
        seen = opened(chrome, address, theme=theme)
        seen.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        found = Axe().run(seen.page).response["violations"]
        told = [(one["id"], one["help"], [node["html"][:150] for node in one["nodes"]][:4]) for one in found]
        assert told == []
        closed(seen, address)


def test_a_trip_says_what_happened_and_what_to_do(chrome: Browser) -> None:
    with served("tripped") as address:
        seen = opened(chrome, address, "phone")
        assert seen.text("#safe-word") == "Tripped"
        assert "Everything is off" in seen.text("#safe-text")
        latch = seen.text("#latches")
        assert "353.9 K is above the limit of 353.2 K" in latch
        assert "operando clear heater-over" in latch
        assert seen.text("#running-word") == "Ended by a trip"
        assert "another run can begin" in seen.text("#running-text")  # an ended run is not gone on with
        assert seen.page.title().startswith("⚠ Tripped")
        closed(seen, address)


def test_nothing_old_looks_good(chrome: Browser) -> None:
    with served("stale") as address:
        seen = opened(chrome, address)
        seen.until("document.documentElement.dataset.link === 'lost'")
        levels = seen.page.evaluate("[...document.querySelectorAll('.answer')].map(one => one.dataset.level)")
        assert levels == ["unknown"] * 3
        outputs = seen.page.evaluate(
            "[...document.querySelectorAll('#outputs li')].map(one => one.innerText)"
        )
        assert outputs
        assert all("not known" in text for text in outputs)
        qualities = seen.page.evaluate(
            "[...document.querySelectorAll('#numbers > div')].map(one => one.dataset.quality)"
        )
        assert set(qualities) == {"stale"}
        assert "12 min old: the host is lost" in seen.text("#numbers")
        assert seen.text("#time-left") == ""
        assert "The host is lost" in seen.text("#lost")
        assert "grayscale" in seen.page.evaluate("getComputedStyle(document.querySelector('main')).filter")
        healthy = seen.page.evaluate("document.querySelectorAll('#health [data-level=ok]').length")
        assert healthy == 0
        closed(seen, address)


def test_the_host_is_gone_and_back(chrome: Browser) -> None:
    """The server of the page goes away; the page says so by itself, and fills in when it is back."""
    with served("running") as address:
        seen = opened(chrome, address)
        seen.page.context.set_offline(True)
        seen.page.evaluate("operando.feed.socket.close()")
        seen.until("document.documentElement.dataset.link === 'lost'")
        assert "Nothing below is the present" in seen.text("#lost")
        assert seen.text("#safe-word") == "Not known"
        seen.page.context.set_offline(False)
        seen.until("document.documentElement.dataset.link === 'live' && operando.model.complete")
        assert seen.text("#safe-word") == "Safe"
        assert seen.strangers(address) == []


def test_everything_can_be_reached_with_the_keyboard(chrome: Browser, running: str) -> None:
    seen = opened(chrome, running)
    page = seen.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the three answers"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id || location.hash.slice(1)") == "answers"
    met = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        met.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {
        "maps-what",
        "maps-colours",
        "CANVAS",
        "SUMMARY",
        "spectra-log",
        "trends-span",
        "events-what",
        "events",
    } <= met
    page.focus("#maps canvas[tabindex]")
    page.keyboard.press("ArrowUp")
    assert "counts at" in seen.text("#maps figure .readout")
    marked = page.evaluate(
        "[...document.querySelectorAll('#maps .readout')].filter(one => / at /.test(one.innerText)).length"
    )
    assert marked >= 4, "the same place is marked in every map"
    page.focus("#trends .plot")
    page.keyboard.press("ArrowLeft")
    assert "temperature 333" in seen.text("#trends .readout")
    page.select_option("#theme", "dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.select_option("#maps-what", "change")
    seen.until("document.querySelectorAll('#maps figure').length === 3")
    closed(seen, running)


def test_the_security_policy_holds(chrome: Browser, running: str) -> None:
    seen = opened(chrome, running)
    assert "unsafe" not in CSP
    page = seen.page
    page.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'globalThis.broken = 1';"
        " document.body.append(s); })()"
    )
    page.evaluate("fetch('https://example.org/').catch(() => null)")
    assert page.evaluate("globalThis.broken === undefined")
    assert [text for text in seen.errors if "Content Security Policy" in text]
    page.context.close()


def test_change_since_the_reference(chrome: Browser, running: str) -> None:
    """Blocks of pixels, per beam charge, in standard errors; against the same sums by numpy."""
    random = np.random.default_rng(3)
    shape, block = (16, 24), 4
    gross = [random.poisson(2.0, shape), random.poisson(3.0, shape)]
    net = [counts - 0.5 for counts in gross]
    net[0][0, :3] = np.nan
    seen = opened(chrome, running)
    given = [
        {
            "values": [None if np.isnan(v) else float(v) for v in n.ravel()],
            "sigma": np.sqrt(g + 1.0).ravel().tolist(),
            "gross": g.ravel().tolist(),
            "shape": list(shape),
        }
        for n, g in zip(net, gross, strict=True)
    ]
    script = """async ([now, then]) => { const { changeInSigma } = await import('/change.js');
        for (const one of [now, then]) one.values = one.values.map(v => v ?? NaN);
        const { values, block } = changeInSigma(now, then, 2.0, 3.0); return [[...values], block]; }"""
    values, used = seen.page.evaluate(script, given)
    assert used == block
    known = ~np.isnan(net[0])

    def sums(array: np.ndarray) -> np.ndarray:
        return np.where(known, array, 0.0).reshape(4, block, 6, block).sum(axis=(1, 3))

    variance = sums(gross[0] + 1.0) / 4.0 + sums(gross[1] + 1.0) / 9.0
    expected = (sums(net[0]) / 2.0 - sums(net[1]) / 3.0) / np.sqrt(variance)
    got = np.array(values).reshape(4, block, 6, block)[:, 0, :, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    seen.page.context.close()


def test_numbers_as_people_read_them(chrome: Browser, running: str) -> None:
    seen = opened(chrome, running)
    script = """async () => { const f = await import('/format.js'); return [
        f.text(1.634e-5, 'A'), f.text(-2.41e-11, 'A'), f.text(0.02214, 'C'), f.text(333.06, 'K'),
        f.text(null, 'V'),
        f.withError(2210.4, 60.2), f.withError(0.3418, 0.0611), f.percent(0.342, 0.061),
        f.percent(-0.158, 0.03),
        f.duration(3840), f.duration(59.6), f.duration(90061), f.significant(2.5e-9),
        f.text(0, 'A'), f.text(NaN, 'K')]; }"""
    assert seen.page.evaluate(script) == [
        "16.34 µA",
        "−24.10 pA",
        "6.150 µAh",
        "333.1 K",
        "–",
        "2210 ± 60",
        "0.342 ± 0.061",
        "34.2 ± 6.1 %",
        "−15.8 ± 3.0 %",
        "1 h 04 min",
        "1 min",
        "1 d 1 h",
        "2.50 × 10⁻⁹",
        "0 µA",
        "–",
    ]
    seen.page.context.close()


def test_a_long_history_stays_small_and_whole(chrome: Browser, running: str) -> None:
    """Late samples find their place, repeats are dropped, extremes survive the thinning."""
    seen = opened(chrome, running)
    script = """async () => { const { Series } = await import('/series.js'); const s = new Series();
        for (let i = 0; i < 50000; i += 1) s.add(i, i === 777 ? 99 : i % 7);
        s.add(49998.5, 5); s.add(49999, 1e9);
        const sorted = s.t.every((t, i) => i === 0 || t > s.t[i - 1]);
        return [s.length, sorted, Math.max(...s.high), s.t.includes(49998.5), s.t[0] <= 64, s.last.v]; }"""
    length, ordered, most, late, begin, last = seen.page.evaluate(script)
    assert length <= 6000
    assert ordered
    assert late
    assert begin
    assert (most, last) == (99, 49999 % 7)
    seen.page.context.close()
