"""A bench never outlives whoever started it: it ends when its standard input closes."""

from __future__ import annotations

import asyncio
import os
import threading


def watch_owner(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Set ``stopped`` when standard input closes.

    A terminal in the background cannot be read; there, signals end it.
    """
    if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
        return

    def wait() -> None:
        while True:
            try:
                if not os.read(0, 4096):
                    break
            except OSError:
                break
        loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=wait, name="owner", daemon=True).start()
