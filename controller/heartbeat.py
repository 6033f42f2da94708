"""Control's side of the heartbeat with the supervisor: alive, how far, and what is stale."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from controller.notify import ALL_OFF, SETTING_UP, Freshness
from controller.verdict import EXIT_INSTRUMENT

if TYPE_CHECKING:
    from controller.host import Host

BEAT_S = 0.1
SUPERVISOR_LOST_S = 3.0


async def beat(host: Host) -> None:
    """Beat with the supervisor; without one, make everything safe and end."""
    if host.args.heartbeat is None:
        return
    with socket.socket(fileno=host.args.heartbeat) as link:
        link.setblocking(False)
        freshness: Freshness | None = None
        while await _answered(link, _told(host, freshness)):
            await asyncio.sleep(BEAT_S)
            if host.underway.is_set() and freshness is None:
                freshness = _freshness(host)
    host.end(EXIT_INSTRUMENT, "the supervisor is gone")


def _told(host: Host, freshness: Freshness | None) -> int:
    """Return what the supervisor is told with a beat."""
    if host.all_off:
        return ALL_OFF
    return SETTING_UP if freshness is None else freshness.beat()


def _freshness(host: Host) -> Freshness:
    """Return who says whether tick, guard, journal and drivers go on; see ``notify``."""
    roles, lines_of = host.station.roles, host.station.lines_of
    polled = {line for name in (roles.heater, host.station.io_name) if name for line in lines_of(name)}
    stats = [host.bench.lines[line].stats for line in polled]
    return Freshness({
        "tick": lambda: (host.turns,),
        "guard": lambda: (host.recorder.counters.get("ticks", 0),),
        "journal": lambda: (host.journal.commits,),
        "drivers": lambda: tuple(one.replies for one in stats),
    })  # fmt: skip


async def _answered(link: socket.socket, told: int) -> bool:
    """Beat once; return whether the supervisor was heard in time."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(link, bytes([told]))
        async with asyncio.timeout(SUPERVISOR_LOST_S):
            return bool(await loop.sock_recv(link, 64))
    except (TimeoutError, OSError):
        return False
