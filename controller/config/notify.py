"""``[notify]`` of a station file: who is told of trips, ends, questions and gaps, and by which way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from controller.config.base import Table, rules
from controller.config.gateways import is_loopback
from controller.config.quantities import Quantity

About = Literal["trips", "ends", "questions", "gaps", "host", "starts"]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Mailbox = Annotated[str, Field(pattern=r"^[^\s@<>,;\"]+@[^\s@<>,;\"]+$", max_length=200)]
Broken = Callable[[str, str], None]


def _one_url(table: Webhook | Heartbeat, broken: Broken) -> None:
    """Check that there is one address, in the file or in a file of its own."""
    if (table.url is None) == (table.url_file is None):
        broken("url", "is needed, or url_file: a file that holds it, if it is a secret; and only one of them")
    if table.url is not None:
        _check_url(table.url, "url", broken)


def _check_url(url: str, key: str, broken: Broken) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        broken(key, "must be an address that begins with https:// (or http://)")
    elif parts.username or parts.password:
        broken(key, "carries a password: put it into a file and name it in token_file")


class Webhook(Table):
    """``[[notify.webhook]]``: a POST to an address. ``token_file`` holds what is sent as a bearer token."""

    url: Text | None = None
    url_file: Text | None = None
    format: Literal["json", "ntfy", "slack"] = "json"
    token_file: Text | None = None
    ca: Text | None = None  # a file with the authority of the receiver's certificate, if it is your own

    @model_validator(mode="after")
    def _complete(self) -> Webhook:
        with rules() as rule:
            _one_url(self, rule.broken)
            parts = urlsplit(self.url or "")
            if self.token_file and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
                rule.broken("url", "would send the token in clear: use https://")
        return self


class Mail(Table):
    """``[[notify.mail]]``: an e-mail. ``credentials`` is a file with user name and password, one per line."""

    host: Text
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    credentials: Text | None = None
    ca: Text | None = None
    sender: Mailbox = Field(alias="from")
    to: Annotated[tuple[Mailbox, ...], Field(min_length=1, max_length=20, strict=False)]

    @model_validator(mode="after")
    def _no_password_in_clear(self) -> Mail:
        with rules() as rule:
            if self.tls == "none" and not is_loopback(self.host):
                rule.broken("tls", "none is for a mail server on this machine only: use starttls or tls")
        return self


class Heartbeat(Table):
    """``[notify.heartbeat]``: an address called while all is well, so that silence is noticed there."""

    url: Text | None = None
    url_file: Text | None = None
    every_s: Annotated[float, Quantity("s", low=10.0, high=86400.0)] = Field(alias="every", default=60.0)
    ended: Text | None = None  # called once when a run has ended in order
    ca: Text | None = None

    @model_validator(mode="after")
    def _complete(self) -> Heartbeat:
        with rules() as rule:
            _one_url(self, rule.broken)
            if self.ended is not None:
                _check_url(self.ended, "ended", rule.broken)
        return self


class Notify(Table):
    """``[notify]``: what people are told, and how often of what can wait."""

    about: tuple[About, ...] = Field(
        default=("trips", "ends", "questions", "gaps", "host"), strict=False, min_length=1
    )
    quiet_s: Annotated[float, Quantity("s", low=0.0, high=86400.0)] = Field(alias="quiet", default=300.0)
    webhooks: Annotated[tuple[Webhook, ...], Field(strict=False, alias="webhook", max_length=8)] = ()
    mails: Annotated[tuple[Mail, ...], Field(strict=False, alias="mail", max_length=8)] = ()
    heartbeat: Heartbeat | None = None

    @model_validator(mode="after")
    def _somebody(self) -> Notify:
        with rules() as rule:
            if not self.webhooks and not self.mails and self.heartbeat is None:
                rule.broken(
                    "", "tells nobody: it needs a [[notify.webhook]], a [[notify.mail]] or a heartbeat"
                )
        return self
