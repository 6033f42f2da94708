"""What the host tells when reduce has found something: once, with its error, and again when it changes."""

from types import SimpleNamespace

import pytest

from controller.host import Host
from controller.outlook import Outlook
from controller.shown import pass_told, soc_by_beam

FOUND = {
    "cathode.x": {"value": 0.8, "sigma_stat": 0.02, "sigma_sys": 0.01, "unit": "1"},
    "cathode.soc_beam": {"value": 0.4, "sigma_stat": 0.03, "sigma_sys": 0.04, "unit": "1"},
}
ROW = {
    "scan": 1, "name": "later", "n": 2, "good": True, "why": "", "charge_coulomb": 1e-9, "live_s": 4.0,
    "events": {"pige": 200}, "lost": {"pige": 0}, "stamp": {"voltage_v": 3.7, "soc": 0.4},
}  # fmt: skip


class Recorder:
    def __init__(self):
        self.told = []

    def post(self, kind, module, body, *, topic=None, retain=False):
        if kind == "progress":  # a row of the journal alone
            return
        assert retain
        self.told.append((topic, body["v"], body["e"]))


@pytest.fixture
def outlook():
    """An outlook without a host's start: only what reduce brings is told."""
    made = Outlook.__new__(Outlook)
    made._told = {}
    made._host = SimpleNamespace(
        recorder=Recorder(),
        sequence=SimpleNamespace(scan_status=lambda: None, timeline=[], done=0, state="running"),
    )
    made._plan = []
    return made


def test_the_state_of_charge_by_the_beam_is_told_with_its_whole_error(outlook):
    outlook.progress({"quantities": FOUND, "counts": {}, "z": {"cathode": -1.5, "anode": None}})
    told = {topic: (v, e) for topic, v, e in outlook._host.recorder.told}
    assert told["state/soc/beam"] == (0.4, pytest.approx(0.05))
    assert told["state/soc/z"] == (-1.5, None)
    assert told["state/result/quantities"][0] == FOUND


def test_a_background_leaves_what_was_found(outlook):
    """It is measured without beam: who looked after it was told that nothing could be compared."""
    found = {"k": "progress", "purpose": "after", "quantities": FOUND, "counts": {"cathode": {}}, "z": {}}
    host = SimpleNamespace(products={"progress": {}}, recorder=outlook._host.recorder, outlook=outlook)
    Host.on_reduce(host, found)
    Host.on_reduce(host, {**found, "purpose": "background", "quantities": {}, "counts": {}})
    told = [v for topic, v, _ in outlook._host.recorder.told if topic == "state/result/quantities"]
    assert told == [FOUND]
    assert host.products["progress"] is found


def test_lithium_that_appeared_is_told_by_layer(outlook):
    one = {"separator": {"counts": {"value": 1474.0}, "sigmas": 24.4, "text": "lithium appeared"}}
    outlook.progress({"quantities": FOUND, "counts": {}, "z": {}, "appeared": one})
    outlook.progress({"quantities": FOUND, "counts": {}, "z": {}, "appeared": {}})
    told = [v for topic, v, _ in outlook._host.recorder.told if topic == "state/result/appeared"]
    assert told == [one, {}], "and gone when a later scan does not show it"


def test_what_has_not_changed_is_not_told_again(outlook):
    for _ in range(3):
        outlook.progress({"quantities": FOUND, "counts": {}, "z": {}})
    topics = [topic for topic, _, _ in outlook._host.recorder.told]
    assert len(topics) == len(set(topics))


def test_a_pass_gives_the_rates_of_its_detectors(outlook):
    outlook.passed(pass_told(ROW, 5.0))
    told = {topic: v for topic, v, _ in outlook._host.recorder.told}
    assert told["state/pige/rate"] == 50.0
    assert told["state/pige/events"] == 200
    assert told["state/scan/last"]["voltage_v"] == 3.7


def test_without_a_result_there_is_no_state_of_charge():
    assert soc_by_beam({}) is None
    assert soc_by_beam({"cathode.x": FOUND["cathode.x"]}) is None


def test_at_the_end_nothing_waits_for_its_turn(outlook, monkeypatch):
    outlook._due_s, outlook._monotonic = {"slow": 100.0}, lambda: 100.1
    looked = []
    monkeypatch.setattr(Outlook, "tell", lambda self: looked.append(self._due("slow", 2.0)))
    outlook.tell()
    outlook.end()
    assert looked == [False, True]
