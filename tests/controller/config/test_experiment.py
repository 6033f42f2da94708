import pytest

from controller.config import ConfigErrors, experiment_from, from_text, load_experiment
from controller.config.experiment import Partial

from .conftest import HERE, changed, split_line

CHARGE_SCAN = (
    'do = "scan"\nname = "charging"\n'
    'raster = { pixels = [64, 64], size = ["100 um", "300 um"], dwell = "30 ms" }'
)


def test_the_experiment_is_read_in_si(experiment):
    assert experiment.name == "quickstart"
    assert experiment.sample.capacity_coulomb == pytest.approx(0.072)
    assert experiment.sample.capacity_error == pytest.approx(0.05)
    heat = experiment.steps[2]
    assert (heat.to_k, heat.within_k, heat.stable_s, heat.timeout_s) == (333.0, 2.0, 60.0, 1800.0)
    assert heat.ramp_k_per_s == pytest.approx(10.0 / 60.0)
    charge, scan = experiment.steps[3].steps
    assert charge.mode == "cccv"
    assert charge.current_a == pytest.approx(13e-6)
    assert charge.until.current_below_a == pytest.approx(0.4e-6)  # 20 uAh / 50 h
    assert charge.until.charge_coulomb == pytest.approx(0.036)
    assert scan.until is None
    raster = scan.raster.scan((10.0, -20.0))
    assert (raster.nx, raster.ny, raster.width_um, raster.height_um) == (64, 64, 100.0, 300.0)
    assert (raster.dwell_s, raster.centre_x_um, raster.centre_y_um) == (0.03, 10.0, -20.0)


def test_places_and_purposes(experiment):
    placed = {one.key: experiment.purpose(one) for one in experiment.walk()}
    assert placed == {
        "step[0]": "reference",
        "step[1]": "ocv",
        "step[2]": "heat",
        "step[3]": "parallel",
        "step[3].step[0]": "charge",
        "step[3].step[1]": "charging",
        "step[4]": "background",
    }


def test_scans_before_and_after_the_reference(experiment_with):
    scan = (HERE / "experiment.toml").read_text().partition("[[step]]")[2].partition("[[step]]")[0]
    early = "[[step]]" + scan.replace("as prepared", "find it")
    late = "[[step]]" + scan.replace("as prepared", "at the end")
    experiment = experiment_with(('[[step]]\ndo = "scan"', early + '[[step]]\ndo = "scan"'),
                                 ('duration = "60 s"', 'duration = "60 s"\n' + late))  # fmt: skip
    purposes = [experiment.purpose(one) for one in experiment.walk() if one.step.do == "scan"]
    assert purposes == ["overview", "reference", "charging", "after"]


def test_c_rates_refer_to_the_theoretical_capacity_where_one_is_given(experiment_with):
    experiment = experiment_with(
        ('capacity = "20 uAh"', 'capacity = "20 uAh"\ntheoretical_capacity = "10 uAh"')
    )
    assert experiment.steps[3].steps[0].until.current_below_a == pytest.approx(0.2e-6)


def test_repeat_and_every_other_kind_of_step(experiment_with):
    more = """
[[step]]
do = "repeat"
times = 3
[[step.step]]
do = "discharge"
current = "C/10"
until = { voltage = "3.0 V" }
timeout = "12 h"
[[step.step]]
do = "charge"
voltage = "3.9 V"
until = { current_below = "C/50", soc = "90 %" }
timeout = "12 h"
[[step]]
do = "pulse"
direction = "charge"
current = "2C"
on = "10 s"
rest = "10 min"
times = 4
[[step]]
do = "eis"
start = "100 kHz"
stop = "0.1 Hz"
points = 60
amplitude = "5 mV"
timeout = "20 min"
[[step]]
do = "cool"
to = "40 degC"
ramp = "2 K/min"
timeout = "1 h"
[[step]]
do = "move"
to = ["20 um", "-5 um"]
[[step]]
do = "calibrate"
detectors = ["pixe"]
raster = { pixels = [16, 16], size = ["50 um", "50 um"], dwell = "10 ms", centre = ["1 um", "2 um"] }
until = { duration = "5 min" }
timeout = "10 min"
on_timeout = "continue"
[[step]]
do = "scan"
name = "long"
raster = { pixels = [16, 16], size = ["50 um", "50 um"], dwell = "10 ms" }
timeout = "1 h"
[step.until]
dose = "1e15 /cm2"
counts = { element = "Co", layer = "separator", at_least = 1000 }
uncertainty = { quantity = "x", layer = "cathode", below = "2 %" }
[[step]]
do = "hold"
duration = "5 min"
[[step]]
do = "rest"
duration = "5 min"
[[step]]
do = "message"
text = "change the filter"
wait = true
timeout = "1 h"
"""
    experiment = experiment_with(('duration = "60 s"', 'duration = "60 s"' + more))
    by_key = {one.key: one for one in experiment.walk()}
    assert by_key["step[5].step[0]"].repeats == 3
    assert by_key["step[5].step[0]"].step.mode == "cc"
    assert by_key["step[5].step[0]"].step.current_a == pytest.approx(2e-6)
    assert by_key["step[5].step[1]"].step.mode == "cv"
    assert by_key["step[5].step[1]"].step.until.soc == pytest.approx(0.9)
    assert by_key["step[6]"].step.current_a == pytest.approx(40e-6)
    assert by_key["step[8]"].step.to_k == pytest.approx(313.15)
    assert by_key["step[9]"].step.to_um == (20.0, -5.0)
    assert by_key["step[10]"].step.raster.centre_um == (1.0, 2.0)
    assert by_key["step[11]"].step.until.uncertainty.below == pytest.approx(0.02)
    assert by_key["step[14]"].step.on_timeout == "abort"


WRONG = [
    # --- units, types, keys
    (
        ('current = "13 uA"', "current = 13"),
        'step[3].step[0].current = 13 has no unit: a current is needed, such as "26 uA"',
    ),
    (
        ('to = "333 K"', 'to = "60 C"'),
        'step[2].to = "60 C" is an electric charge, but a temperature is needed, such as "333 K" or '
        '"60 degC"; did you mean "60 degC"?',
    ),
    (
        ('within = "2 K"', 'within = "2 s"'),
        'step[2].within = "2 s" is a time, but a temperature difference is needed, such as "2 K"',
    ),
    (
        ('duration = "30 s"', 'duration = "0 s"'),
        'step[1].duration = "0 s" must be more than 0 s',
    ),
    (
        ('capacity = "20 uAh"', 'capacity = "20 uA"'),
        'sample.capacity = "20 uA" is a current, but an electric charge is needed, such as "10 uAh" or '
        '"36 mC"',
    ),
    (
        ('capacity = "20 uAh"', 'capacity = "20 uA"'),
        'step[3].step[0].until.current_below = "C/50" is a C-rate, which needs a valid '
        'sample.capacity: write a current such as "26 uA"',
    ),
    (
        ('capacity_error = "5 %"', "capacity_error = 0.05"),
        'sample.capacity_error = 0.05 has no unit: a percentage is needed, such as "5 %"',
    ),
    (
        ('stable = "60 s"', 'stabel = "60 s"'),
        'step[2].stabel = "60 s" is not a known key; did you mean "stable"?',
    ),
    (
        ("passes = 4", "passes = 2.5"),
        "step[0].until.passes = 2.5 must be a whole number (without quotes)",
    ),
    (
        ("passes = 4", "passes = 0"),
        "step[0].until.passes = 0 must be at least 1",
    ),
    (
        ("pixels = [64, 64]", "pixels = [64]"),
        "step[0].raster.pixels[1] is missing",
    ),
    (
        ("pixels = [64, 64]", "pixels = [64, 1]"),
        "step[0].raster.pixels[1] = 1 must be from 2 to 1024",
    ),
    (
        ('size = ["100 um", "300 um"]', 'size = ["100 um", "0 um"]'),
        'step[0].raster.size[1] = "0 um" must be more than 0 um',
    ),
    (
        ('do = "background"', 'do = "backgroud"'),
        'step[4].do = "backgroud" is not known; did you mean "background"?',
    ),
    (
        ('do = "background"\n', ""),
        'step[4].do is missing: what this step does, such as do = "scan"',
    ),
    (
        ('name = "quickstart"', 'name = "quick start"'),
        'experiment.name = "quick start" must be a short name: letters, digits, - and _ (at most 40)',
    ),
    (
        ('title = "t"', "title = 5"),
        "experiment.title = 5 must be text in quotes",
    ),
    # --- waiting without an end
    (
        ('timeout = "3 h"\n', ""),
        'step[3].step[0].timeout is missing: every wait needs one, such as "30 min"',
    ),
    (
        ('until = { passes = 4 }\ntimeout = "30 min"', "until = { passes = 4 }"),
        'step[0].timeout is missing: every wait needs one, such as "30 min"',
    ),
    (
        ("until = { passes = 4 }\n", ""),
        "step[0].until is missing: this scan would never end; give it one, such as { passes = 4 } "
        "(only inside parallel may a scan follow the others)",
    ),
    (
        ("until = { passes = 4 }", "until = {}"),
        "step[0].until needs an end: passes, duration, counts, uncertainty or dose, such as { passes = 4 }",
    ),
    (
        ('until = { duration = "2 h", current_below = "C/50", charge = "10 uAh" }', "until = {}"),
        "step[3].step[0].until needs an end: duration, voltage, current_below, charge or soc, such as "
        '{ duration = "2 h" }',
    ),
    (
        ('timeout = "3 h"', 'timeout = "1 h"'),
        'step[3].step[0].timeout = "1 h" is shorter than until.duration, 2 h: it would strike first',
    ),
    (
        ('stable = "60 s"', 'stable = "30 min"'),
        'step[2].stable = "30 min" is not shorter than the timeout: this step could only time out',
    ),
    (
        ('timeout = "30 min"', 'timeout = "2 min"'),
        'step[0].timeout = "2 min" is shorter than a single pass: 64 x 64 pixels of 30 ms are 2.05 min '
        "of beam",
    ),
    (
        ('timeout = "30 min"', 'timeout = "8 min"'),
        'step[0].timeout = "8 min" is too short for 4 passes, which are 8.19 min of beam',
    ),
    (
        ('timeout = "3 h"', 'timeout = "3 h"\non_timeout = "ignore"'),
        'step[3].step[0].on_timeout = "ignore" must be one of "continue", "pause", "abort" or "ask"',
    ),
    # --- the cell
    (
        ('current = "13 uA"\nvoltage = "4.0 V"\n', ""),
        "step[3].step[0] needs a current (constant current), a voltage (constant voltage), or both (CC-CV)",
    ),
    (
        ('current = "13 uA"', 'current = "-13 uA"'),
        'step[3].step[0].current = "-13 uA" must be more than 0 A',
    ),
    (
        ('current = "13 uA"', 'current = "C/100"'),
        'step[3].step[0].until.current_below = "C/50" is not below the current 200 nA: the step would '
        "end at once",
    ),
    (
        ('voltage = "4.0 V"\n', ""),
        'step[3].step[0].until.current_below = "C/50" can only end a constant-voltage phase: give a '
        "voltage as well",
    ),
    (
        ('until = { duration = "2 h"', 'until = { voltage = "4.0 V", duration = "2 h"'),
        'step[3].step[0].until.voltage = "4.0 V" contradicts voltage, which is held once it is '
        "reached: leave one of them out",
    ),
    (
        ('charge = "10 uAh"', 'charge = "30 uAh"'),
        'step[3].step[0].until.charge = "30 uAh" is more than the cell holds: sample.capacity is 20 uAh',
    ),
    (
        ('charge = "10 uAh"', 'soc = "150 %"'),
        'step[3].step[0].until.soc = "150 %" is above 100 %',
    ),
    # --- order and company
    (
        ('name = "as prepared"', 'name = "as prepard"'),
        'analysis.reference = "as prepared" is the name of no scan step; did you mean "as prepard"?',
    ),
    (
        ('name = "as prepared"', 'name = "as prepard"'),
        "step[3].step[0] would charge the cell before it was seen as prepared: there is no reference "
        "scan, and a change that has begun cannot be measured afterwards",
    ),
    (
        ('reference = "as prepared"', 'reference = "charging"'),
        "step[3].step[0] would charge the cell before it was seen as prepared: the reference scan "
        '"charging" runs at the same time, and a change that has begun cannot be measured afterwards',
    ),
    (
        (
            'do = "ocv"\nduration = "30 s"',
            'do = "repeat"\ntimes = 2\n[[step.step]]\ndo = "charge"\nvoltage = "1 V"',
        ),
        'step[1].step[0].until is missing: what ends this step, such as { duration = "2 h" }',
    ),
    (
        ('name = "charging"', 'name = "as prepared"'),
        'step[3].step[1].name = "as prepared" is the name of an earlier step: names must be unique',
    ),
    (
        (CHARGE_SCAN, 'do = "ocv"\nduration = "3 s"'),
        "step[3].step[1] (ocv) needs the cell at the same time as charge, next to it",
    ),
    (
        ("[[step.step]]\n" + CHARGE_SCAN, ""),
        "step[3].step needs at least 2 entries",
    ),
    (
        (
            'do = "ocv"\nduration = "30 s"',
            'do = "eis"\nstart = "1 Hz"\nstop = "1 kHz"\npoints = 5\ntimeout = "1 h"',
        ),
        'step[1].stop = "1 kHz" is not below start: a sweep goes from high to low frequency',
    ),
    (
        ('do = "ocv"\nduration = "30 s"', 'do = "message"\ntext = "well?"\nwait = true'),
        'step[1].timeout is missing: every wait needs one, such as "30 min"',
    ),
    # --- goals
    (
        ("passes = 4", 'counts = { element = "Zr", layer = "cathode", at_least = 9 }'),
        'step[0].until.counts.element = "Zr" is not counted: the analysis lines are "Li", "Co", "P"',
    ),
    (
        ("passes = 4", 'counts = { element = "Li", layer = "kathode", at_least = 9 }'),
        'step[0].until.counts.layer = "kathode" is no layer: there are "anode", "separator", "cathode"',
    ),
    (
        ("passes = 4", 'uncertainty = { quantity = "x", layer = "separator", below = "3 %" }'),
        'step[0].until.uncertainty.layer = "separator" hosts no lithium: x exists only for "cathode"',
    ),
    (
        ("passes = 4", 'uncertainty = { quantity = "soc", layer = "cathode", below = "3 %" }'),
        'step[0].until.uncertainty.quantity = "soc" must be one of "li_relative", "li_per_charge", "x" '
        'or "soc_beam"',
    ),
    # --- sample
    (
        ('chemistry = "lithium metal"', 'chemistry = "lithium"'),
        'sample.chemistry = "lithium" is no chemistry that limits are known for; did you mean "lithium '
        'metal"?',
    ),
    (
        ("LiCoO2 = 0.85", "LiCoO2 = 0.8"),
        "sample.layer[2].mass_fractions add up to 0.95, not to 1",
    ),
    (
        ("LiCoO2 = 0.85", "LiNiO2 = 0.85"),
        "sample.layer[2].mass_fractions do not name the host LiCoO2",
    ),
    (
        ('host = "LiCoO2"\n', ""),
        'sample.layer[2].host is missing: the compound that hosts the lithium, such as "LiCoO2"',
    ),
    (
        ('host = "LiCoO2"', 'host = "LiCoO"'),
        'sample.layer[2].host = "LiCoO" is no host compound that a calibration exists for; known are LiCoO2',
    ),
    (
        ('kind = "metal"', 'kind = "metal"\nhost = "LiCoO2"'),
        'sample.layer[0].host = "LiCoO2" belongs to kind = "host", this layer is a metal: x and SoC '
        "exist only for hosts",
    ),
    (
        ('name = "anode"', 'name = "cathode"'),
        'sample.layer[2].name = "cathode" is the name of another layer',
    ),
    (
        ('normaliser = "P"', 'normaliser = "Zr"'),
        'sample.layer[1].normaliser = "Zr" is not among the other elements that are counted: "Co", "P"',
    ),
    (
        ('normaliser = "P"', 'normaliser = "Co"'),
        'sample.layer[2].normaliser = "Co" is that of the layer before: the boundary between them '
        "could not be seen",
    ),
    (
        ('mass_fractions = { LiCoO2 = 0.85, C = 0.05, "MEEP-LiBOB" = 0.05, PVdF = 0.05 }\n', ""),
        "sample.layer[2].mass_fractions is missing: the calibration belongs to one composition",
    ),
    (
        ('normaliser = "Co"\n', ""),
        'sample.layer[2].normaliser is missing: the element that represents this layer, such as "Co"',
    ),
    (
        ('kind = "separator"', 'kind = "separator"\nmass_fractions = { LLZO = 1.0 }'),
        'sample.layer[1].normaliser = "P" cannot be told from Zr La: 29 eV apart at 145 eV resolution; '
        "use Zr",
    ),
    (
        ('element = "Co"\ndetector = "pixe"', 'element = "Zr"\ndetector = "pixe"\nline = "La"'),
        'analysis.line[1].line = "La" cannot be told from P Ka: 29 eV apart at 145 eV resolution; use Ka',
    ),
    (
        (
            'detector = "pige"',
            'detector = "pige"\nwindow = ["475 keV", "487 keV"]\nbackground = [["485 keV", "500 keV"]]',
        ),
        'analysis.line[0].background = [["485 keV", "500 keV"]] overlaps the window',
    ),
    # --- analysis
    (
        ('interface = ["separator", "cathode"]', 'interface = ["anode", "cathode"]'),
        'analysis.interface = ["anode", "cathode"] are not neighbours in the order of the layers: '
        'possible is ["anode", "separator"] or ["separator", "cathode"]',
    ),
    (
        ('interface = ["separator", "cathode"]', 'interface = ["separator", "kathode"]'),
        'analysis.interface = ["separator", "kathode"] names "kathode", which is no layer: there are '
        '"anode", "separator", "cathode"',
    ),
    (
        ("lco-meep-2.91MeV", "lco-meep"),
        'analysis.calibration = "lco-meep" is no calibration table; did you mean "lco-meep-2.91MeV"?',
    ),
    (
        ("lco-meep-2.91MeV", "lco-llzo-2.91MeV"),
        'analysis.calibration = "lco-llzo-2.91MeV" does not apply to sample.layer[2] (cathode): LiCoO2 '
        "0.85 instead of 0.5; LLZO 0 instead of 0.5; C 0.05 instead of 0; MEEP-LiBOB 0.05 instead of "
        "0; PVdF 0.05 instead of 0",
    ),
    (
        ('calibration = "lco-meep-2.91MeV"\n', ""),
        'analysis.calibration is missing: x of a host layer needs a table, such as "lco-llzo-2.91MeV", '
        '"lco-meep-2.91MeV"',
    ),
    (
        ('element = "Li"\ndetector = "pige"', 'element = "Li"\ndetector = "pixe"'),
        'analysis.line[0].detector = "pixe" does not see Li: it is counted by "pige"',
    ),
    (
        ('element = "P"', 'element = "Pu"'),
        'analysis.line[2].element = "Pu" is no element with a known line',
    ),
    (
        ('element = "P"', 'element = "Co"'),
        'analysis.line[2].element = "Co" is listed twice',
    ),
    (
        ('element = "Li"\ndetector = "pige"', 'element = "Fe"\ndetector = "pixe"'),
        'analysis.line lack lithium: add { element = "Li", detector = "pige" }',
    ),
    (
        ('detector = "pige"', 'detector = "pige"\nbackground = [["490 keV", "520 keV"]]'),
        'analysis.line[0].background[0] = ["490 keV", "520 keV"] reaches above 505 keV, where the '
        "annihilation line at 511 keV begins",
    ),
    (
        (
            'detector = "pige"',
            'detector = "pige"\nwindow = ["475 keV", "487 keV"]\nbackground = [["460 keV", "470 keV"]]',
        ),
        'analysis.line[0].background[0] = ["460 keV", "470 keV"] lies below the line: lithium sits on '
        "the Compton continua of higher lines, its background is taken on the high side",
    ),
    (
        ('detector = "pige"', 'detector = "pige"\nwindow = ["487 keV", "475 keV"]'),
        'analysis.line[0].window = ["487 keV", "475 keV"] must be a lower and a higher energy',
    ),
    (
        ('element = "Co"\ndetector = "pixe"', 'element = "Co"\ndetector = "pixe"\nline = "La"'),
        'analysis.line[1].line = "La" is no line of Co that is known; known are Ka, Kb',
    ),
    (
        (
            'interface = ["separator", "cathode"]',
            'interface = ["separator", "cathode"]\nrelative = { zero = "x" }',
        ),
        'analysis.relative.zero = "x" is the name of no scan step; known are as prepared, charging',
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:56] for _, message in WRONG])
def test_wrong_experiments_are_refused_in_words(change, message, experiment_errors):
    found = dict(split_line(text) for text in experiment_errors(change))
    message = f"experiment.toml: {message}"
    assert [text for text in found if text.startswith(message)]
    line = next(line for text, line in found.items() if text.startswith(message))
    assert line is not None
    assert 0 < line <= len(changed("experiment.toml", (change,)).splitlines())


def test_the_line_number_is_that_of_the_key(experiment_errors):
    (message,) = experiment_errors(('current = "13 uA"', "current = 13"))
    text = changed("experiment.toml", (('current = "13 uA"', "current = 13"),)).splitlines()
    line = split_line(message)[1]
    assert line is not None
    assert text[line - 1] == "current = 13"


def test_a_faulty_child_does_not_make_the_parallel_short(experiment_errors):
    assert experiment_errors(('current = "13 uA"', "current = 13")) == [
        'experiment.toml: step[3].step[0].current = 13 has no unit: a current is needed, such as "26 uA" '
        "(line 58)"
    ]


def test_everything_wrong_is_reported_at_once_in_the_order_of_the_file(experiment_errors):
    messages = experiment_errors(
        ('capacity_error = "5 %"', "capacity_error = 5"),
        ("LiCoO2 = 0.85", "LiCoO2 = 0.7"),
        ('reference = "as prepared"', 'reference = "first"'),
        ('dwell = "30 ms"', 'dwel = "30 ms"'),
        ('ramp = "10 K/min"\n', ""),
        ('timeout = "3 h"', 'timeout = "3 V"'),
        ('name = "charging"', 'name = "as prepared"'),
        ('do = "background"', 'do = "nothing"'),
    )
    keys = [message.split(" ")[1] for message in messages]
    assert keys == [
        "sample.capacity_error", "sample.layer[2].mass_fractions", "analysis.reference",
        "analysis.calibration", "step[0].raster.dwell", "step[0].raster.dwel", "step[2].ramp",
        "step[3].step[0]", "step[3].step[0].timeout",
        "step[3].step[1].name", "step[4].do",
    ]  # fmt: skip


def test_a_purpose_may_be_given(experiment_with):
    experiment = experiment_with(('name = "charging"', 'name = "charging"\npurpose = "after"'))
    assert [experiment.purpose(one) for one in experiment.walk()][5] == "after"


def test_the_reference_is_no_repeated_scan(experiment_errors):
    text = (HERE / "experiment.toml").read_text()
    scan = text.partition("[[step]]")[2].partition("[[step]]")[0]
    inside = '[[step]]\ndo = "repeat"\ntimes = 2\n[[step.step]]' + scan
    assert any(
        'analysis.reference = "as prepared" names a scan inside repeat' in message
        for message in experiment_errors(("[[step]]" + scan, inside))
    )


def test_reference_after_the_charge(experiment_errors):
    scan = (HERE / "experiment.toml").read_text().partition("[[step]]")[2].partition("[[step]]")[0]
    messages = experiment_errors(
        ("[[step]]" + scan, ""), ('duration = "60 s"', 'duration = "60 s"\n[[step]]' + scan)
    )  # fmt: skip
    assert len(messages) == 1
    assert 'the reference scan "as prepared" comes only later' in messages[0]


def test_discharge_and_pulses_need_a_reference_as_well(experiment_errors):
    for step in (
        'do = "discharge"\ncurrent = "1 uA"\nuntil = { charge = "1 uAh" }\ntimeout = "2 h"\n',
        'do = "pulse"\ndirection = "charge"\ncurrent = "1 uA"\non = "5 s"\nrest = "5 s"\ntimes = 2\n',
    ):
        (message,) = experiment_errors(('[[step]]\ndo = "scan"', f'[[step]]\n{step}[[step]]\ndo = "scan"'))
        assert message.startswith("experiment.toml: step[0] would ")
        assert 'the reference scan "as prepared" comes only later' in message


def test_parallel_scans_that_wait_for_each_other(experiment_errors):
    follower = CHARGE_SCAN.replace("charging", "waiting")
    text = (HERE / "experiment.toml").read_text()
    charge = text.partition("[[step.step]]\n")[2].partition("\n[[step.step]]")[0]
    messages = experiment_errors((charge, follower))
    assert any("step[3] would never end: every step in it waits for the others" in text for text in messages)
    assert any("(scan) needs the beam at the same time as scan, next to it" in text for text in messages)


def test_a_faulty_file_is_read_as_far_as_possible():
    text = changed(
        "experiment.toml", (('current = "13 uA"', "current = 13"), ('chemistry = "lithium', 'chemistry = "'))
    )
    with pytest.raises(ConfigErrors) as caught:
        experiment_from(from_text(text, "experiment.toml"))
    partial = caught.value.partial
    assert isinstance(partial, Partial)
    assert [step.do for step in partial.steps] == ["scan", "ocv", "heat", "parallel", "background"]
    assert [step.do for step in partial.steps[3].steps] == ["rest", "scan"]
    assert partial.sample is None
    assert partial.analysis is not None


def test_a_calibration_file_beside_the_experiment(tmp_path):
    text = (HERE / "experiment.toml").read_text().replace("lco-meep-2.91MeV", "mine.toml")
    (tmp_path / "experiment.toml").write_text(text)
    with pytest.raises(
        ConfigErrors, match=r'calibration = "mine\.toml" is no file beside the experiment file'
    ):
        load_experiment(tmp_path / "experiment.toml")
    table = (
        'name = "mine"\nhost = "LiCoO2"\nenergy = "2.9 MeV"\nangle = "0 deg"\nsigma_x = 0.01\nsource = '
        '"measured"\n'
        'mass_fractions = { LiCoO2 = 0.85, C = 0.05, "MEEP-LiBOB" = 0.05, PVdF = 0.05 }\n'
        "x = [1.0, 0.5]\nsignal = [1.0, 0.6]\n"
    )
    (tmp_path / "mine.toml").write_text(table)
    experiment = load_experiment(tmp_path / "experiment.toml")
    assert experiment.calibration is not None
    assert experiment.calibration.slope == pytest.approx(0.8)  # (1 - 0.6) / 0.5
    (tmp_path / "mine.toml").write_text(table.replace("[1.0, 0.6]", "[1.0, 1.1, 0.5]"))
    with pytest.raises(ConfigErrors) as caught:
        load_experiment(tmp_path / "experiment.toml")
    assert [problem.message for problem in caught.value.problems] == [
        "mine.toml: signal = [1.0, 1.1, 0.5] has 3 entries, x has 2 (line 9)",
        "mine.toml: signal = [1.0, 1.1, 0.5] must fall from entry to entry (line 9)",
    ]
