"""Ports that control never opens itself: a watched folder, a stream that another process receives.

A folder on a network file system can hang for minutes; whoever asks after it must not be control.
"""

from __future__ import annotations


class DistantPort:
    """A place with a name; nothing is sent there and nothing is read from here."""

    character_s = 0.0

    def __init__(self, where: str) -> None:
        self.where = where

    async def open(self) -> None:
        """Nothing to open: the process that reads opens it."""

    async def close(self) -> None:
        """Nothing to close."""

    async def write(self, data: bytes) -> None:
        """Raise TypeError: nobody talks this way to such a place."""
        raise TypeError(f"{self.where}: nothing can be sent there")

    async def read(self, timeout_s: float) -> bytes:
        """Raise TypeError: what comes from there comes by another process."""
        raise TypeError(f"{self.where}: nothing can be read from here")

    def discard(self) -> bytes:
        """Return nothing."""
        return b""
