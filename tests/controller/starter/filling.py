"""What a person would fill in: a value for every blank of a generated file, by the end of its key."""

import re

from controller.config.problems import ConfigErrors

STATION = {
    r"^line\.(\w+)\.port$": "/dev/serial/by-id/usb-{0}",
    r"^line\.(\w+)\.host$": "instrument-{0}.lab",
    r"^line\.\w+\.path$": "/data/camera",
    r"sensor_break\.setting$": "latching",
    r"sensor_break\.safe_output$": "0 %",
    r"confirmed_by$": "A. Person",
    r"confirmed_on$": "2026-01-31",
    r"\.heater\.power$": "40 W",
    r"gains\.kp$": "5 W/K",
    r"gains\.ti$": "30 s",
    r"^device\.(supply|extra)\.heater$": "25 ohm",
    r"power_cap$": "40 W",
    r"scanner\.centre$": "2.5 V",
    r"scanner\.scale_[xy]$": "100 um/V",
    r"pixel_clock$": "0",
    r"scanner\.blank$": "1",
    r"relay\.fio$": "2",
    r"shutter\.fio$": "3",
    r"permit\.fio$": "5",
    r"beam_current\.ain$": "0",
    r"beam_current\.scale$": "10 pA/V",
    r"watchdog\.timeout$": "3 s",
    r"channels$": "4096",
    r"device\.p\w+\.energy\.offset$": "0 keV",
    r"device\.p\w+\.energy\.gain$": "0.25 keV",
    r"frame_rate$": "9 kHz",
    r"bias$": "-500 V",
    r"threshold$": "3 keV",
    r"compton\.energy\.gain$": "0.05 keV",
    r"pixels$": "[640, 512]",
    r"exposure$": "10 s",
    r"axes\.\w\.device$": "1",
    r"axes\.x\.axis$": "1",
    r"axes\.y\.axis$": "2",
    r"microstep$": "0.05 um",
    r"axes\.\w\.low$": "0 mm",
    r"axes\.\w\.high$": "50 mm",
    r"axes\.\w\.centre$": "25 mm",
    r"process_value\.register$": "360",
    r"setpoint\.register$": "2160",
    r"output\.register$": "1904",
    r"(process_value|setpoint)\.unit$": "degC",
    r"output\.unit$": "%",
    r"channels\..*\.pv$": "SR:current",
    r"channels\..*\.unit$": "mA",
    r"process_value\.low$": "-50",
    r"process_value\.high$": "400",
    r"process_value\.invalid$": "[32770]",
    r"setpoint\.low$": "0",
    r"setpoint\.high$": "200",
    r"setpoint\.write$": "6",
    r"beam\.energy$": "3020 keV",
    r"beam\.current$": "24 pA",
    r"foil_loss$": "109 keV",
    r"pige_angle$": "0 deg",
    r"centroid$": "481 keV",
    r"fwhm$": "6 keV",
    r"rates\.\w+$": "100 /s",
    r"rates\.lithium$": "3 /s",
    r"limits\.temperature\.low$": "263 K",
    r"limits\.temperature\.high$": "343 K",
    r"temperature_rate$": "20 K/min",
    r"limits\.voltage\.low$": "2.5 V",
    r"limits\.voltage\.high$": "4.05 V",
    r"limits\.current$": "40 uA",
    r"limits\.charge$": "1 mAh",
    r"limits\.dose$": "1e17 /cm2",
    r"limits\.dwell$": "100 ms",
}
EXPERIMENT = {
    r"sample\.name$": "a cell",
    r"chemistry$": "lithium metal",
    r"sample\.capacity$": "20 uAh",
    r"capacity_error$": "5 %",
    r"layer\[2\]\.host$": "LiCoO2",
    r"layer\[2\]\.mass_fractions$": '{ LiCoO2 = 0.85, C = 0.05, "MEEP-LiBOB" = 0.05, PVdF = 0.05 }',
    r"layer\[2\]\.normaliser$": "Co",
    r"calibration$": "lco-meep-2.91MeV",
    r"line\[\d\]\.element$": "Co",
    r"air\.(rows|columns)$": "[0, 40]",
    r"frames$": "20",
    r"raster\.pixels$": "[64, 64]",
    r"raster\.size$": '["100 um", "300 um"]',
    r"dwell$": "50 ms",
    r"passes$": "2",
    r"\.to$": "333 K",
    r"ramp$": "10 K/min",
    r"stable$": "30 s",
    r"\.current$": "C/20",
    r"\.voltage$": "4.0 V",
    r"until\.charge$": "5 uAh",
    r"current_below$": "C/50",
    r"timeout$": "2 h",
}


def blanks(refuse, text):
    """Return the problems of a generated file: every one must be a blank that is not filled in."""
    try:
        refuse(text)
    except ConfigErrors as error:
        return error.problems
    return []


def filled(text, problems, answers):
    """Return the text with every blank filled in, by the line and key of the problem about it."""
    lines = text.splitlines()
    for problem in problems:
        found = [(re.search(key, problem.key), value) for key, value in answers.items()]
        fits = [(match, value) for match, value in found if match]
        assert fits, f"nobody knows what to write at {problem.key}"
        match, value = fits[-1]
        if "port number" in problem.message:
            value = "5000"
        value = value.replace("{0}", match.group(1)) if match.groups() else value
        plain = re.fullmatch(r"-?\d+|\d{4}-\d\d-\d\d|[\[{].*", value)
        at = problem.line - 1
        assert lines[at].endswith('= "FILL IN"'), lines[at]
        lines[at] = lines[at].replace('"FILL IN"', value if plain else f'"{value}"')
    return "\n".join(lines) + "\n"
