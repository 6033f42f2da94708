"""The bench's socket as a product: a stable protocol, refusals that help, lists that are complete."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hil_tests import bench_page
from hil_tests.bench import Bench
from hil_tests.harness import World
from hil_tests.sim import api
from hil_tests.sim.control import ControlSocket
from hil_tests.sim.settable import SETTABLE

PAGE = Path(__file__).parent / "BENCH.md"


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench("quickstart", speed=10.0)


@pytest.fixture
def socket(bench: Bench) -> Any:
    """The bench behind its socket, without one."""
    ended: list[bool] = []
    made = api.Api(bench, epoch=0.0, truth=bench.truth, stop=lambda: ended.append(True))
    control = ControlSocket(Path("nowhere"), "secret", made.commands())

    def ask(line: bytes | None = None, **request: Any) -> dict[str, Any]:
        text = json.dumps({"nonce": "secret", **request}).encode() if line is None else line
        return json.loads(json.dumps(control._answer(text), allow_nan=False))

    ask.ended = ended  # type: ignore[attr-defined]
    return ask


def test_hello_says_the_version(socket: Any) -> None:
    hello = socket()
    assert (hello["ok"], hello["api"], hello["speed"]) == (True, 1, 10.0)
    assert socket(api=1, id=7)["id"] == 7


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (b"nonsense", "json", "one JSON object a line"),
        (b"[1]", "json", "a request is a JSON object"),
        (b"[" * 5000, "json", "one JSON object a line"),
        (b'{"do": "truth"}', "nonce", "read it from [bench] of the station file"),
        ('{"nonce": "gehäuse"}'.encode(), "nonce", "wrong nonce"),
        (b'{"nonce": "secret", "api": 2}', "api", "speaks version 1, not 2"),
        (b'{"nonce": "secret", "do": "dance"}', "do", "known: counters, describe, fault"),
        (b'{"nonce": "secret", "do": "set"}', "what", "known beam.lost"),
        (b'{"nonce": "secret", "do": "set", "what": "holder.colour"}', "what", "holder.ambient_k"),
        (b'{"nonce": "secret", "do": "set", "what": "holder.ambient_k"}', "value", "a number, or null"),
        (
            b'{"nonce": "secret", "do": "set", "what": "holder.ambient_k", "value": "hot"}',
            "value", "'hot' is no number in K",
        ),
        (b'{"nonce": "secret", "do": "set", "what": "cell.short_ohm", "value": NaN}', "value", "no number"),
        (b'{"nonce": "secret", "do": "fault", "kind": "lost"}', "target", "one of io, heater, cell"),
        (b'{"nonce": "secret", "do": "fault", "target": "io"}', "kind", "describe lists"),
        (b'{"nonce": "secret", "do": "fault", "target": "io", "kind": "gremlin"}', "kind", "describe lists"),
        (b'{"nonce": "secret", "do": "fault", "target": "io", "kind": "switch"}', "value", "describe"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(socket: Any, line: bytes, code: str, says: str) -> None:
    reply = socket(line)
    assert reply["ok"] is False
    assert reply["code"] == code
    assert says in reply["error"]


def test_every_value_can_be_read_set_and_put_back(socket: Any, bench: Bench) -> None:
    before = socket(do="get")["values"]
    assert set(before) == set(SETTABLE)
    for name, one in SETTABLE.items():
        assert socket(do="set", what=name, value=3) == {"ok": True}
        told = socket(do="get", what=name)
        assert (told["value"], told["unit"]) == (True if name == "beam.lost" else 3, one.unit)
        assert socket(do="set", what=name, value=None) == {"ok": True}
    assert socket(do="get")["values"] == before
    assert math.isinf(bench.world.cell.short_ohm)  # null in JSON


def test_a_fault_waits_for_its_trigger(socket: Any, bench: Bench) -> None:
    late = socket(do="fault", target="io", kind="permit", given=False, at_s=50.0)
    soon = socket(do="fault", target="io", kind="beam_loss", lost=True, after_s=1.0)
    assert (late["waiting"], soon["waiting"]) == (1, 2)
    now_s = bench.clock.now_s()
    bench.step(now_s)
    bench.step(now_s + 2.0)
    told = socket(do="faults")
    assert told["waiting"] == 1
    assert [fault["kind"] for fault in told["done"]] == ["beam_loss"]
    assert bench.world.beam.lost


def test_stop_ends_the_bench(socket: Any) -> None:
    assert socket(do="stop") == {"ok": True}
    assert socket.ended


def test_describe_lists_everything(socket: Any, bench: Bench) -> None:
    told = socket(do="describe")
    assert set(told["targets"]) == set(bench.twins)
    assert set(told["commands"]) == set(api.COMMANDS)
    assert "beam_loss" in told["targets"]["io"]["faults"]
    assert told["targets"]["cell"]["twin"] == "EmStatTwin"
    assert told["settable"]["holder.ambient_k"]["unit"] == "K"
    assert "silence" in told["wire_faults"]


def test_what_the_code_knows_is_on_the_page() -> None:
    """The lists are made from the code: python -m hil_tests.bench_page."""
    text = PAGE.read_text(encoding="utf-8")
    assert bench_page.page(text) == text, "python -m hil_tests.bench_page makes the page anew"
    assert json.loads(api.KINDS.read_text()) == bench_page.kinds(), "python -m hil_tests.bench_page"
    assert {"unplug", "reset"} <= set(bench_page.kinds()["LabJackT7Twin"])


def test_every_kind_is_explained() -> None:
    unexplained = {
        f"{name}: {kind}"
        for name, found in bench_page.kinds().items()
        for kind in found
        if not re.search(rf"(``|\"){kind}(``|\")", bench_page.meaning(name))
    }
    assert not unexplained


def test_the_client_of_the_page_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "client.py").write_text(code)
    world = World.start(tmp_path / "bench", speed=10.0)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-W", "error", str(tmp_path / "client.py"), str(world.station)],
            capture_output=True, text=True, timeout=60.0,
        )  # fmt: skip
    finally:
        world.stop()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "310.0 K"
    assert re.match(r"[34]\.\d+ V", done.stdout.splitlines()[1])


def test_a_program_that_closes_the_pipe_takes_its_bench_with_it(tmp_path: Path) -> None:
    """``operando bench``, as the page has it; the bench itself is a process below it."""
    words = [sys.executable, "-m", "controller", "bench", "--dir", str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline().strip() == str(tmp_path / "station.toml")
            process.stdin.close()
            assert process.wait(20.0) == 0
            assert process.stdout.read() == ""  # the bench had this end, too
        finally:
            process.kill()
