from __future__ import annotations

import json
from argparse import Namespace

import pytest
from jsonschema import Draft202012Validator

from controller.schemas import KINDS, main, schema
from controller.summary import SCHEMA


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_printed_as_json(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Namespace(kind=kind)) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(schema(kind)))


@pytest.mark.parametrize("kind", ["station", "experiment", "summary"])
def test_schemas_of_files_are_schemas(kind: str) -> None:
    Draft202012Validator.check_schema(schema(kind))


def test_payloads_are_schemas_by_message() -> None:
    messages = schema("payloads")
    assert {"status", "state", "data", "alarm"} <= set(messages)
    for one in messages.values():
        Draft202012Validator.check_schema(one)


def test_the_summary_schema_is_the_one_that_is_written() -> None:
    assert schema("summary") is SCHEMA


def test_an_unknown_kind_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Namespace(kind="stations")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "stations" in said.err
    assert "station," in said.err
