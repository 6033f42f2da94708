"""How a message leaves: webhook, e-mail, heartbeat. Every way has a deadline; secrets stand in files."""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import smtplib
import socket
import ssl
import stat
import time
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.notices.notice import Letter

if TYPE_CHECKING:
    from controller.config.notify import Heartbeat, Mail, Webhook

DEADLINE_S = 20.0  # for one message, from the name's look-up to the last byte of the answer
ANSWER_BYTES = 16_384  # of an answer that are read; more is nobody's business
SECRET_BYTES = 4096


class PostError(Exception):
    """A message did not get through; says why, without any secret."""


def secret(path: str) -> str:
    """Return what stands in a file that only its owner may read. Raises PostError."""
    try:
        with Path(path).expanduser().open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise PostError(f"{path} can be read by others: chmod 600 {path}")
            return file.read(SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PostError(f"{path}: {getattr(error, 'strerror', None) or 'is no text'}") from None


async def webhook(table: Webhook, message: Letter) -> None:
    """POST a message. Raises PostError."""
    url = table.url or secret(table.url_file or "")
    headers = {"Authorization": f"Bearer {secret(table.token_file)}"} if table.token_file else {}
    body, more = {"json": _json, "slack": _slack, "ntfy": _ntfy}[table.format](message)
    await _send("POST", url, table.ca, {**headers, **more}, body)


async def beat(table: Heartbeat, url: str | None = None) -> None:
    """Call the address of a heartbeat, or another of its own. Raises PostError."""
    await _send("GET", url or table.url or secret(table.url_file or ""), table.ca, {}, None)


def _json(message: Letter) -> tuple[Any, dict[str, str]]:
    first = message.notices[0]
    body = {
        "schema": "operando/notice/1", "station": message.station, "machine": socket.gethostname(),
        "urgent": message.urgent, "subject": message.subject, "text": message.body, "kind": first.kind,
        "run": first.run, "id": first.id, "t": first.t, "notices": [one.as_dict() for one in message.notices],
        "dropped": message.dropped, "sent": time.time(),
    }  # fmt: skip
    return body, {}


def _slack(message: Letter) -> tuple[Any, dict[str, str]]:
    """Mattermost and Rocket.Chat take the same."""
    subject, text = (html.escape(part, quote=False) for part in (message.subject, message.body))
    return {"text": f"*{subject}*\n{text}"}, {}


def _ntfy(message: Letter) -> tuple[Any, dict[str, str]]:
    title = message.subject.encode("ascii", "replace").decode()
    more = {"Title": title, "Priority": "5" if message.urgent else "3"}
    return message.body[:4000].encode(), {**more, "Tags": "rotating_light" if message.urgent else "battery"}


async def _send(method: str, url: str, ca: str | None, headers: dict[str, str], body: Any) -> None:
    """Send one request; only an answer of the 200s counts, no redirection is followed. Raises PostError."""
    import aiohttp

    content = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    try:
        tls = ssl.create_default_context(cafile=ca) if ca else True
        limit = aiohttp.ClientTimeout(total=DEADLINE_S)
        async with (
            aiohttp.ClientSession(timeout=limit, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.request(
                method, url, headers={"User-Agent": "operando", **headers}, ssl=tls, allow_redirects=False,
                **content,
            ) as answer,
        ):  # fmt: skip
            status = answer.status
            await answer.content.read(ANSWER_BYTES)
    except TimeoutError:
        raise PostError(f"no answer within {DEADLINE_S:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:  # their words may hold the address
        raise PostError(f"{_where(url)}: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise PostError(f"{_where(url)} answered {status}")


def _where(url: str) -> str:
    """Return the machine that an address names: the rest may be a secret."""
    from urllib.parse import urlsplit

    with contextlib.suppress(ValueError):
        return urlsplit(url).hostname or "the address"
    return "the address"


async def mail(table: Mail, message: Letter) -> None:
    """Send a message by SMTP. Raises PostError."""
    words = secret(table.credentials).splitlines() if table.credentials else []
    if table.credentials and len(words) != 2:
        raise PostError(f"{table.credentials} must hold user name and password, one per line")
    letter_ = _letter(table, message)
    open_: list[smtplib.SMTP] = []
    work = asyncio.create_task(asyncio.to_thread(_smtp, table, letter_, words, open_))
    done, _ = await asyncio.wait({work}, timeout=DEADLINE_S)
    if not done:
        for server in open_:  # a server that feeds it byte by byte: the thread ends when its socket does
            with contextlib.suppress(OSError, AttributeError):
                server.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        work.add_done_callback(lambda task: task.cancelled() or task.exception())
        raise PostError(f"{table.host}: not sent within {DEADLINE_S:g} s")
    try:
        work.result()
    except smtplib.SMTPResponseException as error:
        raise PostError(f"{table.host} answered {error.smtp_code}") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise PostError(f"{table.host}: {type(error).__name__}") from None


def _letter(table: Mail, message: Letter) -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = message.subject, table.sender, ", ".join(table.to)
    made["Date"] = formatdate(localtime=True)
    made["Message-ID"] = f"<{abs(hash(message.notices[0].id)):x}.{time.time_ns():x}@operando>"
    made["Auto-Submitted"] = "auto-generated"
    if message.urgent:
        made["X-Priority"] = "1"
    made.set_content(message.body + "\n")
    return made


def _smtp(table: Mail, letter_: EmailMessage, words: list[str], open_: list[smtplib.SMTP]) -> None:
    """Talk to the mail server (a thread)."""
    context = ssl.create_default_context(cafile=table.ca)
    each_s = DEADLINE_S / 2  # for one answer
    if table.tls == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(table.host, table.port, timeout=each_s, context=context)
    else:
        server = smtplib.SMTP(table.host, table.port, timeout=each_s)
    open_.append(server)
    with server:
        if table.tls == "starttls":
            server.starttls(context=context)  # raises if the server has none: nothing goes in clear
        if words:
            server.login(words[0], words[1])
        server.send_message(letter_)
