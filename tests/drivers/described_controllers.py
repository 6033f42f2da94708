"""Two controllers without a driver of their own, as a station file would describe them, and how that is read.

Watlow EZ-ZONE PM: user's guide 0600-0059, Modbus map 1: process value 360, input error 362, mode 1880
(off 62, auto 10, manual 54), heat power 1904, closed-loop set-point 2160, open-loop set-point 2162,
ramp action 2186, ramp rate 2192; floats with the low word first; degF unless changed.
Registers 360, 362, 1880, 2160 and 2162 were also found in other people's code and tables; 1904,
2186 and 2192 were not.

Delta DTB: the maker's DTB manual, RS-485 section: process value 1000H with the codes 8002H to 8007H,
set-point 1001H, output 1012H, status 102AH, firmware 102FH, run bit 0814H; functions 03H, 06H, 02H, 05H.
"""

import tomllib

from controller.config.instruments.modbus_pid import ModbusPid

SENSOR_BREAK = """
sensor_break = { setting = "on", safe_output = "0 %", confirmed_by = "A. Person", confirmed_on = 2026-01-01 }
"""
WATLOW = """
driver = "modbus_pid"
line = "heater"
unit_id = 1
period = "0.5 s"
maker = "Watlow"
model = "EZ-ZONE PM"
process_value.register = 360
process_value.type = "float32"
process_value.word_order = "low first"
process_value.unit = "degF"
process_value.low = -58
process_value.high = 750
setpoint.register = 2160
setpoint.type = "float32"
setpoint.word_order = "low first"
setpoint.unit = "degF"
setpoint.write = 16
setpoint.low = 32
setpoint.high = 392
output = { register = 1904, type = "float32", word_order = "low first", unit = "%" }
manual_output.register = 2162
manual_output.type = "float32"
manual_output.word_order = "low first"
manual_output.unit = "%"
manual_output.write = 16
manual_output.low = 0
manual_output.high = 100
mode = { register = 1880, type = "uint16", write = 6, auto = 10, off = 62, manual = 54 }
ramp.register = 2192
ramp.type = "float32"
ramp.word_order = "low first"
ramp.unit = "degF/min"
ramp.write = 16
ramp.enable = { register = 2186, type = "uint16", write = 6, on = 1647, off = 62 }
status = [
  { register = 362, type = "uint16", unlike = [61], says = "sensor error", sensor = true },
]
"""
DELTA = """
driver = "modbus_pid"
line = "heater"
unit_id = 1
period = "0.5 s"
maker = "Delta"
model = "DTB4848"
process_value.register = 0x1000
process_value.scale = 0.1
process_value.unit = "degC"
process_value.low = -50
process_value.high = 400
process_value.invalid = [0x8002, 0x8003, 0x8004, 0x8006, 0x8007]
setpoint = { register = 0x1001, scale = 0.1, unit = "degC", write = 6, low = 0, high = 200 }
output = { register = 0x1012, scale = 0.1, unit = "%" }
mode = { register = 0x0814, type = "bit", function = 2, write = 5, auto = 1, off = 0 }
status = [
  { register = 0x102A, type = "uint16", mask = 0x0013, says = "an alarm output is on" },
  { register = 0x102A, type = "uint16", mask = 0x0080, says = "autotune is running" },
]
identity = { register = 0x102F, type = "uint16", equals = [0x0160] }
"""


def settings(text, **more):
    """Return what the driver gets of such a table."""
    table = ModbusPid.model_validate(tomllib.loads(text + SENSOR_BREAK))
    return {**table.settings(), "temperature_low_k": 263.0, "temperature_high_k": 343.0, **more}
