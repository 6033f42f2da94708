"""``operando init udev``: rules from a /sys made of files, held against what udev would match."""

import re
from pathlib import Path

import pytest

from controller import cli
from controller.doctor.machine import Machine
from controller.doctor.ports import judge, look_at
from controller.udev_rules import adapters, rules

STATION = Path(__file__).parent / "config" / "station.toml"


def plug(
    root: Path, node: str, socket: str, vendor: str, product: str, serial: str = "", interface: str = "00"
) -> None:
    """Plug an adapter in, as the kernel would show it."""
    usb = root / "sys/devices/platform/usb1/1-1" / socket
    port = usb / f"{socket}:1.{int(interface)}" / node
    port.mkdir(parents=True)
    (usb / "idVendor").write_text(vendor + "\n")
    (usb / "idProduct").write_text(product + "\n")
    if serial:
        (usb / "serial").write_text(serial + "\n")
    (port.parent / "bInterfaceNumber").write_text(interface + "\n")
    tty = root / "sys/class/tty" / node
    tty.mkdir(parents=True)
    (tty / "device").symlink_to(port)
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / node).write_text("")


def matching(lines: list[str], machine: Machine) -> dict[str, list[str]]:
    """Return which nodes each SYMLINK would be given to, by the words of the rules."""
    named: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("#"):
            continue
        asked = dict(re.findall(r'(\S+?)=="([^"]*)"', line))
        (link,) = re.findall(r'SYMLINK\+="([^"]*)"', line)
        named[link] = [
            a.node for a in adapters(machine).values()
            if (a.vendor, a.product) == (asked["ATTRS{idVendor}"], asked["ATTRS{idProduct}"])
            and asked.get("ATTRS{serial}", a.serial) == a.serial
            and asked.get("KERNELS", a.socket) == a.socket
            and asked.get("ENV{ID_USB_INTERFACE_NUM}", a.interface) == a.interface
        ]  # fmt: skip
    return named


def test_each_name_goes_to_one_port(tmp_path: Path) -> None:
    plug(tmp_path, "ttyUSB0", "1-1.1", "0403", "6001", "A50285BI")
    plug(tmp_path, "ttyUSB1", "1-1.2", "0403", "6001", "A50285BK")  # the same model
    plug(tmp_path, "ttyUSB2", "1-1.3", "1a86", "7523")  # two without a number
    plug(tmp_path, "ttyUSB3", "1-1.4", "1a86", "7523")
    plug(tmp_path, "ttyACM0", "1-1.5", "2341", "0043", "X1", "00")  # two ports of one adapter
    plug(tmp_path, "ttyACM1", "1-1.5", "2341", "0043", "X1", "02")
    machine = Machine(tmp_path)
    ports = {f"line{n}": f"/dev/{node}" for n, node in enumerate(sorted(adapters(machine)))}
    lines, station = rules(machine, ports)
    assert matching(lines, machine) == {f"operando/{name}": [Path(path).name] for name, path in ports.items()}
    assert 'port = "/dev/operando/line0"' in station
    assert station[0] == "[line.line0]"
    assert sum("must stay in this USB socket" in line for line in lines) == 2
    assert all(
        'GROUP="dialout"' in line and "ID_MM_DEVICE_IGNORE" in line for line in lines if line[0] != "#"
    )


def test_two_with_the_same_serial_number_are_told_apart_by_their_sockets(tmp_path: Path) -> None:
    plug(tmp_path, "ttyUSB0", "1-1.1", "10c4", "ea60", "0001")  # as this bridge leaves its factory
    plug(tmp_path, "ttyUSB1", "1-1.2", "10c4", "ea60", "0001")
    machine = Machine(tmp_path)
    lines, _ = rules(machine, {"heater": "/dev/ttyUSB1"})
    assert matching(lines, machine) == {"operando/heater": ["ttyUSB1"]}
    assert "serial number of another" in lines[0]


def test_a_serial_number_cannot_write_rules_of_its_own(tmp_path: Path) -> None:
    plug(tmp_path, "ttyUSB0", "1-1.1", "10c4", "ea60", 'x", RUN+="/bin/sh')
    lines, _ = rules(Machine(tmp_path), {"heater": "/dev/ttyUSB0"})
    assert not any("RUN" in line for line in lines)
    assert matching(lines, Machine(tmp_path)) == {"operando/heater": ["ttyUSB0"]}


def test_ports_that_need_no_rule_are_told(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ttyAMA0").write_text("")
    lines, station = rules(Machine(tmp_path), {"heater": "/dev/ttyAMA0", "cell": "/dev/ttyUSB9"})
    assert lines == [
        "# heater: /dev/ttyAMA0 is no USB adapter, its name stays as it is",
        "# cell: /dev/ttyUSB9 is not there; plug it in and write these rules again",
    ]
    assert station == []


def test_a_selector_needs_no_rule_and_the_doctor_finds_it_under_any_name(tmp_path: Path) -> None:
    plug(tmp_path, "ttyUSB4", "1-1.1", "0403", "6001", "FT1")
    plug(tmp_path, "ttyUSB5", "1-1.2", "0403", "6001", "FT2")
    machine = Machine(tmp_path)
    lines, station = rules(machine, {"heater": "serial:FT2"})
    assert (lines, station) == (
        ["# heater: serial:FT2 is looked up at every opening, it needs no name of its own"],
        [],
    )
    for selector in ("serial:FT2", "usb:0403:6001:FT2", "socket:1-1.2@0"):
        assert look_at(machine, selector).node == "/dev/ttyUSB5"
        assert judge("heater", look_at(machine, selector)).verdict == "good"
    assert not look_at(machine, "usb:0403:6001").exists  # two fit


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", "udev", str(STATION)]) == 0
    printed = capsys.readouterr().out
    assert "udevadm control --reload" in printed
    out = tmp_path / "99-operando.rules"
    assert cli.main(["init", "udev", str(STATION), "--out", str(out)]) == 0
    assert printed.splitlines()[2:] == out.read_text().splitlines()[2:]
    assert cli.main(["init", "udev", str(STATION), "--out", str(out)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
