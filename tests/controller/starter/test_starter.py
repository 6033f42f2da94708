"""New files for every instrument and every combination of roles: valid but for what only a person knows."""

import itertools
import re
import tomllib

import pytest

from controller.config import check_against, check_files
from controller.config.calibrations import CalibrationFile
from controller.config.devices import BUILT_IN
from controller.config.experiment import Experiment, experiment_from
from controller.config.files import from_text
from controller.config.keys import all_models, keys_of
from controller.config.station import Station, station_from
from controller.config.station_rules import ROLES
from controller.starter.command import ask_for_instruments, drivers_by_role
from controller.starter.experiment import experiment_text
from controller.starter.station import ChoiceError, plan, station_text

from .filling import EXPERIMENT, STATION, blanks, filled

WRONG_KIND = re.compile(r"is not a known key|must be (text|a list|a table|true|a number)")
PLAYERS = {role: [driver for driver, model in BUILT_IN.items() if role in model.plays] for role in ROLES}
ONLY_MEASURE = [driver for driver, model in BUILT_IN.items() if not model.plays]


def read_station(text):
    return station_from(from_text(text, "station.toml"))


def read_experiment(text):
    return experiment_from(from_text(text, "experiment.toml"))


def a_station(chosen):
    text = station_text(plan(chosen))
    problems = blanks(read_station, text)
    assert problems, "a station without anything to fill in would carry guessed limits"
    assert [one.message for one in problems if "is not filled in: " not in one.message] == []
    return read_station(filled(text, problems, STATION))


def an_experiment(station):
    roles = tuple(role for role, _ in station.roles.named())
    text = experiment_text(roles)
    problems = blanks(read_experiment, text)
    assert [one.message for one in problems if "is not filled in" not in one.message] == []
    return read_experiment(filled(text, problems, EXPERIMENT))


@pytest.mark.parametrize(
    ("role", "driver"), [(role, driver) for role, drivers in PLAYERS.items() for driver in drivers]
)
def test_every_instrument_in_every_role_it_plays(role, driver):
    beam = {"scanner": "labjack_t7", "pige": "amptek_dp5", "pixe": "amptek_dp5"}
    chosen = {role: driver} if role not in ("scanner", "pixe", "pige") else {**beam, role: driver}
    station = a_station(chosen)
    assert station.device(role).driver == driver
    assert check_against(station, an_experiment(station)) == []


@pytest.mark.parametrize("driver", ONLY_MEASURE)
def test_an_instrument_that_only_measures_has_a_name_of_its_own(driver):
    station = a_station({"extra": driver})
    assert station.devices["extra"].driver == driver


def combinations():
    """Every set of roles, each with the first instrument that plays it; a scanner has both detectors."""
    for size in range(1, len(ROLES) + 1):
        for roles in itertools.combinations(ROLES, size):
            if len({"scanner", "pixe", "pige"} & set(roles)) in (0, 3):
                yield roles


@pytest.mark.parametrize("number", range(4))
def test_every_combination_of_roles(number):
    for roles in list(combinations())[number::4]:
        station = a_station({role: PLAYERS[role][0] for role in roles})
        assert {role for role, _ in station.roles.named()} == set(roles)
        assert check_against(station, an_experiment(station)) == []


def test_no_limit_is_guessed():
    """Whatever protects somebody is left to a person: none of it has a value in a new file."""
    text = station_text(plan({"heater": "eurotherm_3200", "cell": "palmsens_emstat4"}))
    data = tomllib.loads(text)
    told = [value for table in (data["limits"], data["device"]["io"]["relay"], data["device"]["io"]["permit"],
                                data["device"]["io"]["watchdog"], data["device"]["heater"]["sensor_break"])
            for value in leaves(table)]  # fmt: skip
    assert set(told) == {"FILL IN"}
    assert len(told) == 9 + 3 + 4


def leaves(value):
    if isinstance(value, dict):
        for inside in value.values():
            yield from leaves(inside)
    else:
        yield value


def test_a_blank_is_refused_with_what_it_is(tmp_path):
    text = station_text(plan({"heater": "eurotherm_3200"}))
    messages = {one.key: one.message for one in blanks(read_station, text)}
    assert re.fullmatch(
        r'station.toml: limits.current = "FILL IN" is not filled in: largest current of the cell, charging '
        r'or discharging; a current, such as "26 uA"; more than 0 A \(line \d+\)',
        messages["limits.current"],
    )
    assert "configuration list, Addr" in text
    assert len(messages) == text.count('= "FILL IN"')  # each once, and nothing else


def test_a_blank_in_a_list_is_found():
    with pytest.raises(Exception, match=r'to = \["FILL IN", "0 um"\] is not filled in'):
        read_experiment(
            '[experiment]\nname = "a"\n[sample]\nname = "a"\nchemistry = "lithium metal"\n'
            'capacity = "1 mAh"\ncapacity_error = "1 %"\n[[step]]\ndo = "move"\nto = ["FILL IN", "0 um"]\n'
        )


def switched_on(text):
    """Return a generated file with everything switched on that is shown behind a comment mark."""
    lines = []
    for line in text.splitlines():
        if "or, instead of the lines above" in line:  # the same table once more, as another kind
            lines.append("#STOP")
        lines.append(line[1:] if re.match(r"#[\[a-z_]+.*[=\]]", line) else line)
    kept, skip = [], False
    for line in lines:
        skip = line == "#STOP" or (skip and bool(line))
        kept.append("" if skip else line)
    return "\n".join(kept)


@pytest.mark.parametrize("role", ROLES)
def test_what_is_switched_off_is_toml_that_the_models_know(role):
    """Each key behind a comment mark is one of its table: switched on, nothing is unknown."""
    chosen = {role: PLAYERS[role][0]}
    if role in ("scanner", "pixe", "pige"):
        chosen = {"scanner": "labjack_t7", "pixe": "amptek_dp5", "pige": "amptek_dp5"}
    text = switched_on(station_text(plan(chosen)))
    messages = [str(one) for one in blanks(read_station, text)]
    wrong = [
        m for m in messages if re.search(r"is not a known key|must be (text|a list|a table|true|a number)", m)
    ]
    assert wrong == []
    experiment = switched_on(experiment_text(tuple(chosen)))
    messages = [str(one) for one in blanks(read_experiment, experiment)]
    wrong = [
        m for m in messages if re.search(r"is not a known key|must be (text|a list|a table|true|a number)", m)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({}, "no instrument was named"),
        ({"heater": "eurotherm"}, "did you mean eurotherm_3200?"),
        ({"heater": "palmsens_emstat4"}, "cannot be the heater: eurotherm_3200, host_pid, modbus_pid can"),
        ({"scanner": "labjack_t7"}, "add --with pixe=amptek_dp5 --with pige=amptek_dp5"),
        ({"pige": "amptek_dp5"}, "pige counts nothing without a scanner: add --with scanner=labjack_t7"),
        (
            {"oven": "eurotherm_3200"},
            "oven is no role, and eurotherm_3200 plays one: write heater=eurotherm_3200",
        ),
        ({"beam": "icpdas_m7015"}, "beam cannot be the name of a device"),
    ],
)
def test_what_makes_no_station_is_refused_with_what_to_do(chosen, says):
    with pytest.raises(ChoiceError, match=re.escape(says)):
        plan(chosen)


def test_what_is_needed_besides_is_added_and_said():
    made = plan({"heater": "host_pid"})
    assert made.drivers == {
        "heater": "host_pid", "thermometer": "icpdas_m7015", "supply": "aimtti_cpx400dp", "io": "labjack_t7",
    }  # fmt: skip
    assert any("own off path" in text for text in made.added)


@pytest.mark.parametrize("root", [Station, Experiment])
def test_every_key_says_what_it_is(root):
    """A key without words would stand bare in new files, in the reference and in messages."""
    bare = [f"{model.__name__}.{key.name}" for model in all_models(root) for key in keys_of(model)
            if len(key.text) < 4]  # fmt: skip
    assert not bare, "write what it is into controller/config/keys.toml, or Field(description=...)"


def test_words_belong_to_keys_that_exist():
    from controller.config.keys import words

    known = {}
    for root in (Station, Experiment, CalibrationFile):
        for model in all_models(root):
            for base in model.__mro__:
                for name in (base.__name__, f"{base.__module__.rpartition('.')[2]}.{base.__name__}"):
                    known.setdefault(name, set()).update(key.name for key in keys_of(model))
    stale = [
        f"{table}.{key}" for table, keys in words().items() for key in keys if key not in known.get(table, ())
    ]
    assert not stale


def test_questions_are_asked_role_by_role_and_wrong_answers_again():
    asked = []
    answers = iter(["1", "9", "keithley_2450", "", "", "", "2"])

    def ask(question):
        asked.append(question)
        return next(answers)

    found = ask_for_instruments(ask, drivers_by_role())
    assert found == {"heater": "eurotherm_3200", "cell": "keithley_2450", "radiography": "frame_live"}
    assert "9 is none of these" in asked[2]
    assert not any("gammas" in question for question in asked)  # nobody scans: no detector is asked for


def test_what_was_generated_is_checked_as_files(tmp_path):
    """The two files, filled in, pass the check that ``operando check --files-only`` makes."""
    text = station_text(plan({"heater": "eurotherm_3200", "cell": "keithley_2450"}), "bench-3")
    (tmp_path / "station.toml").write_text(filled(text, blanks(read_station, text), STATION))
    text = experiment_text(("heater", "cell"), "warm")
    (tmp_path / "experiment.toml").write_text(filled(text, blanks(read_experiment, text), EXPERIMENT))
    station, experiment = check_files(tmp_path / "station.toml", tmp_path / "experiment.toml")
    assert (station.name, experiment.name) == ("bench-3", "warm")
    assert [step.step.do for step in experiment.walk()] == ["ocv", "heat", "charge", "rest", "cool"]


def test_a_third_party_driver_gets_its_tables_and_its_own_keys(monkeypatch):
    """Its class may say which lines it speaks on, and describe its keys as a model."""
    from pydantic import BaseModel, Field

    from controller.starter import station

    class Settings(BaseModel):
        zero_mbar: float = Field(default=0.0, description="reading at vacuum, from the display")

    class Gauge:
        line_kinds = ("tcp",)
        settings_model = Settings

    monkeypatch.setattr(station, "known_drivers", lambda: frozenset({"acme_gauge", "labjack_t7"}))
    monkeypatch.setattr(station, "driver_class", lambda name: Gauge)
    text = station_text(plan({"gauge": "acme_gauge"}))
    table = tomllib.loads(text)
    assert table["device"]["gauge"]["driver"] == "acme_gauge"
    assert table["line"]["gauge"]["kind"] == "tcp"
    assert "# Reading at vacuum, from the display." in text
    assert "#zero_mbar = 0" in text
