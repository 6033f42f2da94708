"""What a run exposes: sockets that strangers could speak to, secrets in processes and files, file modes."""
# ruff: noqa: S101  # tests only: an assert is what this file is for

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from pathlib import Path

from hil_tests.harness import Run, World, processes_of


def sockets_of(pids: list[int]) -> list[tuple[str, str, int]]:
    """Return (protocol, local address, process) of every socket that strangers could speak to."""
    owner: dict[str, int] = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                owner[os.readlink(entry).removeprefix("socket:[").rstrip("]")] = pid
    found = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            words = line.split()
            local, remote, state, inode = words[1], words[2], words[3], words[9]
            listens = state == "0A" if protocol.startswith("tcp") else set(remote) <= set("0:")
            if listens and inode in owner:
                found.append((protocol, address_of(local), owner[inode]))
    return found


def address_of(text: str) -> str:
    """Return the address in a line of /proc/net: 32-bit words in the byte order of the machine."""
    digits = text.partition(":")[0]
    words = [bytes.fromhex(digits[n : n + 8])[::-1] for n in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def only_on_loopback(run: Run, world: World) -> int:
    """Assert it for every process of the run and of its bench; return how many sockets were seen."""
    pids = processes_of(run.folder) + processes_of(world.station.parent) + [run.process.pid]
    found = sockets_of(pids)
    beyond = [one for one in found if not ipaddress.ip_address(one[1]).is_loopback]
    assert not beyond, beyond
    return len(found)


def given_away(secrets: dict[str, str], folders: list[Path], *, but: tuple[str, ...] = ()) -> list[str]:
    """Return where in ``folders`` a secret stands, in any file whose name is not in ``but``."""
    found = []
    for folder in folders:
        for path in [p for p in folder.rglob("*") if p.is_file() and p.name not in but]:
            content = path.read_bytes()
            found += [f"{name} in {path}" for name, secret in secrets.items() if secret.encode() in content]
    return found


def in_processes(secrets: dict[str, str], pids: list[int]) -> list[str]:
    """Return where a secret stands in the command lines or the environments of processes."""
    found = []
    for pid in pids:
        for part in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                content = Path(f"/proc/{pid}/{part}").read_bytes()
                told = [name for name, secret in secrets.items() if secret.encode() in content]
                found += [f"{name} in {part} of {pid}" for name in told]
    return found


def private(run: Run) -> None:
    """The state, and what holds a password, is for its owner only."""
    assert stat.S_IMODE(run.state.stat().st_mode) == 0o700
    for path in [*run.state.glob("*"), *run.run_dir.glob("watch.txt"), *run.state.glob("broker/*")]:
        if path.name != "supervisor.jsonl":  # what the supervisor did while there was no control
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
