"""The SECoP node as clients see it: raw lines, the frappy client, secop-ophyd under a RunEngine."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from controller.gateways.hand import Gone, Refused
from controller.gateways.secop_wire import SecopError, identifier, message, parse
from tests.controller.gateways.station import Served, Told


class Raw:
    """A client that types lines."""

    def __init__(self, port: int) -> None:
        self.link = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        self.lines = self.link.makefile("rb")

    def say(self, text: str) -> None:
        self.link.sendall(text.encode() + b"\n")

    def line(self) -> tuple[str, str, Any]:
        action, _, rest = self.lines.readline().decode().rstrip("\n").partition(" ")
        specifier, _, data = rest.partition(" ")
        return action, specifier, json.loads(data) if data else None

    def ask(self, text: str) -> tuple[str, str, Any]:
        self.say(text)
        return self.line()

    def until(self, action: str, specifier: str) -> list[tuple[str, str, Any]]:
        """Return all lines up to one that says this."""
        found = []
        while True:
            found.append(self.line())
            if found[-1][:2] == (action, specifier):
                return found

    def close(self) -> None:
        self.lines.close()
        self.link.close()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served(Told())
    yield made
    made.stop()


@pytest.fixture
def raw(served: Served) -> Iterator[Raw]:
    made = Raw(served.port)
    yield made
    made.close()


# --- the wire --------------------------------------------------------------------------------------------


def test_the_lines_of_the_specification() -> None:
    assert parse(b"*IDN?\r").action == "*IDN?"
    assert parse(b"describe .").specifier == ""
    request = parse(b"change heater:target 3.5e2")
    assert (request.module, request.accessible, request.data) == ("heater", "target", 350.0)
    assert parse(b"read t1:value").data is None
    assert message("update", "t1:value", [295.13, {"t": 150539648.188388, "e": 0.01}]) == (
        b'update t1:value [295.13,{"t":150539648.188388,"e":0.01}]\n'
    )
    assert message("active", has_data=False) == b"active\n"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"change heater:target {", "BadJSON"),
        (b"change heater:target NaN", "BadJSON"),
        (b"change heater:target " + b"[" * 20000, "BadJSON"),
        (b"change 1st:target 3", "ProtocolError"),
        (b"change a:b:c 3", "ProtocolError"),
        (b"meas:volt?", "ProtocolError"),
        (b"\xff\xfe", "ProtocolError"),
        (b"", "ProtocolError"),
    ],
)
def test_what_is_no_message_is_an_error_of_its_class(line: bytes, kind: str) -> None:
    with pytest.raises(SecopError) as caught:
        parse(line)
    assert caught.value.kind == kind


def test_names_become_identifiers_that_differ_in_lower_case() -> None:
    taken: set[str] = set()
    assert [identifier(name, taken) for name in ("line-a", "LINE_A", "2nd", "x" * 90)] == [
        "line_a", "LINE_A_2", "_2nd", "x" * 60,
    ]  # fmt: skip


# --- what is told ----------------------------------------------------------------------------------------


def test_identification_description_and_initial_updates_before_active(raw: Raw) -> None:
    assert raw.ask("*IDN?")[0].startswith("ISSE&SINE2020,SECoP,")
    _, _, told = raw.ask("describe")
    heater = told["modules"]["heater"]["accessibles"]
    assert heater["value"]["datainfo"] == {"type": "double", "min": 280.0, "max": 345.0, "unit": "K"}
    assert heater["target"]["readonly"] is True
    assert set(told["modules"]) == {
        "heater", "cell_voltage", "cell_charge", "beam_current", "beam_blanked", "line_rs485",
        "gauge_pressure", "run", "guard",
    }  # fmt: skip
    raw.say("activate")
    lines = raw.until("active", "")
    told_of = {specifier for _, specifier, _ in lines[:-1]}
    wanted = {
        f"{module}:{name}" for module, about in told["modules"].items() for name in about["accessibles"]
    }
    assert told_of == wanted
    values = {specifier: data for action, specifier, data in lines if action == "update"}
    assert values["cell_voltage:value"][0] == 3.7
    assert values["cell_voltage:value"][1]["e"] == 0.002
    assert values["cell_voltage:value"][1]["t"] == pytest.approx(time.time(), abs=5.0)
    assert values["heater:status"][0][0] == 300  # 300 K on its way to 333 K
    assert values["beam_blanked:value"][0] is True


def test_a_lost_value_and_its_status_are_told_together(served: Served, raw: Raw) -> None:
    raw.say("activate")
    raw.until("active", "")
    served.do(lambda: served.told.state("heater", "temperature", None, unit="K"))
    first, second = raw.line(), raw.line()
    assert {first[:2], second[:2]} == {("error_update", "heater:value"), ("update", "heater:status")}
    errors = {line[1]: line[2] for line in (first, second)}
    assert errors["heater:value"][0] == "HardwareError"
    assert errors["heater:status"][0][0] == 400


def test_a_lost_host_is_an_error_of_everything_at_once(served: Served, raw: Raw) -> None:
    raw.say("activate")
    raw.until("active", "")
    served.do(lambda: served.told.status("lost"))
    action, _, data = raw.ask("read cell_voltage:value")
    lines = [(action, _, data)]
    while lines[-1][0] != "error_read":
        lines.append(raw.line())
    assert lines[-1][2][:2] == ["CommunicationFailed", "the host is lost"]
    wrong = {line[1] for line in lines if line[0] == "error_update"}
    assert {"heater:value", "cell_voltage:value", "gauge_pressure:value", "guard:value"} <= wrong


def test_what_is_not_renewed_becomes_an_error_and_never_stays_an_old_value(served: Served, raw: Raw) -> None:
    raw.say("activate cell_voltage")
    raw.until("active", "cell_voltage")
    served.do(lambda: served.told.state("cell", "voltage", 3.71, unit="V", stands_s=0.5))
    assert raw.line()[2][0] == 3.71
    served.do(lambda: served.told.passes(1.0))
    lines = [raw.line(), raw.line()]
    assert {line[:2] for line in lines} == {
        ("error_update", "cell_voltage:value"), ("update", "cell_voltage:status"),
    }  # fmt: skip
    assert "not renewed" in str(lines)


def test_an_open_circuit_is_no_fault(served: Served, raw: Raw) -> None:
    served.do(lambda: served.told.state("cell", "phase", "open circuit"))
    served.do(lambda: served.told.state("cell", "voltage", None, unit="V"))
    assert raw.ask("read cell_voltage:value")[2][0] == "Disabled"
    assert raw.ask("read cell_voltage:status")[2][0][0] == 0


def test_a_latch_is_seen_with_its_id(served: Served, raw: Raw) -> None:
    served.do(
        lambda: served.told.say("alarm/heater-temperature", {"id": "heater-temperature", "text": "too hot"})
    )
    assert raw.ask("read guard:value")[2][0] == "INTERLOCK heater-temperature: too hot"
    assert raw.ask("read guard:status")[2][0][0] == 400


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("read nowhere:value", "NoSuchModule"), ("read heater:colour", "NoSuchParameter"),
        ("change heater:target 330", "ReadOnly"), ("change heater:value 330", "ReadOnly"),
        ("do heater:stop", "NoSuchCommand"), ("change heater:target {", "BadJSON"),
        ('logging heater "error"', "ProtocolError"), ("measure", "ProtocolError"),
    ],
)  # fmt: skip
def test_wrong_requests_are_answered_by_their_error_class(raw: Raw, line: str, kind: str) -> None:
    action, _, data = raw.ask(line)
    assert action == f"error_{line.split()[0]}"
    assert data[0] == kind


# --- bounds ----------------------------------------------------------------------------------------------


def test_a_line_without_end_is_cut_off_and_others_go_on(served: Served, raw: Raw) -> None:
    endless = socket.create_connection(("127.0.0.1", served.port), timeout=5.0)
    with endless, contextlib.suppress(ConnectionError):  # it may be cut off while we still talk
        for _ in range(100):
            endless.sendall(b"x" * 65536)
        while endless.recv(65536):
            pass
    assert raw.ask("ping 1")[:2] == ("pong", "1")


def test_more_clients_than_allowed_are_closed_and_a_place_is_free_again_later() -> None:
    served = Served(Told(), most_clients=3)
    try:
        clients = [Raw(served.port) for _ in range(3)]
        assert all(client.ask("ping x")[0] == "pong" for client in clients)
        beyond = socket.create_connection(("127.0.0.1", served.port), timeout=5.0)
        assert beyond.recv(100) == b""
        beyond.close()
        clients[0].close()
        end = time.monotonic() + 5.0
        while True:
            with contextlib.suppress(OSError, ValueError):
                again = Raw(served.port)
                if again.ask("ping y")[0] == "pong":
                    break
            assert time.monotonic() < end
        for client in (*clients[1:], again):
            client.close()
    finally:
        served.stop()


def test_a_client_that_does_not_read_is_hung_up_on(served: Served) -> None:
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.connect(("127.0.0.1", served.port))
    lazy.sendall(b"activate\n")
    end = time.monotonic() + 20.0
    while served.node._clients or not served.node.state.reports:
        served.do(
            lambda: [
                served.told.state("run", "state", f"{'x' * 900}{index}") for index in range(500)
            ] and None
        )  # fmt: skip
        assert time.monotonic() < end
    lazy.close()


# --- commands --------------------------------------------------------------------------------------------


class FakeHand:
    """Control as the node meets it: it takes what is at most 340 K, while there is a manual step."""

    made: ClassVar[list[FakeHand]] = []

    def __init__(self, by: str) -> None:
        self.by, self.taken, self.said = by, False, []
        self.refuse: Exception | None = None
        FakeHand.made.append(self)

    def command(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if self.refuse is not None:
            raise self.refuse
        if verb == "heat" and arguments["to_k"] > 340.0:
            raise Refused(f"heat {arguments['to_k']:g} K is refused: the step allows 290 K to 340 K")
        self.taken = True
        self.said.append((verb, arguments))
        return {"ok": True}

    def alive(self) -> None:
        pass

    def release(self) -> None:
        self.taken = False
        self.said.append(("release", {}))


@pytest.fixture
def writing() -> Iterator[Served]:
    FakeHand.made.clear()
    made = Served(Told(), FakeHand)
    yield made
    made.stop()


def test_a_target_is_busy_before_it_is_answered_and_idle_when_it_is_reached(writing: Served) -> None:
    raw = Raw(writing.port)
    writing.do(lambda: writing.told.state("heater", "target", 300.0, unit="K"))
    assert raw.ask("describe")[2]["modules"]["heater"]["interface_classes"] == ["Drivable"]
    raw.say("activate")
    raw.until("active", "")
    raw.say("change heater:target 335")
    lines = raw.until("changed", "heater:target")
    busy = [line for line in lines if line[1] == "heater:status"]
    assert busy
    assert busy[0][2][0][0] == 300
    assert FakeHand.made[-1].said == [("heat", {"to_k": 335.0})]
    writing.do(lambda: writing.told.state("heater", "target", 335.0, unit="K"))
    writing.do(lambda: writing.told.state("heater", "temperature", 334.8, unit="K"))
    assert raw.until("update", "heater:status")[-1][2][0][0] == 100
    raw.close()


@pytest.mark.parametrize(
    ("refusal", "line", "kind", "text"),
    [
        (None, "change heater:target 343", "RangeError", "343 K is refused: the step allows"),
        (None, "change heater:target 400", "RangeError", "400 is outside 280 to 345 K"),
        (None, 'change heater:target "hot"', "WrongType", "a number"),
        (Refused("no manual step is running"), "change heater:target 330", "Impossible", "no manual step"),
        (Gone("no host is running here"), "do heater:stop", "CommunicationFailed", "no host"),
        (None, "do manual:_charge 3", "WrongType", "struct"),
    ],
)
def test_refusals_name_value_and_limit(
    writing: Served, refusal: Exception | None, line: str, kind: str, text: str
) -> None:
    raw = Raw(writing.port)
    raw.ask("ping 1")
    FakeHand.made[-1].refuse = refusal
    told = raw.ask(line)
    assert told[0].startswith("error_")
    assert told[2][0] == kind
    assert text in told[2][1]
    raw.close()


def test_a_client_that_hangs_up_gives_the_step_back(writing: Served) -> None:
    raw = Raw(writing.port)
    assert raw.ask('do manual:_charge {"current_a": 1e-5, "do": "safe"}')[0] == "done"
    hand = FakeHand.made[-1]
    assert hand.said == [("charge", {"current_a": 1e-5})]  # what is no argument of the verb is not handed on
    raw.close()
    end = time.monotonic() + 5.0
    while ("release", {}) not in hand.said:
        assert time.monotonic() < end
        time.sleep(0.01)


# --- clients of others -----------------------------------------------------------------------------------


def test_the_frappy_client_reads_and_hears_of_a_lost_host(served: Served) -> None:
    client_module = pytest.importorskip("frappy.client")
    client = client_module.SecopClient(f"tcp://127.0.0.1:{served.port}", log=None)
    client.connect(5)
    try:
        heard: list[tuple[str, str, Any, Any]] = []

        def note(module: str, parameter: str, value: Any, timestamp: Any, error: Any) -> None:
            heard.append((module, parameter, value, error))

        for name in ("value", "status"):
            client.register_callback(("heater", name), updateEvent=note)
        item = client.getParameter("cell_voltage", "value")
        assert item.value == pytest.approx(3.7)
        assert client.getParameter("heater", "status").value[0] == 300
        assert client.descriptive_data["modules"]["heater"]["accessibles"]["value"]["datainfo"]["unit"] == "K"
        heard.clear()
        served.do(lambda: served.told.status("lost"))
        end = time.monotonic() + 5.0
        while not {("heater", "value"), ("heater", "status")} <= {one[:2] for one in heard}:
            assert time.monotonic() < end, heard
            time.sleep(0.01)
        assert any(one[1] == "value" and one[3] is not None for one in heard)
        assert any(one[1] == "status" and int(one[2][0]) == 400 for one in heard)
    finally:
        client.disconnect()


def test_the_frappy_client_sets_a_target(writing: Served) -> None:
    client_module = pytest.importorskip("frappy.client")
    client = client_module.SecopClient(f"tcp://127.0.0.1:{writing.port}", log=None)
    client.connect(5)
    try:
        assert client.setParameter("heater", "target", 335.0).value == pytest.approx(335.0)
        client.execCommand("heater", "stop")
        client.execCommand("manual", "scan", 2)  # frappy leaves the underscore out
        assert FakeHand.made[-1].said == [("heat", {"to_k": 335.0}), ("hold", {}), ("scan", {"passes": 2})]
        with pytest.raises(Exception, match="is refused: the step allows"):
            client.setParameter("heater", "target", 343.0)
    finally:
        client.disconnect()


def test_secop_ophyd_reads_and_moves_under_a_run_engine(
    writing: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("secop_ophyd")
    monkeypatch.chdir(tmp_path)  # it leaves a folder behind
    from bluesky import RunEngine
    from bluesky import plan_stubs as bps
    from bluesky import plans as bp
    from ophyd_async.core import init_devices
    from secop_ophyd.SECoPDevices import SECoPNodeDevice

    engine = RunEngine({})
    documents: list[tuple[str, dict[str, Any]]] = []
    engine.subscribe(lambda name, document: documents.append((name, document)))
    with init_devices():
        node = SECoPNodeDevice(sec_node_uri=f"127.0.0.1:{writing.port}")

    def plan() -> Iterator[Any]:
        yield from bp.count([node.heater], num=1)
        yield from bps.mv(node.heater, 335.0, timeout=10.0)

    def host() -> None:  # what the host says when it has been told
        if ("heat", {"to_k": 335.0}) in [one for hand in FakeHand.made for one in hand.said]:
            writing.told.state("heater", "target", 335.0, unit="K")
            writing.told.state("heater", "temperature", 335.1, unit="K")
        else:
            writing._loop.call_later(0.05, host)

    writing.do(host)
    engine(plan())
    (described,) = (document for name, document in documents if name == "descriptor")
    (event,) = (document for name, document in documents if name == "event")
    assert event["data"]["operando-bench-heater"] == pytest.approx(300.0)
    assert described["data_keys"]["operando-bench-heater"]["units"] == "K"
    assert [document["exit_status"] for name, document in documents if name == "stop"] == ["success"]
    said = [one for hand in FakeHand.made for one in hand.said]
    assert ("heat", {"to_k": 335.0}) in said
    assert ("hold", {}) in said  # at its end the engine stops whatever was moved: hold, never off
    assert ("off", {}) not in said
