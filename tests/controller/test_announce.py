from controller.announce import Standing, standing

STATUS = {"run": "r1", "state": "running", "paused": False, "step": {"number": 2, "of": 5, "title": "heat"}}


class Recorder:
    def __init__(self):
        self.posted = []

    def post(self, kind, module, body, **more):
        self.posted.append((more["topic"], body["v"], more["retain"]))


def test_a_pause_is_a_state_of_its_own_and_a_step_is_its_number():
    assert standing(STATUS) == {"run": "r1", "state": "running", "step": 2}
    assert standing({**STATUS, "paused": True, "step": None}) == {
        "run": "r1",
        "state": "paused",
        "step": None,
    }


def test_where_a_run_stands_is_published_when_it_changes_and_only_then():
    """These are the values that a command must expect: what is published must be what is compared."""
    recorder = Recorder()
    told = Standing(recorder)
    told.tell(STATUS)
    assert recorder.posted == [
        ("state/run/id", "r1", True),
        ("state/run/state", "running", True),
        ("state/run/step", 2, True),
    ]
    for status in (STATUS, {**STATUS, "lab_s": 7.0}):
        told.tell(status)
    assert len(recorder.posted) == 3
    told.tell({**STATUS, "step": None})
    told.tell({**STATUS, "paused": True, "step": None})
    assert recorder.posted[3:] == [("state/run/step", None, True), ("state/run/state", "paused", True)]
