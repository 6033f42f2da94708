"""One stretch of fuzzing, in a process of its own: ``fuzz_run NAME CORPUS FOUND SECONDS``.

libFuzzer (by atheris) changes the inputs in CORPUS, keeps what reaches new code there, and writes an input
that is a finding into FOUND. Exit code 0: time is over; anything else: a finding, with its trace.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

HANG_S = 20
MEMORY_MB = 2048
INSTRUMENTED = ["drivers", "controller", "hil_tests.sim"]


def main(name: str, corpus: str, found: str, seconds: str) -> None:
    """Fuzz until time is over or something is found; ends the process."""
    atheris = importlib.import_module("atheris")
    from hil_tests.soak import fuzz_targets

    target = fuzz_targets.TARGETS[name]
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        run = fuzz_targets.one(name)
        vet = importlib.import_module("drivers.files.hdf5_vet")
    vet.LIMIT_S, vet.WALK_S = 0.3, 0.7  # a file that hangs the library shall not cost seconds here
    words = Path(tempfile.mkdtemp(prefix="fuzz-")) / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    arguments = [
        sys.argv[0], f"-max_total_time={seconds}", f"-artifact_prefix={found}/", f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MB}", f"-max_len={target.max_bytes}", "-print_final_stats=1", "-verbosity=0",
        *([f"-dict={words}"] if target.words else []), corpus,
    ]  # fmt: skip
    atheris.Setup(arguments, run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02X}" for byte in word)


if __name__ == "__main__":
    main(*sys.argv[1:])
