"""Registers of the LabJack T7 that this project uses, and its error numbers in words.

Source: LabJack, ljm_constants.json (github.com/labjack/ljm_constants), version 2025.12.18.A, unless a line
says otherwise. 32-bit values are two registers, high word first, and must be read and written whole. Where
several registers of the table follow each other they may be written in one message; they are taken in order
(as LabJack's own stream example for plain sockets does).
"""

from __future__ import annotations

# --- identity and self-test
PRODUCT_ID = 60000  # F32; hardware and firmware version follow at 60002 and 60004
SERIAL_NUMBER = 60028  # U32
LAST_ERROR = 55000  # U16, the last LabJack error number
TEST = 55100  # U32
TEST_INT32 = 55122  # I32; TEST_FLOAT32 follows at 55124
TEST_VALUE = 0x00112233
TEST_INT32_WORDS = (0x8899, 0xAABB, 0xC61C, 0x3C00)  # with TEST_FLOAT32 = -9999.0
PRODUCT_T7 = 7

# --- inputs and outputs
AIN = 0  # F32, + 2n
DAC = 1000  # F32, + 2n
DAC_LOW_V, DAC_HIGH_V = 0.0, 5.0
FIO = 2000  # U16, + n; writing makes the line an output, reading makes it an input
FIO_STATE = 2500  # U16; low byte states, high byte inhibits (1 = leave this line alone); can be streamed
DIO_STATE = 2800  # U32, levels at the terminals, directions untouched
DIO_DIRECTION = 2850  # U32, 1 = output
DIO_LINES = 23
AIN_RANGE = 40000  # F32, + 2n
AIN_NEGATIVE_CHANNEL = 41000  # U16, + n
AIN_RESOLUTION_INDEX = 41500  # U16, + n
AIN_SETTLING_US = 42000  # F32, + 2n
AIN_RANGE_V = 10.0
SINGLE_ENDED = 199
RESOLUTION = 8  # the finest of the fast converter; the other one must not be used beside stream-out (2626)

# --- stream
STREAM_SCAN_RATE = 4002  # F32; reads as the actual rate
STREAM_ADDRESSES = 4004  # U32; samples per packet, settling (F32), resolution, buffer bytes follow to 4012
STREAM_CLOCK_SOURCE = 4014  # U32, 0 internal
STREAM_TARGET = 4016  # U32, bit 4 command-response
STREAM_DATATYPE = 4018  # U32, to be written 0 (T-Series Datasheet 3.2.4, Low-Level Stream; not in the list)
STREAM_SCANS = 4020  # U32, 0 continuous
STREAM_TRIGGER = 4024  # U32, 0 none
STREAM_SCAN_LIST = 4100  # U32, + 2n
STREAM_ENABLE = 4990  # U32; the first scan comes one period after it was written 1
STREAM_DATA = 4500  # words: count, backlog, status, information, samples (see labjack_stream)
COMMAND_RESPONSE = 16
STREAM_BUFFER_BYTES = 32768  # the largest
STREAM_HIGHEST_SAMPLES_HZ = 100_000.0  # inputs and outputs of all scans; T-Series Datasheet 3.2

STREAM_OUT = 4800  # + n, entry of the scan list
STREAM_OUT_TARGET = 4040  # U32, + 2n
STREAM_OUT_BYTES = 4050  # U32, + 2n, a power of two, 32 to 16384; two bytes less are usable
STREAM_OUT_LOOP_VALUES = 4060  # U32, + 2n, values at the end of the data that repeat after it
STREAM_OUT_SET_LOOP = 4070  # U32, + 2n
STREAM_OUT_ENABLE = 4090  # U32, + 2n
STREAM_OUT_F32 = 4400  # F32, + 2n, does not advance: write many values to the same register
STREAM_OUT_U16 = 4420  # U16, + n, the same
SET_LOOP_NOW, SET_LOOP_WAIT, SET_LOOP_SYNCH = 1, 2, 3
STREAM_OUT_LEAST_BYTES, STREAM_OUT_MOST_BYTES = 32, 16384
STREAM_OUT_RESERVED_BYTES = 2
BYTES_PER_VALUE = 2

# --- calibration of the analogue inputs in internal flash (layout: T-Series Datasheet 20.0.1)
FLASH_POINTER = 61810  # U32
FLASH_READ = 61812
CALIBRATION = 0x3C4000  # fast converter, +-10 V first: positive slope, negative slope, centre, offset as F32

# --- watchdog, all U32
WATCHDOG_ENABLE = 61600
WATCHDOG_ADVANCED = 61602  # timeout and start-up delay, s, follow at 61604 and 61606
WATCHDOG_STRICT = 61610  # the strict key follows at 61612
WATCHDOG_CLEAR = 61614
WATCHDOG_RESET = 61620
WATCHDOG_DIO_ENABLE = 61630  # state, direction and inhibit follow at 61632, 61634 and 61636
WATCHDOG_DAC0_ENABLE = 61640
WATCHDOG_DAC1_ENABLE = 61650

ERRORS = {
    2300: "the reply would be too long",
    2301: "the request is too long",
    2313: "number of registers does not fit the type",
    2315: "32-bit registers must be accessed whole",
    2370: "no such analogue range",
    2373: "no such negative channel",
    2375: "no such resolution index",
    2600: "the scan list is empty",
    2603: "stream data are not in command-response mode",
    2605: "a stream is active",
    2606: "stream configuration invalid",
    2607: "this register cannot be in a scan list",
    2608: "scan rate times channels is too high",
    2609: "stream-out buffer too large",
    2612: "stream target invalid",
    2613: "stream-out buffer full",
    2614: "this register cannot be a stream-out target",
    2615: "buffer size is not a power of two or too large",
    2616: "stream-out loop would be overwritten",
    2617: "stream-out has no buffer yet",
    2620: "no stream is running",
    2622: "stream-out loop larger than its buffer",
    2623: "stream-out data and target do not match",
    2626: "the high-resolution converter cannot be used beside stream-out to a DAC",
    2627: "stream-out is not enabled",
    2670: "watchdog timeout too short",
    2671: "the watchdog must be disabled first",
    2672: "watchdog digital settings invalid",
    2673: "watchdog DAC0 settings invalid",
    2674: "watchdog DAC1 settings invalid",
}
