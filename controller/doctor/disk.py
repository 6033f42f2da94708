"""The disk: can the journal live there, is there room, does fsync do what it says, how worn is a card."""

from __future__ import annotations

from collections.abc import Iterator

from controller.doctor.finding import Finding, good, look, wrong
from controller.doctor.machine import BlockDevice, Mount, Syncs

GIB = 1 << 30
LITTLE_BYTES, TOO_LITTLE_BYTES = 10 * GIB, 1 * GIB

SOUND = {"ext4", "ext3", "xfs", "btrfs", "f2fs", "zfs"}
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs", "virtiofs"}
NO_RIGHTS = {"vfat", "msdos", "exfat"}
MEMORY = {"tmpfs", "ramfs", "zram"}
LAYERED = {"overlay", "aufs", "squashfs"}

# Below these an fsync has not reached what keeps its content without power. A revolution is 8 ms at
# 7200/min; programming a page of flash takes 0.2 ms or more, and a card adds its own controller.
TURNING_S, CARD_S, ANY_S = 1e-3, 0.5e-3, 0.2e-3
SLOW_S, TOO_SLOW_S = 0.05, 0.2  # median: telemetry is committed every 0.2 s
STALL_S, TOO_LONG_STALL_S = 0.5, 2.0  # worst


def file_system(name: str, mount: Mount | None) -> Iterator[Finding]:
    """Judge what kind of file system holds a folder."""
    check = f"{name}: file system"
    if mount is None:
        yield look(check, "the kernel does not say what it is")
        return
    kind, where = mount.kind, f"{mount.kind} on {mount.point}"
    move = "put it on ext4 (or xfs, btrfs, f2fs) of this machine's own disk"
    if kind in NETWORK:
        yield wrong(
            check, f"{where}: a network drive; the journal's log (SQLite WAL) needs memory shared by all its "
            "readers, which it cannot give, and the run would depend on the network", move,
        )  # fmt: skip
    elif kind in NO_RIGHTS:
        yield wrong(check, f"{where}: knows neither owners nor sockets, and is not safe in a power cut", move)
    elif kind in MEMORY:
        yield wrong(check, f"{where}: memory; a power cut or a restart takes all of it", move)
    elif kind in LAYERED:
        yield look(check, f"{where}: a layer of a container, gone with the container", move)
    elif "barrier=0" in mount.options or "nobarrier" in mount.options:
        yield wrong(
            check, f"{where} with barriers off: fsync does not wait for the disk",
            f"mount {mount.point} without barrier=0 or nobarrier",
        )  # fmt: skip
    elif "ro" in mount.options:
        yield wrong(
            check, f"{where} is mounted read-only", f"mount -o remount,rw {mount.point}; see dmesg why"
        )
    elif kind in SOUND:
        yield good(check, where)
    else:
        yield look(check, f"{where}: not known to us", move)


def space(name: str, free_bytes: int, total_bytes: int) -> Finding:
    """Judge the room that is left."""
    check = f"{name}: space"
    what = f"{free_bytes / GIB:.1f} GiB free of {total_bytes / GIB:.0f}"
    do = "operando check STATION EXPERIMENT tells what a run needs; move old runs away"
    if free_bytes < TOO_LITTLE_BYTES:
        return wrong(check, what, do)
    return look(check, what, do) if free_bytes < LITTLE_BYTES else good(check, what)


def sync(name: str, syncs: Syncs | None, disk: BlockDevice | None) -> Finding:
    """Judge how fast, and whether at all, what is written reaches the disk."""
    check = f"{name}: fsync"
    if syncs is None:
        return wrong(check, "cannot be written to", "give the user of the host rights in that folder")
    what = f"4 kB in {1e3 * syncs.median_s:.2f} ms, at worst {1e3 * syncs.worst_s:.1f} ms"
    kind, floor_s = _floor(disk)
    if syncs.median_s < floor_s:
        meaning = (
            f"{what}: faster than {kind} can be. A cache says yes for it: after a power cut the last seconds "
            "may be missing, or the journal may be damaged, although everything was acknowledged"
        )
        if disk is not None and (disk.rotational or disk.card) and not disk.name.startswith("v"):
            return wrong(check, meaning, f"switch the cache off (hdparm -W0 /dev/{disk.name}), or change it")
        return look(
            check, meaning,
            "fine for a server disk with capacitors or a host on an uninterruptible supply; else change it",
        )  # fmt: skip
    if syncs.median_s > TOO_SLOW_S or syncs.worst_s > TOO_LONG_STALL_S:
        return wrong(check, f"{what}: too slow for the journal", "another card (class A2) or an SSD")
    if syncs.median_s > SLOW_S or syncs.worst_s > STALL_S:
        return look(check, f"{what}: slow; every decision waits for it", "an SSD instead of a card")
    return good(check, what)


def _floor(disk: BlockDevice | None) -> tuple[str, float]:
    """Return what kind of disk it is, and the shortest time that is honest for it, s."""
    if disk is not None and disk.card:
        return f"an {disk.card} card", CARD_S
    if disk is not None and disk.rotational and not disk.name.startswith("v"):  # virtual ones all say so
        return "a turning disk", TURNING_S
    return "a disk without a protected cache", ANY_S


def wear(name: str, disk: BlockDevice | None) -> Iterator[Finding]:
    """Judge the wear of an SD card or eMMC; nothing for other disks."""
    if disk is None or not disk.card:
        return
    check = f"{name}: wear"
    if disk.worn_percent is None:
        yield look(
            check, f"{disk.name} is an {disk.card} card, which does not tell how worn it is",
            "a card for continuous writing (high endurance), or an SSD; a backup after each run",
        )  # fmt: skip
    elif disk.worn_percent > 100:
        yield wrong(check, f"{disk.name} is beyond the life it was made for", "change it now")
    elif disk.worn_percent >= 80:
        yield look(check, f"{disk.name} has used {disk.worn_percent} % of its life", "change it soon")
    else:
        yield good(check, f"{disk.name} has used at most {disk.worn_percent} % of its life")
