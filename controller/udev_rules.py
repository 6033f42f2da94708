"""``operando init udev STATION``: rules that give the serial ports of a station names of their own.

An adapter is known by its maker, model and serial number; one without a serial number, or with the number of
another one, by the socket it is plugged into.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.config import ConfigErrors, load_station
from controller.doctor.machine import Machine
from controller.files_given import refused
from drivers.port_find import is_selector

FOLDER = "operando"  # /dev/operando/NAME
HEADER = """# Station {name}, written by operando init udev. As root:
#   cp {file} /etc/udev/rules.d/ && udevadm control --reload && udevadm trigger -s tty
# The ports belong to the group dialout, and ModemManager keeps off them.
"""


@dataclass(frozen=True)
class Adapter:
    """One USB serial port, as /sys describes it."""

    node: str  # ttyUSB0
    vendor: str
    product: str
    serial: str  # empty when it has none
    socket: str  # the kernel's name of the USB socket, 1-1.2
    interface: str  # of several ports in one adapter

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two adapters must not share for their serial numbers to tell them apart."""
        return self.vendor, self.product, self.serial, self.interface


def adapters(machine: Machine) -> dict[str, Adapter]:
    """Return every USB serial port of a machine by its node. Source: sysfs, bus/usb."""
    found = {}
    for node in machine.names("sys/class/tty"):
        entry = machine.path(f"sys/class/tty/{node}/device")
        if not entry.exists():
            continue
        interface = ""
        for folder in (entry.resolve(), *entry.resolve().parents):
            if (folder / "bInterfaceNumber").is_file() and not interface:
                interface = _text(folder / "bInterfaceNumber")
            if (folder / "idVendor").is_file():
                found[node] = Adapter(
                    node, _text(folder / "idVendor"), _text(folder / "idProduct"), _text(folder / "serial"),
                    folder.name, interface,
                )  # fmt: skip
                break
    return found


def rule(name: str, adapter: Adapter, *, by_socket: bool) -> str:
    """Return the rule that names one port ``/dev/operando/NAME``. All ATTRS are those of one device."""
    which = f'ATTRS{{idVendor}}=="{adapter.vendor}", ATTRS{{idProduct}}=="{adapter.product}"'
    which += f', KERNELS=="{adapter.socket}"' if by_socket else f', ATTRS{{serial}}=="{adapter.serial}"'
    if adapter.interface:
        which += f', ENV{{ID_USB_INTERFACE_NUM}}=="{adapter.interface}"'
    return (
        f'SUBSYSTEM=="tty", {which}, SYMLINK+="{FOLDER}/{name}", GROUP="dialout", MODE="0660", '
        'ENV{ID_MM_DEVICE_IGNORE}="1"'
    )


def rules(machine: Machine, ports: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return (the lines of the rules file, the lines for the station file).

    Args:
        machine: where the adapters are plugged in.
        ports: path by name of the line, as the station file has them.
    """
    there = adapters(machine)
    alike = Counter(adapter.key for adapter in there.values())
    written, lines = [], []
    for name, path in ports.items():
        node = machine.path(path).resolve().name
        adapter = there.get(node)
        if is_selector(path):
            written.append(f"# {name}: {path} is looked up at every opening, it needs no name of its own")
        elif not machine.path(path).exists():
            written.append(f"# {name}: {path} is not there; plug it in and write these rules again")
        elif adapter is None:
            written.append(f"# {name}: {path} is no USB adapter, its name stays as it is")
        else:
            by_socket = not _plain(adapter.serial) or alike[adapter.key] > 1
            if by_socket:
                why = "has the serial number of another one" if adapter.serial else "has no serial number"
                written.append(f"# {name}: {node} {why}: it must stay in this USB socket")
            written.append(rule(name, adapter, by_socket=by_socket))
            lines += [f"[line.{name}]", f'port = "/dev/{FOLDER}/{name}"']
    return written, lines


def _plain(serial: str) -> bool:
    """Return whether a serial number can stand in a rule as it is."""
    return bool(serial) and all(c.isalnum() or c in "-_.:" for c in serial)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def main(args: argparse.Namespace) -> int:
    """Print the rules, or write them with --out, and tell what to change in the station file."""
    try:
        station = load_station(args.station)
    except ConfigErrors as error:
        return refused(error)
    ports = {name: line.port for name, line in station.lines.items() if line.kind == "serial"}
    written, lines = rules(Machine(), ports)
    file = args.out or Path(f"99-operando-{station.station.name}.rules")
    text = HEADER.format(name=station.station.name, file=file) + "\n".join(written) + "\n"
    if args.out is None:
        print(text, end="")
    else:
        try:
            with args.out.open("x") as out:
                out.write(text)
        except OSError as error:
            print(f"{args.out}: {error.strerror}; nothing is overwritten", file=sys.stderr)
            return 2
    told = sys.stderr if args.out is None else sys.stdout
    if lines:
        print("\nin the station file, instead of what is there:", *lines, sep="\n", file=told)
    return 0
