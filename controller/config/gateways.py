"""``[secop]`` and ``[epics]`` of a station file: with what tools of their own others may look at it."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, model_validator

from controller.config.base import Table, rules

Host = Annotated[str, Field(min_length=1, max_length=255)]
Port = Annotated[int, Field(ge=1, le=65535)]


def is_loopback(host: str) -> bool:
    """Tell whether an address belongs to this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Secop(Table):
    """``[secop]``: a SECoP node. The protocol knows no passwords: who reaches the port sees everything.

    ``write`` lets clients set targets while a ``manual`` step runs; then the port is on this machine only.
    """

    host: Host = "127.0.0.1"
    port: Port = 10767
    write: bool = False

    @model_validator(mode="after")
    def _no_stranger_writes(self) -> Secop:
        with rules() as rule:
            if self.write and not is_loopback(self.host):
                rule.broken(
                    "write",
                    f"would let everybody who reaches {self.host} command, as SECoP knows no passwords: "
                    "leave host at 127.0.0.1 and let others in through a tunnel",
                    "127.0.0.1",
                )
        return self


class Epics(Table):
    """``[epics]``: our values as read-only PVs, over Channel Access, and PVAccess where p4p is installed."""

    host: Host = "127.0.0.1"
    port: Port = 5064
    pva_port: Port = 5075
