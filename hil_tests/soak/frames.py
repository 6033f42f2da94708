"""Soak item: a pixel camera at its full rate, from the twin's packets to the map, for ten minutes.

Twin, acquire process, reduction and the rest of a whole run share this machine. Losses are allowed if each is
counted; what was sent must be what was received and what is known to be lost, to the last frame.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hil_tests.soak.runner import ROOT, Failed, Workshop

MINUTES = 10.0
FULL_HZ = 9118.87
SLOWER = 0.005  # of the rate: the twin itself may be held up by this much
SAMPLE_S = 5.0
NICE = -10  # if it is allowed: a camera is no program of this computer, others do not take its time away
EXIT_GAPS = 6
LOST_ALLOWED = 1e-3  # of the frames; a machine that loses more is not fit for it
MARKS = {
    "twin": "hil_tests.sim.hexitec_stream",
    "acquire": "controller.acquire",
    "reduce": "controller.reduce_main",
    "control": "controller.host",
    "bench": "hil_tests.bench",
}
EXPERIMENT = """[experiment]
name = "frames"
title = "Ten minutes of frames at the full rate"

[sample]
name = "cathode"
chemistry = "lithium metal"
capacity = "0.95 mAh"
capacity_error = "20 %"

[[sample.layer]]
name = "anode"
kind = "metal"

[[sample.layer]]
name = "separator"
kind = "separator"
normaliser = "P"

[[step]]
do = "expose"
name = "dark"
detector = "compton"
purpose = "dark"
until = {{ frames = 8192 }}
timeout = "1 min"

[[step]]
do = "expose"
name = "cathode"
detector = "compton"
until = {{ duration = "{seconds:g} s" }}
timeout = "{limit:g} s"
"""


def frames(work: Workshop, minutes: float = MINUTES) -> str:
    """Stream for ten minutes; return rates, losses and what each process took of a core."""
    text, problems, record = _stream(work, 60.0 * minutes, ())
    if problems or record["exit_code"] not in (0, 6):
        raise Failed("\n".join([f"exit code {record['exit_code']}: {record['outcome']}", *problems, text]))
    return text


def frame_faults(work: Workshop, minutes: float = 1.5) -> str:
    """Kill and freeze the acquire process and kill reduce while frames come; every loss must be counted."""
    strikes = (
        (15.0, "acquire", signal.SIGKILL),
        (35.0, "acquire", signal.SIGSTOP),
        (37.0, "acquire", signal.SIGCONT),
        (55.0, "reduce", signal.SIGKILL),
    )
    text, problems, record = _stream(work, 60.0 * minutes, strikes)
    uncounted = [problem for problem in problems if problem.startswith("uncounted")]
    gaps = [gap["text"] for gap in record["gaps"]]
    text = "\n".join([text, *gaps])
    if record["exit_code"] != EXIT_GAPS:
        uncounted.append(f"exit code {record['exit_code']} after losses: {record['outcome']}")
    if not any("started again 1 times" in gap for gap in gaps):
        uncounted.append("the restart of the acquire process is no gap of the run")
    if uncounted:
        raise Failed("\n".join([*uncounted, text]))
    return text


Strike = tuple[float, str, signal.Signals]


def _stream(
    work: Workshop, seconds: float, strikes: tuple[Strike, ...]
) -> tuple[str, list[str], dict[str, Any]]:
    """Run an exposure; return what was seen, what is wrong with it, and the record of the run."""
    place = work.folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    experiment = place / "frames.toml"
    experiment.write_text(EXPERIMENT.format(seconds=seconds, limit=seconds + 60.0))
    truth = place / "truth.json"
    without = [word for role in ("heater", "cell", "pixe", "pige") for word in ("--with", f"{role}=none")]
    command = [
        sys.executable, "-m", "controller", "run", experiment, "--bench", "--with", "compton=hexitec",
        *without, "--truth", truth, "--out", place / "runs", "--json",
    ]  # fmt: skip
    with (place / "said.txt").open("w") as said:
        run = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=said, stderr=said)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, run.pid, NICE)  # before it has started anything
        try:
            seen = _watch(run, seconds + 240.0, strikes)
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)
                run.wait(60.0)
    records = sorted(place.glob("runs/*/record.json"))
    if not records or not truth.is_file():
        raise Failed(f"exit code {run.returncode}\n{(place / 'said.txt').read_text()[-1500:]}")
    record = json.loads(records[-1].read_text())
    text, problems = judge(record, json.loads(truth.read_text()), seconds)
    text += "\n" + seen
    if not problems:
        shutil.rmtree(place)
    return text, problems, record


def judge(record: dict[str, Any], truth: dict[str, Any], seconds: float) -> tuple[str, list[str]]:
    """Return what was seen, and what is wrong with it."""
    exposures = [one for one in record["exposures"] if one.get("purpose") == "sample"]
    if len(exposures) != 1:
        return "", [f"{len(exposures)} exposures of the sample: {record['outcome']}"]
    found, sent = exposures[0], truth["twins"]["compton"]
    counted = found["counters"]
    lost = counted["missing"] + counted["incomplete"]
    problems = []
    whole, rate = counted["frames"], sent["frames"] / seconds
    if whole + lost != sent["frames"]:
        problems.append(f"uncounted: {sent['frames']} sent, {whole} whole and {lost} known to be lost")
    if found["frames"] + found["unread"] != counted["frames"] - counted["held"]:
        problems.append(f"uncounted by reduce: {found['frames']} + {found['unread']} of {counted['frames']}")
    if found["unrecorded"]:
        problems.append(f"{found['unrecorded']} frames are not in the raw record")
    if sent["frames"] < (1.0 - SLOWER) * FULL_HZ * seconds:
        problems.append(f"the twin sent {sent['frames']} frames in {seconds:g} s")
    if lost + found["unread"] > LOST_ALLOWED * sent["frames"]:
        problems.append("more frames were lost than a machine that is fit for it would lose")
    s = found.get("s") or {}
    text = (
        f"{sent['frames']} frames sent in {seconds:g} s ({rate:.0f} /s), the twin late by "
        f"{sent['late_s']:.3f} s at most\n"
        f"received whole {whole}, lost {lost} (of these {counted['missing']} without any packet), "
        f"packets doubled {counted['doubled']}, late {counted['late']}, bad {counted['bad']}\n"
        f"reduced {found['frames']}, overwritten unread {found['unread']}, unrecorded {found['unrecorded']}; "
        f"{found['hits']} hits, {found.get('photons')} photons of {sent['photons']} sent\n"
        f"S = {s.get('value')} +- {s.get('sigma_stat')} (statistical)"
    )
    return text, problems


def _watch(run: subprocess.Popen[bytes], limit_s: float, strikes: tuple[Strike, ...]) -> str:
    """Wait for the end; return the share of a core of each process, and the load of the machine."""
    began = time.monotonic()
    left, counting_s = list(strikes), 0.0
    first: dict[str, tuple[float, float]] = {}
    last: dict[str, tuple[float, float]] = {}
    loads = []
    while run.poll() is None:
        if time.monotonic() - began > limit_s:
            raise Failed(f"not done after {limit_s:g} s")
        time.sleep(1.0 if left else SAMPLE_S)
        found = _processes(run.pid)
        counting_s = counting_s or (time.monotonic() if "reduce" in found and "acquire" in found else 0.0)
        while left and counting_s and time.monotonic() - counting_s > left[0][0] and left[0][1] in found:
            os.kill(found[left[0][1]], left.pop(0)[2])
        loads.append(os.getloadavg()[0])
        for role, pid in _processes(run.pid).items():
            if strikes:
                break  # their shares would be of several processes
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            used_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            first.setdefault(role, (time.monotonic(), used_s))
            last[role] = time.monotonic(), used_s
    shares = [
        f"{role} {(last[role][1] - used_s) / max(last[role][0] - at_s, 1e-9):.1%}"
        for role, (at_s, used_s) in first.items()
    ]
    mean = sum(loads) / max(len(loads), 1)
    return f"of a core: {', '.join(shares)}; load average {mean:.1f} (up to {max(loads, default=0.0):.1f})"


def _processes(root: int) -> dict[str, int]:
    """Return the processes of interest below one, by role."""
    parents, words = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            words[pid] = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
    found = {}
    for pid, line in words.items():
        above = pid
        while above in parents and above != root:
            above = parents[above]
        role = next((role for role, mark in MARKS.items() if mark in line), None)
        if above == root and role is not None:
            found[role] = pid
    return found
