"""The numbers of Moeller et al. 2021 out of the paper's own formulas; the page prints all of them."""

from pathlib import Path

import pytest

from edge.ion_beam_tables import rows, text

PAGE = Path(__file__).parents[2] / "edge" / "ION_BEAM.md"
BY_NAME = {f"{row.where}: {row.what}": row for row in rows()}

# worked out by hand from the paper; (ours, whether the printed number follows)
KNOWN = {
    "A1: molar mass of LiCoO2": (97.87, True),
    "A1: molar mass of Li0.5CoO2": (94.40, True),
    "A1: molar mass of LLZO, Li6.3Al0.1": (873.48, False),
    "A1: molar mass of LLZO, Li6.6": (872.86, False),
    "A1: lithium in LLZO, Li6.3Al0.1": (0.0389, False),
    "A1: lithium in LLZO, Li6.6": (0.0408, False),
    "A2: volume share of LCO at 1:1 by mass": (0.517, False),
    "A2: relative concentration, x = 0.5": (0.7098, True),
    "A2: R2 of a line through the SimNRA signal": (0.9992, True),
    "A2: drop of the signal to x = 0.5": (28.2, True),
    "text: lithium in the mixture, x = 0.5": (19.7, False),
    "text: drop in at% to x = 0.5": (23.5, True),
    "1: x by table A2, printed 0.865": (0.882, False),
    "1: x by table A2, printed 0.783": (0.829, False),
    "1: x by table A2, printed 0.54": (0.610, False),
    "1: SoC = (1 - x) / 0.5 at the printed x = 0.865": (27.0, False),
    "1: SoC = (1 - x) / 0.5 at the printed x = 0.54": (92.0, True),
    "1: SoC by table A2, printed 92.0 %": (78.0, False),
    "text: SoC of the second cycle at 3.95 V": (25.2, False),
    "text: absolute uncertainty": (7.07, True),
    "text: relative uncertainty": (2.24, True),
    "text: capacity of LCO at a change of x of 0.5": (136.9, True),
    "text: utilisation, 101 of 129 mAh/g": (78.3, True),
    "text: change of Co/Li from 16.9 to 21.6": (21.8, True),
    "text: operando SoC, 29.7 uAh of 0.95 mAh": (3.1, False),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_number_of_the_paper(name):
    ours, agrees = KNOWN[name]
    digits = len(str(ours).partition(".")[2])
    assert BY_NAME[name].ours == pytest.approx(ours, abs=1.01 * 10.0**-digits)
    assert BY_NAME[name].agrees == agrees


def test_all_six_steps_of_table_a2():
    for kind in ("lithium, x = ", "relative concentration, x = "):
        found = [row for row in rows() if row.where == "A2" and row.what.startswith(kind)]
        assert len(found) == 6
        assert all(row.agrees for row in found)


def test_what_differs_says_why():
    assert all(row.note for row in rows() if not row.agrees)


def test_the_page_prints_these_rows():
    assert text() in PAGE.read_text()
