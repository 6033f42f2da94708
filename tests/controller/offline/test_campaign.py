"""A campaign on a real Dask cluster: a worker killed in the middle, a cluster lost, an unlike worker."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from controller.offline import campaign, campaign_work, reduce
from controller.offline.campaign_work import Task, about, absolute, differences, known_paths, relocated, work
from controller.offline.product import pack, unpack, unpack_product
from controller.offline.technique import Job, Technique
from tests.data_sets import need

N_FILES = 7
SPECTRUM = "gamma/nai_background.spe"


class Cluster:
    """A scheduler and workers, each a process of its own; killed by their ids."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", self.address.rsplit(":", 1)[1], "--no-show",
            "--dashboard-address", "127.0.0.1:0",
        )  # fmt: skip
        self.workers = [self.worker(n) for n in range(workers)]

    def worker(self, number: int) -> subprocess.Popen[bytes]:
        where = self.folder / f"worker-{number}"
        return self._start(
            "worker", self.address, "--no-nanny", "--nthreads", "1", "--memory-limit", "0",
            "--no-dashboard", "--local-directory", str(where), "--death-timeout", "30",
        )  # fmt: skip

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with (self.folder / "cluster.log").open("ab") as log:
            command = [sys.executable, "-m", "dask", *words]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Spectra that differ in every file, and one that is no gamma spectrum (a gap)."""
    folder = tmp_path_factory.mktemp("campaign")
    lines = need(SPECTRUM, "a campaign of spectra").read_text().split("\n")
    at = next(n for n, line in enumerate(lines) if line.startswith("$DATA")) + 2
    made = []
    for number in range(N_FILES):
        lines[at + 600] = str(20 + number)
        made.append(folder / f"s{(3 * number) % N_FILES:02d}.Spe")
        made[-1].write_text("\n".join(lines))
    flat = ["$SPEC_ID:", "flat", "$DATA:", "0 99", *["0"] * 100, ""]
    made[5].write_text("\r\n".join(flat))
    return made


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "controller.offline.reduce", *map(str, words)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def wait_for(what, limit_s: float = 60.0) -> None:
    ends = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(files, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The same campaign in one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    done = subprocess.run(command("gamma", *files, "--out", out), capture_output=True, text=True, check=False)
    return out, done


def kept(out: Path) -> int:
    return len(list((out / campaign.KEPT).glob("[!.]*")))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    one = Cluster(tmp_path_factory.mktemp("cluster"), workers=2)
    yield one
    one.end()


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, timeout=100)


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_worker_is_killed_in_the_middle_and_the_bytes_are_the_same(files, cluster, alone, tmp_path):
    out = tmp_path / "out"
    client = start("gamma", *files, "--out", out, "--dask", cluster.address)
    try:
        wait_for(lambda: kept(out) >= 1 or client.poll() is not None)
        assert kept(out) < N_FILES - 3
        assert client.poll() is None, client.communicate()
        cluster.workers[0].send_signal(signal.SIGKILL)
        text, errors = client.communicate(timeout=60)
    finally:
        client.kill()
    assert cluster.workers[0].wait(5) == -signal.SIGKILL
    assert client.returncode == alone[1].returncode == 6
    assert errors == alone[1].stderr
    assert f"not reduced: {files[5]}: " in errors
    assert text.replace(str(out), str(alone[0])) == alone[1].stdout
    assert contents(out) == contents(alone[0])


@pytest.mark.slow
def test_a_lost_cluster_keeps_what_is_finished_and_another_goes_on(files, cluster, alone, tmp_path):
    out = tmp_path / "out"
    words = ("gamma", *files, "--out", out, "--wait", "2 s", "--dask")
    lost = Cluster(tmp_path, workers=1)
    try:
        client = start(*words, lost.address)
        wait_for(lambda: kept(out) >= 2 or client.poll() is not None)
        assert client.poll() is None, client.communicate()
        lost.scheduler.kill()
        text, errors = client.communicate(timeout=60)
    finally:
        client.kill()
        lost.end()
    assert client.returncode == 3, errors
    assert errors.count("\n") == 1
    assert "the cluster was lost" in errors
    assert "give the same command again" in errors
    assert text == ""
    assert [path.name for path in out.iterdir()] == [campaign.KEPT]  # nothing half written
    assert 2 <= kept(out) < N_FILES - 1
    done = run(*words, cluster.address)
    assert done.returncode == 6
    assert contents(out) == contents(alone[0])


# --- without a cluster -----------------------------------------------------------------------------------


def one_task(file: Path, out: Path | None, **options: object) -> Task:
    words = ["gamma", str(file), *(("--out", str(out)) if out else ())]
    args = reduce.build_parser(words).parse_args(words)
    for name, value in options.items():
        setattr(args, name, value)
    (task,) = campaign.plan(args, "controller.offline.gamma", args.chosen.jobs(args), send=False)
    return task


def test_a_worker_does_what_one_process_does(files, tmp_path):
    task = one_task(files[0], tmp_path / "out", figures="svg")
    answer = work(task)
    product = unpack_product(answer.product)
    assert (answer.why, answer.unfit) == ("", "")
    assert product.data["file"] == files[0].name
    assert [name for name, _ in product.figures] == ["spectrum"]
    assert product.arrays[0].values.dtype == np.int64
    content = {path: path.read_bytes() for path, _ in task.inputs}
    assert work(dataclasses.replace(task, content=content)) == answer


@dataclasses.dataclass
class Words:
    """A report of one line."""

    text: str

    @property
    def data(self) -> dict:
        return {"text": self.text}

    def figures(self, fmt):
        yield from ()

    def arrays(self):
        yield from ()


@pytest.mark.parametrize("each", [False, True])
def test_a_job_whose_place_among_the_files_counts_sees_all_of_them(files, each, monkeypatch):
    """As attenuation factors, one per file: only a technique that says so gets its own file alone."""

    def said_of(args, k):
        return Words(f"{args.files[k].name} {args.factors[k]} of {len(args.files)}")

    def jobs(args):
        return [
            Job(
                file,
                (file,),
                lambda k=k, file=file: Words(f"{file.name} {args.factors[k]} of {len(args.files)}"),
            )
            for k, file in enumerate(args.files)
        ]

    technique = Technique("t", "", "", "", lambda parser: None, jobs, each=each)
    monkeypatch.setitem(sys.modules, "only_here", types.SimpleNamespace(TECHNIQUE=technique))
    args = argparse.Namespace(files=files[:3], factors="abc", chosen=technique, out=None, figures="png")
    for send in (False, True):
        tasks = campaign.plan(args, "only_here", jobs(args), send=send)
        tasks = [campaign._with_content(task) for task in tasks] if send else tasks
        said = [unpack_product(work(task).product).text for task in tasks]
        alone = [f"{file.name} a of 1" for file in files[:3]]
        together = [f"{file.name} {letter} of 3" for file, letter in zip(files[:3], "abc", strict=True)]
        assert said == (alone if each else together)


def test_what_cannot_be_reduced_is_said_with_the_path_of_the_client(files, tmp_path):
    folder = tmp_path / "somewhere"
    folder.mkdir()
    path = folder / "cut.Spe"
    path.write_bytes(files[0].read_bytes())
    task = one_task(path, None)
    cut = path.read_bytes()[:900]
    path.write_bytes(cut)
    inputs = ((path, campaign_work.sha256(path)),)
    answer = work(dataclasses.replace(task, inputs=inputs))
    assert answer.why.startswith(f"{path}: ")
    assert work(dataclasses.replace(task, inputs=inputs, content={path: cut})) == answer


def test_another_file_or_none_or_other_software_on_a_worker_is_refused(files, tmp_path):
    task = one_task(files[0], None)
    other = dataclasses.replace(task, inputs=((files[0], "0" * 64),))
    assert "is another file there" in work(other).unfit
    gone = dataclasses.replace(task, inputs=((tmp_path / "none.Spe", "0" * 64),))
    assert "No such file or directory there (--send sends the files with the work)" in work(gone).unfit
    old = dataclasses.replace(task, same=about() | {"numpy": "1.0", "arithmetic": "x"})
    assert work(old).product is None
    assert "; numpy is " in work(old).unfit
    assert "there, 1.0 here" in work(old).unfit
    assert "another processor, or OPENBLAS_NUM_THREADS is not 1" in work(old).unfit
    assert differences(about(), about()) == ""


def test_one_thread_is_asked_for_before_numpy_is_there():
    """With more, OpenBLAS ends in other last bits (a product of 300 x 300 here), other ones per board."""
    code = (
        "import sys; from controller.offline import one_thread; import os; "
        "assert 'numpy' not in sys.modules; print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert done.stdout == "1\n"


def test_options_that_are_paths_are_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "runs" / "a"
    known = known_paths([run_dir], [run_dir / "raw" / "index.jsonl", tmp_path / "dark.hxt"])

    def moved(path: Path) -> Path:
        return Path("/elsewhere") / path.relative_to("/")

    there = Path("/elsewhere") / tmp_path.relative_to("/")
    assert relocated("dark.hxt", moved, known) == str(there / "dark.hxt")
    assert relocated(Path("runs/../runs/a"), moved, known) == there / "runs/a"
    assert relocated(["runs/a", "115 keV", 3, None], moved, known) == [
        str(there / "runs/a"),
        "115 keV",
        3,
        None,
    ]
    assert relocated("Cr, Fe, W:L", moved, known) == "Cr, Fe, W:L"
    assert relocated(Path("other.txt"), moved, known) == tmp_path / "other.txt"
    assert absolute("x/./y") == tmp_path / "x" / "y"


def test_no_scheduler_is_one_clear_error_in_bounded_time(files, tmp_path):
    address = "tcp://127.0.0.1:1"
    began = time.monotonic()
    done = run("gamma", files[0], "--dask", address, "--wait", "1 s", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert done.stdout == ""
    assert f"no Dask scheduler at {address} within 1 s" in done.stderr
    assert len(done.stderr.strip().split("\n")) == 1
    assert not (tmp_path / "out").exists()
    assert time.monotonic() - began < 20


def test_wrong_times_and_wrong_files_are_refused_before_a_cluster_is_asked(files, tmp_path, capsys):
    assert reduce.main(["gamma", str(files[0]), "--dask", "tcp://127.0.0.1:1", "--wait", "30"]) == 2
    assert "30" in capsys.readouterr().err
    assert reduce.main(["gamma", str(tmp_path / "none.Spe"), "--dask", "tcp://127.0.0.1:1"]) == 2
    assert "none.Spe: expected a readable file" in capsys.readouterr().err


def test_plain_values_keep_every_bit():
    values = {
        "a": np.array([[1.5, np.nan], [-0.0, np.inf]]), "b": np.arange(3, dtype=">i2"),
        "c": [1, None, "x", 0.1], "d": np.zeros((0, 4), bool), "e": np.float32(0.1),
    }  # fmt: skip
    back = unpack(pack(values))
    for name in "abd":
        assert back[name].dtype == values[name].dtype
        assert back[name].shape == values[name].shape
        assert back[name].tobytes() == values[name].tobytes()
    assert back["c"] == values["c"]
    assert back["e"] == float(np.float32(0.1))
    with pytest.raises(TypeError, match="array of objects"):
        pack({"a": np.array([None])})


# --- the summary -------------------------------------------------------------------------------------------


def test_the_summary_has_a_line_for_every_file_in_their_order(files, alone):
    tables = (alone[0] / "tables.txt").read_text().split("\n")
    assert tables[0] == f"{N_FILES - 1} of {N_FILES} reduced"
    assert [line.split()[0] for line in tables[2 : 2 + N_FILES]] == [path.name for path in files]
    lines = (alone[0] / "summary.csv").read_text().strip().split("\n")
    named = list(dict.fromkeys(line.split(",")[0] for line in lines[1:]))
    assert named == [str(path) for path in files]
    assert f"{files[5]},,,,,,the spectrum is empty" in lines
