"""What files may ask of a camera, and what they are told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controller.config import (
    ConfigErrors,
    Experiment,
    Station,
    check_against,
    experiment_from,
    from_text,
    station_from,
)
from controller.config.exposures import Expose
from controller.config.instruments.hexitec import Hexitec

from .conftest import changed

BACKGROUND = 'do = "background"\nduration = "60 s"'
DARK = """do = "expose"
name = "dark"
detector = "compton"
purpose = "dark"
until = { frames = 8192 }
timeout = "1 min"
"""
SAMPLE = DARK.replace('purpose = "dark"\n', "").replace('"dark"', '"sample"')
CAMERA = """[line.camera]
kind = "tcp"
host = "127.0.0.1"
port = 4001
[device.camera]
driver = "hexitec"
line = "camera"
period = "1 s"
frame_rate = "9118.87 Hz"
bias = "-500 V"
threshold = "3 keV"
energy = { gain = "0.027 keV" }
"""


def problems(pairs: tuple[tuple[str, str], ...]) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        experiment_from(from_text(changed("experiment.toml", pairs), "experiment.toml"))
    return [problem.message for problem in caught.value.problems]


def camera(*pairs: tuple[str, str]) -> Hexitec:
    text = CAMERA
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    whole = changed("station.toml", (("[roles]", f'{text}[roles]\ncompton = "camera"'),))
    found = station_from(from_text(whole, "station.toml")).device("compton")
    assert isinstance(found, Hexitec)
    return found


def test_an_exposure_is_read(experiment_with: Callable[..., Experiment]) -> None:
    found = experiment_with((BACKGROUND, f"{DARK}[[step]]\n{SAMPLE}"))
    exposures = [placed.step for placed in found.walk() if isinstance(placed.step, Expose)]
    assert [(one.name, one.purpose, one.until.frames) for one in exposures] == [
        ("dark", "dark", 8192),
        ("sample", "sample", 8192),
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("until = { frames = 8192 }", "until = {}"),
            "needs an end: frames, duration, counts or uncertainty",
        ),
        (("frames = 8192", "counts = 1000"), "until.counts"),
        (("frames = 8192", 'uncertainty = { quantity = "s", below = "1 %" }'), "not dark or flat"),
        (("frames = 8192", 'duration = "2 min"'), "timeout = "),
        (('detector = "compton"', 'detector = "pige"'), "radiography"),
    ],
)
def test_an_exposure_that_could_not_be_taken_is_refused(change: tuple[str, str], told: str) -> None:
    assert any(told in text for text in problems(((BACKGROUND, DARK.replace(*change)),)))


def test_an_exposure_beside_a_scan_is_refused() -> None:
    beside = DARK.replace("until", "until").replace('name = "dark"', 'name = "beside"')
    (text,) = [
        one for one in problems(((f"[[step]]\n{BACKGROUND}", f"[[step.step]]\n{beside}"),)) if "same" in one
    ]
    assert "(expose) needs the beam at the same time as scan" in text


def test_a_station_without_a_camera_cannot_expose(
    station: Station, experiment_with: Callable[..., Experiment]
) -> None:
    found = check_against(station, experiment_with((BACKGROUND, DARK)))
    assert any("needs a compton" in problem.message for problem in found)


def test_a_camera_and_the_process_that_takes_its_frames() -> None:
    found = camera()
    assert found.is_fast
    assert found.ring_frames == 36476
    words = dict(zip(found.acquire[::2], found.acquire[1::2], strict=True))
    assert words == {
        "--host": "0.0.0.0", "--port": "61649", "--rows": "80", "--columns": "80",
        "--packet-bytes": "8000", "--header": "short", "--slots": "36476",
    }  # fmt: skip
    settings: dict[str, Any] = found.settings()
    assert (settings["bias_v"], settings["gain_kev"], settings["listen_port"]) == (-500.0, 0.027, 61649)
    assert not camera(("9118.87 Hz", "1000 Hz")).is_fast


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('bias = "-500 V"', 'bias = "500 V"', "bias"),
        ('bias = "-500 V"', 'bias = "-800 V"', "bias"),
        ('energy = { gain = "0.027 keV" }', "", "calibration is needed"),
        ('threshold = "3 keV"', "threshold = 3", "threshold"),
        ('bias = "-500 V"', 'bias = "-500 V"\ncolumns = 82', "multiple of 4"),
        ('bias = "-500 V"', 'bias = "-500 V"\nbuffer = "60 s"', "2 GiB"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        camera((old, new))
    assert any(told in problem.message for problem in caught.value.problems)
