"""Who may look: token and cookie, the names of this machine, where a websocket may come from.

The token is typed in once; the browser then holds a cookie that a key made from the token signs. So a session
outlives a restart of the page, and ends when the token is changed. Neither is ever logged.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from controller.config.web import TOKEN_CHARACTERS, Web

COOKIE = "operando_session"
SESSION_S = 30 * 86_400.0  # a screen on a wall
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=(), serial=()",
    "Cache-Control": "no-cache",
}  # a browser asks again, and gets 304


class AccessError(Exception):
    """The page must not be served like this; says what to change."""


def read_token(path: Path) -> str:
    """Return the token in a file of its own. Raises AccessError when everybody can read or guess it."""
    try:
        if path.stat().st_mode & 0o077:
            raise AccessError(f"{path} can be read by others on this machine: chmod 600 {path}")
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        make = f"(umask 077; head -c 24 /dev/urandom | base64 > {path})"
        raise AccessError(f"no token in {path}: {error}. Make one: {make}") from error
    if len(token) < TOKEN_CHARACTERS:
        raise AccessError(f"{path} holds fewer than {TOKEN_CHARACTERS} characters: it could be guessed")
    return token


def tls(table: Web, beside: Path) -> ssl.SSLContext | None:
    """Return the TLS context of the page, None without certificate. Raises AccessError."""
    if table.certificate is None or table.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(beside / table.certificate, beside / table.key)
    except (OSError, ssl.SSLError) as error:
        raise AccessError(f"certificate {table.certificate} and key {table.key}: {error}") from error
    return context


class Access:
    """Decides for one page."""

    def __init__(self, table: Web, beside: Path, wall: Callable[[], float] = time.time) -> None:
        """Read what the table names.

        Args:
            table: ``[web]``.
            beside: the folder that relative paths begin at: that of the station file.
            wall: clock, for tests.

        Raises:
            AccessError: beyond this machine without token or TLS, or one of them cannot be used.
        """
        self._wall = wall
        self.tls = tls(table, beside)
        self._token = None if table.token is None else read_token(beside / table.token)
        if not table.loopback and (self._token is None or self.tls is None):
            raise AccessError(f"beyond this machine ({table.host}) the page needs both a token and TLS")
        names = {table.host, *table.names}
        if table.loopback:
            names |= set(LOCAL_NAMES)
        self._names = {name.lower().strip("[]") for name in names}
        self._key = hashlib.sha256(b"operando page session\0" + (self._token or "").encode()).digest()

    @property
    def needs_login(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "http" if self.tls is None else "https"

    def is_ours(self, host: str) -> bool:
        """Tell whether a Host header names this machine: a foreign name that leads here is refused."""
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and name in self._names

    def same_origin(self, origin: str | None, host: str) -> bool:
        """Tell whether a websocket or a form comes from a page of ours; a missing Origin is none of ours."""
        return origin is not None and origin.lower() == f"{self.scheme}://{host}".lower()

    def is_token(self, offered: str) -> bool:
        """Compare a token, in constant time."""
        return self._token is not None and hmac.compare_digest(offered.encode(), self._token.encode())

    def session(self) -> str:
        """Return the value of a new cookie."""
        text = f"{int(self._wall() + SESSION_S)}.{secrets.token_urlsafe(12)}"
        return f"{text}.{self._sign(text)}"

    def is_session(self, cookie: str | None) -> bool:
        """Tell whether a cookie is one of ours and still holds; always so where no token is asked for."""
        if self._token is None:
            return True
        text, _, signature = (cookie or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(text).encode()):
            return False
        return float(text.partition(".")[0]) > self._wall()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
