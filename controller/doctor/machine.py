"""The facts of a machine, read below a root that tests replace: /proc, /sys, /dev, /etc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SYNCS = 20
BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Mount:
    """Where a folder really lies."""

    device: str  # major:minor, the key of /sys/dev/block
    point: str
    kind: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class BlockDevice:
    """The disk below a file system, as the kernel knows it."""

    name: str
    rotational: bool
    volatile_cache: bool  # the kernel asks the disk to empty its cache with every fsync
    card: str = ""  # SD or MMC
    worn_percent: int | None = None  # as an eMMC estimates itself; an SD card tells nothing


@dataclass(frozen=True)
class Syncs:
    """How long it took to write 4 kB and to have them confirmed, s."""

    median_s: float
    worst_s: float


@dataclass(frozen=True)
class ClockState:
    """What the kernel knows of its clock."""

    synchronised: bool | None  # None: the kernel does not tell
    error_s: float
    now_s: float


@dataclass
class Machine:
    """Reads the files of one machine."""

    root: Path = field(default_factory=lambda: Path("/"))

    def path(self, name: str) -> Path:
        """Return a path of this machine; ``name`` may be absolute."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """Return a file's text without blanks around it, None when there is none or it may not be read."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """Return a file's whole number (0x... too), None when it holds none."""
        try:
            return int((self.text(name) or "").split()[0], 0)
        except (ValueError, IndexError):
            return None

    def names(self, folder: str) -> list[str]:
        """Return what is in a folder, in order; nothing when there is none."""
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def mounts(self) -> Iterator[Mount]:
        """Yield every mount, in the order in which they were made. Source: proc(5), mountinfo."""
        for line in (self.text("proc/self/mountinfo") or "").splitlines():
            left, _, right = line.partition(" - ")
            fields, (kind, source, *options) = left.split(), right.split()
            words = tuple(",".join([fields[5], *options]).split(","))
            yield Mount(fields[2], _plain(fields[4]), kind, source, words)

    def mount_of(self, folder: Path) -> Mount | None:
        """Return the mount that holds a folder (of this process's own tree, links resolved)."""
        found, where = None, folder.resolve()
        for mount in self.mounts():
            if where.is_relative_to(mount.point) and (
                found is None or len(mount.point) >= len(found.point)
            ):  # of two on one point the later one counts
                found = mount
        return found

    def disk_of(self, mount: Mount) -> BlockDevice | None:
        """Return the disk below a mount, None for what has none (network, memory, layers)."""
        link = self.path(f"sys/dev/block/{mount.device}")
        if not link.exists():
            return None
        entry = link.resolve()
        if (entry / "partition").exists():
            entry = entry.parent
        base = f"sys/{entry.relative_to(self.path('sys').resolve())}"
        worn = [_tenths(word) for word in (self.text(f"{base}/device/life_time") or "").split()]
        return BlockDevice(
            entry.name,
            rotational=self.number(f"{base}/queue/rotational") == 1,
            volatile_cache=self.text(f"{base}/queue/write_cache") == "write back",
            card=(self.text(f"{base}/device/type") or "SD") if entry.name.startswith("mmcblk") else "",
            worn_percent=max((w for w in worn if w is not None), default=None),
        )

    def memory_bytes(self) -> tuple[int, int]:
        """Return (installed, available) memory, bytes."""
        table = {}
        for line in (self.text("proc/meminfo") or "").splitlines():
            name, _, value = line.partition(":")
            with contextlib.suppress(ValueError, IndexError):
                table[name] = int(value.split()[0]) * 1024
        return table.get("MemTotal", 0), table.get("MemAvailable", 0)


def _plain(text: str) -> str:
    """Undo the octal escapes of mountinfo."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _tenths(word: str) -> int | None:
    """Return what an eMMC has used of its life, at most, in percent; 0 is "not told" (JEDEC JESD84-B51)."""
    try:
        value = int(word, 16)
    except ValueError:
        return None
    return 10 * value if value > 0 else None


class _Timex(ctypes.Structure):
    """The first entries of ``struct timex``, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


STA_UNSYNC = 0x40


def clock_state() -> ClockState:
    """Ask the kernel whether its clock is synchronised; nothing is changed. Source: adjtimex(2)."""
    timex = _Timex()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        answer = -1
    synchronised = None if answer < 0 else not timex.status & STA_UNSYNC
    return ClockState(synchronised, timex.maxerror * 1e-6, time.time())


def sync_times(folder: Path, count: int = SYNCS, now_s: Callable[[], float] = time.perf_counter) -> Syncs:
    """Append 4 kB and fsync, ``count`` times, in a file that is gone afterwards. Raises OSError."""
    seconds = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            began = now_s()
            os.write(file.fileno(), os.urandom(BLOCK_BYTES))
            os.fsync(file.fileno())
            seconds.append(now_s() - began)
    return Syncs(statistics.median(seconds), max(seconds))


def lateness_s(
    seconds: float = 2.0,
    period_s: float = 0.01,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[float, float]:
    """Return p99 and largest lateness of a loop of 100 Hz, s."""
    late, begin = [], now_s()
    for slot in range(1, round(seconds / period_s) + 1):
        due = begin + slot * period_s
        sleep(max(due - now_s(), 0.0))
        late.append(max(now_s() - due, 0.0))
    late.sort()
    return late[int(0.99 * (len(late) - 1))], late[-1]
