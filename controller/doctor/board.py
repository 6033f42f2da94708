"""The machine itself: clock, hardware watchdog, memory, processor, what the host may ask of the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from controller.doctor.finding import Finding, good, look, wrong
from controller.doctor.machine import ClockState, Machine

MADE_S = 1_767_225_600.0  # 2026-01-01: no clock that runs this program shows less
MIB = 1 << 20
NEEDED_BYTES, ENOUGH_BYTES = 600 * MIB, 1000 * MIB  # all processes together: 359 MB measured
LATE_S, TOO_LATE_S, PAUSE_S = 0.005, 0.02, 0.1  # p99, p99, worst; the guard's 10 Hz tick may be 5 ms late
DESCRIPTORS, TOO_FEW_DESCRIPTORS = 1024, 256
HOT_K = 353.15  # a Raspberry Pi slows down from 80 degC on

THROTTLED = (  # bit now, bit since boot; Raspberry Pi documentation, vcgencmd get_throttled
    (0, 16, "under-voltage", "a supply of 5.1 V and 3 A or more, and a short cable"),
    (1, 17, "frequency capped", "cooling, and a better supply"),
    (2, 18, "throttled", "cooling, and a better supply"),
    (3, 19, "near its highest temperature", "cooling"),
)


def system_time(clock: ClockState, has_hardware_clock: bool) -> Finding:
    """Judge the clock of the machine: time stamps, certificates, signed commands."""
    check = "time"
    do = "install chrony (or systemd-timesyncd) and let it reach a server; chronyc tracking"
    if clock.now_s < MADE_S:
        return wrong(check, "the clock shows a year before this program was written", do)
    if clock.synchronised is None:
        return look(check, "the kernel does not tell whether it is synchronised", do)
    if not clock.synchronised:
        return wrong(
            check, "not synchronised: time stamps cannot be compared with those of the beam line, and "
            "certificates and signed commands may be refused", do,
        )  # fmt: skip
    what = f"synchronised, within {1e3 * clock.error_s:.0f} ms"
    if not has_hardware_clock:
        return look(
            check, f"{what}; no hardware clock: after a power cut it is wrong until a server answers",
            "a battery-backed clock (RTC); the units wait for time-sync.target",
        )  # fmt: skip
    return good(check, what)


def watchdog(machine: Machine) -> Finding:
    """Judge what happens when the whole computer hangs."""
    check = "hardware watchdog"
    dogs = machine.names("sys/class/watchdog")
    if not dogs and not machine.path("dev/watchdog").exists():
        return look(
            check, "none: a machine that hangs stays so. The I/O box and the cell's program make the outputs "
            "safe; the run waits for a person",
            "on a Raspberry Pi: dtparam=watchdog=on in config.txt",
        )  # fmt: skip
    base = f"sys/class/watchdog/{dogs[0]}" if dogs else ""
    what = machine.text(f"{base}/identity") or "there"
    if "oftware" in what:
        return look(
            check, f"{what}: a kernel that hangs takes it along", "a machine that has one in hardware"
        )
    timeout = machine.number(f"{base}/timeout")
    if machine.text(f"{base}/state") == "active" or _runtime_watchdog(machine):
        return good(check, f"{what}, fed" + (f", {timeout} s" if timeout else ""))
    return look(
        check, f"{what}, but nobody feeds it",
        "RuntimeWatchdogSec=14 in /etc/systemd/system.conf.d/operando.conf, [Manager]; then restart",
    )  # fmt: skip


def _runtime_watchdog(machine: Machine) -> bool:
    """Return whether systemd is told to feed it."""
    folder = "etc/systemd/system.conf.d"
    files = ["etc/systemd/system.conf", *(f"{folder}/{n}" for n in machine.names(folder))]
    value = ""
    for name in files:
        for line in (machine.text(name) or "").splitlines():
            key, _, given = line.strip().partition("=")
            if key == "RuntimeWatchdogSec":
                value = given.strip()
    return value not in ("", "0", "off", "infinity")


def memory(installed_bytes: int, available_bytes: int) -> Finding:
    """Judge whether all processes of the host fit."""
    what = f"{available_bytes / MIB:.0f} MiB available of {installed_bytes / MIB:.0f}"
    do = "end what else runs here (a desktop, a browser), or take a board with 2 GB"
    if available_bytes < NEEDED_BYTES:
        return wrong("memory", f"{what}; the host needs up to 500", do)
    return look("memory", what, do) if available_bytes < ENOUGH_BYTES else good("memory", what)


def processor(machine: Machine, cores: int) -> Iterator[Finding]:
    """Judge cores, governor, throttling and temperature."""
    check = "processor"
    if cores < 2:
        yield look(check, "one core: the reduction and control wait for each other", "a board with four")
    else:
        yield good(check, f"{cores} cores")
    governor = machine.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor == "powersave":
        yield look(
            "governor", "powersave: it may stay at its lowest frequency",
            "cpufreq-set -g schedutil, or governor = performance",
        )  # fmt: skip
    elif governor is not None:
        yield good("governor", governor)
    flags = machine.text("sys/devices/platform/soc/soc:firmware/get_throttled")
    if flags is not None:
        yield throttled(int(flags, 16))
    kelvin = (machine.number("sys/class/thermal/thermal_zone0/temp") or 0) / 1000 + 273.15
    if kelvin > HOT_K:
        yield look("temperature", f"{kelvin - 273.15:.0f} degC: it slows itself down", "cooling")


def throttled(flags: int) -> Finding:
    """Judge what a Raspberry Pi says of its supply and its heat."""
    now = [(text, do) for bit, _, text, do in THROTTLED if flags >> bit & 1]
    if now:
        return wrong("throttling", f"now: {', '.join(t for t, _ in now)}", "; ".join(d for _, d in now))
    since = [(text, do) for _, bit, text, do in THROTTLED if flags >> bit & 1]
    if since:
        return look(
            "throttling", f"since it was started: {', '.join(t for t, _ in since)}",
            "; ".join(dict.fromkeys(d for _, d in since)),
        )  # fmt: skip
    return good("throttling", "never since it was started")


def descriptors(soft: int, hard: int) -> Finding:
    """Judge how many files and sockets a process may have open."""
    what = f"{soft} files and sockets for each process" + (f" (up to {hard})" if hard > soft else "")
    do = "LimitNOFILE=4096 in the unit, or ulimit -n 4096"
    if soft < TOO_FEW_DESCRIPTORS:
        return wrong("descriptors", what, do)
    return look("descriptors", what, do) if soft < DESCRIPTORS else good("descriptors", what)


def lateness(p99_s: float, worst_s: float) -> Finding:
    """Judge how late a loop of 100 Hz came, at the moment."""
    what = f"a loop of 100 Hz: p99 {1e3 * p99_s:.1f} ms, largest {1e3 * worst_s:.1f} ms"
    do = "end what else runs here; give control a scheduling class (above); no power saving"
    if p99_s > TOO_LATE_S:
        return wrong("lateness", f"{what}: the guard would trip on its own lateness", do)
    if p99_s > LATE_S or worst_s > PAUSE_S:
        return look("lateness", what, do)
    return good("lateness", what)


def receive_buffer(rmem_max_bytes: int | None, asked_bytes: int, *, cameras: str = "") -> Finding:
    """Judge the largest socket buffer: list-mode detectors answer in bursts, cameras never stop.

    ``cameras``: names of those that a run refuses to start with less.
    """
    check = "receive buffer"
    if rmem_max_bytes is None:
        return look(check, "net.core.rmem_max cannot be read here")
    what = f"net.core.rmem_max = {rmem_max_bytes}"
    if rmem_max_bytes >= asked_bytes:
        return good(check, what)
    do = f"echo net.core.rmem_max={asked_bytes} > /etc/sysctl.d/60-operando.conf && sysctl --system, as root"
    if cameras:
        return wrong(check, f"{what}: frames of {cameras} would be lost, no run will start", do)
    return look(check, f"{what}: a busy host may lose datagrams of a detector", do)
