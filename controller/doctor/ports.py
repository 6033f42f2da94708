"""The serial ports of a station: there, permitted, under a name that outlives a restart, and not taken."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.doctor.finding import Finding, good, look, wrong
from controller.doctor.machine import Machine
from controller.udev_rules import adapters
from drivers.port_find import Found, NotFound, find

PASSING = ("ttyUSB", "ttyACM")  # numbered in the order in which they were plugged in
ALIASES = ("dev/serial/by-id", "dev/serial/by-path")


@dataclass(frozen=True)
class Port:
    """What is at the path that a station file names."""

    path: str
    exists: bool
    node: str = ""  # the device itself, /dev/ttyUSB0
    permitted: bool = False
    group: str = ""  # who may
    aliases: tuple[str, ...] = ()  # stable names of the same device


def look_at(machine: Machine, path: str) -> Port:
    """Read what is at a path, or at what a selector such as ``serial:FT4ABC12`` means now."""
    there = [
        Found(
            f"/dev/{one.node}", one.serial or None, int(one.vendor, 16), int(one.product, 16), one.socket,
            int(one.interface, 16) if one.interface else None,
        )
        for one in adapters(machine).values()
    ]  # fmt: skip
    try:
        entry = machine.path(find(path, there))
    except NotFound:
        return Port(path, exists=False)
    if not entry.exists():
        return Port(path, exists=False)
    node = entry.resolve()
    return Port(
        path, True, _own(machine, node), os.access(node, os.R_OK | os.W_OK), _group(node),
        tuple(aliases(machine, node)),
    )  # fmt: skip


def aliases(machine: Machine, node: Path) -> Iterator[str]:
    """Yield the stable names that udev gave a device, the best first."""
    for folder in ALIASES:
        for name in machine.names(folder):
            if machine.path(f"{folder}/{name}").resolve() == node:
                yield f"/{folder}/{name}"


def judge(line: str, port: Port, busy_with: Collection[str] = ()) -> Finding:
    """Judge one serial line of the station file.

    Args:
        line: its name there.
        port: what is at its path.
        busy_with: programs that are known to open such ports on their own.
    """
    check = f"port of {line}"
    if not port.exists:
        return wrong(check, f"{port.path} is not there", "plug it in; ls -l /dev/serial/by-id shows what is")
    if not port.permitted:
        group = port.group or "dialout"
        return wrong(
            check, f"{port.path} may not be opened by this user",
            f"sudo usermod -aG {group} $USER, then log in again",
        )  # fmt: skip
    node = Path(port.node).name
    if node.isdigit():
        return good(check, f"{port.path}: a pseudo-terminal of a virtual bench")
    for program in busy_with:
        if node.startswith(PASSING):
            return look(
                check, f"{program} runs and opens new ports to look for modems",
                f"systemctl disable --now {program}, or the rules of operando init udev",
            )  # fmt: skip
    if port.path == port.node and node.startswith(PASSING):
        if port.aliases:
            return look(
                check, f"{port.path} may be another device after a restart", f'port = "{port.aliases[0]}"'
            )
        return look(
            check, f"{port.path} may be another device after a restart, and has no stable name",
            "operando init udev STATION writes a rule that gives it one",
        )  # fmt: skip
    return good(check, port.path if port.path == port.node else f"{port.path}, now {port.node}")


def console(machine: Machine, ports: Mapping[str, Port]) -> Iterator[Finding]:
    """Find a line that the kernel uses for its own console."""
    words = (machine.text("proc/cmdline") or "").split()
    used = {word.partition("=")[2].partition(",")[0] for word in words if word.startswith("console=")}
    for line, port in ports.items():
        if {Path(port.path).name, Path(port.node).name} & used:
            yield wrong(
                f"port of {line}", f"{port.path} is the kernel's console: its messages go to the device",
                "take console=... out of cmdline.txt (raspi-config: serial, no login shell)",
            )  # fmt: skip


def modem_programs(machine: Machine) -> set[str]:
    """Return the running programs that open every new serial port."""
    names = (machine.text(f"proc/{pid}/comm") for pid in machine.names("proc") if pid.isdigit())
    return {name for name in names if name in ("ModemManager", "brltty")}


def _own(machine: Machine, node: Path) -> str:
    """Return a device's path as this machine sees it."""
    return f"/{node.relative_to(machine.root.resolve())}"


def _group(node: Path) -> str:
    try:
        return node.group()
    except (KeyError, OSError):
        return ""
