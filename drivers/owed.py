"""The reply that an unfinished exchange may still bring, and how long a line waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivers.errors import BadReply, DriverError

LONGEST_REPLY = 1 << 17  # bytes; twice the longest that any instrument sends


@dataclass
class Owed:
    """A reply that was asked for and has not come in full."""

    parse: Callable[[Sequence[bytes]], object] | None  # None: nothing can complete it
    chunks: list[bytes]
    silence_s: float  # silence that proves that it will not come any more
    urgent_silence_s: float  # what an urgent request waits at most

    def completed_by(self, late: bytes) -> bool:
        """Take ``late`` and say whether the reply is now here, so that nothing more has to be waited for."""
        if self.parse is None:
            return False
        self.chunks.append(late)
        if sum(map(len, self.chunks)) > LONGEST_REPLY:  # whatever comes, it is not that reply
            self.parse, self.chunks = None, []
            return False
        try:
            return self.parse(self.chunks) is not None
        except DriverError as error:
            return not isinstance(error, BadReply)


def owed_after(
    error: BaseException | None,
    parse: Callable[[Sequence[bytes]], object],
    chunks: list[bytes],
    *,
    timeout_s: float,
    quiet_s: float,
    matched: bool,
) -> Owed | None:
    """Return what is still owed after an exchange that ended with ``error`` (None: in a timeout).

    A refusal is a reply. After a damaged reply a short silence is enough; after a timeout, an interruption or
    a cancellation the reply may come as late again as it was allowed to (request timeout + quiet time).
    """
    if isinstance(error, BadReply):
        return Owed(None, [], quiet_s, quiet_s)
    if isinstance(error, DriverError) or (error is None and matched and not chunks):
        return None
    return Owed(parse, list(chunks), timeout_s + quiet_s, quiet_s)
