"""Writes the systemd units of one station; ``operando init systemd DIR`` calls it.

One drives every output off when the board starts, one runs an experiment that a person names, one goes on
with what was interrupted, and with ``[web]`` one serves the live page. What starts by itself begins no run.
"""

from __future__ import annotations

import argparse
import getpass
import grp
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from controller.config import ConfigErrors, load_station
from controller.files_given import refused
from controller.finishing import FINISH_S

if TYPE_CHECKING:
    from controller.config import Station

WATCHDOG_S = 15
START_S = 300  # instruments 20 s each at most, reduce 60 s
RESTARTS, RESTARTS_IN_S = 3, 3600
OFF_WAIT_S = 60
_GROUPS = re.compile(r"^([a-zA-Z]+?)\d*$")

OFF = """# Station {name}, written by operando init systemd: every output off when the board starts.
[Unit]
Description=operando {name}: every output off
After=local-fs.target
Before={run}@.service {resume}.service

[Service]
Type=oneshot
RemainAfterExit=no
ExecStart={operando} off {station} --state {state} --wait {off_wait}
TimeoutStartSec={off_start}
{sandbox}
[Install]
WantedBy=multi-user.target
"""

RUN = """# Station {name}, written by operando init systemd: one experiment, started by a person:
#   systemctl start {run}@$(systemd-escape -p /path/of/experiment.toml)
# It is never started by itself, and never a second time: what was interrupted is gone on with by
# {resume}.service.
[Unit]
Description=operando {name}: run of %f
After={off}.service time-sync.target network.target
OnFailure={resume}.service

[Service]
{service}ExecStart={operando} run %f --station {station} --state {state} --out {runs} --service
Restart=no
{sandbox}"""

RESUME = """# Station {name}, written by operando init systemd: goes on with a run that was interrupted.
# If there is none, it ends; it never begins a run. An end in order (exit codes 2 to 6: files, an instrument,
# the guard, a person, gaps) is final. A host that was killed is started again, {restarts} times
# in {window_min} min.
[Unit]
Description=operando {name}: go on with what was interrupted
After={off}.service time-sync.target network.target
Wants={off}.service
StartLimitIntervalSec={window}
StartLimitBurst={restarts}

[Service]
{service}ExecStart={operando} resume --interrupted --station-name {name} --state {state} --service
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=2 3 4 5 6
{sandbox}
[Install]
WantedBy=multi-user.target
"""

WEB = """# Station {name}, written by operando init systemd: the live page, before, in and after every run.
# It only looks: no port of an instrument, no command, and the host goes first.
[Unit]
Description=operando {name}: live page
After=network.target

[Service]
ExecStart={operando} web {station} --state {state}
Restart=always
RestartSec=10
{web_sandbox}
[Install]
WantedBy=multi-user.target
"""

SERVICE = """Type=notify
NotifyAccess=main
TimeoutStartSec={start}
# Fed while tick, guard, journal and drivers are fresh. SIGABRT ends the supervisor only; control misses it
# within 3 s, makes everything safe and ends. ExecStopPost waits for that, and drives everything off again.
WatchdogSec={watchdog}
WatchdogSignal=SIGABRT
TimeoutAbortSec=60
KillMode=mixed
KillSignal=SIGTERM
# After a stop: the steps end, everything is off, then report and exports are written.
TimeoutStopSec={stop}
ExecStopPost={operando} off {station} --state {state}
"""

SANDBOX = """User={user}
Group={group}
{more_groups}UMask=0077
WorkingDirectory={runs}
Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
Environment=NUMBA_CACHE_DIR={state}/numba MPLCONFIGDIR={state}/matplotlib
{rank}LimitNOFILE=4096
# It sees the system read-only, and writes into its own folders only.
ProtectSystem=strict
ProtectHome={protect_home}
ReadWritePaths={folders}
PrivateTmp=yes
DevicePolicy=closed
{devices}NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
{last}"""

HOST_RANK = """# What control asks for, so that nothing else makes it late.
LimitRTPRIO=1
LimitNICE=-5
OOMScoreAdjust=-500
"""
HOST_LAST = """# Not MemoryDenyWriteExecute and not RestrictRealtime: the reduction is compiled when it
# starts, and control asks for a real-time class.
"""
WEB_RANK = """# The first to go when memory is short, and the last to get the processor.
Nice=5
OOMScoreAdjust=500
MemoryMax=400M
"""
WEB_LAST = "RestrictRealtime=yes\n"


class InitError(Exception):
    """Nothing was written; says why."""


def device_groups(ports: Iterable[str]) -> list[str]:
    """Return what DeviceAllow needs for these ports, by kind of device rather than by number.

    A port that is plugged in again may have another number, and a service must get it all the same.
    """
    found = set()
    for port in ports:
        node = Path(port).resolve().name
        match = _GROUPS.match(node)
        if node.startswith("tty") and match is not None:
            found.add({"ttyS": "ttyS", "ttyAMA": "ttyAMA"}.get(match[1], match[1]))
        elif Path(port).parent.name == "pts" or node.isdigit():
            found.add("pts")
        else:  # not plugged in: the adapters there are
            found |= {"ttyUSB", "ttyACM"}
    return sorted(found)


def units(
    station_file: Path, station: Station, *, operando: Path, state: Path, runs: Path, user: str,
    groups: Iterable[str] = ("dialout",),
) -> dict[str, str]:  # fmt: skip
    """Return the units by file name.

    Args:
        station_file: of the station.
        station: what stands in it.
        operando: the program in its environment.
        state: folder of the journal.
        runs: folder of the runs.
        user: without privileges, who owns both folders.
        groups: who may open the serial ports.
    """
    name = station.station.name
    ports = [line.port for line in station.lines.values() if line.kind == "serial"]
    devices = "".join(f"DeviceAllow=char-{group} rw\n" for group in device_groups(ports))
    paths = (station_file, operando, state, runs)
    at_home = any(path.parts[1:2] in (("home",), ("root",)) for path in paths)
    given = {
        "name": name, "station": station_file, "operando": operando, "state": state, "runs": runs,
        "user": user, "group": _group_of(user), "devices": devices,
        "protect_home": "read-only" if at_home else "yes",
        "off": f"operando-{name}-off", "run": f"operando-{name}", "resume": f"operando-{name}-resume",
        "watchdog": WATCHDOG_S, "start": START_S, "stop": round(FINISH_S) + 180, "off_wait": OFF_WAIT_S,
        "off_start": OFF_WAIT_S + 60, "restarts": RESTARTS, "window": RESTARTS_IN_S,
        "window_min": RESTARTS_IN_S // 60,
    }  # fmt: skip
    given["more_groups"] = f"SupplementaryGroups={' '.join(groups)}\n"
    given["sandbox"] = SANDBOX.format(**given, rank=HOST_RANK, folders=f"{state} {runs}", last=HOST_LAST)
    page = {**given, "more_groups": "", "devices": ""}
    given["web_sandbox"] = SANDBOX.format(**page, rank=WEB_RANK, folders=state, last=WEB_LAST)
    given["service"] = SERVICE.format(**given)
    written = {
        f"{given['off']}.service": OFF.format(**given),
        f"{given['run']}@.service": RUN.format(**given),
        f"{given['resume']}.service": RESUME.format(**given),
    }
    if station.web is not None:
        written[f"operando-{name}-web.service"] = WEB.format(**given)
    return written


def _group_of(user: str) -> str:
    """Return the user's own group, by name; the same name when there is no such user here."""
    import pwd

    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def _check(paths: Iterable[Path], user: str) -> None:
    for path in paths:
        if any(character.isspace() or character in "\"'\\%$" for character in str(path)):
            raise InitError(f"{path}: a unit reads no paths with blanks, quotes, % or $")
    if user == "root" or not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise InitError(f"--user {user}: name a user without privileges who owns state and runs")


def write_units(folder: Path, written: dict[str, str]) -> None:
    """Write the units; nothing is overwritten. Raises InitError, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    there = [name for name in written if (folder / name).exists()]
    if there:
        raise InitError(f"{folder / there[0]} exists already: nothing is overwritten")
    for name, text in written.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)


def main(args: argparse.Namespace) -> int:
    """``operando init systemd``."""
    user = args.user or getpass.getuser()
    operando = (args.operando or Path(sys.executable).parent / "operando").absolute()
    try:
        station = load_station(args.station)
        station_file = args.station.absolute()
        name = station.station.name
        state = (args.state or Path("/var/lib/operando") / name / "state").absolute()
        runs = (args.out or Path("/var/lib/operando") / name / "runs").absolute()
        _check((station_file, operando, state, runs), user)
        written = units(station_file, station, operando=operando, state=state, runs=runs, user=user)
        write_units(args.dir, written)
    except ConfigErrors as error:
        return refused(error)
    except (InitError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    lines = _to_do(args.dir, name, user, state, runs)
    if station.web is not None:
        lines.insert(
            3, f"the live page: systemctl enable --now operando-{name}-web     (stays from run to run)"
        )
    print("\n".join(lines))
    return 0


def _to_do(folder: Path, name: str, user: str, state: Path, runs: Path) -> list[str]:
    dogs = "" if os.path.exists("/dev/watchdog") else " (this machine has none)"
    return [
        f"as root:      install -d -m 0700 -o {user} {state} {runs}",
        f"              cp {folder}/operando-{name}*.service /etc/systemd/system/ && systemctl daemon-reload",
        f"              systemctl enable operando-{name}-off operando-{name}-resume",
        f"begin a run:  systemctl start operando-{name}@$(systemd-escape -p /path/of/experiment.toml)",
        f"follow it:    sudo -u {user} operando watch --station-name {name} --state {state}",
        f"end it:       systemctl stop 'operando-{name}@*'     (everything off, then the report)",
        f"if it hangs{dogs}: [Manager] RuntimeWatchdogSec=14 in /etc/systemd/system.conf.d/operando.conf",
    ]
