"""Asks pip whether every locked package has a wheel for 64-bit ARM and a given Python; installs nothing.

Usage: python .ci/check_wheels.py 3.11 3.13
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).parent.parent / "requirements.lock"
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64")


def locked(python: str) -> list[str]:
    """Return the pinned requirements that apply to Linux on ARM with this Python."""
    environment = {
        "python_version": python, "python_full_version": f"{python}.0", "platform_machine": "aarch64",
        "sys_platform": "linux", "platform_system": "Linux", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "os_name": "posix", "extra": "",
    }  # fmt: skip
    names = []
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate(environment):
                names.append(f"{requirement.name}{requirement.specifier}")
    return names


def main() -> int:
    """Check each Python named on the command line."""
    for python in sys.argv[1:]:
        names = locked(python)
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--quiet",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
            ]
            command += ["--python-version", python, "--implementation", "cp", "--dest", folder]
            for platform in PLATFORMS:
                command += ["--platform", platform]
            done = subprocess.run([*command, *names], check=False, capture_output=True, text=True)
            wheels = len(list(Path(folder).glob("*.whl")))
        if done.returncode or wheels != len(names):
            print(done.stdout, done.stderr)
            print(f"Python {python}: {wheels} wheels for {len(names)} locked packages")
            return 1
        print(f"Python {python}: all {len(names)} locked packages have a wheel for 64-bit ARM")
    return 0


if __name__ == "__main__":
    sys.exit(main())
