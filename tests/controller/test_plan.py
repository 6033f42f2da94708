"""The plan that people see: every step of a real experiment file, followed through its run."""

from pathlib import Path

import pytest

from controller.config import load_experiment
from controller.plan import followed, goals, left_s, plan

FILE = Path(__file__).parents[2] / "hil_tests" / "experiments" / "quickstart.toml"
EXPERIMENT = load_experiment(FILE)
SECONDS = [100.0 * (n + 1) for n, _ in enumerate(EXPERIMENT.walk())]


@pytest.fixture
def steps():
    return plan(EXPERIMENT, SECONDS)


def begun(path, at, **more):
    return {"path": path, "begun_lab_s": at, **more}


def test_every_step_is_there_with_title_and_estimate(steps):
    assert len(steps) == sum(1 for _ in EXPERIMENT.walk())
    assert [step["estimate_s"] for step in steps] == SECONDS
    assert [s["do"] for s in steps] == [placed.step.do for placed in EXPERIMENT.walk()]
    assert all(step["title"] for step in steps)
    assert {s["depth"] for s in steps} == {0, 1}
    inside = next(step for step in steps if step["depth"])
    outside = steps[steps.index(inside) - 1]
    assert outside["do"] == "parallel"
    assert inside["path"].startswith(outside["path"] + ".")


@pytest.mark.parametrize("path", sorted(FILE.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_every_experiment_that_we_ship_has_a_plan(path):
    """Goals of an exposure (photons, the error of S) were taken for those of a scan: no run began."""
    experiment = load_experiment(path)
    told = plan(experiment, [1.0 for _ in experiment.walk()])
    exposures = [step for step in told if step["do"] == "expose"]
    assert {goal["kind"] for step in told for goal in step["goals"]} <= {
        "passes",
        "counts",
        "uncertainty",
        "dose",
    }
    assert all(step["goals"] == [] for step in exposures)


def test_an_exposure_may_end_on_photons(tmp_path):
    text = (FILE.parent / "compton.toml").read_text().replace('duration = "55 s"', "counts = 100000")
    (tmp_path / "photons.toml").write_text(text)
    experiment = load_experiment(tmp_path / "photons.toml")
    assert experiment.steps[-1].steps[1].until.counts == 100_000
    assert len(plan(experiment, [1.0 for _ in experiment.walk()])) == 6


def test_each_step_waits_runs_and_is_done(steps):
    told = followed(steps, [], done=0, ended=False)
    assert {step["state"] for step in told} == {"waiting"}
    timeline = [begun([0], 10.0, ended_lab_s=50.0, reason="reached"), begun([1], 50.0)]
    told = {s["path"]: s for s in followed(steps, timeline, done=1, ended=False)}
    assert (told["0"]["state"], told["0"]["reason"], told["1"]["state"]) == ("done", "reached", "running")
    assert told["1"]["begun_lab_s"] == 50.0
    ended = followed(steps, timeline, done=1, ended=True)
    assert ended[2]["state"] == "skipped"
    cut = followed(steps, [begun([0], 1.0, ended_lab_s=2.0, reason="cut short")], done=0, ended=True)
    assert cut[0]["state"] == "cut short"
    tripped = begun([0], 1.0, ended_lab_s=2.0, reason="over 343 K", failed=True)
    assert followed(steps, [tripped], done=0, ended=True)[0]["state"] == "cut short"


def test_after_a_resume_what_was_done_before_is_done(steps):
    told = followed(steps, [begun([2], 50.0)], done=2, ended=False)
    assert [step["state"] for step in told if not step["depth"]][:3] == ["done", "done", "running"]


def test_what_is_left_counts_the_running_step_in_part_and_those_inside_once(steps):
    top = [step["estimate_s"] for step in steps if not step["depth"]]
    waiting = followed(steps, [], done=0, ended=False)
    assert left_s(waiting, 0.0) == sum(top)
    running = followed(steps, [begun([0], 10.0)], done=0, ended=False)
    assert left_s(running, 40.0) == sum(top) - 30.0
    assert left_s(running, 1e6) == sum(top[1:])  # longer than estimated: about to end


def test_a_repeated_step_stands_once_with_its_turn():
    repeat = {"at": [0], "path": "0", "depth": 0, "do": "repeat", "estimate_s": 60.0, "goals": []}
    inner = {"at": [0, 1], "path": "0.1", "depth": 1, "do": "charge", "estimate_s": 20.0, "goals": []}
    timeline = [begun([0], 0.0), begun([0, 0, 1], 1.0, ended_lab_s=2.0), begun([0, 2, 1], 5.0)]
    told = followed([repeat, inner], timeline, done=0, ended=False)
    assert (told[1]["state"], told[1]["begun_lab_s"], told[1]["turn"]) == ("running", 5.0, 3)
    assert told[0]["turn"] == 3


def test_goals_say_how_far_they_are():
    step = {
        "goals": [
            {"kind": "passes", "of": "passes", "layer": "", "goal": 4, "unit": ""},
            {"kind": "counts", "of": "Li", "layer": "cathode", "goal": 1000, "unit": "counts"},
            {"kind": "uncertainty", "of": "x", "layer": "cathode", "goal": 0.02, "unit": "1"},
            {"kind": "uncertainty", "of": "li_relative", "layer": "cathode", "goal": 0.05, "unit": "1"},
            {"kind": "dose", "of": "dose", "layer": "", "goal": 1e15, "unit": "1/cm2"},
        ]
    }  # fmt: skip
    progress = {
        "counts": {"cathode": {"Li": [250.0, 20.0]}},
        "quantities": {
            "cathode.x": {"value": 0.5, "sigma_stat": 0.04},
            "cathode.li_relative": {"value": 0.5, "sigma_stat": 0.05},
        },
    }
    told = goals(step, progress, passes=1, dose_per_cm2=5e14)
    assert [one["now"] for one in told] == [1.0, 250.0, 0.04, 0.1, 5e14]
    assert [one["fraction"] for one in told] == [0.25, 0.25, 0.25, 0.25, 0.5]
    nothing = goals(step, {}, passes=0, dose_per_cm2=None)
    assert [one["now"] for one in nothing] == [0.0, None, None, None, None]
