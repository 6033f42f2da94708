"""A station file that is wrong: every command says every problem on a line of its own and ends with 2."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from controller import check, off, systemd_files, tune, udev_rules
from controller.notices import trial
from controller.web import standing

COMMANDS = [check.main, off.main, systemd_files.main, trial.main, tune.main, standing.main, udev_rules.main]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__module__.rpartition(".")[2])
def test_a_wrong_station_file_is_refused_whole(
    command: Callable[[argparse.Namespace], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = tmp_path / "wrong.toml"
    station.write_text("[station]\nname = 3\n")
    args = argparse.Namespace(
        station=station, experiment=None, state=tmp_path / "state", out=None, json=False, user="nobody",
        operando=None, dir=tmp_path / "units",
    )  # fmt: skip
    assert command(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "wrong.toml: station.name = 3 must be text in quotes (line 2)" in err.splitlines()
    assert "wrong.toml: roles is missing" in err.splitlines()
    assert list(tmp_path.iterdir()) == [station], "nothing was begun"
