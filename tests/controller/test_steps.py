"""Steps under pauses, early ends and time limits, with instruments that only keep what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from controller.questions import Questions
from controller.scanning import PassOutcome
from controller.sequence import Sequencer
from controller.staging import Staging
from controller.steps import beam, cell, talk
from controller.steps.context import Context, Had, StepTimeout
from drivers.roles import ConstantCurrent, Geis, Ocv
from tests.controller.fakes import FakeRecorder, SteppedClock


class Recorder(FakeRecorder):
    """Keeps events, too."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.posts: list[tuple[str, dict[str, Any]]] = []

    async def event(self, kind: str, module: str, body: dict[str, Any], **more: Any) -> None:
        self.events.append((kind, body))

    def post(self, kind: str, module: str, body: dict[str, Any], **more: Any) -> None:
        self.posts.append((kind, body))


class Shutter:
    def __init__(self, host: Host) -> None:
        self.host = host

    async def open(self) -> None:
        await self.host.set_shutter(open_=True)

    async def close(self) -> None:
        await self.host.set_shutter(open_=False)

    def keep(self) -> None:
        pass


class Scanning:
    """Passes of 100 s, in lines of 10 s; a pause holds between two lines."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.shutter = Shutter(host)
        self.line = 0
        self.passes = self.last_n = 0

    def begin_scan(self, *_: Any) -> None:
        pass

    def end_scan(self) -> None:
        pass

    async def run_pass(self, raster: Any, n: int, *, should_end: Callable[[], bool]) -> PassOutcome:
        self.passes += 1
        self.last_n = n
        lines = 0
        while lines < 10 and not should_end():
            await self.host.clock.sleep(10.0 if not self.host.context.paused else 0.5)
            lines += not self.host.context.paused
        return PassOutcome(n, True, "", lines, lines == 10, 0, {}, {}, 1e-9, 10.0 * lines)


class Cycling:
    """Runs a program for 10 s at a time until the step's question is answered."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.now = SimpleNamespace(
            state="ocv", step_s=0.0, step_charge_coulomb=0.0, charge_coulomb=0.0, charged_s=0.0,
            throughput_coulomb=0.0, unmeasured_s=0.0, missed_coulomb=0.0,
        )  # fmt: skip
        self.programs: list[Any] = []
        self.intervals: list[Any] = []
        self.eis_s = 300.0

    async def run(self, program: Any, until: Callable[[Any], str | None], *, interval_s: Any) -> str:
        self.programs.append(program)
        self.intervals.append(interval_s)
        total_s = getattr(program, "duration_s", None) or getattr(program, "limits", None)
        total_s = total_s if isinstance(total_s, float) else getattr(total_s, "duration_s", self.eis_s)
        self.now.step_s = 0.0
        while self.now.step_s < total_s:
            await self.host.clock.sleep(10.0)
            self.now.step_s += 10.0
            reason = until(self.now)
            if reason:
                return reason
        return "script ended"


class Host:
    """As much of a host as the steps ask for."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.recorder = Recorder()
        self.products: dict[str, Any] = {}
        self.shutter: list[bool] = []
        self.bench = SimpleNamespace(io=self)
        self.experiment = SimpleNamespace(steps=(), walk=list)
        self.staging = Staging(None, None, None, None, None, None)  # type: ignore[arg-type]  # a station without one
        self.scanning = Scanning(self)
        self.cycling = Cycling(self)
        self.heating = None
        self.run_id = "run"
        self.journal = self
        self.guard = self
        self.checkpoints: list[dict[str, Any]] = []
        self.guarded_coulomb = 0.0
        self.sequence = Sequencer(self)  # type: ignore[arg-type]
        self.exposing = SimpleNamespace(received=list)
        self.questions = Questions(self.recorder, self.clock, self.sequence.context)  # type: ignore[arg-type]

    @property
    def context(self) -> Context:
        return self.sequence.context

    async def checkpoint(self, run: str, name: str, body: dict[str, Any]) -> None:
        self.checkpoints.append(body)

    def go_on_from(self, charge_coulomb: float) -> None:
        self.guarded_coulomb = charge_coulomb

    async def set_shutter(self, *, open_: bool) -> None:
        self.shutter.append(open_)

    async def spend(self, lab_s: float) -> None:
        end_s = self.clock.s + lab_s
        while self.clock.s < end_s:
            await self.clock.sleep(10.0)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(beam, "_purpose", lambda context, step: "reference")
    monkeypatch.setattr(cell, "effective_limits", lambda station, experiment: LIMITS)
    made = Host()
    made.station = None  # type: ignore[attr-defined]
    return made


LIMITS = SimpleNamespace(voltage_low_v=2.5, voltage_high_v=4.05, current_a=30e-6, charge_coulomb=3.6)


def scan_of(**until: Any) -> Any:
    goals = {"passes": None, "duration_s": None, "dose_per_cm2": None, "counts": None, "uncertainty": None}
    raster = SimpleNamespace(width_um=100.0, height_um=100.0, ny=10)
    return SimpleNamespace(
        do="scan", name="one", raster=SimpleNamespace(scan=lambda origin: raster), timeout_s=1000.0,
        on_timeout="abort", until=SimpleNamespace(**{**goals, **until}) if until else None,
    )  # fmt: skip


async def until_true(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


async def test_a_pause_longer_than_a_scans_time_limit_does_not_end_it(host: Host) -> None:
    work = asyncio.ensure_future(beam.scan(host.context, scan_of(passes=4)))
    await until_true(lambda: host.scanning.passes == 2)
    host.sequence.pause("a person")
    await host.spend(5000.0)
    assert not work.done()
    host.sequence.proceed()
    assert await work == "4 passes"
    assert host.shutter == [True, False]


async def test_a_scan_that_takes_too_long_says_so(host: Host) -> None:
    with pytest.raises(StepTimeout, match="time limit of 1000 s"):
        await beam.scan(host.context, scan_of(passes=40))


async def test_stop_ends_a_scan_that_is_paused(host: Host) -> None:
    work = asyncio.ensure_future(beam.scan(host.context, scan_of(passes=4)))
    await until_true(lambda: host.scanning.passes == 2)
    host.sequence.pause("a person")
    await host.spend(100.0)
    host.sequence.finish_early()
    assert await work == "stopped early"
    assert host.shutter[-1] is False


async def test_stop_ends_a_charge_that_is_paused_without_closing_the_circuit_again(host: Host) -> None:
    step = SimpleNamespace(duration_s=1000.0, interval_s=5.0)
    work = asyncio.ensure_future(cell.open_circuit(host.context, step))  # type: ignore[arg-type]
    await until_true(lambda: len(host.cycling.programs) == 1)
    host.sequence.pause("a person")
    await host.spend(100.0)
    host.sequence.finish_early()
    assert await work == "stopped early"
    assert len(host.cycling.programs) == 1


def pulses_of(**keys: Any) -> Any:
    return SimpleNamespace(direction="charge", current_a=1e-5, interval_s=1.0, **keys)


async def test_a_paused_pulse_goes_on_with_what_is_left(host: Host) -> None:
    step = pulses_of(times=1, on_s=60.0, rest_s=30.0)
    work = asyncio.ensure_future(cell.pulse(host.context, step))
    await host.spend(20.0)
    host.sequence.pause("a person")
    await host.spend(500.0)
    host.sequence.proceed()
    assert await work == "1 pulses"
    on = [program.limits.duration_s for program in host.cycling.programs if hasattr(program, "limits")]
    assert len(on) == 2
    assert on[0] == 60.0
    assert 0 < on[1] < 60.0


@pytest.mark.parametrize(
    ("had_s", "on_first_s", "rests"),
    [
        (0.0, [60.0, 60.0, 60.0], 3),  # nothing was done
        (25.0, [35.0, 60.0, 60.0], 3),  # in the first pulse
        (60.0, [60.0, 60.0], 3),  # in the rest after it: that is done again
        (60.04, [60.0, 60.0], 3),  # the circuit opens a little late
        (119.97, [60.0], 2),  # too little was left for a program
        (130.0, [50.0], 1),  # in the third
        (180.0, [], 1),  # in the last rest
        (200.0, [], 1),  # more than all
    ],
)
async def test_an_interrupted_pulse_train_goes_on_where_it_was(
    host: Host, had_s: float, on_first_s: list[float], rests: int
) -> None:
    """What was on before is not on again: 3 pulses of 60 s, whatever interrupted them."""
    host.context.carried = (1e-5 * had_s, had_s)
    assert await cell.pulse(host.context, pulses_of(times=3, on_s=60.0, rest_s=30.0)) == "3 pulses"
    on = [p.limits.duration_s for p in host.cycling.programs if isinstance(p, ConstantCurrent)]
    assert on == pytest.approx(on_first_s)
    assert sum(isinstance(p, Ocv) for p in host.cycling.programs) == rests
    assert host.context.part == (0.0, 0.0)


async def test_a_pulse_train_checkpoints_what_it_had(host: Host) -> None:
    """Between two pulses, too: a crash in the rest must not do the pulse before it again."""
    parts = []
    work = asyncio.ensure_future(cell.pulse(host.context, pulses_of(times=2, on_s=60.0, rest_s=300.0)))
    while not work.done():
        await host.clock.sleep(10.0)
        await host.sequence.checkpoint()
        if host.cycling.programs and isinstance(host.cycling.programs[-1], Ocv):
            parts.append(host.checkpoints[-1]["part"][1])
    assert set(parts) - {0.0} == {60.0, 120.0}


SWEEP: dict[str, Any] = {
    "galvanostatic": False, "amplitude_v": 0.01, "voltage_v": None, "current_amplitude_a": 2e-6,
    "current_a": 5e-6, "start_hz": 1e5, "stop_hz": 0.001, "points": 30, "timeout_s": 300.0,
}  # fmt: skip


async def test_a_paused_impedance_sweep_is_taken_again(host: Host) -> None:
    work = asyncio.ensure_future(cell.impedance(host.context, SimpleNamespace(**SWEEP)))  # type: ignore[arg-type]
    await host.spend(50.0)
    host.sequence.pause("a person")
    await host.spend(500.0)
    host.sequence.proceed()
    assert await work == "script ended"
    assert len(host.cycling.programs) == 2
    pace = host.cycling.intervals[0]
    assert len(pace) == 30
    assert pace[0] < 60.0  # silence at 100 kHz is a fault after a minute or two
    assert pace[-1] >= 3000.0  # but a point at 1 mHz takes longer than one period


async def test_a_galvanostatic_sweep_is_about_a_current(host: Host) -> None:
    step = SimpleNamespace(**{**SWEEP, "galvanostatic": True})
    assert await cell.impedance(host.context, step) == "script ended"  # type: ignore[arg-type]
    (program,) = host.cycling.programs
    assert isinstance(program, Geis)
    assert (program.amplitude_a, program.bias_a, program.limits.current_a) == (2e-6, 5e-6, 30e-6)


async def test_charge_of_an_interrupted_sweep_belongs_to_no_charge_step(host: Host) -> None:
    host.context.carried = (1e-3, 250.0)
    assert await cell.impedance(host.context, SimpleNamespace(**SWEEP)) == "script ended"  # type: ignore[arg-type]
    assert host.context.take_carried() == (0.0, 0.0)


def message_of(**more: Any) -> Any:
    """Return a message that waits ten minutes, and then aborts."""
    usual = {
        "do": "message", "text": "Is the hutch closed?", "wait": True, "timeout_s": 600.0, "choices": None,
        "default": None, "on_timeout": "abort",
    }  # fmt: skip
    return SimpleNamespace(**{**usual, **more})


@pytest.mark.parametrize("on_timeout", ["continue", "abort"])
async def test_a_question_nobody_answers_strikes_at_its_time_limit(host: Host, on_timeout: str) -> None:
    step = message_of(on_timeout=on_timeout)
    if on_timeout == "abort":
        with pytest.raises(StepTimeout, match="no answer after 600 s"):
            await talk.message(host.context, step)  # type: ignore[arg-type]
    else:
        assert "no answer" in await talk.message(host.context, step)  # type: ignore[arg-type]
    assert not host.context.paused
    # the retained question is taken back
    assert [kind for kind, _ in host.recorder.events] == [
        "question",
        "answer",
    ]
    assert 600.0 <= host.clock.s < 610.0


async def until_asked(host: Host) -> dict[str, Any]:
    """Return the question that is open."""
    await until_true(lambda: bool(host.questions.open()))
    (told,) = host.questions.open()
    return told


async def test_an_answer_is_on_the_disk_before_the_run_goes_on(host: Host) -> None:
    work = asyncio.ensure_future(talk.message(host.context, message_of(choices=("left", "right"))))
    told = await until_asked(host)
    assert told["choices"] == ["left", "right"]
    assert told["default"] == "abort"
    assert host.context.paused
    with pytest.raises(ValueError, match="answers: left, right"):
        await host.questions.answer(told["id"], "up", "a person")
    with pytest.raises(ValueError, match="not an answer"):
        await host.questions.answer("q9", "left", "a person")
    assert await host.questions.answer("", "LEF", "Ada") == "q1: left"
    assert host.recorder.events[-1] == ("answer", {"id": "q1", "choice": "left", "by": "Ada"})
    with pytest.raises(ValueError, match="no question is open"):
        await host.questions.answer("q1", "right", "somebody else")
    assert await work == 'answered "left" by Ada'
    assert not host.context.paused


async def test_one_of_two_who_answer_at_once_is_told_that_he_came_late(host: Host) -> None:
    work = asyncio.ensure_future(talk.message(host.context, message_of()))
    await until_asked(host)
    both = await asyncio.gather(
        host.questions.answer("q1", "continue", "Ada"), host.questions.answer("q1", "abort", "Ben"),
        return_exceptions=True,
    )  # fmt: skip
    assert [type(one).__name__ for one in both] == ["str", "ValueError"]
    assert await work == 'answered "continue" by Ada'


@pytest.mark.parametrize(
    ("choice", "after"),
    [("continue", (False, False)), ("stop", (False, True)), ("abort", None)],
)
async def test_what_an_answer_does(host: Host, choice: str, after: tuple[bool, bool] | None) -> None:
    work = asyncio.ensure_future(talk.message(host.context, message_of()))
    await until_asked(host)
    await host.questions.answer("q1", choice, "Ada")
    if after is None:
        with pytest.raises(StepTimeout, match='answered "abort" by Ada'):
            await work
    else:
        await work
        assert (host.context.paused, host.context.finishing) == after


async def test_an_answer_does_not_end_a_pause(host: Host) -> None:
    """An interlock that holds the run while somebody is asked goes on holding it."""
    work = asyncio.ensure_future(talk.message(host.context, message_of()))
    await until_asked(host)
    host.sequence.pause("the vacuum is bad")
    await host.questions.answer("q1", "continue", "Ada")
    await work
    assert host.context.paused
    host.sequence.proceed()
    assert not host.context.paused


async def test_stop_takes_a_question_back(host: Host) -> None:
    work = asyncio.ensure_future(talk.message(host.context, message_of()))
    await until_asked(host)
    host.sequence.finish_early()
    assert await work == "stopped early"
    assert not host.questions.open()


async def test_the_end_of_a_run_takes_a_question_back(host: Host) -> None:
    work = asyncio.ensure_future(talk.message(host.context, message_of()))
    await until_asked(host)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert host.recorder.posts == [("answer", {"id": "q1", "choice": "withdrawn", "by": "the run"})]
    assert not host.context.paused


async def test_a_default_counts_as_the_answer(host: Host) -> None:
    step = message_of(choices=("left", "right"), default="right")
    assert await talk.message(host.context, step) == 'answered "right" by nobody: the time limit'


@pytest.mark.parametrize(("choice", "ends"), [("continue", "not done after"), ("abort", None), (None, None)])
async def test_a_step_that_is_not_done_in_time_may_ask(
    host: Host, choice: str | None, ends: str | None
) -> None:
    """And when nobody answers it aborts, as a step does that asks nobody."""
    step = message_of(on_timeout="ask", answer_within_s=900.0)
    work = asyncio.ensure_future(host.sequence.timed_out(step, "heat: not done after 60 s"))
    told = await until_asked(host)
    assert told["text"].startswith("heat: not done after 60 s")
    assert told["default"] == "abort"
    if choice is not None:
        await host.questions.answer("", choice, "Ada")
    if ends is None:
        with pytest.raises(StepTimeout, match=r"abort .(Ada|nobody)"):
            await work
        assert choice is not None or 900.0 <= host.clock.s < 910.0
    else:
        assert ends in await work


async def test_a_pause_between_two_steps_holds_the_next(host: Host) -> None:
    step = SimpleNamespace(
        do="message", name=None, text="hello", wait=False, timeout_s=None, on_timeout="abort"
    )
    host.sequence.pause("a person")
    work = asyncio.ensure_future(host.sequence.step(step, (0,)))  # type: ignore[arg-type]
    await host.spend(100.0)
    assert "MESSAGE: hello" not in host.recorder.lines
    host.sequence.proceed()
    await work
    assert "MESSAGE: hello" in host.recorder.lines


@pytest.mark.parametrize("do", ["scan", "calibrate"])
async def test_a_scan_without_an_end_follows_the_other_steps(host: Host, do: str) -> None:
    follower = scan_of()
    follower.do = do
    leader = SimpleNamespace(do="ocv", name=None, duration_s=500.0, interval_s=5.0, on_timeout="abort")
    async with asyncio.timeout(5.0):
        assert await host.sequence._parallel((leader, follower), (0,)) == "all have ended"  # type: ignore[arg-type]
    assert host.scanning.passes >= 4


async def test_a_resumed_run_does_not_repeat_what_was_done_inside_a_parallel_step(host: Host) -> None:
    """A charge that had ended beside a scan that had not: charging once more would overcharge the cell."""
    first, second = (
        SimpleNamespace(do="ocv", name=None, duration_s=length_s, interval_s=5.0, on_timeout="abort")
        for length_s in (50.0, 500.0)
    )
    work = asyncio.ensure_future(host.sequence._parallel((first, second), (0,)))  # type: ignore[arg-type]
    await until_true(lambda: bool(host.checkpoints))
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)

    again = Host()
    again.station = None  # type: ignore[attr-defined]
    again.sequence.go_on_from({**host.checkpoints[-1], "charge_coulomb": 0.02})
    assert again.guarded_coulomb == 0.02  # the limit of charge holds for both parts together
    await again.sequence._parallel((first, second), (0,))  # type: ignore[arg-type]
    assert [program.duration_s for program in again.cycling.programs] == [500.0]
    assert [step["path"] for step in again.sequence.timeline] == [[0, 1]]


async def test_what_an_interrupted_charge_had_passed_is_kept_until_its_turn_comes(host: Host) -> None:
    await host.sequence.checkpoint()
    host.sequence.go_on_from({**host.checkpoints[-1], "part": [0.011, 300.0]})
    await host.sequence.checkpoint()  # while the plate is heated again, say
    assert host.checkpoints[-1]["part"] == [0.011, 300.0]


async def test_an_interrupted_scan_goes_on_under_its_number_with_what_is_missing(host: Host) -> None:
    """Two good passes of four and one void one are on disk: two more, with numbers of their own."""
    context = host.context
    context.had = {1: Had(n=3, good=2, charge_coulomb=3e-9)}
    assert await beam.scan(context, scan_of(passes=4)) == "4 passes"
    assert (host.scanning.passes, host.scanning.last_n) == (2, 5)
    assert await beam.scan(context, scan_of(passes=1)) == "1 passes"  # the next scan has nothing yet
    assert (host.scanning.passes, host.scanning.last_n) == (3, 1)


async def test_a_scan_that_had_enough_is_not_begun_again(host: Host) -> None:
    """Killed between its last pass and the checkpoint of its end; dose counts what was on disk, too."""
    host.context.had = {1: Had(n=4, good=4, charge_coulomb=4e-9), 2: Had(n=1, good=1, charge_coulomb=1.6e-9)}
    assert await beam.scan(host.context, scan_of(passes=4)) == "4 passes"
    dose = 1.6e-9 / beam.ELEMENTARY_CHARGE_C / 1e-4
    assert await beam.scan(host.context, scan_of(dose_per_cm2=dose)) == "dose"
    assert host.scanning.passes == 0


async def test_only_scans_of_steps_that_have_ended_are_in_the_checkpoint(host: Host) -> None:
    work = asyncio.ensure_future(beam.scan(host.context, scan_of(passes=4)))
    await until_true(lambda: host.scanning.passes == 2)
    await host.sequence.checkpoint()
    assert host.checkpoints[-1]["scans"] == 0
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    host.context.scans = 0
    await host.sequence.step(scan_of(passes=1), (0, 1))
    assert host.checkpoints[-1]["scans"] == 1


async def test_what_interrupted_pulses_had_passed_is_no_part_of_the_next_charge(host: Host) -> None:
    host.context.carried = (0.5, 100.0)
    step = SimpleNamespace(
        direction="charge", current_a=1e-5, on_s=10.0, rest_s=10.0, times=1, interval_s=1.0
    )
    await cell.pulse(host.context, step)  # type: ignore[arg-type]
    assert host.context.take_carried() == (0.0, 0.0)


@pytest.mark.parametrize(
    ("until", "part", "reason"),
    [
        ({"charge_coulomb": 0.3}, (0.301, 20.0), "charge reached"),
        ({"duration_s": 50.0}, (0.1, 50.0), "duration"),
    ],
)
async def test_a_charge_that_had_come_to_its_end_is_not_begun_again(
    host: Host, until: dict[str, float], part: tuple[float, float], reason: str
) -> None:
    """Killed between its last reading and the checkpoint of its end."""
    host.experiment.sample = SimpleNamespace(capacity_coulomb=3.6)
    goals = dict.fromkeys(("charge_coulomb", "duration_s", "soc", "current_below_a"))
    ends = SimpleNamespace(**{**goals, **until})
    step = SimpleNamespace(do="charge", until=ends, timeout_s=100.0, interval_s=1.0, current_a=1e-5)
    host.context.carried = part
    assert await cell.charge(host.context, step) == reason  # type: ignore[arg-type]
    assert host.cycling.programs == []
