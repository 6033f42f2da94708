"""``[web]``: the live page. Left out, there is none."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, model_validator

from controller.config.base import Table, rules

TOKEN_CHARACTERS = 20  # of the token in its file; fewer could be guessed


class Web(Table):
    """``[web]``. Paths begin at the folder of the station file."""

    host: Annotated[
        str,
        Field(
            min_length=1, max_length=253,
            description="address to listen on; 127.0.0.1 is this machine only",
        ),
    ] = "127.0.0.1"  # fmt: skip
    port: Annotated[
        int, Field(ge=0, le=65535, description="of the page; 0 takes a free one and keeps it over restarts")
    ] = 8480
    token: str | None = Field(
        default=None,
        description="a file with the token that a person types in; needed beyond this machine",
    )
    certificate: str | None = Field(
        default=None, description="a file with the certificate chain (PEM); needed beyond this machine"
    )
    key: str | None = Field(default=None, description="a file with the private key of the certificate")
    names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")], ...] = Field(
        default=(), strict=False,
        description="names and addresses under which browsers reach this machine, besides host and localhost",
    )  # fmt: skip
    viewers: Annotated[int, Field(ge=1, le=200, description="pages that may be open at once")] = 40

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _closed(self) -> Web:
        with rules() as rule:
            if (self.certificate is None) != (self.key is None):
                missing = "key" if self.key is None else "certificate"
                rule.broken(missing, "is missing: certificate and key belong together")
            if not is_address(self.host):
                rule.broken("host", 'must be an address of this machine, such as "127.0.0.1" or "0.0.0.0"')
            elif not self.loopback:
                for key, why in (
                    ("token", "everybody on the network could look"),
                    ("certificate", "the token would go over the network in the clear"),
                ):
                    if getattr(self, key) is None:
                        rule.broken(key, f"is missing: beyond this machine (host) {why} without it")
            if self.host in ("0.0.0.0", "::") and not self.names:  # noqa: S104  # the rule is about it
                rule.broken("names", "is missing: the names or addresses that browsers use for this machine")
        return self


def is_address(host: str) -> bool:
    """Tell whether ``host`` is ``localhost`` or an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens on ``host``."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
