"""Drivers of binary lines, as in ``fuzz_lines``: ICP DAS M-7015, Modbus PID, Amptek on RS-232, HEXITEC."""

from __future__ import annotations

import math
import struct
from typing import Any

from hil_tests.soak.fuzz_lines import MARK, Answer, Clock, Line, One, finite, must, run_all

CHARACTER_S = 11 / 115_200

# --- Modbus RTU --------------------------------------------------------------------------------------------

_M7015 = {"unit_id": 1, "channel": 0, "r0_ohm": 100.05, "lead_ohm": 0.1, "tolerance_class": "A"}
_WORD = {"type": "int16", "function": 3}
_FLOAT = {"type": "float32", "function": 3, "word_order": "low first"}
_BREAK = {"setting": "on", "safe_output_fraction": 0.0, "confirmed_by": "A. Person", "confirmed_on": "2026"}
_WORDS = {  # a controller of whole numbers, and one of floats
    "process_value": {**_WORD, "address": 0, "scale": 0.1, "unit": "degC", "invalid": [0x8000]},
    "setpoint": {**_WORD, "address": 1, "scale": 0.1, "unit": "degC", "write": 6, "low": 0, "high": 200},
    "output": {**_WORD, "address": 2, "scale": 0.1, "unit": "%"},
    "mode": {**_WORD, "address": 3, "write": 6, "auto": 1, "off": 0},
    "status": [{**_WORD, "address": 4, "mask": 3, "says": "sensor error", "sensor": True}],
    "identity": {**_WORD, "address": 5, "equals": [7]},
    "sensor_break": _BREAK,
}
_FLOATS = {
    "process_value": {**_FLOAT, "address": 0, "unit": "degF", "low": -58, "high": 750},
    "setpoint": {**_FLOAT, "address": 2, "unit": "degF", "write": 16, "low": 32, "high": 392},
    "output": {**_FLOAT, "address": 4, "unit": "%"},
    "manual_output": {**_FLOAT, "address": 6, "unit": "%", "write": 16, "low": 0, "high": 100},
    "mode": {"type": "uint16", "address": 8, "write": 6, "auto": 10, "manual": 54},
    "ramp": {**_FLOAT, "address": 10, "unit": "degF/min", "write": 16},
    "sensor_break": _BREAK,
}


def _crc(body: bytes) -> bytes:
    from drivers.modbus import crc16

    return body + crc16(body)


def _crc_right(request: bytes, reply: bytes) -> bytes:
    """Return a reply behind the unit and function of the request, with a right checksum."""
    return _crc(request[:2] + reply)


def _registers(has: dict[int, int]) -> Answer:
    def answer(request: bytes) -> bytes:
        function, body = request[1], request[2:-2]
        if function == 0x46:
            name = {0: b"\x00p\x15\x00", 0x20: b"\x01\x02\x03"}[body[0]]
            return _crc(request[:3] + name)
        first, count = struct.unpack(">HH", body[:4])
        if function in (3, 4):
            words = [has.get(first + n, 0) for n in range(count)]
            return _crc_right(request, struct.pack(f">B{count}H", 2 * count, *words))
        if function in (1, 2):
            return _crc_right(request, bytes([1, 0]))
        if function == 16:
            has.update(zip(range(first, first + count), struct.unpack(f">{count}H", body[5:]), strict=True))
            return _crc_right(request, body[:4])
        has[first] = count
        return _crc_right(request, body)

    return answer


def seeds_modbus_devices() -> list[bytes]:
    """Return each of the three as it should be, and with ends of range, floats that are none, exceptions."""
    strange = (
        b"\x86\x02\x7f\xff", b"\x87\x01\x01", b"\x80\x04\x00p\x15\x00" + MARK + b"\x81\x02\x00\x21",
        b"\x82\x04\xff\xff\x7f\xff", b"\x84\x04\0\0\x7f\xc0", b"\x83\x02\x80\x00",
        b"\x02\x01\x83\x02\xc0\xf1",
    )  # fmt: skip
    return [bytes([kind]) + piece for kind in (0, 1, 2) for piece in (b"", *strange)]


def make_modbus_devices() -> One:
    """The first byte chooses the instrument."""
    from drivers.icpdas_m7015 import IcpDasM7015
    from drivers.modbus_pid import ModbusPid

    def thermometer(data: bytes) -> None:
        line: Any = Line(data, _registers({256: 0x20, 489: 0x3F, 0: 7000}), _crc_right, CHARACTER_S)
        device = IcpDasM7015(line, name="thermometer", clock=Clock(), settings=_M7015)

        async def read() -> None:
            reading = await device.read()
            sure = reading.temperature_k is not None and math.isfinite(reading.temperature_k)
            must(reading.sensor_ok == sure and (not sure or reading.temperature_k > 0.0), f"{reading}")  # type: ignore[operator]

        run_all([device.identify, device.prepare, read, read])

    def controller(data: bytes, settings: Any, has: dict[int, int]) -> None:
        line: Any = Line(data, _registers(has), _crc_right, CHARACTER_S)
        device = ModbusPid(line, name="heater", clock=Clock(), settings=settings)

        async def read() -> None:
            reading = await device.read()
            good = finite(reading.temperature_k, reading.working_setpoint_k, reading.output_fraction)
            must(good and (reading.temperature_k is not None or not reading.sensor_ok), f"{reading}")

        steps = [device.identify, device.prepare, read, lambda: device.set_target_k(333.0), read]
        run_all([*steps, lambda: device.set_ramp_k_per_min(0.0), device.off])

    def run(data: bytes) -> None:
        kind = (data[0] if data else 0) % 3
        if kind == 0:
            thermometer(data[1:])
        elif kind == 1:
            controller(data[1:], _WORDS, {0: 250, 5: 7})
        else:
            controller(data[1:], _FLOATS, {0: 0, 1: 0x429A})

    return run


# --- Amptek on RS-232 --------------------------------------------------------------------------------------


def _packet(pid: tuple[int, int], data: bytes = b"") -> bytes:
    body = bytes([0xF5, 0xFA, *pid]) + len(data).to_bytes(2, "big") + data
    return body + (-sum(body) & 0xFFFF).to_bytes(2, "big")


def _packet_right(request: bytes, reply: bytes) -> bytes:
    """Return a packet of which the two bytes of its name and its data are given."""
    return _packet((reply[0], reply[1]), reply[2:]) if len(reply) >= 2 else reply


def _amptek() -> Answer:
    has, state = dict[str, str](), {"on": False}

    def status() -> bytes:
        data = bytearray(64)
        data[20:24], data[35] = b"\x10\x27\0\0", 0x20 * state["on"]
        data[39], data[43] = 1, 3 | 4 | 8
        return bytes(data)

    def answer(request: bytes) -> bytes:
        pid, data = (request[2], request[3]), request[6:-2]
        if pid == (0x01, 0x01):
            return _packet((0x80, 0x01), status())
        if pid == (0x02, 0x03):
            return _packet((0x81, 0x02), bytes(3 * 256) + status())
        if pid == (0x03, 0x09):
            return _packet((0x82, 0x0A), bytes(16 * state["on"]))
        if pid == (0x20, 0x03):
            names = [item[:4] for item in data.decode().split(";") if item]
            return _packet((0x82, 0x07), "".join(f"{n}={has.get(n, '0')};" for n in names).encode())
        if pid == (0x20, 0x02):
            for item in data.decode().split(";"):
                name, _, value = item.partition("=")
                has[name] = value
        if pid in ((0xF0, 0x02), (0xF0, 0x03)):
            state["on"] = pid[1] == 2
        return _packet((0xFF, 0x00))

    return answer


def seeds_amptek_serial() -> list[bytes]:
    """Return counting as it should be, noise, overflow, a reboot, refusals."""
    rebooted = bytearray(64)
    rebooted[36], rebooted[39], rebooted[43] = 0x20, 1, 15
    strange = (
        b"\x05\0\xff\xf5" + _packet((0xFF, 0)), b"\x8c\x82\x07MCAC=512;", b"\x98\x82\x0b" + bytes(8),
        b"\x8b\xff\x05" + MARK + b"\x83\x80\x01" + bytes(rebooted), b"\x97\x81\x04" + bytes(900),
    )  # fmt: skip
    return [b"", *strange]


def make_amptek_serial() -> One:
    """Identified, prepared, counting, words and a spectrum read, stopped."""
    from drivers.amptek_dp5 import AmptekDp5

    settings = {"detector": "sdd", "channels": 256, "list_clock_s": 1e-6}

    def run(data: bytes) -> None:
        line: Any = Line(data, _amptek(), _packet_right, CHARACTER_S)
        device = AmptekDp5(line, name="pixe", clock=Clock(), settings=settings)

        async def spectrum() -> None:
            counts, status = await device.spectrum()
            must(len(counts) == 256, f"{len(counts)} channels")
            must(finite(status.real_s, status.temperature_k), f"{status}")

        async def words() -> None:
            must(not len((await device.read_words()).words) % 4, "no whole words")

        run_all([device.identify, device.prepare, device.start, words, spectrum, device.stop, device.off])

    return run


# --- HEXITEC: commands -------------------------------------------------------------------------------------


def _camera_right(request: bytes, reply: bytes) -> bytes:
    """Return a reply with what stands around its digits."""
    return b"\x2a\x90" + reply + b"\r"


def _camera() -> Answer:
    fields = {0x52: (25_000, 13_000, 480, 480, 2000, 2000), 0x50: (670, *[0] * 8, 4095, 0, 0)}
    registers = {0x83: 20, 0x84: 80}

    def answer(request: bytes) -> bytes:
        code, digits = request[2], request[3:-1]
        if code in fields:
            digits = b"".join(b"%04X" % word for word in fields[code])
        elif code == 0x41:
            digits = b"%02X" % registers.get(int(digits, 16), 1)
        return _camera_right(request, digits)

    return answer


def seeds_hexitec_commands() -> list[bytes]:
    """Return a camera as it should be, and one that is damp, without a thermistor, of another size."""
    strange = (
        b"\x88" + b"61A832C801E001E007D00001", b"\x88" + b"FFFF" * 6, b"\x88" + b"0000" * 6, b"\x8379",
        b"\x8a" + b"0000" * 12, b"\x09\x2a\x90zz\r", b"\x86" + b"0100",
    )  # fmt: skip
    return [b"", *strange]


def make_hexitec_commands() -> One:
    """Identified, prepared, its environment read, bias on, off; no acquire process is there."""
    from drivers import hexitec_commands as wire
    from drivers.hexitec import Hexitec

    settings = {
        "rows": 80, "columns": 80, "packet_bytes": 8000, "header": "short", "frame_rate_hz": 10.0,
        "bias_v": -500.0, "whole_frames_bytes": 1 << 20, "settle_s": 0.0, "listen_port": 1, "ring_frames": 8,
        "refresh_interval_s": None,
    }  # fmt: skip

    def run(data: bytes) -> None:
        line: Any = Line(data, _camera(), _camera_right, CHARACTER_S)
        device = Hexitec(line, name="camera", clock=Clock(), settings=settings)

        async def environment() -> None:
            found = await device._environment()
            must(math.isnan(found.sensor_k) or 0.0 < found.sensor_k < 1e4, f"{found}")
            must(finite(found.dew_point_k, found.ambient_k), f"{found}")

        async def bias() -> None:
            await device._bias_on()
            must(math.isfinite(wire.measured_bias_v(await device._fields(wire.OPERATING))), "bias")

        run_all([device.identify, device.prepare, environment, device.status, bias, device.off])

    return run
