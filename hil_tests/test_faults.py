"""Every row of the fault catalogue, against the whole system on the virtual bench.

Here each row once, with the guard; the other conditions are items of the soak.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hil_tests.fault_company import START, companies, play_company
from hil_tests.fault_rows import Row, load
from hil_tests.fault_run import Measured, play
from hil_tests.harness import World


def cases(*groups: str) -> list[object]:
    """Return the fast rows as parameters; what is marked open is played by the soak items only."""
    return [
        pytest.param(row, id=row.id)
        for row in load()
        if row.fast and not row.open and "guard" in row.conditions and (not groups or row.group in groups)
        and not (row.reach == "goes on" and row.when in START)
    ]  # fmt: skip


@pytest.mark.parametrize("row", cases())
def test_a_fault(row: Row, world: World, tmp_path: Path, record_property) -> None:
    measured = play(row, "guard", world, tmp_path)
    record_property("reached_after_wall_s", round(measured.reached_wall_s, 2))


@pytest.mark.soak  # a heater read every 0.5 s at speed 10 is no row for a busy machine
@pytest.mark.parametrize(
    "company",
    [
        pytest.param(rows, id=f"{rows[0].group}-{len(rows)} from {rows[0].name}")
        for rows in companies(row for row in load() if row.fast and not row.open)
    ],
)
def test_faults_that_a_run_outlives(
    company: list[Row], world: World, tmp_path: Path, record_property
) -> None:
    def note(row: Row, measured: Measured) -> None:
        record_property(f"{row.name}: well again after wall_s", round(measured.reached_wall_s, 2))

    play_company(company, world, tmp_path, note)
