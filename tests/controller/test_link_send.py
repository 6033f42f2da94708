"""History gives way: how much of it goes at once depends on how long the broker takes."""

from types import SimpleNamespace

import pytest

from controller.journal import Journal, Record
from controller.link_send import BATCH, SMALLEST, Sender
from controller.outbox import Lanes, OutboxReader

OLD_S = 1000.0


class Broker:
    """Takes so long for each message, of the clock that the sender looks at; and a way there and back."""

    def __init__(self):
        self.address = SimpleNamespace(max_payload=4 << 20)
        self.now_s = 0.0
        self.message_s = self.way_s = 0.0
        self.batches = []

    def monotonic(self):
        return self.now_s

    async def publish_many(self, messages):
        self.now_s += self.way_s + self.message_s * len(messages)
        self.batches.append([message.topic.rpartition("/")[2] for message in messages])
        return len(messages), None


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def sender(tmp_path, broker):
    """A sender before 400 old messages on ``doc/old``."""
    with Journal.open(tmp_path / "journal.sqlite", station="bench") as journal:
        journal.boot("test")
        journal.record_many([Record("k", "m", {}, topic="doc/old", wall_s=OLD_S) for _ in range(400)])
        with OutboxReader.open(journal.path) as reader:
            clocks = {"wall": lambda: OLD_S + 3600.0, "monotonic": broker.monotonic}
            control = SimpleNamespace(acknowledge=lambda _: None, refuse=lambda _: None)
            lanes = Lanes(reader, late_s=5.0, rate=1e6, **clocks)
            made = Sender("operando/v1/bench", reader, control, lanes, monotonic=broker.monotonic)
            made.journal = journal
            yield made


async def test_a_fast_broker_gets_as_much_as_may_be_on_its_way(sender, broker):
    broker.message_s = 0.001
    for _ in range(5):
        assert await sender.send_next(broker)
    assert [len(batch) for batch in broker.batches] == [BATCH] * 5


async def test_live_messages_wait_for_little_of_a_slow_brokers_history(sender, broker):
    """20 ms for each message: a batch of 20 would hold a live one up for 400 ms."""
    broker.message_s = 0.02
    for _ in range(4):
        await sender.send_next(broker)
    assert [len(batch) for batch in broker.batches] == [20, 10, 5, 5]
    sender.journal.record_many([Record("k", "m", {}, topic="doc/live", wall_s=OLD_S + 3599.0)])
    await sender.send_next(broker)
    assert broker.batches[-1] == ["live"]
    broker.message_s = 0.001  # it has recovered
    for _ in range(4):
        await sender.send_next(broker)
    assert [len(batch) for batch in broker.batches[-4:]] == [5, 10, 20, 20]


async def test_a_long_way_does_not_stop_the_flow(sender, broker):
    broker.way_s = 0.6
    for _ in range(10):
        await sender.send_next(broker)
    assert len(broker.batches[-1]) == SMALLEST
