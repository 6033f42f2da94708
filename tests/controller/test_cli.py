"""The command line met with wrong input: exit codes, messages, no traceback, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXPERIMENT = Path(__file__).parent / "config" / "experiment.toml"
STATION = Path(__file__).parent / "config" / "station.toml"
FILES, INSTRUMENT = 2, 3


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Messages: what was written to stderr, without the usage text of wrong arguments."""
        text = re.sub(r"(?s)^usage:.*?(?=^operando)", "", self.err, flags=re.MULTILINE)
        return text.splitlines()


class Shell:
    """A folder in which somebody types ``operando ...``."""

    def __init__(self, folder: Path) -> None:
        self.home, self.folder = folder / "home", folder / "work"
        self.folder.mkdir()
        self.home.mkdir()

    def __call__(self, *words: object) -> Result:
        """Run a command; every one must end without a traceback and without touching the folder."""
        before = self.files()
        environment = {
            **os.environ, "HOME": str(self.home), "XDG_STATE_HOME": str(self.home), "COLUMNS": "200",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "controller", *map(str, words)], cwd=self.folder, env=environment,
            check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30,
        )  # fmt: skip
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        assert self.files() == before, "something was left behind"
        return Result(done.returncode, done.stdout, done.stderr)

    def files(self) -> set[Path]:
        """Everything in the folder, state folders that hold nothing apart."""
        kept = {path for path in self.home.rglob("*") if not path.is_dir()}
        return kept | set(self.folder.rglob("*"))

    def write(self, name: str, source: Path, *changes: tuple[str, str]) -> str:
        """Write a copy of a valid file with the first occurrence of each text replaced; return its name."""
        text = source.read_text()
        for old, new in changes:
            assert old in text, f"{old!r} is not in {source.name}"
            text = text.replace(old, new, 1)
        (self.folder / name).write_text(text)
        return name


@pytest.fixture
def operando(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def real(operando: Shell) -> str:
    """A station of real instruments, none of which is there."""
    text = STATION.read_text()
    bench = text[text.index("[bench]") : text.index("[line.heater]")]
    return operando.write(
        "station.toml", STATION, (bench, ""), ("/dev/pts/3", "/dev/tty-none-3"),
        ("/dev/pts/4", "/dev/tty-none-4"), ("port = 40502", "port = 1"), ("port = 40001", "port = 2"),
        ("port = 40002", "port = 3"),
    )  # fmt: skip


# --- files ---------------------------------------------------------------------------------------------


def test_no_file(operando: Shell) -> None:
    result = operando("run", "nowhere.toml", "--bench")
    assert result.code == FILES
    (line,) = result.lines
    assert line.startswith("nowhere.toml: cannot be read: No such file or directory (looked in ")
    assert line.endswith("operando init station, operando init experiment write one")


@pytest.mark.parametrize("content", [b"\x00\xff\xfe", b"[step", b"step = 1\nstep = 2"])
def test_no_toml(operando: Shell, content: bytes) -> None:
    (operando.folder / "odd.toml").write_bytes(content)
    result = operando("run", "odd.toml", "--bench")
    assert result.code == FILES
    assert len(result.lines) == 1
    assert result.lines[0].startswith("odd.toml: ")


def test_every_mistake_of_a_file_is_told_at_once_with_its_line(operando: Shell) -> None:
    name = operando.write(
        "wrong.toml",
        EXPERIMENT,
        ("[sample]", '[sample]\nnmae = "x"'),
        ('do = "ocv"', 'do = "ocw"'),
        ('to = "333 K"', 'to = "333 V"'),
        ('stable = "60 s"\ntimeout = "30 min"', 'stable = "60 s"'),
        ('current = "13 uA"', 'current = "13"'),
    )
    result = operando("run", name, "--bench")
    assert result.code == FILES
    told = "\n".join(result.lines)
    assert re.search(r'(?m)^wrong\.toml: sample\.nmae = "x" is not a known key.*\(line \d+\)$', told)
    assert re.search(r'(?m)^wrong\.toml: step\[1\]\.do = "ocw" is not known; did you mean "ocv"\?', told)
    assert re.search(r'(?m)^wrong\.toml: step\[2\]\.to = "333 V".*(temperature|K)', told)
    assert re.search(r"(?m)^wrong\.toml: step\[2\]\.timeout is missing", told)
    assert re.search(r'(?m)^wrong\.toml: step\[3\].step\[0\]\.current = "13" has no unit.*uA', told)
    assert len(result.lines) == 5


def test_check_tells_the_mistakes_of_both_files(operando: Shell) -> None:
    experiment = operando.write("e.toml", EXPERIMENT, ('to = "333 K"', 'to = "333"'))
    station = operando.write("s.toml", STATION, ('current = "40 uA"', 'current = "40 uK"'))
    result = operando("check", station, experiment)
    assert result.code == FILES
    assert any(line.startswith("e.toml: step[2].to") for line in result.lines)
    assert any(line.startswith("s.toml: limits.current") for line in result.lines)


def test_check_tells_programs_the_same(operando: Shell) -> None:
    experiment = operando.write("e.toml", EXPERIMENT, ('to = "333 K"', 'to = "333"'))
    result = operando("check", STATION, experiment, "--json")
    assert result.code == FILES
    (problem,) = json.loads(result.out)["problems"]
    assert (problem["file"], problem["key"], problem["value"]) == ("e.toml", "step[2].to", '"333"')


def test_a_station_without_limits_is_refused(operando: Shell) -> None:
    text = STATION.read_text()
    limits = text[text.index("[limits]") : text.index("[[interlock]]")]
    result = operando("check", operando.write("s.toml", STATION, (limits, "")))
    assert result.code == FILES
    assert result.lines[0].startswith("s.toml: limits is missing")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ('voltage = "4.0 V"', 'voltage = "4.06 V"'),
            'step[3].step[0].voltage = "4.06 V" is above the station limit 4.05 V',
        ),
        (('to = "333 K"', 'to = "80 degC"'), 'step[2].to = "80 degC" is above the station limit 343 K'),
        (('30 ms" }\nuntil = { passes = 4 }', '0.11 s" }\nuntil = { passes = 1 }'), '= "0.11 s" is above'),
    ],
    ids=["voltage", "temperature", "dwell"],
)
def test_what_is_beyond_the_station_is_refused(
    operando: Shell, real: str, change: tuple[str, str], told: str
) -> None:
    """By `check`, and by `run` before it makes a folder or starts anything."""
    name = operando.write("mine.toml", EXPERIMENT, change)
    for result in (operando("check", real, name, "--files-only"), operando("run", name, "--station", real)):
        assert result.code == FILES
        assert any(line.startswith("mine.toml: ") and told in line for line in result.lines), result.err


def test_a_calibration_for_another_composition_is_refused(operando: Shell) -> None:
    name = operando.write("e.toml", EXPERIMENT, ('"lco-meep-2.91MeV"', '"lco-llzo-2.91MeV"'))
    result = operando("check", STATION, name)
    assert result.code == FILES
    assert any("analysis.calibration" in line and "lco-llzo" in line for line in result.lines)


# --- arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", EXPERIMENT], "--station FILE is needed (or --bench for the virtual bench)"),
        (["run", EXPERIMENT, "--bench", "--station", "s.toml"], "leave out --station"),
        (["run", EXPERIMENT, "--station", STATION, "--speed", "10"], "--speed is for the virtual bench only"),
        (["run", EXPERIMENT, "--bench", "--speed", "0"], "--speed"),
        (["run", EXPERIMENT, "--bench", "--speed", "nan"], "--speed"),
        (["run", EXPERIMENT, "--bench", "--seed", "many"], "--seed"),
        (["run", EXPERIMENT, "--bench", "--fault", "no.toml"], "no.toml"),
        (["run"], "experiment"),
        (["resume", "nowhere"], "not the folder of a run"),
        (["report", "nowhere"], "not the folder of a run"),
        (["export", "nowhere"], "not the folder of a run"),
        (["status", "--verbose"], "--verbose"),
        (["schema", "everything"], "everything"),
        (["reduce", "alchemy", "x.Spe"], "alchemy"),
        (["reduce", "gamma", "nowhere.Spe"], "nowhere.Spe"),
        (["fly"], "fly"),
        ([], "COMMAND"),
    ],
    ids=lambda words: (
        " ".join(getattr(word, "name", word) for word in words) if isinstance(words, list) else ""
    ),
)
def test_arguments(operando: Shell, words: list[object], told: str) -> None:
    result = operando(*words)
    assert result.code == FILES
    assert told in "\n".join(result.lines)


def test_an_unknown_scenario_is_a_mistake_of_the_file(operando: Shell) -> None:
    name = operando.write("e.toml", EXPERIMENT, ('scenario = "quickstart"', 'scenario = "slowstart"'))
    result = operando("run", name, "--bench")
    assert result.code == FILES
    assert "slowstart" in result.err


def test_help_is_no_mistake(operando: Shell) -> None:
    result = operando("--help")
    assert (result.code, result.err) == (0, "")
    assert "exit codes" in result.out


# --- instruments ---------------------------------------------------------------------------------------


def test_check_names_every_instrument_that_is_not_there(operando: Shell, real: str) -> None:
    result = operando("check", real, "--json")
    assert result.code == INSTRUMENT
    devices = {device["name"]: device for device in json.loads(result.out)["devices"]}
    assert set(devices) == {"heater", "cell", "io", "pixe", "pige"}
    assert not any(device["ok"] for device in devices.values())
    assert "/dev/tty-none-3" in devices["heater"]["error"]
    assert "/dev/tty-none-4" in devices["cell"]["error"]
    for port, name in enumerate(("io", "pixe", "pige"), 1):
        assert f"127.0.0.1:{port}" in devices[name]["error"]


def test_check_prints_them_in_a_table(operando: Shell, real: str) -> None:
    result = operando("check", real)
    assert result.code == INSTRUMENT
    for word in ("heater", "cell", "io", "pixe", "pige", "nobody"):
        assert word in result.out


def test_a_station_file_that_outlived_its_bench(operando: Shell) -> None:
    result = operando("check", STATION)
    assert result.code == INSTRUMENT
    assert "no bench answers" in result.err


@pytest.mark.parametrize("verb", ["status", "safe"])
def test_nobody_to_talk_to(operando: Shell, verb: str) -> None:
    result = operando(verb)
    assert result.code == INSTRUMENT
    assert len(result.err.splitlines()) == 1
    assert "no host is running here" in result.err
