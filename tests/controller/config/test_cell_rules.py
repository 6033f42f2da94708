"""Impedance sweeps and pulses against the window of the cell and the abilities of the potentiostat."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from controller.config import ConfigErrors, check_against, experiment_from, from_text
from controller.config.cell_rules import complaints
from controller.config.experiment import Experiment
from controller.config.steps import Impedance, Pulse
from drivers.methodscript_models import CAPABILITIES

from .conftest import HERE

HR, PICO = CAPABILITIES["es4_hr"].abilities, CAPABILITIES["pico"].abilities


@dataclass
class Window:
    voltage_low_v: float = 2.5
    voltage_high_v: float = 4.05
    current_a: float = 40e-6


def sweep(**keys: object) -> Impedance:
    table = {"do": "eis", "start": "10 kHz", "stop": "0.1 Hz", "points": 26, "timeout": "20 min", **keys}
    return Impedance.model_validate(table)


def galvanostatic(**keys: object) -> Impedance:
    return sweep(**{"mode": "galvanostatic", "current_amplitude": "2 uA", **keys})


@pytest.mark.parametrize("step", [sweep(), sweep(voltage="3.9 V"), galvanostatic(current="-5 uA")])
def test_what_fits_is_not_complained_about(step: Impedance) -> None:
    assert list(complaints(step, HR, Window())) == []
    assert list(complaints(step, None, Window())) == []


@pytest.mark.parametrize(
    ("step", "able", "key", "text"),
    [
        (
            galvanostatic(start="150 kHz"),
            HR,
            "start",
            "EmStat4 HR measures in this mode, 0.01 mHz to 100 kHz",
        ),
        (sweep(stop="10 mHz"), PICO, "stop", "EmStat Pico measures in this mode, 16 mHz to 200 kHz"),
        (sweep(amplitude="0.5 mV"), HR, "amplitude", "EmStat4 HR gives, 1 mV to 900 mV rms"),
        (
            galvanostatic(),
            PICO,
            "do",
            'EmStat Pico has none; leave out mode = "galvanostatic", or use another',
        ),
        (galvanostatic(), replace(HR, geis=None), "do", "needs galvanostatic impedance (GEIS)"),
        (sweep(), replace(HR, eis=None), "do", "needs impedance (EIS), and EmStat4 HR has none; use another"),
        # 20 uA + 1.414 x 15 uA = 41.2 uA
        (galvanostatic(current="20 uA", current_amplitude="15 uA"), HR, "current_amplitude", "41.2132 uA"),
        (sweep(voltage="4.04 V"), HR, "voltage", "with its sine reaches 4.05414 V, beyond the limit 4.05 V"),
        (sweep(voltage="2.51 V"), HR, "voltage", "with its sine reaches 2.49586 V, beyond the limit 2.5 V"),
    ],
)
def test_what_does_not_fit_is_told_with_the_limit(step: Impedance, able: object, key: str, text: str) -> None:
    window = Window(0.0, 2.0) if able is PICO else Window()
    (found,) = complaints(step, able, window)  # type: ignore[arg-type]
    assert found[0] == key
    assert text in found[1]


def test_a_pulse_needs_a_galvanostat_and_its_current() -> None:
    table = {
        "do": "pulse",
        "direction": "charge",
        "current": "20 uA",
        "on": "10 s",
        "rest": "60 s",
        "times": 3,
    }
    step = Pulse.model_validate(table)
    assert list(complaints(step, HR, Window())) == []
    assert list(complaints(step, PICO, Window(0.0, 2.0))) == [
        ("current", "needs a galvanostat, and EmStat Pico has none", "")
    ]
    (found,) = complaints(step, replace(HR, most_a=1e-5), Window())
    assert found[0] == "current"
    assert "above what EmStat4 HR gives, 10 uA" in found[1]


def with_steps(steps: str) -> Experiment:
    text = (HERE / "experiment.toml").read_text()
    return experiment_from(from_text(text + steps, "experiment.toml"))


EIS = '\n[[step]]\ndo = "eis"\nstart = "10 kHz"\nstop = "1 Hz"\npoints = 9\ntimeout = "10 min"\n'


def test_a_window_beyond_what_the_model_can_measure() -> None:
    """An LR ends at 3 V: a cell of 4.05 V is nothing for it, whatever the step."""
    able = CAPABILITIES["es4_lr"].abilities
    ((key, text, limit),) = complaints(sweep(), able, Window())
    assert key == "do"
    assert "limits of 2.5 V to 4.05 V, and EmStat4 LR reaches from -3 V to 3 V" in text
    assert limit == "-3 V to 3 V"
    assert list(complaints(sweep(), able, Window(0.5, 2.8))) == []


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ('mode = "galvanostatic"', "current_amplitude is missing: the sine of current, rms"),
        ('current_amplitude = "1 uA"', "has no meaning in a potentiostatic sweep"),
        ('mode = "galvanostatic"\ncurrent_amplitude = "1 uA"\nvoltage = "3.9 V"', "in a galvanostatic sweep"),
        ('circuit = "R0;import os"', "circuit"),
    ],
)
def test_keys_of_the_other_mode_are_refused(keys: str, text: str) -> None:
    with pytest.raises(ConfigErrors, match=text):
        with_steps(EIS + keys + "\n")


def test_the_message_names_file_key_and_what_to_do(station) -> None:  # type: ignore[no-untyped-def]
    """The station of the tests has an EmStat4 HR: its galvanostatic sweeps end at 100 kHz."""
    more = EIS.replace('"10 kHz"', '"150 kHz"') + 'mode = "galvanostatic"\ncurrent_amplitude = "1 uA"\n'
    (found,) = check_against(station, with_steps(more))
    assert "start" in found.message
    assert "EmStat4 HR" in found.message


def test_a_sweep_with_a_bias_passes_charge_and_must_not_come_before_the_reference() -> None:
    text = (HERE / "experiment.toml").read_text()
    at = text.index("[[step]]")
    plain = text[:at] + EIS.lstrip() + "\n" + text[at:]
    experiment_from(from_text(plain, "experiment.toml"))
    biased = plain.replace("points = 9", 'points = 9\nvoltage = "3.9 V"')
    with pytest.raises(ConfigErrors, match="would charge the cell before it was seen"):
        experiment_from(from_text(biased, "experiment.toml"))
