"""A camera that sends its images as ZeroMQ messages (areaDetector's NDPluginZMQ); see ``frame_stream``.

Messages are taken by a process of their own (``frame_worker``): control hears of an image when it is on disk.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from drivers.errors import Refused
from drivers.frame_process import FrameProcess


class FrameLive(FrameProcess):
    """A stream. Settings as ``FrameProcess``, ``delay_s`` and ``socket`` (sub or pull)."""

    def told(self) -> dict[str, Any]:
        """Return what the process is told; wall seconds."""
        own, where = self._settings, self._line.where
        host, _, port = where.removeprefix("tcp://").rpartition(":")
        return {
            **super().told(), "kind": "zmq", "host": host, "port": int(port), "socket": own["socket"],
            "hold_s": (own["exposure_s"] + own["delay_s"]) / self._clock.speed,
        }  # fmt: skip

    async def prepare(self) -> list[str]:
        """Start the process afresh. Raises Refused without pyzmq."""
        if find_spec("zmq") is None:
            raise Refused("needs the package pyzmq: pip install operando[live]", device=self.name)
        notes = await super().prepare()
        if self._settings["socket"] == "sub":
            notes.append(f"{self.name}: a publisher drops what is not taken in time; numbers show it")
        return notes
