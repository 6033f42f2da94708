"""What the recorder publishes of the beam: seldom while it changes fast, and how it was left at the end."""

from types import SimpleNamespace

from controller.record import Recorder


class Journal:
    """Keeps what is posted."""

    def __init__(self):
        self.told = {}

    def post(self, kind, module, body, *, topic=None, **more):
        if topic:
            self.told[topic] = body["v"]


def reading(*, blanked):
    return SimpleNamespace(
        beam_current_a=1e-11, permit=True, relay_closed=True, shutter_open=True, blanked=blanked,
        problems=(), switches={},
    )  # fmt: skip


def test_how_the_beam_was_left_is_told_though_it_was_told_a_moment_ago():
    journal = Journal()
    recorder = Recorder(journal, SimpleNamespace(now_s=lambda: 0.0), "run", lambda event: None)
    recorder.io(reading(blanked=False))
    recorder.io(reading(blanked=True))  # too soon to be told
    assert journal.told["state/beam/blanked"] is False
    recorder.settle()
    assert journal.told["state/beam/blanked"] is True


def test_without_a_beam_there_is_nothing_to_settle():
    journal = Journal()
    Recorder(journal, SimpleNamespace(now_s=lambda: 0.0), "run", lambda event: None).settle()
    assert journal.told == {}
