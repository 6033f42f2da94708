"""Set-up and quickstart as a stranger: a new account, the system's Python, a fresh clone, then no network."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hil_tests.soak.runner import ROOT, Failed, Skip, Workshop

PYTHON = "/usr/bin/python3"
RUN_TARGET_S = 120.0
PASSED_ON = (
    "PIP_",
    "SSL_",
    "REQUESTS_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
)
TOOLS = ("git", "make", "useradd", "userdel", "runuser")


def fresh_user(work: Workshop) -> str:
    """Clone, ``make setup``, then ``make run`` with the network off where that is permitted."""
    if os.geteuid() != 0:
        raise Skip("only root can make an account for it (useradd, runuser)")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or not Path(PYTHON).is_file():
        raise Skip(f"not on this machine: {', '.join(missing) or PYTHON}")
    with _account(work) as user, tempfile.TemporaryDirectory(prefix="operando-fresh-") as name:
        home = Path(name)
        home.chmod(0o755)
        clone = home / "operando"
        _must(work, ["git", "clone", "--quiet", "--no-local", ROOT, clone])
        _must(work, ["chown", "-R", user, home])
        return _as_user(work, user, home, clone)


def _as_user(work: Workshop, user: str, home: Path, clone: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    env |= {"HOME": str(home), "USER": user, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    become = [str(shutil.which("runuser")), "-u", user, "--"]  # not in the PATH of an ordinary user
    began = time.monotonic()
    _must(work, [*become, "make", "setup", f"PYTHON={PYTHON}"], cwd=clone, env=env)
    setup_s = time.monotonic() - began
    offline = _offline(work)
    command = [*become, "make", "run", f"PYTHON={PYTHON}"]
    if offline:
        command = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    began = time.monotonic()
    done = _must(work, command, cwd=clone, env=env)
    run_s = time.monotonic() - began
    (run,) = sorted((clone / "runs").iterdir())
    summary = json.loads((run / "summary.json").read_text())
    absent = [name for name in ("report.html", "journal.sqlite") if not (run / name).is_file()]
    status = _must(work, [*become, "git", "-C", clone, "status", "--porcelain"], env=env).stdout.strip()
    said = (
        f"account without privileges, {PYTHON}, set-up {setup_s:.0f} s, run {run_s:.0f} s "
        f"{'without network' if offline else 'WITH network: unshare -n is not permitted here'}, "
        f"outcome {summary['outcome']!r}; last lines:\n{_tail(done.stdout)}"
    )
    shutil.copytree(run, work.folder / "run", ignore=shutil.ignore_patterns("*.sock"), dirs_exist_ok=True)
    if summary["exit_code"] != 0 or absent:
        raise Failed(f"not a whole run: missing {absent}\n{said}")
    if status:
        raise Failed(f"the clone is not clean afterwards:\n{status}\n{said}")
    left = _processes(user)
    if left:
        raise Failed(f"still running: {left}\n{said}")
    if run_s > RUN_TARGET_S:
        raise Failed(f"the run took longer than {RUN_TARGET_S:.0f} s\n{said}")
    return said


@contextlib.contextmanager
def _account(work: Workshop) -> Iterator[str]:
    """Make an account, and take it away with whatever it still runs."""
    user = f"operando-soak-{os.getpid()}"
    made = work.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", user])
    if made.returncode:
        raise Skip(f"no account can be made: {made.stdout.strip()}")
    try:
        yield user
    finally:
        for pid in _processes(user):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        work.run(["userdel", user])


def _offline(work: Workshop) -> bool:
    """Tell whether a namespace without network, but with a loopback, can be made."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return work.run(["unshare", "-n", "sh", "-c", "ip link set lo up"]).returncode == 0


def _processes(user: str) -> list[int]:
    """Return the processes of an account."""
    uid = pwd.getpwnam(user).pw_uid
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == uid:
                found.append(int(path.name))
    return found


def _must(work: Workshop, command: Sequence[str | Path], **how: object) -> subprocess.CompletedProcess[str]:
    done = work.run(command, **how)  # type: ignore[arg-type]
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{_tail(done.stdout)}")
    return done


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])
