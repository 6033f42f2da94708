"""A Keithley source in the station file."""

from __future__ import annotations

import pytest

from controller.config import ConfigErrors, check_against, experiment_from, from_text, station_from
from controller.config.station import Station
from controller.stamps import confirmed_by_person

from .conftest import HERE, Pairs, changed

CELL = 'driver = "palmsens_emstat4"\nline = "cell"\nmodel = "es4_hr"\nperiod = "1 s"\n'
WIRED = 'interlock = { wired_to = "spare contact of the relay K1", confirmed_by = "A. Person", \
confirmed_on = 2026-01-01 }\n'
TCP: Pairs = (
    ('kind = "serial"\nport = "/dev/pts/4"\nbaud = 921600', 'kind = "tcp"\nhost = "127.0.0.1"\nport = 5025'),
)


def station(model: str, *more: str, period: str = "1 s", lines: Pairs = ()) -> Station:
    table = f'driver = "keithley_{model}"\nline = "cell"\nperiod = "{period}"\n' + "".join(more)
    return station_from(from_text(changed("station.toml", ((CELL, table), *lines)), "station.toml"))


def test_settings_for_the_driver() -> None:
    made = station("2400", 'sense = "2-wire"\nnplc = 0.1\n', WIRED)
    cell = made.devices["cell"]
    told = cell.settings()
    assert (told["sense"], told["nplc"], told["interlock"]) == ("2-wire", 0.1, True)
    window = cell.hard_limits(made.limits, None)
    assert window["voltage_low_v"] == made.limits.voltage.low_v
    assert window["voltage_high_v"] == made.limits.voltage.high_v
    assert window["current_limit_a"] == made.limits.current_a


def test_the_interlock_is_what_a_person_confirmed() -> None:
    (found,) = [one for one in confirmed_by_person(station("2400", WIRED)) if one["device"] == "cell"]
    assert (found["what"], found["setting"]) == ("interlock wired to", "spare contact of the relay K1")
    assert station("2400").devices["cell"].settings()["interlock"] is False


def test_the_lease_of_a_2450() -> None:
    assert station("2450", lines=TCP).devices["cell"].settings()["lease_s"] == 10.0
    assert station("2450", 'lease = "20 s"\n', lines=TCP).devices["cell"].settings()["lease_s"] == 20.0


@pytest.mark.parametrize(
    ("model", "more", "period", "lines", "says"),
    [
        ("2400", "", "0.1 s", (), "0.2 s to 10 s"),
        ("2400", "nplc = 100.0\n", "1 s", (), "nplc"),
        ("2400", 'lease = "10 s"\n', "1 s", (), "lease"),
        ("2450", 'lease = "1 s"\n', "1 s", TCP, "lease"),
        ("2450", "", "1 s", (), "tcp"),
        ("2400", 'interlock = { wired_to = "K1" }\n', "1 s", (), "interlock"),
    ],
)
def test_what_is_refused(model: str, more: str, period: str, lines: Pairs, says: str) -> None:
    with pytest.raises(ConfigErrors, match=says):
        station(model, more, period=period, lines=lines)


@pytest.mark.parametrize("model", ["2400", "2450"])
def test_a_sweep_is_refused_by_check(model: str) -> None:
    text = (
        HERE / "experiment.toml"
    ).read_text() + '\n[[step]]\ndo = "eis"\namplitude = "10 mV"\nstart = "1 kHz"\n'
    text += 'stop = "1 Hz"\npoints = 5\ntimeout = "10 min"\n'
    experiment = experiment_from(from_text(text, "experiment.toml"))
    made = station(model, lines=TCP if model == "2450" else ())
    told = [problem.message for problem in check_against(made, experiment)]
    assert any("needs impedance (EIS), and Keithley source has none" in message for message in told), told
