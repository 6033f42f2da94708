"""Faults of lines and ports that the twins can have, each seen by a client that is not ours."""

import asyncio
import contextlib
from pathlib import Path

import minimalmodbus
import numpy as np
import pytest
from pyModbusTCP.client import ModbusClient

from hil_tests.sim.amptek_list import Fifo
from hil_tests.sim.clock import LabClock
from hil_tests.sim.eurotherm_3200 import EurothermTwin
from hil_tests.sim.labjack_t7 import LabJackT7Twin
from hil_tests.sim.physics.beam import Beam, BeamParameters
from hil_tests.sim.physics.holder import Holder, HolderParameters
from hil_tests.sim.wire.faults import WireFaults

TEST_REGISTER, TEST_WORDS = 55100, [0x0011, 0x2233]


@pytest.fixture
async def heater():
    twin = EurothermTwin(Holder(HolderParameters(), start_k=296.0), LabClock(speed=10.0))
    await twin.start()
    yield twin
    await twin.stop()


async def asked(twin, unit, register):
    """Read a register as a host would that has just opened the port."""

    def ask():
        instrument = minimalmodbus.Instrument(twin.counters()["port"], unit)
        instrument.serial.timeout = 0.3
        with contextlib.closing(instrument.serial):
            return instrument.read_register(register)

    return await asyncio.to_thread(ask)


async def test_connections_that_are_there_hear_nothing_more_and_new_ones_work():
    beam = Beam(BeamParameters(wander=0.0), np.random.default_rng(1), ["reader"])
    twin = LabJackT7Twin(beam, LabClock(speed=1.0))
    await twin.start()
    try:
        old = ModbusClient(host="127.0.0.1", port=twin.port, timeout=0.2, auto_open=True)
        assert await asyncio.to_thread(old.read_holding_registers, TEST_REGISTER, 2) == TEST_WORDS
        twin.inject({"kind": "half_open"})
        requests = twin.counters()["requests"]
        assert await asyncio.to_thread(old.read_holding_registers, TEST_REGISTER, 2) is None
        assert twin.counters()["requests"] == requests
        new = ModbusClient(host="127.0.0.1", port=twin.port, timeout=1.0, auto_open=True)
        assert await asyncio.to_thread(new.read_holding_registers, TEST_REGISTER, 2) == TEST_WORDS
        for client in (old, new):
            client.close()
    finally:
        await twin.stop()


async def test_a_reply_under_another_address_has_a_right_checksum(heater):
    heater.inject({"kind": "wrong_unit", "unit": 7})
    with pytest.raises(minimalmodbus.InvalidResponseError, match="7"):
        await asked(heater, 1, 1)
    assert heater.counters()["wire_faults"] == {"wrong_unit": 1}
    await asked(heater, 1, 1)


async def test_a_neighbour_on_the_same_pair_answers_until_it_is_gone(heater):
    heater.inject({"kind": "neighbour", "answers": True})
    assert await asked(heater, 2, 5) == 5
    await asked(heater, 1, 1)
    heater.inject({"kind": "neighbour", "answers": False})
    with pytest.raises(minimalmodbus.NoResponseError):
        await asked(heater, 2, 5)
    await asked(heater, 1, 1)


async def test_a_port_that_was_plugged_in_again_has_its_name_and_another_number(heater):
    name = heater.counters()["port"]
    before = Path(name).resolve()
    held = before.open("rb", buffering=0)  # as by a host that has not noticed: the number stays taken
    heater.inject({"kind": "unplug"})
    assert not Path(name).exists()
    assert heater.counters()["port"] == ""
    heater.inject({"kind": "replug"})
    assert heater.counters()["port"] == name
    assert Path(name).resolve() != before
    held.close()
    await asked(heater, 1, 1)


def test_a_shallower_list_loses_what_does_not_fit():
    fifo = Fifo(100)
    fifo.push(np.arange(5, dtype=np.uint32))
    fifo.capacity = 3
    fifo.push(np.arange(2, dtype=np.uint32))
    assert (len(fifo), fifo.lost) == (5, 2)
    assert fifo.pop(10)[1]


def test_what_is_mended_strikes_no_more():
    faults = WireFaults()
    faults.inject({"kind": "silence", "count": 100})
    assert faults.outgoing(b"a") == []
    faults.inject({"kind": "mended"})
    assert faults.outgoing(b"a") == [(0.0, b"a")]
    assert faults.knows("mended")
