"""Faults on the wire, applied to what a twin sends.

A fault is a table: ``kind`` and, all optional, ``count`` (how many replies it hits, default 1) and ``skip``
(how many replies pass before it starts, default 0), then

* ``lost``: ``bytes`` bytes from index ``at`` are missing (default 1 in the middle);
* ``flipped``: bit ``bit`` of byte ``at`` is inverted (default bit 0 of the middle byte);
* ``doubled``: the whole reply comes twice, or only byte ``at`` does;
* ``late``: the reply comes ``delay_s`` lab seconds later;
* ``silence``: nothing comes;
* ``previous``: the reply is kept back and comes in front of the next one, as a late reply would;
* ``swapped``: the reply comes after the next one;
* ``noise``: the bytes ``hex`` come in front of the reply;
* ``mended``: nothing that is still queued strikes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Pieces = list[tuple[float, bytes]]  # lab delay in s, bytes


@dataclass
class _Fault:
    table: Mapping[str, Any]
    count: int
    skip: int


class WireFaults:
    """A queue of faults; the first one that is due acts on a reply."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._faults: list[_Fault] = []
        self._first: list[bytes] = []  # replies to come in front of the next one
        self._last: list[bytes] = []  # replies to come behind the next one
        self._kinds: dict[str, Callable[[Mapping[str, Any], bytes], Pieces]] = {
            "lost": _lost,
            "flipped": _flipped,
            "doubled": _doubled,
            "late": lambda table, data: [(float(table.get("delay_s", 1.0)), data)],
            "silence": lambda _table, _data: [],
            "previous": self._previous,
            "swapped": self._swapped,
            "noise": lambda table, data: [(0.0, bytes.fromhex(str(table.get("hex", "00"))) + data)],
        }

    def knows(self, kind: object) -> bool:
        """Return whether ``kind`` is a fault of the wire."""
        return kind in self._kinds or kind == "mended"

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Queue a fault. Raises ValueError if its kind is unknown."""
        if fault.get("kind") == "mended":
            self._faults.clear()
            return
        if not self.knows(fault.get("kind")):
            raise ValueError(f"no such wire fault: {fault.get('kind')!r}; known: {', '.join(self._kinds)}")
        self._faults.append(_Fault(fault, int(fault.get("count", 1)), int(fault.get("skip", 0))))

    def outgoing(self, data: bytes) -> Pieces:
        """Return what really goes out instead of ``data``, each piece with its extra delay."""
        kept_first, kept_last = self._first, self._last
        self._first, self._last = [], []
        pieces = self._hit(data)
        return [
            *((0.0, old) for old in kept_first),
            *pieces,
            *((0.0, old) for old in kept_last),
        ]

    def _hit(self, data: bytes) -> Pieces:
        for fault in self._faults:
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.count -= 1
            if fault.count <= 0:
                self._faults.remove(fault)
            kind = str(fault.table["kind"])
            self.counts[kind] = self.counts.get(kind, 0) + 1
            return self._kinds[kind](fault.table, data)
        return [(0.0, data)]

    def _previous(self, _table: Mapping[str, Any], data: bytes) -> Pieces:
        self._first.append(data)
        return []

    def _swapped(self, _table: Mapping[str, Any], data: bytes) -> Pieces:
        self._last.append(data)
        return []


def _lost(table: Mapping[str, Any], data: bytes) -> Pieces:
    at = int(table.get("at", len(data) // 2))
    return [(0.0, data[:at] + data[at + int(table.get("bytes", 1)) :])]


def _flipped(table: Mapping[str, Any], data: bytes) -> Pieces:
    at = int(table.get("at", len(data) // 2))
    flipped = bytearray(data)
    flipped[at] ^= 1 << int(table.get("bit", 0))
    return [(0.0, bytes(flipped))]


def _doubled(table: Mapping[str, Any], data: bytes) -> Pieces:
    if "at" in table:
        at = int(table["at"])
        return [(0.0, data[: at + 1] + data[at:])]
    return [(0.0, data), (0.0, data)]
