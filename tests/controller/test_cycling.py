"""The cycling task against an instrument that plays what the test says."""

from __future__ import annotations

import pytest

from controller.cycling import ChargeError, Cycling
from drivers.errors import BadReply, NoReply, Refused
from drivers.roles import CellEvent, CellEventKind, CellLimits, CellSample, ConstantCurrent, Geis, Ocv
from tests.controller.fakes import FakeCell, FakeGuard, FakeRecorder, SteppedClock

LIMITS = CellLimits(2.5, 4.05, 40e-6, 1.0, 7200.0)
PROGRAM = ConstantCurrent(26e-6, 4.0, LIMITS)
FINISHED = CellEvent(0.0, CellEventKind.FINISHED, "voltage")


def sample(
    elapsed_s: float,
    current_a: float | None,
    *,
    phase: str = "cc",
    valid: bool = True,
    charge: float | None = None,
) -> CellSample:
    return CellSample(0.0, elapsed_s, phase, 3.9 if valid else None, current_a, charge, valid=valid)


def make(script: list[CellSample | CellEvent | Exception]) -> tuple[Cycling, FakeCell, FakeGuard]:
    cell, guard = FakeCell(script), FakeGuard()
    cycling = Cycling(cell, guard, SteppedClock(), FakeRecorder(), error=ChargeError(0.01, 1e-8))  # type: ignore[arg-type]
    return cycling, cell, guard


async def test_charge_is_the_integral_of_the_current() -> None:
    # 0..100 s at 20 uA, then a ramp to 40 uA over 100 s: 2 mC + 3 mC by hand
    script = [sample(float(t), 20e-6) for t in range(0, 101, 10)]
    script += [sample(100.0 + t, 20e-6 + 20e-6 * t / 100.0) for t in range(10, 101, 10)]
    cycling, _, _ = make([*script, FINISHED])
    assert await cycling.run(PROGRAM, lambda now: None, interval_s=10.0) == "voltage"
    assert cycling.now.charge_coulomb == pytest.approx(5e-3, rel=1e-9)


async def test_the_instruments_own_integral_is_preferred() -> None:
    cycling, _, _ = make([sample(1.0, 20e-6, charge=1e-3), sample(2.0, 20e-6, charge=3e-3), FINISHED])
    await cycling.run(PROGRAM, lambda now: None, interval_s=1.0)
    assert cycling.now.charge_coulomb == pytest.approx(3e-3)


async def test_charge_error_has_gain_and_offset_parts() -> None:
    cycling, _, _ = make([sample(0.0, 30e-6), sample(1000.0, 30e-6), FINISHED])
    await cycling.run(PROGRAM, lambda now: None, interval_s=1.0)
    # 1 % of 30 mC and 10 nA x 1000 s = 10 uC: hypot(0.3, 0.01) mC
    assert cycling.now.charge_sigma_coulomb(cycling.error) == pytest.approx(3.0017e-4, rel=1e-4)


async def test_charge_and_discharge_cancel_but_their_errors_do_not() -> None:
    cycling, _, _ = make([sample(0.0, 30e-6), sample(1000.0, 30e-6), FINISHED])
    await cycling.run(PROGRAM, lambda now: None, interval_s=1.0)
    cycling._cell.script = [sample(0.0, -30e-6), sample(1000.0, -30e-6), FINISHED]  # type: ignore[attr-defined]
    await cycling.run(PROGRAM, lambda now: None, interval_s=1.0)
    assert cycling.now.charge_coulomb == pytest.approx(0.0, abs=1e-12)
    assert cycling.now.throughput_coulomb == pytest.approx(60e-3)


async def test_an_invalid_sample_is_neither_shown_nor_integrated() -> None:
    cycling, _, _ = make([sample(0.0, 20e-6), sample(1.0, 9.9, valid=False)])
    with pytest.raises(NoReply):
        await cycling.run(PROGRAM, lambda now: None, interval_s=0.001)
    assert cycling.now.invalid == 1
    assert cycling.now.voltage_v is None
    assert cycling.now.charge_coulomb == pytest.approx(0.0, abs=1e-9)


async def test_open_circuit_passes_no_charge_whatever_the_ammeter_says() -> None:
    cycling, _, _ = make([sample(0.0, 5e-9, phase="ocv"), sample(60.0, 5e-9, phase="ocv"), FINISHED])
    await cycling.run(Ocv(60.0), lambda now: None, interval_s=1.0)
    assert cycling.now.charge_coulomb == 0.0


async def test_a_condition_stops_the_instrument_and_gives_its_reason() -> None:
    cycling, cell, guard = make([sample(float(t), 20e-6) for t in range(50)])
    reason = await cycling.run(
        PROGRAM, lambda now: "charge" if now.step_charge_coulomb >= 0.4e-3 else None, interval_s=1.0
    )
    assert reason == "charge"
    assert cell.stops == 1
    assert guard.cell_expected == [True, False]


async def test_silence_stops_the_program_and_says_so() -> None:
    cycling, cell, _ = make([sample(0.0, 20e-6)])
    with pytest.raises(NoReply):
        await cycling.run(PROGRAM, lambda now: None, interval_s=0.001)
    assert cell.stops == 1


async def test_a_latched_trip_refuses_to_energise_but_not_to_measure() -> None:
    cycling, cell, guard = make([FINISHED])
    guard.refusal = "cell.voltage above its limit"
    with pytest.raises(Refused, match="above its limit"):
        await cycling.run(PROGRAM, lambda now: None, interval_s=1.0)
    assert cell.started == []
    await cycling.run(Ocv(1.0), lambda now: None, interval_s=1.0)
    assert len(cell.started) == 1


async def test_one_spoilt_package_does_not_end_the_step() -> None:
    cycling, cell, _ = make(
        [sample(0.0, 20e-6), BadReply("spoilt", device="cell"), sample(2.0, 20e-6), FINISHED]
    )
    assert await cycling.run(PROGRAM, lambda now: None, interval_s=1.0) == "voltage"
    assert cycling.now.invalid == 1
    assert cycling.now.charge_coulomb == pytest.approx(40e-6)
    assert cell.stops == 1


async def test_a_script_error_is_an_error() -> None:
    cycling, _, _ = make([CellEvent(0.0, CellEventKind.RUNTIME_ERROR, "0032 critical overload")])
    with pytest.raises(Refused, match="critical overload"):
        await cycling.run(PROGRAM, lambda now: None, interval_s=1.0)


@pytest.mark.parametrize(("volt", "trips"), [(4.0, 0), (4.2, 1)])
async def test_a_program_that_ends_far_beyond_the_limits_is_no_end_of_a_step(volt: float, trips: int) -> None:
    """A contact that comes loose: the first reading beyond the voltage to be reached is far beyond it."""
    cell = FakeCell(
        [CellSample(0.0, 1.0, "cc", volt, 10e-6), CellEvent(0.0, CellEventKind.FINISHED, "voltage reached")]
    )
    guard = FakeGuard()
    tripped: list[str] = []
    guard.interlock_only = lambda name, text, action: tripped.append(text)  # type: ignore[attr-defined]
    cycling = Cycling(cell, guard, SteppedClock(), FakeRecorder(), error=ChargeError())  # type: ignore[arg-type]
    limits = CellLimits(2.5, 4.05, 40e-6, 0.1, 600.0)
    run = cycling.run(ConstantCurrent(10e-6, 4.0, limits), lambda _: None, interval_s=1.0)
    if trips:
        with pytest.raises(Refused, match=r"voltage reached, at 4.200 V"):
            await run
    else:
        assert await run == "voltage reached"
    assert len(tripped) == trips


async def test_a_sweep_counts_the_charge_of_its_bias_and_is_paced_point_by_point() -> None:
    points = [sample(float(t), 5e-6, phase="geis", charge=5e-6 * t) for t in (1, 11, 111)]
    cycling, cell, guard = make([*points, CellEvent(0.0, CellEventKind.FINISHED, "sweep done")])
    reason = await cycling.run(
        Geis(1e-6, 1e3, 0.1, 3, LIMITS, 5e-6), lambda now: None, interval_s=[1.0, 10.0, 100.0]
    )
    assert reason == "sweep done"
    assert cycling.now.charge_coulomb == pytest.approx(5e-6 * 111)
    assert cycling.now.charged_s == pytest.approx(111.0)
    assert guard.cell_paces == [10.0, 100.0, 100.0]
    assert isinstance(cell.started[0], Geis)
