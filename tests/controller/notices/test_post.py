"""Messages to real receivers: Python's HTTP server, aiosmtpd; and to slow, wrong, hostile ones."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from controller.certificates import make_authority, make_server
from controller.config.notify import Heartbeat, Mail, Webhook
from controller.notices import post
from controller.notices.notice import Notice, letter
from tests.controller.notices.receivers import Hook, dripping, secret_file

TRIP = Notice("b:7", "trips", True, "TRIP permit", "io.permit is false. The guard acted: safe.", 1e9, "run-1")
GAP = Notice("b:8", "gaps", False, "gap in reduce", "pässe & <tags> fehlen", 1e9, "run-1")
MESSAGE = letter("lab", [GAP, TRIP])


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


def webhook(url: str, **more: Any) -> Webhook:
    return Webhook.model_validate({"url": url, **more})


async def test_json(hook: Hook, tmp_path: Path) -> None:
    token = secret_file(tmp_path / "token", "t0ken\n")
    await post.webhook(webhook(hook.url, token_file=token), MESSAGE)
    (got,) = hook.got
    assert got["path"] == "/hook"
    assert got["headers"]["Authorization"] == "Bearer t0ken"
    (body,) = hook.json()
    assert (body["schema"], body["station"], body["kind"], body["id"]) == (
        "operando/notice/1", "lab", "trips", "b:7",
    )  # fmt: skip
    assert body["urgent"] is True
    assert [one["id"] for one in body["notices"]] == ["b:7", "b:8"]
    assert "io.permit is false" in body["text"]


async def test_ntfy_and_slack(hook: Hook) -> None:
    await post.webhook(webhook(hook.url, format="ntfy"), MESSAGE)
    await post.webhook(webhook(hook.url, format="slack"), MESSAGE)
    ntfy, slack = hook.got
    assert ntfy["headers"]["Title"] == "[lab] TRIP permit (+1 more)"
    assert ntfy["headers"]["Priority"] == "5"
    assert "pässe & <tags>" in ntfy["body"].decode()
    assert b"&lt;tags&gt;" in slack["body"]


async def test_an_address_that_is_a_secret_stands_in_no_error(hook: Hook, tmp_path: Path) -> None:
    url = secret_file(tmp_path / "hook", f"{hook.url}/T0PSECRET\n")
    hook.status = 403
    with pytest.raises(post.PostError, match=r"^127.0.0.1 answered 403$"):
        await post.webhook(Webhook.model_validate({"url_file": url, "format": "slack"}), MESSAGE)
    assert hook.got[0]["path"] == "/hook/T0PSECRET"
    (tmp_path / "hook").chmod(0o644)
    with pytest.raises(post.PostError, match="can be read by others"):
        await post.webhook(Webhook.model_validate({"url_file": url}), MESSAGE)


async def test_a_redirection_is_not_followed(hook: Hook) -> None:
    other = Hook()

    def elsewhere(handler: Any) -> bool:
        handler.send_response(307)
        handler.send_header("Location", other.url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    hook.mood = elsewhere
    try:
        with pytest.raises(post.PostError, match="answered 307"):
            await post.webhook(webhook(hook.url), MESSAGE)
        assert other.got == []
    finally:
        other.close()


async def test_an_endless_answer_ends(hook: Hook) -> None:
    def endless(handler: Any) -> bool:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            return True

    hook.mood = endless
    await post.webhook(webhook(hook.url), MESSAGE)


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_receiver_that_drips_meets_the_deadline(
    monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr(post, "DEADLINE_S", 0.5)
    with dripping(first) as port:
        began = time.monotonic()
        with pytest.raises(post.PostError):
            await post.webhook(webhook(f"http://127.0.0.1:{port}/"), MESSAGE)
        assert time.monotonic() - began < 5.0


async def test_nobody_there(unused_tcp_port: int) -> None:
    with pytest.raises(post.PostError, match=r"^127\.0\.0\.1: Client"):
        await post.webhook(webhook(f"http://127.0.0.1:{unused_tcp_port}/"), MESSAGE)


async def test_a_heartbeat_is_a_get(hook: Hook) -> None:
    await post.beat(Heartbeat.model_validate({"url": hook.url}))
    assert [(one["method"], one["body"]) for one in hook.got] == [("GET", b"")]


# --- e-mail ------------------------------------------------------------------------------------------------


class Box:
    """Keeps the letters."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.tried: list[LoginPassword] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.letters.append(envelope)
        return "250 OK"

    def login(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        self.tried.append(data)
        return AuthResult(success=data.password == b"pa55word")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    make_authority(tmp_path, "lab")
    make_server(tmp_path, ["127.0.0.1"])
    return tmp_path


@pytest.fixture
def box(certificates: Path, unused_tcp_port: int) -> Iterator[tuple[Box, Controller]]:
    """A mail server with STARTTLS, that takes letters only after a login."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    made = Box()
    server = Controller(
        made, hostname="127.0.0.1", port=unused_tcp_port, tls_context=context, require_starttls=True,
        auth_required=True, authenticator=made.login,
    )  # fmt: skip
    server.start()
    yield made, server
    server.stop()


def port_of(server: Controller) -> int:
    return int(server.server.sockets[0].getsockname()[1])  # type: ignore[union-attr]


def mail(port: int, **more: Any) -> Mail:
    told = {"host": "127.0.0.1", "port": port, "from": "lab@example.org", "to": ["ada@example.org"], **more}
    return Mail.model_validate(told)


async def test_a_letter_arrives(box: tuple[Box, Controller], certificates: Path, tmp_path: Path) -> None:
    made, server = box
    words = secret_file(tmp_path / "mail", "lab\npa55word\n")
    await post.mail(mail(port_of(server), credentials=words, ca=str(certificates / "ca.crt")), MESSAGE)
    (envelope,) = made.letters
    assert envelope.rcpt_tos == ["ada@example.org"]
    read = message_from_bytes(envelope.content, policy=policy.default)
    assert read["Subject"] == "[lab] TRIP permit (+1 more)"
    assert read["Auto-Submitted"] == "auto-generated"
    assert "pässe & <tags> fehlen" in read.get_content()


async def test_a_wrong_password_stands_in_no_error(
    box: tuple[Box, Controller], certificates: Path, tmp_path: Path
) -> None:
    made, server = box
    words = secret_file(tmp_path / "mail", "lab\nwr0ng\n")
    with pytest.raises(post.PostError, match=r"^127\.0\.0\.1") as caught:
        await post.mail(mail(port_of(server), credentials=words, ca=str(certificates / "ca.crt")), MESSAGE)
    assert "wr0ng" not in f"{caught.value}{caught.value.__cause__}"
    assert made.tried
    assert made.letters == []


async def test_a_server_of_another_authority_sees_nothing(
    box: tuple[Box, Controller], tmp_path: Path
) -> None:
    made, server = box
    words = secret_file(tmp_path / "mail", "lab\npa55word\n")
    with pytest.raises(post.PostError, match="SSLCertVerificationError"):
        await post.mail(mail(port_of(server), credentials=words), MESSAGE)
    assert made.tried == []


async def test_without_starttls_nothing_goes_in_clear(tmp_path: Path, unused_tcp_port: int) -> None:
    made = Box()
    server = Controller(made, hostname="127.0.0.1", port=unused_tcp_port)
    server.start()
    try:
        words = secret_file(tmp_path / "mail", "lab\npa55word\n")
        with pytest.raises(post.PostError, match="SMTPNotSupportedError"):
            await post.mail(mail(port_of(server), credentials=words), MESSAGE)
        assert (made.letters, made.tried) == ([], [])
    finally:
        server.stop()


async def test_a_mail_server_that_drips_meets_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "DEADLINE_S", 0.5)
    with dripping() as port, pytest.raises(post.PostError, match=r"not sent within 0\.5 s"):
        await post.mail(mail(port), MESSAGE)
