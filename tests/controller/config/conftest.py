"""Two valid files, and a way to make them wrong in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from controller.config import ConfigErrors, Experiment, Station, experiment_from, from_text, station_from

HERE = Path(__file__).parent
Pairs = tuple[tuple[str, str], ...]


def changed(name: str, pairs: Pairs) -> str:
    """Return the text of a valid file with each first string replaced once by its second."""
    text = (HERE / name).read_text()
    for old, new in pairs:
        assert old in text, f"{old!r} is not in {name}"
        text = text.replace(old, new, 1)
    return text


def split_line(message: str) -> tuple[str, int | None]:
    """Take the line number off a message."""
    text, found, number = message.rpartition(" (line ")
    return (text, int(number.rstrip(")"))) if found else (message, None)


@pytest.fixture
def station() -> Station:
    return station_from(from_text((HERE / "station.toml").read_text(), "station.toml"))


@pytest.fixture
def experiment() -> Experiment:
    return experiment_from(from_text((HERE / "experiment.toml").read_text(), "experiment.toml"))


@pytest.fixture
def station_with() -> Callable[..., Station]:
    return lambda *pairs: station_from(from_text(changed("station.toml", pairs), "station.toml"))


@pytest.fixture
def experiment_with() -> Callable[..., Experiment]:
    return lambda *pairs: experiment_from(from_text(changed("experiment.toml", pairs), "experiment.toml"))


@pytest.fixture
def station_errors() -> Callable[..., list[str]]:
    def errors(*pairs: tuple[str, str]) -> list[str]:
        with pytest.raises(ConfigErrors) as caught:
            station_from(from_text(changed("station.toml", pairs), "station.toml"))
        return [problem.message for problem in caught.value.problems]

    return errors


@pytest.fixture
def experiment_errors() -> Callable[..., list[str]]:
    def errors(*pairs: tuple[str, str]) -> list[str]:
        with pytest.raises(ConfigErrors) as caught:
            experiment_from(from_text(changed("experiment.toml", pairs), "experiment.toml"))
        return [problem.message for problem in caught.value.problems]

    return errors
