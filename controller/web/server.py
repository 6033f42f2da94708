"""HTTP and websocket of the live page. It reads nothing from a browser but a token and two small requests."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from controller.web.access import COOKIE, HEADERS, SESSION_S, Access

if TYPE_CHECKING:
    from controller.web.hub import Hub, Viewer

STATIC = Path(__file__).parent / "static"
SUBPROTOCOL = "operando.live.1"
MAX_REQUEST = 4096  # bytes of a form, and of a frame from a page
MAX_REQUESTS_PER_S = 20.0  # of a page: more is none of ours
LOGIN_PAUSE_S = 0.5  # after a wrong token; one after the other
LOGINS_WAITING = 8
TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml",
    ".png": "image/png", ".json": "application/json", ".webmanifest": "application/manifest+json",
    ".txt": "text/plain", ".woff2": "font/woff2", ".ico": "image/x-icon",
}  # fmt: skip
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("web")

LOGIN = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>operando: log in</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/login.css"></head>
<body><main><h1>operando</h1><form method="post" action="/login"><p>{why}</p>
<label for="token">Token of this station</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></form></main></body></html>"""
LOGIN_CSS = """:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
main{max-width:22rem;margin:15vh auto;padding:0 1rem}label,input,button{display:block;width:100%;
box-sizing:border-box}input,button{font:inherit;padding:.5rem;margin:.5rem 0}"""


class Server:
    """One page."""

    def __init__(self, access: Access, hub: Hub, *, viewers: int, static: Path = STATIC) -> None:
        self._access = access
        self._hub = hub
        self._most = viewers
        self._files = {
            "/" + path.relative_to(static).as_posix(): path
            for path in sorted(static.rglob("*"))
            if path.is_file() and path.suffix in TYPES
        }  # only what is in this list is ever opened
        self._login = asyncio.Lock()
        self._logins = 0
        self._sockets: set[web.WebSocketResponse] = set()
        self.refused = 0

    def application(self) -> web.Application:
        """Return what aiohttp serves."""
        application = web.Application(middlewares=[self._guarded], client_max_size=MAX_REQUEST)
        application.router.add_get("/live", self._live)
        application.router.add_get("/login", self._login_page)
        application.router.add_post("/login", self._log_in)
        application.router.add_post("/logout", self._log_out)
        application.router.add_get("/login.css", self._login_css)
        application.router.add_get("/{path:.*}", self._file)
        return application

    async def close(self) -> None:
        """Say goodbye to every page."""
        for socket in list(self._sockets):
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(1.0):
                    await socket.close(code=1000, message=b"the page's server has ended")

    # --- every request ---------------------------------------------------------------------------------

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse foreign names and strangers; put the headers on whatever is answered."""
        try:
            response = await self._answer(request, handler)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._access.is_ours(request.host):
            self.refused += 1
            raise web.HTTPMisdirectedRequest(text="this machine is not known under that name")
        if request.path not in ("/login", "/login.css") and not self._may_look(request):
            if request.path == "/" and request.method == "GET":
                raise web.HTTPSeeOther("/login")
            self.refused += 1
            raise web.HTTPUnauthorized(text="log in first")
        return await handler(request)

    def _may_look(self, request: web.Request) -> bool:
        return self._access.is_session(request.cookies.get(COOKIE))

    # --- files and login -------------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = self._files.get("/index.html" if request.path == "/" else request.path)
        if path is None:
            raise web.HTTPNotFound(text="there is no such file")
        content = await asyncio.to_thread(path.read_bytes)
        tag = hashlib.sha256(content).hexdigest()[:32]
        if any(one.value == tag for one in request.if_none_match or ()):
            return web.Response(status=304, headers={"ETag": f'"{tag}"'})
        kind = TYPES[path.suffix]
        charset = "utf-8" if kind.startswith(("text/", "application/json")) else None
        return web.Response(body=content, content_type=kind, charset=charset, headers={"ETag": f'"{tag}"'})

    async def _login_css(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=LOGIN_CSS, content_type="text/css")

    async def _login_page(self, request: web.Request, why: str = "", status: int = 200) -> web.StreamResponse:
        if not self._access.needs_login or (not why and self._may_look(request)):
            raise web.HTTPSeeOther("/")
        return web.Response(
            text=LOGIN.format(why=html.escape(why)), content_type="text/html", status=status,
            headers={"Cache-Control": "no-store"},
        )  # fmt: skip

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        if not self._access.same_origin(request.headers.get("Origin"), request.host):
            raise web.HTTPForbidden(text="this form is not ours")
        if self._logins >= LOGINS_WAITING:
            raise web.HTTPTooManyRequests(text="too many try to log in: later")
        self._logins += 1
        try:
            async with self._login:
                token = (await request.post()).get("token")
                if isinstance(token, str) and self._access.is_token(token.strip()):
                    return self._with_session(web.HTTPSeeOther("/"))
                self.refused += 1
                log.warning("a wrong token was offered")
                await asyncio.sleep(LOGIN_PAUSE_S)
        finally:
            self._logins -= 1
        return await self._login_page(request, "That is not the token of this station.", 401)

    def _with_session(self, response: web.HTTPSeeOther) -> web.StreamResponse:
        response.set_cookie(
            COOKIE, self._access.session(), max_age=int(SESSION_S), httponly=True, samesite="Strict",
            path="/", secure=self._access.scheme == "https",
        )  # fmt: skip
        raise response

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        if not self._access.same_origin(request.headers.get("Origin"), request.host):
            raise web.HTTPForbidden(text="this form is not ours")
        response = web.HTTPSeeOther("/login")
        response.del_cookie(COOKIE, path="/")
        raise response

    # --- websocket -------------------------------------------------------------------------------------

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if not self._access.same_origin(request.headers.get("Origin"), request.host):
            self.refused += 1
            raise web.HTTPForbidden(text="only a page of this server may open it")
        if len(self._hub.viewers) >= self._most:
            raise web.HTTPServiceUnavailable(text="too many pages are open")
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,), heartbeat=15.0, max_msg_size=MAX_REQUEST, compress=False,
            writer_limit=1 << 16, timeout=2.0,
        )  # fmt: skip
        await socket.prepare(request)
        viewer = self._hub.join()
        self._sockets.add(socket)
        sending = asyncio.create_task(self._send(viewer, socket, request))
        try:
            await self._listen(viewer, socket)
        finally:
            sending.cancel()
            self._hub.leave(viewer)
            self._sockets.discard(socket)
            await asyncio.gather(sending, return_exceptions=True)
        return socket

    async def _send(self, viewer: Viewer, socket: web.WebSocketResponse, request: web.Request) -> None:
        """Send until the connection ends; one that takes nothing is cut, not waited for."""
        try:
            await viewer.send_to(socket)
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()

    async def _listen(self, viewer: Viewer, socket: web.WebSocketResponse) -> None:
        """Take the few things that a page may ask for; anything else ends the connection."""
        tokens, filled = MAX_REQUESTS_PER_S, time.monotonic()
        async for message in socket:
            now = time.monotonic()
            tokens, filled = min(MAX_REQUESTS_PER_S, tokens + (now - filled) * MAX_REQUESTS_PER_S) - 1.0, now
            if tokens < 0.0 or message.type != WSMsgType.TEXT or not self._asked(viewer, message.data):
                self.refused += 1
                await socket.close(code=1008, message=b"this is not what a page asks for")
                return

    def _asked(self, viewer: Viewer, data: str) -> bool:
        """Do what a page asks; return whether it is something that a page may ask."""
        try:
            body = json.loads(data)
            kind = body["k"]
            if kind == "resend":
                scan, last = body.get("scan"), body.get("pass")
                if not all(one is None or type(one) is int for one in (scan, last)):
                    return False
                viewer.resend(str(body["stream"]), scan, last)
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        return kind in ("resend", "pong")
