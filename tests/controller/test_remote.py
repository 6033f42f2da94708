"""``operando remote`` where nobody answers, or what it was given is no good; hil_tests has a whole run."""

import pytest

from controller import remote
from controller.cli import main
from tests.controller.mosquitto import Written


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = Written(tmp_path_factory.mktemp("written") / "broker").start()
    yield broker
    broker.stop()


@pytest.fixture
def type_in(broker, monkeypatch):
    """Type a command with the files of the broker, or with others."""
    monkeypatch.setattr(remote, "LEARN_S", 0.3)
    monkeypatch.setattr(remote, "ANSWER_S", 0.3)

    def type_in(verb, **other):
        files = {"ca": "ca.crt", "credentials": "operator.credentials", "key": "desk.key", **other}
        words = [word for name, file in files.items() for word in (f"--{name}", str(broker.folder / file))]
        return main(["remote", verb, "--url", f"mqtts://localhost:{broker.port}", *words])

    return type_in


def test_a_station_that_says_nothing_is_not_guessed_at(type_in, capsys):
    assert type_in("stop") == 3
    assert (
        "no run is known to go on: nothing good on operando/v1/bench/state/run/id" in capsys.readouterr().err
    )


def test_no_answer_is_no_success(type_in, capsys):
    assert type_in("safe") == 3
    assert "no answer within 0.3 s" in capsys.readouterr().err


def test_a_broker_that_refuses_is_named(type_in, tmp_path, capsys):
    wrong = tmp_path / "credentials"
    wrong.write_text("operator\nguess\n")
    wrong.chmod(0o600)
    assert type_in("safe", credentials=wrong) == 3
    assert "localhost" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "words"),
    [({"key": "command.keys"}, "must hold one key"), ({"credentials": "none"}, "No such file")],
)
def test_files_that_are_no_good(type_in, other, words, capsys):
    assert type_in("safe", **other) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
