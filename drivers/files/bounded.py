"""Reading with limits: a file is checked for size before it is read, and text before it is parsed."""

from __future__ import annotations

import math
from pathlib import Path

from drivers.files.errors import FileError

MAX_TEXT_BYTES = 16 << 20  # a 65 536-channel spectrum of eight detectors is about 5 MB
MAX_CHANNELS = 1 << 16  # ADCs of this field have at most 16 bits
MAX_DETECTORS = 512
MAX_COUNT = 1 << 40  # more than a detector counts in a year


def file_size(path: Path, limit: int) -> int:
    """Return the size in bytes of a regular file that is not empty and not above ``limit``."""
    try:
        regular, size = path.is_file(), path.stat().st_size
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    except ValueError as error:  # a NUL in the name
        raise FileError(str(path), "", f"a file name ({error})") from error
    if not regular:
        raise FileError(path, "", "a regular file, not a folder or device")
    if size == 0:
        raise FileError(path, "", "a recording", "an empty file")
    if size > limit:
        raise FileError(path, "", f"at most {limit} bytes", f"{size} bytes")
    return size


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the whole file, refused before reading if it is above ``limit`` bytes."""
    file_size(path, limit)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileError(path, "", f"a readable file ({error.strerror})") from error
    if len(data) > limit:
        raise FileError(path, "", f"at most {limit} bytes", "a file that grew while it was read")
    return data


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text recording (Latin-1, as these programs write their unit signs)."""
    data = read_bytes(path, MAX_TEXT_BYTES)
    where = data.find(b"\0")
    if where >= 0:
        raise FileError(path, f"byte {where}", "text", "a NUL byte (a binary or damaged file)")
    return data.decode("latin-1").splitlines()


def line_number(index: int) -> str:
    """Name a line as a person counts them."""
    return f"line {index + 1}"


def parse_count(path: Path, place: str, token: str) -> int:
    """Return a count from "12" or "12." (as some programs write integers)."""
    digits = token[:-1] if token.endswith(".") else token
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18 or int(digits) > MAX_COUNT:
        raise FileError(path, place, f"a count between 0 and {MAX_COUNT}", token=token)
    return int(digits)


def parse_int(path: Path, place: str, token: str, low: int, high: int) -> int:
    """Return an integer between low and high."""
    digits = token.strip()
    sign = digits.removeprefix("-")
    if not (sign.isascii() and sign.isdigit()) or len(sign) > 18 or not low <= int(digits) <= high:
        raise FileError(path, place, f"an integer from {low} to {high}", token=token)
    return int(digits)


def parse_float(path: Path, place: str, token: str, what: str) -> float:
    """Return a finite number."""
    try:
        value = float(token)
    except ValueError:
        raise FileError(path, place, f"{what}, a number", token=token) from None
    if not math.isfinite(value) or "_" in token:
        raise FileError(path, place, f"{what}, a finite number", token=token)
    return value
