"""What a LabJack T7 is told once: refusals in its own words, watchdog, beam current input."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from pymodbus.pdu import ModbusPDU

from drivers import labjack_registers as t7
from drivers.errors import BadReply, DriverError, Refused
from drivers.labjack_settings import BeamCurrent
from drivers.labjack_stream import Calibration
from drivers.modbus import Modbus, ModbusRefused, ModbusTcp, floats, read_request


class Box(ModbusTcp):
    """Modbus, with LabJack's own error number in the refusals."""

    async def _ask(self, pdu: ModbusPDU, *, urgent: bool) -> list[int]:
        try:
            return await super()._ask(pdu, urgent=urgent)
        except ModbusRefused as error:
            words = error.message
            with contextlib.suppress(DriverError):
                number = (await super()._ask(read_request(t7.LAST_ERROR, 1), urgent=urgent))[0]
                words = f"{words}; LabJack error {number}: {t7.ERRORS.get(number, 'see its list')}"
            raise Refused(words, device=error.device, request=error.request, reply=error.reply) from error


async def arm_watchdog(
    io: Modbus, outputs: Mapping[int, int], timeout_s: int, key: int, *, name: str
) -> None:
    """Program the strict watchdog, verify it by reading it back, and feed it.

    Args:
        io: the box.
        outputs: digital outputs and the level each gets when the time is over; all others are left alone.
        timeout_s: whole seconds, also after power-up.
        key: only writing this number feeds it.
        name: for messages.

    Raises:
        BadReply: a register reads back as something else.
    """
    program = watchdog_program(outputs, timeout_s, key)
    await io.write_u32(t7.WATCHDOG_ENABLE, 0)  # the others cannot be written while it is enabled (2671)
    for register, values in program:
        await io.write_u32(register, *values)
    await io.write_u32(t7.WATCHDOG_ENABLE, 1)
    for register, values in [*program, (t7.WATCHDOG_ENABLE, (1,))]:
        got = tuple(await io.read_u32(register, len(values)))
        if got != values:
            raise BadReply(f"watchdog register {register} reads {got}, not {values}", device=name)
    await io.write_u32(t7.WATCHDOG_CLEAR, key)


def watchdog_program(
    outputs: Mapping[int, int], timeout_s: int, key: int
) -> list[tuple[int, tuple[int, ...]]]:
    """Return registers and their 32-bit values: strict, digital outputs safe, no reset, DACs untouched."""
    mask = sum(1 << line for line in outputs)
    state = sum(level << line for line, level in outputs.items())
    return [
        (t7.WATCHDOG_ADVANCED, (0, timeout_s, timeout_s)),
        (t7.WATCHDOG_STRICT, (1, key)),
        (t7.WATCHDOG_RESET, (0,)),
        (t7.WATCHDOG_DIO_ENABLE, (1, state, mask, ((1 << t7.DIO_LINES) - 1) & ~mask)),
        (t7.WATCHDOG_DAC0_ENABLE, (0,)),
        (t7.WATCHDOG_DAC1_ENABLE, (0,)),
    ]


async def prepare_monitor(io: Modbus, monitor: BeamCurrent) -> tuple[Calibration, str]:
    """Set up the beam current input; return its calibration for stream data, and a note if it is nominal.

    On request the box returns volts; stream data are raw and the host applies the constants from its flash.
    """
    await io.write_f32(t7.AIN_RANGE + 2 * monitor.ain, t7.AIN_RANGE_V)
    await io.write_register(t7.AIN_NEGATIVE_CHANNEL + monitor.ain, t7.SINGLE_ENDED)
    await io.write_register(t7.AIN_RESOLUTION_INDEX + monitor.ain, t7.RESOLUTION)
    await io.write_f32(t7.AIN_SETTLING_US + 2 * monitor.ain, 0.0)
    try:
        await io.write_u32(t7.FLASH_POINTER, t7.CALIBRATION)
        calibration = Calibration(*floats(await io.read_holding(t7.FLASH_READ, 6)))
    except Refused as error:
        why = error.message
    else:
        if calibration.plausible:
            return calibration, ""
        why = f"it reads {calibration}"
    return Calibration(), f"no calibration of the analogue input ({why}); nominal constants are used"
