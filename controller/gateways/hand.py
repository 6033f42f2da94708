"""The client's side of a ``manual`` step: how SECoP and Bluesky command, over the local socket of control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller.local import LocalError, ask

REPLY_S = 10.0  # a heater's ramp, target and relay, each on a line that may be busy
LOOK_S = 2.0
MOVE_S = 180.0  # of a stage: it is answered when it stands


class Refused(Exception):
    """Control does not do it; the text names value and limit."""


class Gone(Exception):
    """Nobody answers: the host has ended, is frozen, or was never there."""


class Hand:
    """One client of a manual step. Blocking; one thread at a time."""

    def __init__(self, socket: Path, by: str) -> None:
        """Make a client; nothing is said yet.

        Args:
            socket: the local socket of control.
            by: who commands, for the journal and for people.
        """
        self._socket = socket
        self.by = by
        self._session = ""

    def status(self, *, timeout_s: float = LOOK_S) -> dict[str, Any]:
        """Return what the host knows now. Raises Gone."""
        return self._ask({"do": "status"}, timeout_s)

    def manual(self, *, timeout_s: float = LOOK_S) -> dict[str, Any]:
        """Return who commands, what is allowed and what runs. Raises Refused without a manual step, Gone."""
        return self._ask({"do": "manual", "verb": "status"}, timeout_s)

    def command(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Carry out a verb, taking the step first where that was not done. Raises Refused, Gone."""
        if not self._session:
            self.take()
        try:
            return self._said(verb, arguments)
        except Refused as refusal:
            if "take it first" not in str(refusal):
                raise
        self.take()  # another step has begun, or we were silent for too long
        return self._said(verb, arguments)

    def take(self) -> dict[str, Any]:
        """Take the step. Raises Refused (in other hands, no manual step), Gone."""
        self._session = ""
        told = self._ask({"do": "manual", "verb": "take", "by": self.by}, REPLY_S)
        self._session = str(told["session"])
        return told

    @property
    def taken(self) -> bool:
        """Whether we have taken the step; it may have ended since."""
        return bool(self._session)

    def alive(self) -> None:
        """Say that we are still there. Raises Gone; a step that has ended is let go."""
        if self._session:
            try:
                self._said("alive", {}, LOOK_S)
            except Refused:
                self._session = ""

    def release(self) -> None:
        """Give the step back; it then does what it declares for a client that is gone."""
        if self._session:
            try:
                self._said("release", {})
            except (Refused, Gone):
                pass
            finally:
                self._session = ""

    def _said(self, verb: str, arguments: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        timeout_s = timeout_s or (MOVE_S if verb == "move" else REPLY_S)
        request = {**arguments, "do": "manual", "verb": verb, "by": self.by, "session": self._session}
        return self._ask(request, timeout_s)

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            reply = ask(self._socket, request, timeout_s=timeout_s)
        except (LocalError, ValueError, OSError) as error:
            raise Gone(str(error)) from error
        if not reply.get("ok"):
            raise Refused(str(reply.get("error", "refused")))
        return reply
