"""Writers of the foreign formats for tests, from their published descriptions (not from our readers)."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any


def spe(counts: Sequence[int], *, live: str = "100 101", calibration: str = "0.2 0.38 0.0 keV") -> bytes:
    lines = ["$SPEC_ID:", "test", "$DATE_MEA:", "04/18/2014 12:08:01", "$MEAS_TIM:", live, "$DATA:"]
    lines += [f"0 {len(counts) - 1}", *(f"{count:8d}" for count in counts), "$MCA_CAL:", "3", calibration]
    return "\r\n".join(lines).encode()


def lis(words: Sequence[int], *, style: int = 2, gain: int = 8192) -> bytes:
    head = bytearray(256)
    struct.pack_into("<iid", head, 0, -13, style, 45195.5)
    head[16:21] = b"IDM-8"
    head[201] = 1
    head[202:205] = b"keV"
    struct.pack_into("<fff", head, 206, 0.0, 0.3657, 0.0)
    struct.pack_into("<i", head, 231, gain)
    struct.pack_into("<ff", head, 239, 317.14, 300.0)
    return bytes(head) + struct.pack(f"<{len(words)}I", *words)


def event(adc: int, ticks: int) -> int:
    return 3 << 30 | adc << 16 | ticks


def real_time(hundredths: int) -> int:
    return 2 << 30 | hundredths


def mca(columns: Sequence[Sequence[int]], **changes: str) -> bytes:
    n = len(columns)
    header = {
        "VERSION": "3.1", "ELEMENTS": str(n), "DATE": "Jan 30, 2013 15:25:17.766",
        "CHANNELS": str(len(columns[0])),
        "REAL_TIME": " ".join(["120.0"] * n), "LIVE_TIME": " ".join(["96.5"] * n),
        "CAL_OFFSET": " ".join(["-0.01"] * n), "CAL_SLOPE": " ".join(["0.0146"] * n),
        "CAL_QUAD": " ".join(["0.0"] * n),
    } | changes  # fmt: skip
    lines = [f"{key}: {value}" for key, value in header.items()]
    rows = [" ".join(str(column[k]) for column in columns) for k in range(len(columns[0]))]
    return "\n".join([*lines, "DATA:", *rows, ""]).encode()


Record = tuple[int, int, int, float, list[tuple[int, int]]]  # x, y, detector, dead percent, (channel, counts)


def geopixe(
    records: Sequence[Record], *, nx: int, ny: int, dets: int = 1, chan: int = 64, **header: Any
) -> bytes:
    table = {
        "Timestamp": "10/26/2022 at 10:55 am", "Dwell (mS)": 100.0, "Xres": nx, "Yres": ny,
        "Width (mm)": 0.57,
        "Height (mm)": 0.28, "Dets": dets, "Chan": chan, "Gain (eV)": 10.0,
    } | header  # fmt: skip
    text = json.dumps({"File Header": table}, indent="\t").encode()
    body = b""
    for x, y, detector, dead, pairs in records:
        body += struct.pack("<2sIHHHf", b"DP", 16 + 4 * len(pairs), x, y, detector, dead)
        body += b"".join(struct.pack("<HH", *pair) for pair in pairs)
    return struct.pack("<H", len(text)) + text + body


def full_map(nx: int, ny: int, dets: int) -> list[Record]:
    return [
        (x, y, d, 10.0 * d, [(x + 1, 2), (y + 20, 3 + d)])
        for y in range(ny)
        for x in range(nx)
        for d in range(dets)
    ]
