"""Logs stay in bounds while their process goes on writing, and no secret is in them."""

import subprocess
import sys
from pathlib import Path

from controller.logs import bound_logs


def test_a_log_is_turned_over_under_a_process_that_writes(tmp_path: Path) -> None:
    log = tmp_path / "link.log"
    with log.open("ab") as out:
        talker = subprocess.Popen(
            [sys.executable, "-c", "import sys\nfor line in sys.stdin: print(line * 50, end='', flush=True)"],
            stdin=subprocess.PIPE, stdout=out,
        )  # fmt: skip
    assert talker.stdin is not None
    talker.stdin.write(b"".join(b"line %06d\n" % number for number in range(1000)))
    talker.stdin.flush()
    while b"line 000999" not in log.read_bytes():
        pass
    before = log.stat().st_size
    assert before > 100_000
    assert bound_logs(tmp_path, limit_bytes=50_000) == ["link.log"]
    talker.stdin.write(b"after\n")
    talker.stdin.close()
    talker.wait(30)
    assert log.read_bytes() == b"after\n" * 50  # from the beginning of the file, without a hole
    old = tmp_path / "link.log.1"
    assert old.stat().st_size == 50_000
    assert old.read_bytes().endswith(b"line 000999\n")  # the latest was kept
    assert old.stat().st_mode & 0o077 == 0


def test_it_goes_on_for_ever_within_twice_the_limit(tmp_path: Path) -> None:
    log = tmp_path / "control.log"
    for number in range(50):
        with log.open("ab") as out:
            out.write(b"%04d " % number * 500)
        bound_logs(tmp_path, limit_bytes=10_000)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000 + 2500
    assert {path.name for path in tmp_path.iterdir()} == {"control.log", "control.log.1"}


def test_a_small_log_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "control.log").write_text("small")
    (tmp_path / "summary.json").write_text("x" * 100_000)
    assert bound_logs(tmp_path, limit_bytes=10_000) == []
    assert bound_logs(tmp_path / "nowhere") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["control.log", "summary.json"]


def test_a_log_that_cannot_be_copied_is_emptied_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "link.log").write_text("x" * 1000)
    (tmp_path / "link.log.1").mkdir()  # as a full disk would refuse it
    bound_logs(tmp_path, limit_bytes=100)
    assert (tmp_path / "link.log").stat().st_size == 0
