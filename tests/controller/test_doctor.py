"""Every verdict of ``operando doctor`` on machines made of files and facts, and once for real."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controller import cli, scheduling
from controller.doctor import board, disk, ports, software
from controller.doctor.examine import examine, scheduling_class
from controller.doctor.finding import Finding
from controller.doctor.machine import (
    BlockDevice,
    ClockState,
    Machine,
    Mount,
    Syncs,
    clock_state,
    lateness_s,
    sync_times,
)

NOW_S = 1_800_000_000.0
GIB = 1 << 30
MIB = 1 << 20


def fake(root: Path, **files: str) -> Machine:
    """A machine with these files; a name has __ for /."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root)


def mount(kind: str, *options: str) -> Mount:
    return Mount("8:1", "/data", kind, "/dev/sda1", options or ("rw",))


def only(findings: object) -> Finding:
    found = list(findings) if not isinstance(findings, Finding) else [findings]  # type: ignore[call-overload]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("clock", "rtc", "verdict", "said"),
    [
        (ClockState(True, 0.02, NOW_S), True, "good", "within 20 ms"),
        (ClockState(True, 0.02, NOW_S), False, "look", "no hardware clock"),
        (ClockState(False, 16.0, NOW_S), True, "wrong", "not synchronised"),
        (ClockState(True, 0.02, 3600.0), True, "wrong", "before this program"),  # a board without clock: 1970
        (ClockState(None, 0.0, NOW_S), True, "look", "does not tell"),
    ],
)
def test_time(clock: ClockState, rtc: bool, verdict: str, said: str) -> None:
    finding = board.system_time(clock, rtc)
    assert (finding.verdict, said in finding.what) == (verdict, True), finding


@pytest.mark.parametrize(
    ("kind", "options", "verdict"),
    [
        ("ext4", ("rw", "relatime"), "good"),
        ("btrfs", ("rw",), "good"),
        ("ext4", ("rw", "barrier=0"), "wrong"),
        ("ext4", ("rw", "nobarrier"), "wrong"),
        ("ext4", ("ro", "relatime"), "wrong"),  # what a card does when it dies
        ("nfs4", ("rw",), "wrong"),
        ("cifs", ("rw",), "wrong"),
        ("vfat", ("rw",), "wrong"),
        ("tmpfs", ("rw",), "wrong"),
        ("overlay", ("rw",), "look"),
        ("newfs", ("rw",), "look"),
    ],
)
def test_file_systems(kind: str, options: tuple[str, ...], verdict: str) -> None:
    finding = only(disk.file_system("state", mount(kind, *options)))
    assert finding.verdict == verdict
    assert kind in finding.what
    assert finding.do or verdict == "good"


def test_the_mount_of_a_folder_is_the_innermost_and_the_latest(tmp_path: Path) -> None:
    inner = tmp_path / "with blank"
    inner.mkdir()
    escaped = str(inner).replace(" ", "\\040")
    table = (
        "27 1 8:2 / / rw,relatime - ext4 /dev/sda2 rw\n"
        f"40 27 0:50 / {escaped} rw,nosuid shared:5 - nfs4 server:/x rw\n"
        f"41 27 0:51 / {escaped} rw - tmpfs none rw,size=4k\n"
    )
    machine = fake(tmp_path / "root", proc__self__mountinfo=table)
    there = machine.mount_of(inner)
    assert there is not None
    assert (there.kind, there.device) == ("tmpfs", "0:51")
    above = machine.mount_of(tmp_path)
    assert above is not None
    assert above.kind == "ext4"


@pytest.mark.parametrize(
    ("free", "verdict"), [(100 * GIB, "good"), (9 * GIB, "look"), (GIB - 1, "wrong"), (0, "wrong")]
)
def test_space(free: int, verdict: str) -> None:
    assert disk.space("runs", free, 200 * GIB).verdict == verdict


CARD = BlockDevice("mmcblk0", rotational=False, volatile_cache=True, card="SD")
TURNING = BlockDevice("sda", rotational=True, volatile_cache=True)
SSD = BlockDevice("nvme0n1", rotational=False, volatile_cache=True)
VIRTUAL = BlockDevice("vda", rotational=True, volatile_cache=True)


@pytest.mark.parametrize(
    ("device", "median_s", "worst_s", "verdict", "said"),
    [
        (SSD, 0.002, 0.01, "good", "2.00 ms"),
        (TURNING, 0.0004, 0.01, "wrong", "after a power cut"),  # no turning disk is there in 0.4 ms
        (TURNING, 0.012, 0.05, "good", "12.00 ms"),
        (CARD, 0.0003, 0.01, "wrong", "an SD card"),
        (CARD, 0.02, 0.1, "good", "20.00 ms"),
        (SSD, 0.0001, 0.01, "look", "after a power cut"),  # a server disk with capacitors may
        (VIRTUAL, 0.0004, 0.01, "good", "0.40 ms"),  # says that it turns, as every virtual disk does
        (VIRTUAL, 0.0001, 0.01, "look", "after a power cut"),
        (None, 0.0001, 0.01, "look", "after a power cut"),
        (CARD, 0.08, 0.2, "look", "slow"),
        (CARD, 0.02, 0.9, "look", "slow"),
        (CARD, 0.3, 0.4, "wrong", "too slow"),
        (CARD, 0.02, 3.0, "wrong", "too slow"),
    ],
)
def test_fsync(device: BlockDevice | None, median_s: float, worst_s: float, verdict: str, said: str) -> None:
    finding = disk.sync("state", Syncs(median_s, worst_s), device)
    assert (finding.verdict, said in finding.what) == (verdict, True), finding


def test_a_folder_that_cannot_be_written_is_wrong() -> None:
    assert disk.sync("state", None, SSD).verdict == "wrong"


def test_sync_times_leave_nothing_behind(tmp_path: Path) -> None:
    ticks = iter([0.0, 0.001, 0.0, 0.002, 0.0, 0.030])
    syncs = sync_times(tmp_path, count=3, now_s=lambda: next(ticks))
    assert (syncs.median_s, syncs.worst_s) == pytest.approx((0.002, 0.030))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="nowhere"):
        sync_times(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("card", "worn", "verdict"),
    [("SD", None, "look"), ("MMC", 20, "good"), ("MMC", 90, "look"), ("MMC", 110, "wrong")],
)
def test_wear_of_cards(card: str, worn: int | None, verdict: str) -> None:
    device = BlockDevice("mmcblk0", rotational=False, volatile_cache=True, card=card, worn_percent=worn)
    assert only(disk.wear("state", device)).verdict == verdict
    assert list(disk.wear("state", SSD)) == []


def test_the_disk_below_a_partition(tmp_path: Path) -> None:
    machine = fake(
        tmp_path,
        sys__devices__mmc__block__mmcblk0__queue__rotational="0\n",
        sys__devices__mmc__block__mmcblk0__queue__write_cache="write back\n",
        sys__devices__mmc__block__mmcblk0__device__type="MMC\n",
        sys__devices__mmc__block__mmcblk0__device__life_time="0x02 0x09\n",
        sys__devices__mmc__block__mmcblk0__mmcblk0p2__partition="2\n",
    )
    links = tmp_path / "sys/dev/block"
    links.mkdir(parents=True)
    (links / "179:2").symlink_to("../../devices/mmc/block/mmcblk0/mmcblk0p2")
    there = Mount("179:2", "/", "ext4", "/dev/mmcblk0p2", ())
    assert machine.disk_of(there) == BlockDevice("mmcblk0", False, True, "MMC", 90)
    assert machine.disk_of(mount("nfs")) is None


def test_hardware_watchdog(tmp_path: Path) -> None:
    def verdict(name: str, **files: str) -> Finding:
        (tmp_path / name).mkdir()
        return board.watchdog(fake(tmp_path / name, **files))

    dog = {
        "sys__class__watchdog__watchdog0__identity": "Broadcom BCM2835 Watchdog timer\n",
        "sys__class__watchdog__watchdog0__timeout": "15\n",
    }
    assert verdict("none").verdict == "look"
    assert "dtparam=watchdog" in verdict("none2").do
    idle = verdict("idle", **dog, sys__class__watchdog__watchdog0__state="inactive\n")
    assert (idle.verdict, "RuntimeWatchdogSec" in idle.do) == ("look", True)
    fed = verdict("fed", **dog, sys__class__watchdog__watchdog0__state="active\n")
    assert (fed.verdict, "15 s" in fed.what) == ("good", True)
    drop_in = {"etc__systemd__system.conf.d__operando.conf": "[Manager]\nRuntimeWatchdogSec=14\n"}
    assert verdict("told", **dog, **drop_in).verdict == "good"
    off = {"etc__systemd__system.conf": "[Manager]\n#RuntimeWatchdogSec=14\nRuntimeWatchdogSec=off\n"}
    assert verdict("off", **dog, **off).verdict == "look"
    soft = verdict("soft", sys__class__watchdog__watchdog0__identity="Software Watchdog\n")
    assert (soft.verdict, "kernel that hangs" in soft.what) == ("look", True)


def test_memory(tmp_path: Path) -> None:
    table = "MemTotal:        948304 kB\nMemFree: 100 kB\nMemAvailable:    512000 kB\n"
    assert fake(tmp_path, proc__meminfo=table).memory_bytes() == (948304 * 1024, 512000 * 1024)
    assert board.memory(948 * MIB, 500 * MIB).verdict == "wrong"
    assert board.memory(2000 * MIB, 900 * MIB).verdict == "look"
    assert board.memory(4000 * MIB, 3000 * MIB).verdict == "good"


def test_processor(tmp_path: Path) -> None:
    files = {
        "sys__devices__system__cpu__cpu0__cpufreq__scaling_governor": "powersave\n",
        "sys__devices__platform__soc__soc:firmware__get_throttled": "50005\n",
        "sys__class__thermal__thermal_zone0__temp": "84500\n",
    }
    machine = fake(tmp_path, **files)
    found = {finding.check: finding for finding in board.processor(machine, 1)}
    assert [found[n].verdict for n in ("processor", "governor", "throttling", "temperature")] == [
        "look", "look", "wrong", "look",
    ]  # fmt: skip
    assert "under-voltage" in found["throttling"].what
    assert "84 degC" in found["temperature"].what
    assert board.throttled(0x50000).verdict == "look"
    assert board.throttled(0).verdict == "good"
    (tmp_path / "empty").mkdir()
    assert only(board.processor(Machine(tmp_path / "empty"), 4)).verdict == "good"


@pytest.mark.parametrize(
    ("realtime", "nice", "capable", "verdict"),
    [
        (0, 0, False, "look"), (1, 0, False, "good"), (-1, 0, False, "good"), (0, 25, False, "look"),
        (0, 0, True, "good"),
    ],
)  # fmt: skip
def test_scheduling_rights(realtime: int, nice: int, capable: bool, verdict: str) -> None:
    finding = scheduling_class(realtime, nice, capable)
    assert finding.verdict == verdict
    assert ("nice -5, but" in finding.what) == (nice == 25)


@pytest.mark.parametrize(
    ("rights", "said"),
    [((0, 0, False), "no better scheduling class"), ((0, 25, False), "nice -5"), ((1, 0, False), "")],
)
def test_check_says_what_control_does_not_get(
    rights: tuple[int, int, bool],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(scheduling, "rights", lambda: rights)
    text = (Path(__file__).parent / "config" / "station.toml").read_text()
    of_a_bench, real = tmp_path / "bench.toml", tmp_path / "real.toml"
    of_a_bench.write_text(text)
    real.write_text(re.sub(r"(?ms)^\[bench\]\n.*?(?=^\[)", "", text))
    assert cli.main(["check", str(real), "--files-only"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ("operando doctor" in shown) == bool(said)
    assert said in shown
    assert cli.main(["check", str(of_a_bench), "--files-only"]) == 0
    assert "operando doctor" not in capsys.readouterr().out  # a bench is nobody's overnight run


def test_descriptors_and_lateness_and_receive_buffer() -> None:
    assert [board.descriptors(n, n).verdict for n in (4096, 512, 128)] == ["good", "look", "wrong"]
    late = [(0.001, 0.01), (0.007, 0.01), (0.001, 0.2), (0.03, 0.05)]
    assert [board.lateness(*pair).verdict for pair in late] == ["good", "look", "look", "wrong"]
    assert board.receive_buffer(4 << 20, 4 << 20).verdict == "good"
    small = board.receive_buffer(212_992, 4 << 20)
    assert (small.verdict, "net.core.rmem_max=4194304" in small.do) == ("look", True)
    assert board.receive_buffer(None, 4 << 20).verdict == "look"
    demanded = board.receive_buffer(212_992, 4 << 20, cameras="compton")
    assert (demanded.verdict, "compton" in demanded.what) == ("wrong", True)


def test_lateness_is_that_of_the_loop() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds + (0.05 if round(now[0] / 0.01) == 40 else 0.001)

    p99_s, worst_s = lateness_s(1.0, 0.01, lambda: now[0], sleep)
    assert worst_s == pytest.approx(0.05, abs=0.002)
    assert 0.001 <= p99_s <= 0.05


def _port(root: Path, node: str, *aliases: str) -> None:
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / node).write_text("")
    for alias in aliases:
        link = root / alias.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(root / "dev" / node)


def test_ports(tmp_path: Path) -> None:
    by_id = "/dev/serial/by-id/usb-FTDI_FT232R_A50285BI-if00-port0"
    _port(tmp_path, "ttyUSB0", by_id, "/dev/serial/by-path/pci-0-usb-1")
    _port(tmp_path, "ttyACM0")
    _port(tmp_path, "ttyAMA0")
    machine = Machine(tmp_path)

    def judge(path: str, *busy: str) -> Finding:
        return ports.judge("heater", ports.look_at(machine, path), busy)

    assert judge(by_id).verdict == "good"
    assert judge("/dev/ttyAMA0").verdict == "good"  # soldered to the board: its name stays
    passing = judge("/dev/ttyUSB0")
    assert (passing.verdict, passing.do) == ("look", f'port = "{by_id}"')
    nameless = judge("/dev/ttyACM0")
    assert (nameless.verdict, "init udev" in nameless.do) == ("look", True)
    assert judge("/dev/ttyUSB7").verdict == "wrong"
    busy = judge(by_id, "ModemManager")
    assert (busy.verdict, "ModemManager" in busy.do) == ("look", True)


def test_a_port_without_rights() -> None:
    port = ports.Port("/dev/ttyUSB0", True, "/dev/ttyUSB0", permitted=False, group="dialout")
    finding = ports.judge("heater", port)
    assert (finding.verdict, "usermod -aG dialout" in finding.do) == ("wrong", True)


def test_a_port_that_is_the_kernels_console(tmp_path: Path) -> None:
    machine = fake(tmp_path, proc__cmdline="root=/dev/sda console=ttyAMA0,115200 console=tty1\n")
    taken = ports.Port("/dev/ttyAMA0", True, "/dev/ttyAMA0", permitted=True)
    free = ports.Port("/dev/ttyUSB0", True, "/dev/ttyUSB0", permitted=True)
    found = list(ports.console(machine, {"heater": taken, "cell": free}))
    assert [(f.check, f.verdict) for f in found] == [("port of heater", "wrong")]


def test_who_looks_for_modems(tmp_path: Path) -> None:
    machine = fake(tmp_path, proc__12__comm="ModemManager\n", proc__13__comm="bash\n")
    assert ports.modem_programs(machine) == {"ModemManager"}


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 40, 1), "look"), ((3, 44, 5), "look"), ((3, 44, 6), "good"), ((3, 50, 6), "look"),
        ((3, 50, 7), "good"), ((3, 51, 2), "look"), ((3, 51, 3), "good"), ((3, 31, 0), "wrong"),
    ],
)  # fmt: skip
def test_sqlite_versions(version: tuple[int, int, int], verdict: str) -> None:
    assert software.sqlite(version).verdict == verdict


def test_packages() -> None:
    from importlib.metadata import PackageNotFoundError

    def installed(name: str) -> str:
        try:
            return {"numpy": "2.4.6", "rich": "12.1"}[name]
        except KeyError:
            raise PackageNotFoundError(name) from None

    assert only(software.packages(["numpy>=2", 'dask>=1; extra == "dask"'], installed)).verdict == "good"
    finding = only(software.packages(["numpy>=2", "rich>=13", "cbor2>=5"], installed))
    assert finding.verdict == "wrong"
    assert "rich 12.1" in finding.what
    assert "cbor2 is missing" in finding.what
    assert software.python((3, 10, 4)).verdict == "wrong"
    assert software.python((3, 13, 0)).verdict == "good"


def test_a_check_that_fails_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Finding:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(board, "watchdog", broken)
    found = list(examine(Machine(), None, tmp_path, tmp_path, loop_s=0.05))
    assert any(f.check == "doctor" and "no such thing" in f.what for f in found)
    assert any(f.check == "packages" for f in found)


def test_this_machine_for_real(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "controller", "doctor", "--state", str(tmp_path / "state"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    told = json.loads(done.stdout)
    found = {entry["check"]: entry for entry in told["findings"]}
    assert not (tmp_path / "state").exists()  # it only looks
    assert {"time", "hardware watchdog", "memory", "processor", "scheduling", "lateness", "SQLite"} <= set(
        found
    )
    assert any(name.endswith("fsync") for name in found)
    assert "doctor" not in found  # no check failed
    assert found["packages"]["verdict"] == found["Python"]["verdict"] == "good"
    wrong = [entry for entry in told["findings"] if entry["verdict"] == "wrong"]
    assert all(entry["do"] for entry in wrong)
    assert (done.returncode, told["ok"]) == ((3, False) if wrong else (0, True))
    assert clock_state().synchronised is not None


def test_the_table_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    from controller.doctor.examine import show

    show([Finding("a", "good", "all [fine]"), Finding("b", "wrong", "bad", "mend it")])
    shown = capsys.readouterr().out
    assert "all [fine]" in shown
    assert "mend it" in shown
    assert "1 good, 0 worth a look, 1 wrong" in shown
