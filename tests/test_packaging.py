"""The wheel, installed outside the tree: everything that a user needs is in it, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from drivers.registry import BUILT_IN

ROOT = Path(__file__).parent.parent
PACKAGES = ("controller", "drivers", "edge", "hil_tests")
BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE")
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*_cache", "runs")


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that knows nothing of this tree."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(command, cwd=cwd, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what goes into the wheel: a build leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, source / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=JUNK)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with what is installed here, without any network."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), ".", cwd=source)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-index", "--no-deps", "--no-compile", "--target", str(target), str(wheel), cwd=target)
    return target


@pytest.fixture
def python(installed: Path, tmp_path: Path):
    """Run Python in an empty folder with the installed wheel before everything else, this tree not at all."""

    def call(*arguments: str) -> str:
        env = {"PYTHONPATH": str(installed), "XDG_STATE_HOME": str(tmp_path / "state")}
        return run(sys.executable, "-P", *arguments, cwd=tmp_path, **env).stdout

    where = call("-c", "import controller; print(controller.__file__)")
    assert Path(where.strip()).is_relative_to(installed), "this would test the tree, not the wheel"
    return call


def test_the_wheel_holds_every_source_and_data_file_of_its_packages(wheel: Path, source: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.suffix in {".py", ".toml", ".html", ".css", ".js", ".json"}
    }
    assert any(name.endswith(".toml") for name in wanted)
    assert not wanted - held


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".pyc", ".so", ".nbi"))]


def test_the_licence_travels_with_the_wheel(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith("LICENSE"))
    assert archive.read(name) == (ROOT / "LICENSE").read_bytes()
    (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    assert b"License-Expression: BSD-3-Clause" in archive.read(metadata)


def test_the_command_line_works_from_the_wheel(python) -> None:
    assert "operando" in python("-m", "controller", "--help")
    assert python("-m", "controller", "--version").split() == ["operando", "0.1.0"]


def test_the_console_script_is_declared(python) -> None:
    code = (
        "from importlib.metadata import entry_points;"
        "(script,) = entry_points(group='console_scripts', name='operando');"
        "from controller.cli import main; print(script.load() is main)"
    )
    assert python("-c", code).strip() == "True"


def test_the_drivers_are_found_by_entry_point(python) -> None:
    code = (
        "from importlib.metadata import entry_points;"
        "found = entry_points(group='operando.drivers');"
        "print(*sorted((e.name, e.load().__name__) for e in found), sep='\\n')"
    )
    classes = {name: where.partition(":")[2] for name, where in BUILT_IN.items()}
    assert python("-c", code).splitlines() == [str(item) for item in sorted(classes.items())]


def test_the_packaged_experiments_are_valid(python) -> None:
    code = (
        "from importlib.resources import files; from controller.config import load_experiment;"
        "folder = files('hil_tests') / 'experiments';"
        "print(*sorted(load_experiment(f).experiment.name for f in folder.iterdir() if f.suffix == '.toml'))"
    )
    assert {"moeller2021", "quickstart"} <= set(python("-c", code).split())


def test_the_packaged_scenarios_are_read_by_name(python) -> None:
    code = (
        "from hil_tests.sim import scenario;"
        "print(*(scenario.read(name)['name'] for name in ('moeller2021', 'quickstart')))"
    )
    assert python("-c", code).split() == ["moeller2021", "quickstart"]


def test_the_schemas_are_printed_from_the_wheel(python) -> None:
    assert '"$defs"' in python("-m", "controller", "schema", "experiment")
