"""What every part promises: documented, units given, light to import, nothing of one machine in the tree."""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from controller import cli
from drivers.registry import BUILT_IN

ROOT = Path(__file__).parent.parent
PACKAGES = ("controller", "drivers", "edge")
Function = ast.FunctionDef | ast.AsyncFunctionDef

# --- commands ------------------------------------------------------------------------------------------


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = cli.command_line()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("name", commands())
def test_a_command_says_what_it_does_and_shows_an_example(name: str) -> None:
    parser = commands()[name]
    assert len(parser.description or "") > 15
    example = (parser.epilog or "").partition("example:")[2].strip()
    assert example.startswith(f"operando {name}")
    words = example.split()[2:]
    if name != "reduce":  # reduce hands its words on to a program of its own
        parser.parse_args(words)  # the example is one that the command takes


@pytest.mark.parametrize("name", commands())
def test_a_command_stands_in_the_readme(name: str) -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.search(rf"operando {name}\b", readme), f"README.md does not mention `operando {name}`"


def test_the_exit_codes_stand_in_the_readme_and_in_the_help() -> None:
    readme = (ROOT / "README.md").read_text()
    for code, word in {2: "file", 3: "instrument", 4: "guard", 5: "person", 6: "gaps"}.items():
        assert re.search(rf"(?m)\b{code}\b.*{word}", cli.EXIT)
        assert re.search(rf"(?m)\b{code}\b.*{word}", readme)


# --- documentation -------------------------------------------------------------------------------------


def sources(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, package
    return files


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def public(path: Path) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Yield public functions, classes and methods of a module with their names."""

    def inside(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
        for child in node.body:
            if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
                yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    yield from inside(child, f"{prefix}{child.name}.")

    return inside(parsed(path), "")


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_public_is_documented(package: str) -> None:
    bare = []
    for path in sources(package):
        if not ast.get_docstring(parsed(path)) and path.stat().st_size:
            bare.append(str(path.relative_to(ROOT)))
        bare += [
            f"{path.relative_to(ROOT)}: {name}" for name, node in public(path) if not ast.get_docstring(node)
        ]
    assert not bare


ARRAY = re.compile(r"NDArray|ndarray|ArrayLike|Floats|Integers|Words")
SHAPE_OR_UNIT = re.compile(
    r"\bshape|\([a-zA-Z.]+,[^)]*\)"  # shape (n,), or just (n, m)
    r"|\b(counts?|channels?|pixels?|[kM]eV|[unm]m|cm[23]?|seconds?|ms|1/s|per_s|degrees?|ohm|percent"
    r"|fractions?|probabilit\w+|ratios?|without unit|standard deviations?|relative)\b"
    r"|(?:\bin |, |\()(?:[unpm]?[AVCsgm]|K|degC|Hz|eV|rad|deg)\b"  # "in V", ", s", "(K"
)


def is_kernel(node: ast.AST) -> bool:
    """Tell whether a function of edge takes arrays and gives arrays, or is compiled."""
    if not isinstance(node, Function):
        return False
    compiled = any("njit" in ast.unparse(decorator) for decorator in node.decorator_list)
    takes, gives = ast.unparse(node.args), ast.unparse(node.returns) if node.returns else ""
    return compiled or bool(ARRAY.search(takes) and ARRAY.search(gives))


def kernels() -> dict[str, Function]:
    found = {}
    for path in sources("edge"):
        for name, node in public(path):
            if "." not in name and is_kernel(node):
                found[f"{path.stem}.{name}"] = node
    return found


def test_there_are_kernels_to_look_at() -> None:
    assert "event_kernels.accumulate" in kernels()
    assert len(kernels()) > 10


@pytest.mark.parametrize("name", kernels())
def test_a_kernel_says_shapes_or_units(name: str) -> None:
    text = ast.get_docstring(kernels()[name]) or ""
    assert SHAPE_OR_UNIT.search(text), f"edge/{name}: neither a shape nor a unit in its docstring: {text!r}"


def test_compiled_kernels_are_compiled_before_they_are_called() -> None:
    """Explicit signature, no GIL, kept on disk, and no parallel=True: it takes seconds to load."""
    found = 0
    for path in sources("edge"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, Function):
                for decorator in node.decorator_list:
                    text = ast.unparse(decorator)
                    if "njit" in text and "inline" not in text:
                        found += 1
                        assert isinstance(decorator, ast.Call), f"{path.name}: {node.name}"
                        options = {k.arg: ast.unparse(k.value) for k in decorator.keywords}
                        assert decorator.args, f"{path.name}: {node.name} has no signature"
                        assert options.get("cache") == options.get("nogil") == "True", (path.name, node.name)
                        assert "parallel" not in options
    assert found


def test_every_instrument_is_a_class_with_roles_and_stands_in_the_readme_of_the_drivers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["operando.drivers"]
    assert declared == BUILT_IN
    readme = (ROOT / "drivers" / "README.md").read_text()
    for name, target in declared.items():
        driver = importlib.metadata.EntryPoint(name, target, "operando.drivers").load()
        assert driver.roles
        assert name in readme


# --- who loads what ------------------------------------------------------------------------------------

HEAVY = {"numba", "llvmlite", "scipy", "matplotlib", "edge", "h5py", "hil_tests"}
INSTRUMENTS = [
    f"drivers.{name}" for name in ("eurotherm_3200", "palmsens_emstat4", "labjack_t7", "amptek_dp5")
]
LIGHT = {  # what is imported -> what it may not load
    "controller.cli": HEAVY | {"numpy", "pydantic", "asyncio"},
    "controller.host": HEAVY | {"aiomqtt", "paho", "amqtt"},
    "controller.link": HEAVY | {"numpy"},
    "controller.supervise": HEAVY | {"numpy", "aiomqtt", "amqtt"},
    "controller.broker": HEAVY | {"numpy"},
    "controller.launch": HEAVY | {"numpy"},
    "controller.talk": HEAVY | {"numpy"},
    "controller.check": HEAVY | {"aiomqtt", "amqtt"},
    "controller.web.__main__": HEAVY | {"numpy", "amqtt"},
    "controller.notices.__main__": HEAVY | {"numpy", "amqtt"},
    "controller.gateways.secop": HEAVY | {"numpy", "amqtt", "pint"},
    "controller.gateways.epics": HEAVY | {"numpy", "amqtt", "pint", "caproto", "p4p"},
    "controller.gateways.bluesky": HEAVY | {"numpy", "aiomqtt", "bluesky", "pint"},
    "drivers.epics_pv": HEAVY | {"numpy", "caproto", "p4p"},
}


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_loads_nothing_that_could_make_it_late(module: str) -> None:
    names = [module, *INSTRUMENTS] if module in ("controller.host", "controller.check") else [module]
    code = f"import sys, {', '.join(names)}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not LIGHT[module] & set(done.stdout.split())


@pytest.mark.parametrize("package", ["controller", "drivers", "edge"])
def test_nobody_imports_the_bench_not_even_inside_a_function(package: str) -> None:
    for path in sources(package):
        for node in ast.walk(parsed(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("hil_tests", "tests") for name in names), path


def only_importer(names: set[str]) -> set[str]:
    found = set()
    for package in PACKAGES:
        for path in sources(package):
            for node in ast.walk(parsed(path)):
                modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if names & {module.split(".")[0] for module in modules}:
                    found.add(path.relative_to(ROOT).as_posix())
    return found


def test_ports_and_the_mqtt_client_have_one_door_each() -> None:
    assert only_importer({"aiomqtt", "paho"}) == {"controller/mqtt.py"}
    assert only_importer({"serial", "serial_asyncio_fast"}) == {"drivers/port_serial.py"}


def test_what_others_licence_otherwise_is_never_imported_and_epics_has_two_doors() -> None:
    assert only_importer({"frappy", "secop_ophyd", "bluesky", "ophyd_async"}) == set()
    assert only_importer({"caproto", "p4p"}) == {"controller/gateways/epics.py", "drivers/epics_worker.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_unpickled_or_evaluated(package: str) -> None:
    for path in sources(package):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                assert not {a.name for a in node.names} & {"pickle", "marshal", "shelve", "dill"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
            if isinstance(node, ast.Call):
                options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert options.get("allow_pickle", "False") == "False", path
                assert options.get("shell", "False") == "False", path


# --- the tree ------------------------------------------------------------------------------------------

SKIP = {".git", ".venv", "build", "runs", "dist", "bench"}
TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".json", ".html", ".css", ".js", ".yml", ".yaml", ""}


def tree() -> list[Path]:
    """Return the files that a clone would have."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode == 0 and done.stdout:
        return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(p in SKIP or p.endswith("cache") for p in path.relative_to(ROOT).parts)
    ]


def test_nothing_names_a_folder_of_somebodys_machine() -> None:
    forbidden = re.compile("|".join(("/ho" + "me/[a-z]", "/ro" + "ot/", "/Us" + "ers/", "[A-Z]:" + r"\\\\")))
    own = ROOT.resolve()
    found = []
    for path in tree():
        if path.suffix in TEXT:
            text = path.read_text(errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                if forbidden.search(line) or (len(own.parts) > 2 and f"{own}/" in line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found


def test_every_dependency_says_what_it_is_for() -> None:
    block = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [\n")[2].partition("\n]")[0]
    lines = [line for line in block.splitlines() if line.strip()]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(lines) == len(declared) > 10
    for line in lines:
        assert len(line.partition("#")[2].strip()) > 8, f"no reason given: {line.strip()}"


def test_every_dependency_is_locked_with_its_hashes() -> None:
    locked = (ROOT / "requirements.lock").read_text().lower().replace("_", "-")
    for wanted in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        name = re.match(r"[A-Za-z0-9_-]+", wanted)
        assert name is not None
        line = re.search(
            rf"(?m)^{name[0].lower().replace('_', '-')}(\[\w+\])?==\S+.*\n\s+--hash=sha256:", locked
        )
        assert line, f"{name[0]} is not in requirements.lock with a hash"
