"""Store and forward in figures; ``make soak`` has the long form, with a broker that dies twelve times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hil_tests.durability.network import commits_beside_a_frozen_link, live_beside_history
from tests.controller.mosquitto import Mosquitto

LOG_LIMIT_BYTES = 16 << 20  # what the journal's log is cut back to
WAIT_S = 1.0  # a commit that waited for a reader would take five
FREEZE_S = 2.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path / "mosquitto").start()
    yield made
    made.stop()


async def test_live_messages_are_not_delayed_by_history(
    tmp_path: Path, broker: Mosquitto, record_property: Callable[[str, object], None]
) -> None:
    """Three seconds' worth of an old backlog drains while twenty live messages a second go by."""
    alone, beside, took_s = await live_beside_history(tmp_path, broker, 1500)
    record_property("latency", f"alone {alone}; beside {beside}")
    assert took_s > 1.5  # 500 of them a second at the most
    assert beside.count > 20
    assert beside.p99_s < 0.5, str(beside)


@pytest.mark.parametrize("where", ["read", "idle"])
async def test_a_frozen_link_neither_delays_a_commit_nor_lets_the_log_grow(
    tmp_path: Path, broker: Mosquitto, where: str
) -> None:
    found = await commits_beside_a_frozen_link(tmp_path, broker, where, FREEZE_S)
    assert found.slowest_s < WAIT_S, found
    assert found.commits > 20
    # While a read is open the log holds all that is written; it is cut back when link has been killed.
    assert found.log_bytes < 2 * found.written_bytes + LOG_LIMIT_BYTES + (4 << 20), found
    assert found.log_after_bytes <= LOG_LIMIT_BYTES + (4 << 20), found
