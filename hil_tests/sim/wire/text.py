"""Text lines on the instrument's end: bytes in, lines out, whatever the pieces."""

from __future__ import annotations

from collections.abc import Iterator


class LineReceiver:
    """Collects bytes into lines that end with LF; CR is dropped.

    Args:
        longest: a line longer than this is cut there; ``overlong`` counts them.
        ignore: bytes dropped wherever they stand (XON and XOFF, for instance).
    """

    def __init__(self, *, longest: int = 255, ignore: bytes = b"\r") -> None:
        self._longest = longest
        self._ignore = ignore
        self._begun = bytearray()
        self._too_long = False
        self.overlong = 0

    def feed(self, data: bytes) -> Iterator[tuple[str, bool]]:
        """Yield each line without its LF, and whether it was too long."""
        for byte in data:
            if byte in self._ignore:
                continue
            if byte == 0x0A:
                line, too_long = self._begun.decode("ascii", errors="replace"), self._too_long
                self.clear()
                yield line, too_long
            elif len(self._begun) < self._longest:
                self._begun.append(byte)
            elif not self._too_long:
                self._too_long = True
                self.overlong += 1

    def clear(self) -> None:
        """Forget the begun line."""
        self._begun.clear()
        self._too_long = False
