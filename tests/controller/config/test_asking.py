"""What a file may say about questions, resuming and notifications, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from controller.config.notify import Notify
from controller.config.resume import Resume
from controller.config.steps import Step

STEP: TypeAdapter[Any] = TypeAdapter(Step)
MAIL = {"host": "smtp.example.org", "from": "a@b.org", "to": ["c@d.org"]}


def message(**keys: Any) -> Any:
    return STEP.validate_python({"do": "message", "text": "x", "wait": True, "timeout": "1 h", **keys})


def complaints(error: ValidationError) -> str:
    """Return everything that is said about a table; rules of ours stand in the context."""
    return "; ".join(f"{one['msg']} {one.get('ctx', '')}" for one in error.errors())


def test_what_is_taken() -> None:
    assert message(choices=["left", "right"], default="left").default == "left"
    assert message().choices is None
    heat = {"do": "heat", "to": "333 K", "within": "2 K", "ramp": "10 K/min", "timeout": "1 h"}
    asks = STEP.validate_python({**heat, "on_timeout": "ask", "answer_within": "10 min"})
    assert (asks.on_timeout, asks.answer_within_s) == ("ask", 600.0)
    resume = Resume()
    assert (resume.age_s, resume.otherwise) == (21600.0, "leave")
    notify = Notify.model_validate({"webhook": [{"url": "https://x.org/a"}], "mail": [MAIL]})
    assert (notify.quiet_s, notify.mails[0].port, notify.mails[0].tls) == (300.0, 587, "starttls")
    assert "starts" not in notify.about


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"choices": ["left"]}, "at least 2"),
        ({"choices": ["Left", "left"]}, "names one answer twice"),
        ({"choices": ["left", "a\nb"]}, "pattern"),
        ({"default": "maybe"}, "is not one of the answers: continue, stop, abort"),
        ({"default": "stop", "on_timeout": "continue"}, "keep one"),
        ({"on_timeout": "ask"}, "nobody answered this very question"),
        ({"wait": False, "timeout": None, "choices": ["a", "b"]}, "is for a message that waits"),
    ],
)
def test_a_message_that_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        message(**{key: value for key, value in keys.items() if value is not None})
    assert words in complaints(caught.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "tells nobody"),
        ({"webhook": [{}]}, "is needed, or url_file"),
        ({"webhook": [{"url": "https://x.org", "url_file": "f"}]}, "is needed, or url_file"),
        ({"webhook": [{"url": "ftp://x.org/a"}]}, "begins with https"),
        ({"webhook": [{"url": "https://me:secret@x.org/a"}]}, "carries a password"),
        ({"webhook": [{"url": "http://x.org/a", "token_file": "t"}]}, "would send the token in clear"),
        ({"mail": [{**MAIL, "tls": "none"}]}, "for a mail server on this machine only"),
        ({"mail": [{**MAIL, "to": []}]}, "at least 1"),
        ({"mail": [{**MAIL, "from": "a@b.org\r\nBcc: x@y.org"}]}, "pattern"),
        ({"heartbeat": {"url": "https://x.org", "every": "1 s"}}, "10"),
    ],
)
def test_a_table_that_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Notify.model_validate(table)
    assert words in complaints(caught.value)
