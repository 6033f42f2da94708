"""How an instrument that heats is switched off: before everybody else, once, and in bounded time.

``off`` ends what is in flight on the line, revokes every command of its instrument that waits there, keeps
the line for itself, and goes on when its caller gives up. While it runs no command is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from drivers.errors import NoReply, Refused
from drivers.line import Interrupted, Line

OFF_LIMIT_S = 1.8  # wall seconds for all of ``off``


class GoingOff:
    """The commands of one instrument, and the way to end them all."""

    def __init__(self, line: Line, name: str, *, limit_s: float = OFF_LIMIT_S) -> None:
        self._line = line
        self._name = name
        self._limit_s = limit_s
        self._commands: set[asyncio.Timeout] = set()
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def command(self) -> AsyncIterator[None]:
        """Make what happens inside revocable, also while it waits for the line.

        Raises:
            Refused: the instrument is being switched off.
            Interrupted: it was switched off meanwhile.
        """
        if self._task is not None and not self._task.done():
            raise Refused("is being switched off", device=self._name)
        try:
            async with asyncio.timeout(None) as scope:
                self._commands.add(scope)
                try:
                    yield
                finally:
                    self._commands.discard(scope)
        except TimeoutError as error:
            raise Interrupted("command given up: switched off meanwhile", device=self._name) from error

    async def off(self, go_off: Callable[[], Awaitable[None]]) -> None:
        """Revoke all commands, then do ``go_off``; two at once are one.

        Raises:
            NoReply: not confirmed in time. What ``go_off`` raises goes through.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._bounded(go_off), name=f"{self._name} off")
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._task)

    async def _bounded(self, go_off: Callable[[], Awaitable[None]]) -> None:
        self._line.interrupt()
        for command in self._commands:
            command.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(self._limit_s), self._line.reserved():
                await go_off()
        except TimeoutError as error:
            raise NoReply(f"off is not confirmed after {self._limit_s:g} s", device=self._name) from error
