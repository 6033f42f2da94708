"""On what the numbers were measured: without this a number means nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path


def conditions() -> str:
    """Return machine, load and versions as lines of text."""
    versions = ", ".join(
        f"{name} {_version(name)}" for name in ("numpy", "numba", "scipy", "aiomqtt", "amqtt")
    )
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return "\n".join(
        [
            f"date      {time.strftime('%Y-%m-%d %H:%M:%S %z')}",
            f"machine   {cpu()}, {cores()} usable cores, {memory_gb():.0f} GB, {platform.machine()}",
            f"system    {_system()}, kernel {platform.release()}, governor {_governor()}",
            f"load      {load} over 1, 5, 15 min before the start",
            f"versions  operando {_version('operando')}, Python {sys.version.split()[0]}, {versions}",
            "",
        ]
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def cpu() -> str:
    """Return the name of the processor."""
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def memory_gb() -> float:
    """Return the size of the memory, in 1e9 bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _system() -> str:
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _governor() -> str:
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "not readable"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
