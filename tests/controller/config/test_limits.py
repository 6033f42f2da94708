import pytest

from controller.config import (
    ConfigErrors,
    Experiment,
    check_against,
    check_files,
    effective_limits,
    experiment_from,
    from_text,
)

from .conftest import HERE, changed, split_line

# The limits of the test station are typed here once more, in the messages: 263 to 343 K, 20 K/min, 2.5 to
# 4.05 V, 40 uA, 1 mAh, 1e17 /cm2, 100 ms; the deflection reaches +-250 um in x and +-500 um in y.


def problems_of(station, *pairs):
    experiment = experiment_from(from_text(changed("experiment.toml", pairs), "experiment.toml"))
    return [split_line(problem.message)[0] for problem in check_against(station, experiment)]


def test_the_valid_pair_has_no_problem(station, experiment):
    assert check_against(station, experiment) == []


OVER = [
    (
        ('voltage = "4.0 V"', 'voltage = "4.6 V"'),
        'step[3].step[0].voltage = "4.6 V" is above the station limit 4.05 V',
    ),
    (
        ('voltage = "4.0 V"', 'voltage = "2.4 V"'),
        'step[3].step[0].voltage = "2.4 V" is below the station limit 2.5 V',
    ),
    (
        ('current = "13 uA"', 'current = "0.041 mA"'),
        'step[3].step[0].current = "0.041 mA" is above the station limit 40 uA',
    ),
    (
        ('to = "333 K"', 'to = "75 degC"'),
        'step[2].to = "75 degC" is above the station limit 343 K',
    ),
    (
        ('to = "333 K"', 'to = "250 K"'),
        'step[2].to = "250 K" is below the station limit 263 K',
    ),
    (
        ('to = "333 K"', 'to = "342 K"'),
        'step[2].within = "2 K" reaches 344 K, above the station limit 343 K: the guard would trip '
        "inside the band",
    ),
    (
        ('ramp = "10 K/min"', 'ramp = "0.5 K/s"'),
        'step[2].ramp = "0.5 K/s" is above the station limit 20 K/min',
    ),
    (
        ('dwell = "30 ms"', 'dwell = "0.105 s"'),
        'step[0].raster.dwell = "0.105 s" is above the station limit 100 ms',
    ),
    (
        ('size = ["100 um", "300 um"]', 'size = ["520 um", "300 um"]'),
        'step[0].raster.size[0] = "520 um" is outside the field of the beam: it would reach from -260 '
        "um to 260 um in x, the deflection only from -250 um to 250 um",
    ),
    (
        (
            'size = ["100 um", "300 um"], dwell',
            'size = ["100 um", "300 um"], centre = ["0 um", "400 um"], dwell',
        ),
        'step[0].raster.size[1] = "300 um" is outside the field of the beam: it would reach from 250 '
        "um to 550 um in y, the deflection only from -500 um to 500 um",
    ),
    (
        (
            'size = ["100 um", "300 um"], dwell = "30 ms" }\nuntil = { passes = 4 }',
            'size = ["2 um", "2 um"], dwell = "30 ms" }\nuntil = { counts = { element = "Li", layer = '
            '"cathode", at_least = 5 } }',
        ),
        "step[0].raster brings the dose at its worst place to 6.74e+18 /cm2, above the station limit "
        "1e+17 /cm2: scan a larger field, or for a shorter time",
    ),
    (
        (
            'element = "Co"\ndetector = "pixe"',
            'element = "Co"\ndetector = "pixe"\nwindow = ["6.8 keV", "21 keV"]',
        ),
        'analysis.line[1].window = ["6.8 keV", "21 keV"] ends above the spectrum of pixe, 20.48 keV',
    ),
]


@pytest.mark.parametrize(("change", "message"), OVER, ids=[message[:50] for _, message in OVER])
def test_set_points_beyond_a_limit(change, message, station):
    assert problems_of(station, change) == [f"experiment.toml: {message}"]


def test_pulses_and_widths_have_the_same_limits(station):
    pulse = 'do = "pulse"\ndirection = "charge"\ncurrent = "3C"\non = "5 s"\nrest = "5 s"\ntimes = 2'
    assert problems_of(station, ('do = "background"\nduration = "60 s"', pulse)) == [
        'experiment.toml: step[4].current = "3C" is above the station limit 40 uA'
    ]


def test_sums_may_reach_their_limit(station_with):
    assert problems_of(station_with(('charge = "1 mAh"', 'charge = "10 uAh"'))) == []
    assert len(problems_of(station_with(('charge = "1 mAh"', 'charge = "9.9 uAh"')))) == 2
    window = (
        'element = "Co"\ndetector = "pixe"',
        'element = "Co"\ndetector = "pixe"\nwindow = ["6 keV", "20.48 keV"]',
    )
    assert problems_of(station_with(), window) == []


def test_limits_are_inclusive_however_they_are_written(station):
    assert problems_of(station, ('voltage = "4.0 V"', 'voltage = "2500 mV"')) == []
    assert problems_of(station, ('voltage = "4.0 V"', 'voltage = "4050 mV"')) == []
    assert problems_of(station, ('current = "13 uA"', 'current = "0.04 mA"')) == []
    assert problems_of(station, ('dwell = "30 ms"', 'dwell = "0.1 s"')) == []
    assert problems_of(station, ('size = ["100 um", "300 um"]', 'size = ["500 um", "1 mm"]')) == []
    assert problems_of(station, ('"300 um"], dwell', '"200 um"], centre = ["0 um", "-400 um"], dwell')) == []
    assert problems_of(station, ('ramp = "10 K/min"', 'ramp = "1200 K/h"')) == []


def test_the_chemistry_wins_over_a_generous_station(station_with):
    generous = station_with(('high = "343 K"', 'high = "473 K"'))
    assert problems_of(generous, ('to = "333 K"', 'to = "430 K"')) == []
    assert problems_of(generous, ('to = "333 K"', 'to = "450 K"')) == [
        'experiment.toml: step[2].to = "450 K" is above the limit for lithium metal (lithium melts at '
        "453.7 K, margin "
        "20 K), 433.7 K"
    ]
    sodium = (('to = "333 K"', 'to = "90 degC"'), ("lithium metal", "sodium metal"))
    assert problems_of(generous, *sodium) == [
        'experiment.toml: step[2].to = "90 degC" is above the limit for sodium metal (sodium melts at '
        "370.9 K, margin "
        "20 K), 350.9 K"
    ]


OWN = 'capacity_error = "5 %"\nlimits = { voltage = { high = "3.9 V" }, temperature = { high = "400 K" } }'


def test_the_sample_can_only_narrow_the_limits(station):
    own = ('capacity_error = "5 %"', OWN)
    assert problems_of(station, own) == [
        'experiment.toml: step[3].step[0].voltage = "4.0 V" is above the sample\'s own limit 3.9 V'
    ]
    assert problems_of(station, own, ('voltage = "4.0 V"', 'voltage = "3.9 V"'), ('"333 K"', '"350 K"')) == [
        'experiment.toml: step[2].to = "350 K" is above the station limit 343 K'
    ]


def test_the_guard_gets_the_tightest_limits(station, station_with, experiment_with):
    experiment = experiment_with(('capacity_error = "5 %"', OWN))
    window = effective_limits(station, experiment)
    assert (window.voltage_low_v, window.voltage_high_v) == (2.5, 3.9)
    assert (window.temperature_low_k, window.temperature_high_k) == (263.0, 343.0)
    assert window.temperature_rate_k_per_s == pytest.approx(20.0 / 60.0)
    assert (window.current_a, window.charge_coulomb) == (pytest.approx(40e-6), pytest.approx(3.6))
    generous = station_with(('high = "343 K"', 'high = "473 K"'))
    assert effective_limits(generous, experiment).temperature_high_k == 400.0
    assert effective_limits(generous, experiment_with()).temperature_high_k == pytest.approx(433.7)


def test_charge_adds_up_over_the_steps(station_with):
    station = station_with(('charge = "1 mAh"', 'charge = "15 uAh"'))
    again = '\n[[step]]\ndo = "charge"\ncurrent = "5 uA"\nuntil = { charge = "6 uAh" }\ntimeout = "2 h"\n'
    assert problems_of(station, ('duration = "60 s"', 'duration = "60 s"' + again)) == [
        "experiment.toml: step[5] brings the charge passed to 16 uAh, above the station limit 15 uAh"
    ]
    back = again.replace('"charge"', '"discharge"')
    assert problems_of(station, ('duration = "60 s"', 'duration = "60 s"' + back + again)) == []
    assert (
        problems_of(station, ('charge = "10 uAh"', 'charge = "16 uAh"'))
        == [
            'experiment.toml: step[3].step[0].until.charge = "16 uAh" is above the station limit 15 uAh',
            "experiment.toml: step[3].step[0] could pass 16 uAh, above the station limit 15 uAh: give "
            "until.charge",
        ][::-1]
    )


def test_charge_is_followed_turn_by_turn(station_with):
    """10 uAh are in the cell; what goes out and in again five times adds nothing, 2 uAh five times do."""
    station = station_with(('charge = "1 mAh"', 'charge = "15 uAh"'))

    def five_times(*inside):
        steps = "".join(
            f'[[step.step]]\ndo = "{kind}"\ncurrent = "5 uA"\nuntil = {{ {until} }}\ntimeout = "3 h"\n'
            for kind, until in inside
        )
        return ('duration = "60 s"', f'duration = "60 s"\n[[step]]\ndo = "repeat"\ntimes = 5\n{steps}')

    balanced = five_times(("discharge", 'charge = "9 uAh"'), ("charge", 'charge = "9 uAh"'))
    assert problems_of(station, balanced) == []
    window = five_times(("discharge", 'soc = "10 %"'), ("charge", 'soc = "60 %"'))
    assert problems_of(station, window) == []
    assert problems_of(station, five_times(("charge", 'charge = "2 uAh"'))) == [
        "experiment.toml: step[5].step[0] brings the charge passed to 20 uAh, above the station limit 15 uAh"
    ]


def test_a_step_that_nothing_stops_in_time(station_with):
    station = station_with(('charge = "1 mAh"', 'charge = "15 uAh"'))
    until = 'until = { duration = "2 h", current_below = "C/50", charge = "10 uAh" }'
    assert problems_of(station, (until, 'until = { duration = "2 h" }')) == [  # 13 uA * 2 h
        "experiment.toml: step[3].step[0] could pass 26 uAh, above the station limit 15 uAh: give "
        "until.charge"
    ]


def test_calibration_energy_and_angle_belong_to_the_beam(station_with, experiment):
    station = station_with(
        ('foil_loss = "109 keV"', 'foil_loss = "20 keV"'), ('angle = "0 deg"', 'angle = "135 deg"')
    )
    (problem,) = check_against(station, experiment)
    assert split_line(problem.message)[0] == (
        'experiment.toml: analysis.calibration = "lco-meep-2.91MeV" does not apply to this station: the '
        "beam behind "
        "the foil has 3 MeV instead of 2.911 MeV; the gamma detector stands at 135 deg instead of 0 deg"
    )


def test_a_station_without_what_the_steps_need(station_with):
    station = station_with(('cell = "cell"\n', ""), ('pige = "pige"\n', ""))
    messages = problems_of(station)
    assert (
        'experiment.toml: step[1].do = "ocv" needs a cell, and the station bench has none in [roles]'
        in messages
    )
    assert (
        'experiment.toml: step[0].do = "scan" needs a pige, and the station bench has none in [roles]'
        in messages
    )
    assert len([text for text in messages if "needs a pige" in text]) == 3  # two scans and the background


def test_move_shifts_the_field(station):
    move = '[[step]]\ndo = "move"\nto = ["210 um", "0 um"]\n'
    assert problems_of(station, ('[[step]]\ndo = "heat"', move + '[[step]]\ndo = "heat"')) == [
        'experiment.toml: step[4].step[1].raster.size[0] = "100 um" is outside the field of the beam: it '
        "would reach "
        "from 160 um to 260 um in x, the deflection only from -250 um to 250 um"
    ]


def test_all_problems_in_the_order_of_the_file(station):
    messages = problems_of(
        station, ('dwell = "30 ms"', 'dwell = "0.105 s"'), ('to = "333 K"', 'to = "400 K"'),
        ("4.0 V", "4.6 V"), ('current = "13 uA"', 'current = "1 mA"'),
    )  # fmt: skip
    assert [message.split(" ")[1] for message in messages] == [
        "step[0].raster.dwell", "step[2].to", "step[3].step[0].current", "step[3].step[0].voltage",
    ]  # fmt: skip


def test_both_files_and_their_limits_in_one_go(tmp_path):
    station = tmp_path / "station.toml"
    experiment = tmp_path / "experiment.toml"
    station.write_text((HERE / "station.toml").read_text())
    experiment.write_text((HERE / "experiment.toml").read_text())
    assert isinstance(check_files(station, experiment)[1], Experiment)
    wrong = (('current = "13 uA"', "current = 13"), ('to = "333 K"', 'to = "400 K"'))
    experiment.write_text(changed("experiment.toml", wrong))
    with pytest.raises(ConfigErrors) as caught:
        check_files(station, experiment)
    assert [problem.key for problem in caught.value.problems] == ["step[3].step[0].current", "step[2].to"]
    station.write_text(changed("station.toml", (('"343 K"', '"343 V"'),)))
    with pytest.raises(ConfigErrors) as caught:
        check_files(station, experiment)
    assert [(problem.file, problem.key) for problem in caught.value.problems] == [
        ("station.toml", "limits.temperature.high"),
        ("experiment.toml", "step[3].step[0].current"),
    ]
    (problem, _) = caught.value.problems
    assert problem.as_dict() == {
        "file": "station.toml",
        "key": "limits.temperature.high",
        "value": '"343 V"',
        "limit": "",
        "line": 83,
        "message": 'station.toml: limits.temperature.high = "343 V" is a voltage, but a temperature is '
        "needed, such as "
        '"333 K" or "60 degC" (line 83)',
    }


def test_a_problem_carries_its_parts(station):
    experiment = experiment_from(
        from_text(changed("experiment.toml", (("4.0 V", "4.6 V"),)), "experiment.toml")
    )
    (problem,) = check_against(station, experiment)
    assert (problem.file, problem.key, problem.value, problem.limit) == (
        "experiment.toml", "step[3].step[0].voltage", '"4.6 V"', "4.05 V",
    )  # fmt: skip
