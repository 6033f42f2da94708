"""Whose turn it is on a line: first come, first served, but the urgent, then the first, before all others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turn:
    """A lock with three queues; it is handed over, so nobody can slip in between."""

    def __init__(self) -> None:
        self._taken = False
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def taken(self, *, urgent: bool = False, first: bool = False) -> AsyncIterator[None]:
        """Wait for the turn and keep it for the block."""
        await self._take(self._urgent if urgent else self._first if first else self._others)
        try:
            yield
        finally:
            self._hand_over()

    async def _take(self, queue: deque[asyncio.Future[None]]) -> None:
        if not self._taken:
            self._taken = True
            return
        mine = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # it became ours in the same moment
                self._hand_over()
            raise

    def _hand_over(self) -> None:
        for queue in (self._urgent, self._first, self._others):
            while queue:
                next_one = queue.popleft()
                if not next_one.done():
                    next_one.set_result(None)
                    return
        self._taken = False
