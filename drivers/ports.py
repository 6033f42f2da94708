"""Builds the line that a table of the station file describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from drivers.line import Line, Trace
from drivers.port import Port
from drivers.port_none import DistantPort
from drivers.port_serial import SerialPort
from drivers.port_tcp import TcpPort
from drivers.port_udp import UdpPort
from drivers.shared_line import SharedLine


def _serial(*, port: str, baud: int = 9600, parity: str = "none", stop_bits: int = 1) -> Port:
    return SerialPort(port, baud, parity, stop_bits)  # type: ignore[arg-type]  # checked there


def _tcp(*, host: str, port: int) -> Port:
    return TcpPort(host, port)


def _udp(*, host: str, port: int) -> Port:
    return UdpPort(host, port)


def _folder(*, path: str) -> Port:
    return DistantPort(path)


def _zmq(*, host: str, port: int) -> Port:
    return DistantPort(f"tcp://{host}:{port}")


def _epics(*, host: str, port: int) -> Port:
    return DistantPort(f"epics://{host}:{port}")


KINDS: Mapping[str, Callable[..., Port]] = {
    "serial": _serial,
    "tcp": _tcp,
    "udp": _udp,
    "folder": _folder,
    "zmq": _zmq,
    "epics": _epics,
}


def open_line(
    name: str, table: Mapping[str, Any], *, trace: Trace | None = None, shared: bool = False
) -> Line:
    """Return the line ``name``; its port is opened by ``await line.open()``, not here.

    Args:
        name: name of the line in the station file.
        table: ``kind`` and the keys of that kind: serial {port, baud, parity, stop_bits},
            tcp {host, port}, udp {host, port}, folder {path}, zmq or epics {host, port}.
        trace: see ``Line``.
        shared: several instruments are on it; then it is a ``SharedLine``.

    Raises:
        ValueError: unknown kind, missing or unknown key, impossible value.
    """
    settings = dict(table)
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"line {name}: kind = {kind!r} is none of {', '.join(KINDS)}")
    try:
        port = KINDS[kind](**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"line {name}: {str(error).replace('_' + kind + '()', kind + ' line')}") from error
    return SharedLine(name, port, trace=trace) if shared else Line(name, port, trace=trace)
