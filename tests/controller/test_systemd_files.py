"""``operando init systemd``: the units say what we mean, and systemd's own tools find nothing wrong."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from controller import cli
from controller.finishing import FINISH_S
from controller.systemd_files import device_groups

PLAIN = Path(__file__).parent / "config" / "station.toml"
OPERANDO = Path(sys.executable).parent / "operando"
analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def init(folder: Path, *more: str, page: bool = True) -> int:
    station = station_of(folder)
    if not station.exists():
        station.write_text(PLAIN.read_text() + ("\n[web]\n" if page else ""))
    command = ["init", "systemd", str(folder / "units"), "--station", str(station)]
    return cli.main([*command, "--state", str(folder / "state"), "--out", str(folder / "runs"), *more])


def station_of(folder: Path) -> Path:
    return folder / "station.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("systemd")
    assert init(folder, "--user", "daemon", "--operando", str(OPERANDO)) == 0
    return folder


def unit(folder: Path, part: str) -> configparser.RawConfigParser:
    (path,) = [p for p in (folder / "units").iterdir() if re.search(rf"{part}\.service$", p.name)]
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


def test_what_starts_by_itself_begins_no_run(folder: Path) -> None:
    run, resume, off = unit(folder, "@"), unit(folder, "-resume"), unit(folder, "-off")
    assert not run.has_section("Install")  # only a person starts it
    assert run["Service"]["Restart"] == "no"
    assert run["Unit"]["OnFailure"].endswith("-resume.service")
    assert " run %f " in run["Service"]["ExecStart"]
    for started in (resume, off):
        assert started["Install"]["WantedBy"] == "multi-user.target"
        assert not re.search(r"operando run\b", started["Service"]["ExecStart"])
    assert "resume --interrupted" in resume["Service"]["ExecStart"]


def test_an_end_in_order_is_final_and_a_restart_does_not_loop(folder: Path) -> None:
    resume = unit(folder, "-resume")
    assert resume["Service"]["Restart"] == "on-failure"
    assert resume["Service"]["RestartPreventExitStatus"].split() == ["2", "3", "4", "5", "6"]
    assert int(resume["Unit"]["StartLimitBurst"]) <= 3
    assert int(resume["Unit"]["StartLimitIntervalSec"]) >= 3600


def test_everything_is_driven_off_at_the_start_and_after_every_end(folder: Path) -> None:
    off = unit(folder, "-off")
    assert off["Service"]["Type"] == "oneshot"
    assert f" off {station_of(folder)} " in off["Service"]["ExecStart"]
    for part in ("@", "-resume"):
        found = unit(folder, part)
        assert off["Service"]["ExecStart"].startswith(found["Service"]["ExecStopPost"])
        assert "-off.service" in found["Unit"]["After"]


def test_the_watchdog_and_the_times_it_needs(folder: Path) -> None:
    for part in ("@", "-resume"):
        service = unit(folder, part)["Service"]
        assert (service["Type"], service["WatchdogSignal"]) == ("notify", "SIGABRT")
        assert 10 <= int(service["WatchdogSec"]) <= 30
        assert int(service["TimeoutStopSec"]) > FINISH_S  # an end in order writes report and exports
        assert service["KillMode"] == "mixed"  # the supervisor ends the others, in order


def test_the_sandbox(folder: Path) -> None:
    for part in ("@", "-resume", "-off"):
        service = unit(folder, part)["Service"]
        assert service["User"] == "daemon"
        assert service["ProtectSystem"] == "strict"
        assert service["NoNewPrivileges"] == service["PrivateTmp"] == "yes"
        assert service["ReadWritePaths"].split() == [str(folder / "state"), str(folder / "runs")]
        assert service["DevicePolicy"] == "closed"
        assert service["CapabilityBoundingSet"] == ""
        assert service["LimitRTPRIO"] == "1"
        assert "RestrictRealtime" not in service
        assert "MemoryDenyWriteExecute" not in service


def test_the_page_stays_from_run_to_run_and_touches_no_instrument(folder: Path) -> None:
    page = unit(folder, "-web")
    service = page["Service"]
    assert f" web {station_of(folder)} --state " in service["ExecStart"]
    assert service["Restart"] == "always"
    assert page["Install"]["WantedBy"] == "multi-user.target"
    assert service["ReadWritePaths"] == str(folder / "state")
    assert "DeviceAllow" not in service
    assert "SupplementaryGroups" not in service
    assert int(service["OOMScoreAdjust"]) > 0, "short of memory, it goes before the host"
    for part in ("@", "-resume", "-off"):
        assert "-web" not in str(dict(unit(folder, part)["Unit"])), "no run waits for the page"


def test_without_a_page_in_the_station_file_there_is_no_unit_for_it(tmp_path: Path) -> None:
    assert init(tmp_path, "--user", "daemon", page=False) == 0
    assert len(list((tmp_path / "units").iterdir())) == 3


def test_ports_are_allowed_by_kind_for_they_come_back_under_other_numbers(tmp_path: Path) -> None:
    (tmp_path / "ttyUSB3").write_text("")
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyUSB3")
    assert device_groups([str(tmp_path / "by-id")]) == ["ttyUSB"]
    assert device_groups(["/dev/ttyAMA0", "/dev/ttyACM7"]) == ["ttyACM", "ttyAMA"]
    assert device_groups(["/dev/pts/4"]) == ["pts"]
    assert device_groups(["/dev/serial/by-id/usb-not-plugged-in"]) == ["ttyACM", "ttyUSB"]
    assert device_groups([]) == []


def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(folder, "--user", "daemon") == 2
    assert "nothing is overwritten" in capsys.readouterr().err


def test_what_to_do_next_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path, "--user", "daemon") == 0
    assert "systemctl daemon-reload" in capsys.readouterr().out


@pytest.mark.parametrize("user", ["root", "Joe Doe", "a;b"])
def test_a_user_with_privileges_is_refused(
    tmp_path: Path, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, "--user", user) == 2
    assert "without privileges" in capsys.readouterr().err
    assert not (tmp_path / "units").exists()


def test_a_path_that_a_unit_cannot_hold_is_refused(tmp_path: Path) -> None:
    blank = tmp_path / "with blank"
    blank.mkdir()
    assert init(blank, "--user", "daemon") == 2


@analyze
def test_systemd_finds_nothing_wrong(folder: Path) -> None:
    files = [str(path) for path in (folder / "units").iterdir()]
    assert len(files) == 4
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    about_us = [line for line in done.stderr.splitlines() if str(folder) in line]
    assert (done.returncode, about_us) == (0, [])


@analyze
def test_systemd_calls_the_sandbox_tight(folder: Path) -> None:
    for path in (folder / "units").iterdir():
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", str(path)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr  # exposure below 2.5 of 10
