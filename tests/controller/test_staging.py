"""The stage's owner: never a move that was not seen to be dark, and no position but the one that was read."""

import pytest

from controller.staging import Staging
from drivers.clock import RealClock
from drivers.errors import BadReply, Refused
from drivers.roles import IoReading, Role, StageReading


class Record:
    """Keeps what was journalled."""

    def __init__(self):
        self.events = []

    async def event(self, kind, module, body):
        self.events.append((kind, body))

    def line(self, text):
        pass


class Box:
    """Scanner, shutter, guard and stage, which write down what happens in what order."""

    roles = frozenset({Role.SHUTTER})

    def __init__(self):
        self.told = []
        self.blanked, self.shutter_open, self.refusal, self.fails = True, False, None, None
        self.at_um = (0.0, 0.0)

    async def blank(self):
        self.told.append("blank")

    async def set_shutter(self, *, open_):
        self.told.append("open" if open_ else "close")

    async def read(self):
        return IoReading(0.0, 1e-12, True, False, self.shutter_open, self.blanked)

    def io(self, reading):
        self.told.append("guard sees it dark" if reading.blanked else "guard sees the beam")

    def refuses(self):
        return self.refusal

    def stage_leaves(self):
        self.told.append("leaves")

    def stage_stays(self, position_um):
        self.told.append(("stays", position_um))


class Carriage:
    def __init__(self, box):
        self.box = box

    async def read(self):
        return StageReading(0.0, self.box.at_um, moving=False)

    async def move_to_um(self, position_um):
        self.box.told.append("moves")
        if self.box.fails:
            self.box.at_um = None
            raise self.box.fails
        self.box.at_um = (position_um[0] + 0.01, position_um[1])


class Quick(RealClock):
    async def sleep(self, lab_s):
        """Nothing here takes time."""


@pytest.fixture
def box():
    return Box()


@pytest.fixture
def staging(box):
    return Staging(Carriage(box), box, box, box, Quick(), Record())


async def test_dark_first_then_the_move_then_what_is_read(box, staging):
    await staging.go((5.0, 6.0))
    assert box.told == ["blank", "close", "guard sees it dark", "leaves", "moves", ("stays", (5.01, 6.0))]
    assert staging.at_um == (5.01, 6.0)
    assert staging._recorder.events == [("stage", {"position_um": [5.01, 6.0]})]
    await staging.go((5.0, 6.0))  # it stands there: no second move for a hundredth of a micrometre
    assert box.told.count("moves") == 1


@pytest.mark.parametrize("wrong", [{"blanked": False}, {"shutter_open": True}, {"shutter_open": None}])
async def test_no_move_while_the_beam_is_not_seen_blanked_and_shut(box, staging, wrong):
    for name, value in wrong.items():
        setattr(box, name, value)
    with pytest.raises(Refused, match="not seen blanked and shut"):
        await staging.go((5.0, 6.0))
    assert "moves" not in box.told


async def test_a_move_that_fails_leaves_no_position_and_the_guard_watching(box, staging):
    box.fails = BadReply("stood still", device="stage")
    with pytest.raises(BadReply):
        await staging.go((5.0, 6.0))
    assert staging.at_um is None
    assert staging._recorder.events == [("stage", {"error": "stage: stood still", "position_um": None})]
    assert box.told[-2:] == ["leaves", "moves"]  # the beam may not be on until it has arrived somewhere


async def test_a_latch_keeps_the_stage_where_it_is(box, staging):
    box.refusal = "a trip"
    with pytest.raises(Refused, match="a trip"):
        await staging.go((5.0, 6.0))
    assert box.told == []


async def test_a_station_without_a_stage_says_so(box):
    with pytest.raises(Refused, match="no stage"):
        await Staging(None, box, box, box, Quick(), Record()).go((1.0, 1.0))
