import pytest

from controller.journal import AsyncJournal
from controller.journal_rows import Checkpoint, Event
from controller.rawfile import RawIndex
from controller.resumption import carried_on, had_of, passes_without_a_row, take_up

RUN = "20260101-120000-q"
BODY = {
    "done": 2, "scans": 1, "origin_um": [0.0, 0.0], "part": [0.001, 100.0], "charge_coulomb": 0.005,
    "throughput_coulomb": 0.006, "charged_s": 500.0, "unmeasured_s": 0.0, "missed_coulomb": 0.0,
}  # fmt: skip
CHECKPOINT = Checkpoint(seq=10, wall_s=1000.0, lab_s=2000.0, body=BODY)
NOW = 1020.0


def event(seq, wall_s, kind, module, body, run=RUN):
    return Event(seq, "boot", run, wall_s, 2000.0 + 10.0 * (wall_s - 1000.0), kind, module, body)


def reading(seq, wall_s, charge, current=1e-5, phase="cc", run=RUN, elapsed_s=None):
    """A sample of a program that began at the checkpoint, at ten lab seconds a second."""
    elapsed_s = 10.0 * (wall_s - 1000.0) if elapsed_s is None else elapsed_s
    body = {"phase": phase, "charge_coulomb": charge, "current_a": current, "elapsed_s": elapsed_s}
    return event(seq, wall_s, "sample", "cell", body, run)


def safe(seq, t, *, confirmed=True):
    results = [{"output": "io", "confirmed": True}, {"output": "cell", "confirmed": confirmed}]
    body = {"t": t, "what": "control ended with signal SIGKILL", "run": RUN, "results": results}
    return event(seq, t + 60.0, "supervisor", "supervisor", body)


def program(seq, wall_s, charge, *, current=1e-5, interval_s=None, **limits):
    limits = {"duration_s": 3600.0, "charge_coulomb": 1.0, **limits}
    body = {"event": "program", "detail": "CcCv", "charge_coulomb": charge, "current_a": current}
    body["interval_s"] = interval_s
    return event(seq, wall_s, "cell_event", "cell", {**body, "limits": limits})


def reached(seq, wall_s):
    """The next host has made the cell safe, and then all other instruments."""
    return event(
        seq, wall_s + 5.0, "instruments", "host", {"emstat": {"t": wall_s}, "t7": {"t": wall_s + 5.0}}
    )


def on_from(later, before=()):
    return carried_on(CHECKPOINT, later, RUN, 10.0, NOW, before=before, cell="emstat")


def test_without_later_readings_the_checkpoint_counts():
    carried = on_from([event(11, 1001.0, "sample", "heater", {})])
    assert carried.body == BODY
    assert carried.text.startswith("resume: 2 steps were done")


def test_later_readings_and_the_seconds_until_the_circuit_was_open():
    """5 mC at the checkpoint, 5.3 mC at the last reading 3 s (30 lab s) later, 10 uA for 5 more lab s."""
    later = [reading(11, 1001.0, 0.0051), reading(12, 1003.0, 0.0053), safe(13, 1003.5)]
    body = on_from(later).body
    assert body["charge_coulomb"] == pytest.approx(0.00535)
    assert body["throughput_coulomb"] == pytest.approx(0.00635)
    assert body["charged_s"] == pytest.approx(535.0)
    assert body["part"] == pytest.approx([0.00135, 135.0])
    assert body["missed_coulomb"] == pytest.approx(5e-5)
    assert body["unmeasured_s"] == pytest.approx(5.0)
    assert BODY["charge_coulomb"] == 0.005  # the checkpoint is not changed


def test_a_program_that_had_ended_by_itself_missed_nothing():
    finished = event(12, 1002.5, "cell_event", "cell", {"event": "finished", "detail": "time"})
    body = on_from([reading(11, 1002.0, 0.0052), finished, safe(13, 1010.0)]).body
    assert body["charge_coulomb"] == pytest.approx(0.0052)
    assert body["missed_coulomb"] == 0.0


@pytest.mark.parametrize("events", [[], [safe(13, 1003.5, confirmed=False)]])
def test_a_circuit_that_nobody_saw_open_is_said_so(events):
    carried = on_from([reading(11, 1003.0, 0.0053), *events])
    assert carried.body["charge_coulomb"] == pytest.approx(0.0053)  # nothing is invented
    assert "nobody saw the circuit being opened" in carried.text


def test_without_a_supervisor_it_went_on_until_the_next_host_came_at_the_most():
    """Reached 6 s after the last reading: 60 lab seconds of 10 uA are counted, and are the error."""
    carried = on_from([reading(11, 1003.0, 0.0053), reached(12, 1009.0)])
    assert carried.body["charge_coulomb"] == pytest.approx(0.0053 + 60.0 * 1e-5)
    assert carried.body["missed_coulomb"] == pytest.approx(6e-4)
    assert carried.body["unmeasured_s"] == pytest.approx(60.0)
    assert "60.0 s at the most" in carried.text


@pytest.mark.parametrize(
    ("limits", "missed"),
    [({"duration_s": 50.0}, 20.0 * 1e-5), ({"charge_coulomb": 0.0004}, 1e-4), ({}, 6e-4)],
)
def test_a_script_does_not_go_beyond_its_own_limits(limits, missed):
    """The program began at the checkpoint, ran 30 lab s and passed 0.3 mC until its last reading."""
    events = [program(11, 1000.0, 0.005, **limits), reading(12, 1003.0, 0.0053), reached(13, 1009.0)]
    body = on_from(events).body
    assert body["missed_coulomb"] == pytest.approx(missed)
    assert body["charge_coulomb"] == pytest.approx(0.0053 + missed)


@pytest.mark.parametrize(
    ("limits", "missed"),
    [({"duration_s": 50.0}, 25.0 * 1e-5), ({"charge_coulomb": 0.0004}, 1.5e-4), ({}, 6e-4)],
)
def test_a_script_looks_at_its_limits_only_when_it_reads(limits, missed):
    """With five seconds between readings it goes on for as long beyond a limit."""
    begun = program(11, 1000.0, 0.005, interval_s=5.0, **limits)
    body = on_from([begun, reading(12, 1003.0, 0.0053), reached(13, 1009.0)]).body
    assert body["missed_coulomb"] == pytest.approx(missed)


def test_a_program_of_which_no_reading_came_is_taken_by_its_current():
    body = on_from([program(11, 1002.0, 0.005, current=-2e-5), safe(12, 1003.0)]).body
    assert body["charge_coulomb"] == pytest.approx(0.005 - 10.0 * 2e-5)
    assert body["missed_coulomb"] == pytest.approx(2e-4)


def test_readings_may_be_further_apart_than_checkpoints():
    """The last reading was 4 s before the checkpoint; what flowed since is not in it."""
    before = [program(8, 990.0, 0.004), reading(9, 996.0, 0.005, elapsed_s=60.0)]
    body = on_from([safe(11, 1001.0)], before).body
    assert body["charge_coulomb"] == pytest.approx(0.005 + 50.0 * 1e-5)
    body = on_from([reading(11, 1001.0, 0.0055, elapsed_s=110.0), safe(12, 1001.0)], before).body
    assert body["charge_coulomb"] == pytest.approx(0.0055)
    assert body["charged_s"] == pytest.approx(550.0)  # the instrument's own 50 s, not the checkpoint's 10
    assert body["part"] == pytest.approx([0.0015, 150.0])


def test_a_circuit_that_the_host_had_opened_missed_nothing_more():
    """Opened in order, with what was counted until then; then killed before the next checkpoint."""
    told = {"event": "opened", "charge_coulomb": 0.00531, "charged_s": 531.0, "unmeasured_s": 1.0}
    opened = event(13, 1003.1, "cell_event", "cell", {**told, "missed_coulomb": 1e-5})
    for rest in ([], [safe(14, 1010.0)], [reached(14, 1090.0)]):
        body = on_from([reading(11, 1003.0, 0.0053), opened, *rest]).body
        assert body["charge_coulomb"] == pytest.approx(0.00531)
        assert (body["missed_coulomb"], body["unmeasured_s"], body["charged_s"]) == (1e-5, 1.0, 531.0)
    before = [reading(8, 999.0, 0.005), event(9, 999.5, "cell_event", "cell", {"event": "aborted"})]
    assert on_from([safe(11, 1010.0)], before).body == BODY  # also when it was before the checkpoint


def test_who_saw_it_open_first_counts_also_after_a_second_crash():
    events = [reading(11, 1003.0, 0.0053), safe(12, 1003.5), reached(13, 1050.0), safe(14, 1060.0)]
    assert on_from(events).body["missed_coulomb"] == pytest.approx(5e-5)


def test_readings_of_other_runs_and_at_open_circuit_do_not_count():
    later = [reading(11, 1002.0, 9.0, run="another"), reading(12, 1003.0, 0.005, None, "ocv")]
    body = on_from([*later, safe(13, 1004.0)]).body
    assert body["charge_coulomb"] == pytest.approx(0.005)
    assert body["missed_coulomb"] == 0.0


# -- passes --------------------------------------------------------------------------------------------------


def pass_end(scan, n, *, good=True):
    counters = {"pixe": {"slow": 700}, "pige": {"slow": 500}}
    told = {"k": "pass_end", "scan": scan, "n": n, "good": good, "why": "" if good else "lost", "raw": {}}
    lines = [[0, 1.0, 2.0, 1e-12], [1, 2.5, 3.5, 2e-12]]
    return {**told, "frame0": {}, "lines": lines, "counters": counters, "stamp": {"soc": 0.1}}


@pytest.fixture
def raw(tmp_path):
    """Scan 1 with two passes, the second of them void; scan 2 with a whole one and one that never ended."""
    index = RawIndex(tmp_path / "raw")
    for message in (
        {"k": "pass", "scan": 1, "n": 1}, pass_end(1, 1), {"k": "pass", "scan": 1, "n": 2},
        pass_end(1, 2, good=False), {"k": "pass", "scan": 2, "n": 1}, pass_end(2, 1),
        {"k": "pass", "scan": 2, "n": 2},
    ):  # fmt: skip
        index.write(message)
    index.close()
    return tmp_path / "raw"


def test_what_a_scan_had_is_known_from_its_raw_files(raw):
    had = had_of(raw)
    assert (had[1].n, had[1].good, had[1].charge_coulomb) == (2, 1, pytest.approx(6e-12))
    assert (had[2].n, had[2].good, had[2].charge_coulomb) == (2, 1, pytest.approx(3e-12))


async def test_a_pass_on_disk_whose_row_was_cut_off_is_found(raw, tmp_path):
    async with await AsyncJournal.open(tmp_path / "j.sqlite", station="bench") as journal:
        await journal.boot("test")
        for n in (1, 2):
            await journal.record("pass", "scan", {"scan": 1, "n": n}, run=RUN)
        ((scan, outcome, message),) = await passes_without_a_row(journal, RUN, raw)
        assert (scan, outcome.n, outcome.good, outcome.lines_done) == (2, 1, True, 2)
        assert outcome.events == {"pixe": 700, "pige": 500}
        assert outcome.charge_coulomb == pytest.approx(3e-12)
        assert message["stamp"] == {"soc": 0.1}


async def test_a_run_is_taken_up_from_its_journal(tmp_path):
    """The reading that matters stands before the checkpoint; another run's are not looked at."""
    async with await AsyncJournal.open(tmp_path / "j.sqlite", station="bench") as journal:
        await journal.boot("test")
        assert await take_up(journal, RUN, 10.0, "emstat") is None
        body = {"phase": "cc", "charge_coulomb": 0.005, "current_a": 1e-5, "elapsed_s": 10.0}
        await journal.record("sample", "cell", body, run=RUN)
        await journal.checkpoint(RUN, "sequence", BODY)
        at = (await journal.read(lambda j: j.latest(RUN, "sample", "cell", 1 << 62, 1)))[0].wall_s
        await journal.record("sample", "cell", {**body, "charge_coulomb": 9.0}, run="another")
        results = [{"output": "cell", "confirmed": True}]
        told = {"t": at + 2.0, "run": RUN, "results": results}
        await journal.record("supervisor", "supervisor", told, run=RUN)
        carried = await take_up(journal, RUN, 10.0, "emstat")
        assert carried.body["charge_coulomb"] == pytest.approx(0.005 + 20.0 * 1e-5)


def test_the_bias_of_a_sweep_that_was_cut_off_is_counted_once():
    """A galvanostatic sweep about 20 uA: 2 points are on disk, the circuit opens 1 s (10 lab s) later."""
    sweep = {"event": "program", "detail": "Geis", "charge_coulomb": 0.005, "current_a": 2e-5}
    limits = {"limits": {"duration_s": 3600.0, "charge_coulomb": 1.0}, "sweep": {"points": 9}}
    begun = event(11, 1000.0, "cell_event", "cell", {**sweep, **limits})
    points = [reading(n, 1000.0 + n - 11, 0.005 + 2e-4 * (n - 11), 2e-5, "geis") for n in (12, 13)]
    body = on_from([begun, *points, safe(14, 1003.0)]).body
    assert body["charge_coulomb"] == pytest.approx(0.0054 + 10.0 * 2e-5)
    assert body["missed_coulomb"] == pytest.approx(2e-4)
    assert body["charged_s"] == pytest.approx(500.0 + 30.0)


def test_the_rest_between_two_pulses_adds_nothing():
    """The part of the step stays that of the pulses: what was on is what must not be on again."""
    rest = event(11, 1000.0, "cell_event", "cell", {"event": "program", "detail": "Ocv", "limits": None})
    body = on_from([rest, reading(12, 1002.0, 0.005, None, "ocv"), safe(13, 1003.0)]).body
    assert body == BODY
