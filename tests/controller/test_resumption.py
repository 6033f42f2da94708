import pytest

from controller.journal_rows import Checkpoint, Event
from controller.resumption import carried_on

RUN = "20260101-120000-q"
BODY = {
    "done": 2, "scans": 1, "origin_um": [0.0, 0.0], "part": [0.001, 100.0], "charge_coulomb": 0.005,
    "throughput_coulomb": 0.006, "charged_s": 500.0, "unmeasured_s": 0.0, "missed_coulomb": 0.0,
}  # fmt: skip
CHECKPOINT = Checkpoint(seq=10, wall_s=1000.0, lab_s=2000.0, body=BODY)


def event(seq, wall_s, kind, module, body, run=RUN):
    return Event(seq, "boot", run, wall_s, 2000.0 + 10.0 * (wall_s - 1000.0), kind, module, body)


def reading(seq, wall_s, charge, current=1e-5, phase="cc", run=RUN):
    body = {"phase": phase, "charge_coulomb": charge, "current_a": current}
    return event(seq, wall_s, "sample", "cell", body, run)


def safe(seq, t, *, confirmed=True):
    results = [{"output": "io", "confirmed": True}, {"output": "cell", "confirmed": confirmed}]
    body = {"t": t, "what": "control ended with signal SIGKILL", "run": RUN, "results": results}
    return event(seq, t + 60.0, "supervisor", "supervisor", body)


def test_without_later_readings_the_checkpoint_counts():
    carried = carried_on(CHECKPOINT, [event(11, 1001.0, "sample", "heater", {})], RUN, 1.0)
    assert carried.body == BODY
    assert carried.text.startswith("resume: 2 steps were done")


def test_later_readings_and_the_seconds_until_the_circuit_was_open():
    """5 mC at the checkpoint, 5.3 mC at the last reading 3 s (30 lab s) later, 10 uA for 5 more lab s."""
    later = [reading(11, 1001.0, 0.0051), reading(12, 1003.0, 0.0053), safe(13, 1003.5)]
    body = carried_on(CHECKPOINT, later, RUN, 10.0).body
    assert body["charge_coulomb"] == pytest.approx(0.00535)
    assert body["throughput_coulomb"] == pytest.approx(0.00635)
    assert body["charged_s"] == pytest.approx(535.0)
    assert body["part"] == pytest.approx([0.00135, 135.0])
    assert body["missed_coulomb"] == pytest.approx(5e-5)
    assert body["unmeasured_s"] == pytest.approx(5.0)
    assert BODY["charge_coulomb"] == 0.005  # the checkpoint is not changed


def test_a_program_that_had_ended_by_itself_missed_nothing():
    finished = event(12, 1002.5, "cell_event", "cell", {"event": "finished", "detail": "time"})
    body = carried_on(CHECKPOINT, [reading(11, 1002.0, 0.0052), finished, safe(13, 1010.0)], RUN, 10.0).body
    assert body["charge_coulomb"] == pytest.approx(0.0052)
    assert body["missed_coulomb"] == 0.0


@pytest.mark.parametrize("events", [[], [safe(13, 1003.5, confirmed=False)]])
def test_a_circuit_that_nobody_saw_open_is_said_so(events):
    carried = carried_on(CHECKPOINT, [reading(11, 1003.0, 0.0053), *events], RUN, 10.0)
    assert carried.body["charge_coulomb"] == pytest.approx(0.0053)  # nothing is invented
    assert carried.body["unmeasured_s"] > 0.0
    assert "nobody saw the circuit being opened" in carried.text


def test_readings_of_other_runs_and_at_open_circuit_do_not_count():
    later = [reading(11, 1002.0, 9.0, run="another"), reading(12, 1003.0, 0.005, None, "ocv")]
    body = carried_on(CHECKPOINT, [*later, safe(13, 1004.0)], RUN, 10.0).body
    assert body["charge_coulomb"] == pytest.approx(0.005)
    assert body["missed_coulomb"] == 0.0
