"""Who may look at the page, and what a browser may send. Every refusal is tried at the real server."""

import asyncio
import contextlib
import ssl
import subprocess

import aiohttp
import pytest
from pydantic import ValidationError

from controller.config.web import Web
from controller.web.access import COOKIE, SESSION_S, Access, AccessError
from tests.controller.web.page import browsing, serving, until

TOKEN = "a-token-that-nobody-guesses-0123456789"


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "page.token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return "page.token"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


# -- the table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["token", "certificate"])
def test_beyond_this_machine_needs_token_and_tls(missing):
    table = {"host": "0.0.0.0", "names": ["lab"], "token": "t", "certificate": "c", "key": "k"}
    assert not Web(**table).loopback
    del table[missing]
    if missing == "certificate":
        del table["key"]
    with pytest.raises(ValidationError) as error:
        Web(**table)
    faults = error.value.errors()[0]["ctx"]["faults"]
    assert [fault.key for fault in faults] == [missing]


def test_the_process_refuses_it_too(tmp_path, certificate):
    """The table is checked when the file is read; whoever starts the process otherwise meets the same."""
    table = Web.model_construct(
        host="192.168.0.2", port=0, token=None, certificate=None, key=None, names=(), viewers=4
    )
    with pytest.raises(AccessError, match="both a token and TLS"):
        Access(table, tmp_path)


@pytest.mark.parametrize(("mode", "text", "complaint"), [
    (0o644, TOKEN, "can be read by others"), (0o600, "short", "could be guessed"), (None, "", "no token in"),
])  # fmt: skip
def test_a_token_that_is_none_is_refused(tmp_path, mode, text, complaint):
    if mode is not None:
        (tmp_path / "t").write_text(text)
        (tmp_path / "t").chmod(mode)
    with pytest.raises(AccessError, match=complaint):
        Access(Web(token="t"), tmp_path)


# -- files ---------------------------------------------------------------------------------------------


async def test_the_page_comes_with_headers_that_allow_nothing_foreign(tmp_path):
    async with serving(tmp_path) as page, aiohttp.ClientSession() as session:
        async with session.get(page.address) as reply:
            assert reply.status == 200
            assert reply.content_type == "text/html"
            policy = reply.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert "frame-ancestors 'none'" in policy
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert reply.headers["Referrer-Policy"] == "no-referrer"
            tag = reply.headers["ETag"]
        async with session.get(page.address, headers={"If-None-Match": tag}) as reply:
            assert reply.status == 304


async def raw(port, request):
    """Send bytes as they are; return the first line of the answer and all of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(65536), 10.0)
    writer.close()
    return answer.split(b"\r\n")[0].decode(), answer


@pytest.mark.parametrize("path", [
    "/../server.py", "/..%2fserver.py", "/%2e%2e/server.py", "/static/../../web/server.py", "//etc/passwd",
    "/.%00/index.html", "/index.html%00.js", "/vendor/../../../../../etc/passwd", "/server.py",
    "/\\..\\server.py", "/index.html/", "/__init__.py",
])  # fmt: skip
async def test_nothing_but_the_listed_files_is_ever_opened(tmp_path, path):
    async with serving(tmp_path) as page:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nConnection: close\r\n\r\n".encode()
        line, answer = await raw(page.port, request)
        assert line.split()[1] in ("400", "404")
        assert b"root:" not in answer
        assert b"import asyncio" not in answer


async def test_only_reading_is_possible(tmp_path):
    async with serving(tmp_path) as page, aiohttp.ClientSession() as session:
        for verb in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            async with session.request(verb, page.address) as reply:
                assert reply.status == 405
        async with session.post(page.origin + "/live", data=b"x") as reply:
            assert reply.status == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1", ""])
async def test_a_foreign_name_that_leads_here_is_refused(tmp_path, host):
    """DNS rebinding: a page elsewhere that makes its own name point to this machine sees nothing."""
    async with serving(tmp_path) as page:
        line, _ = await raw(
            page.port, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        assert line.split()[1] in ("400", "421")


# -- login ---------------------------------------------------------------------------------------------


async def test_with_a_token_nothing_is_seen_before_it_is_given(tmp_path, token, caplog):
    async with (
        serving(tmp_path, token=token) as page,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        page.state("cell/voltage", 3.7)
        async with session.get(page.address, allow_redirects=False) as reply:
            assert (reply.status, reply.headers["Location"]) == (303, "/login")
        async with session.get(page.origin + "/index.html") as reply:
            assert reply.status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            async with browsing(page.address, session=session):
                pass
        assert error.value.status == 401
        form = {"token": "wrong-" + TOKEN}
        async with session.post(page.origin + "/login", data=form, headers={"Origin": page.origin}) as reply:
            assert reply.status == 401
            assert COOKIE not in reply.cookies
        async with session.post(page.origin + "/login", data={"token": TOKEN}) as reply:
            assert reply.status == 403  # a form of some other site has no Origin of ours
        headers = {"Origin": page.origin}
        async with session.post(
            page.origin + "/login", data={"token": TOKEN}, headers=headers, allow_redirects=False
        ) as reply:
            assert reply.status == 303
            cookie = reply.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
        async with session.get(page.address) as reply:
            assert reply.status == 200
        async with browsing(page.address, session=session) as browser:
            await until(lambda: browser.states["cell/voltage"]["v"] == 3.7, "the value")
        async with session.post(page.origin + "/logout", headers=headers, allow_redirects=False) as reply:
            assert reply.status == 303
        async with session.get(page.origin + "/index.html") as reply:
            assert reply.status == 401
    assert TOKEN not in caplog.text
    assert "wrong-" not in caplog.text


def test_a_session_ends_with_its_time_and_with_the_token(tmp_path, token):
    now = [1000.0]
    access = Access(Web(token=token), tmp_path, wall=lambda: now[0])
    cookie = access.session()
    assert access.is_session(cookie)
    assert not access.is_session(None)
    assert not access.is_session("")
    expires, nonce, signature = cookie.split(".")
    assert not access.is_session(f"{int(expires) + 1}.{nonce}.{signature}")
    assert not access.is_session(f"{cookie}0")
    now[0] += SESSION_S + 1
    assert not access.is_session(cookie)
    now[0] = 1000.0
    (tmp_path / token).write_text(TOKEN[::-1])
    assert not Access(Web(token=token), tmp_path, wall=lambda: now[0]).is_session(cookie)


async def test_with_tls_the_cookie_is_for_tls_only_and_nothing_goes_in_the_clear(
    tmp_path, token, certificate
):
    trusting = ssl.create_default_context(cafile=certificate["certificate"])
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        serving(tmp_path, token=token, **certificate) as page,
        aiohttp.ClientSession(cookie_jar=jar, connector=aiohttp.TCPConnector(ssl=trusting)) as session,
    ):
        assert page.address.startswith("https://")
        headers = {"Origin": page.origin}
        async with session.post(
            page.origin + "/login", data={"token": TOKEN}, headers=headers, allow_redirects=False
        ) as reply:
            assert "Secure" in reply.headers["Set-Cookie"]
        page.state("cell/voltage", 3.7)
        async with browsing(page.address, session=session) as browser:
            await until(lambda: browser.states["cell/voltage"]["v"] == 3.7, "the value")
        line, answer = "", b""
        with contextlib.suppress(ConnectionError):
            line, answer = await raw(page.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" not in answer, line


# -- the websocket -------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", None])
async def test_only_a_page_of_this_server_may_open_the_websocket(tmp_path, origin):
    async with serving(tmp_path) as page, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            async with browsing(page.address, session=session, origin=origin):
                pass
        assert error.value.status == 403


@pytest.mark.parametrize("frame", [
    "x" * 5000, b"binary", "not json", "[]", "{}", '{"k":"cmd","verb":"abort"}', '{"k":"resend"}',
    '{"k":"resend","stream":"m","scan":"1"}', "[" * 3000,
])  # fmt: skip
async def test_whatever_a_page_may_not_ask_ends_its_connection_and_no_other(tmp_path, frame):
    async with serving(tmp_path) as page, browsing(page.address) as other, browsing(page.address) as bad:
        await until(lambda: bad.kinds["end"], "the snapshot")
        await (bad.socket.send_bytes(frame) if isinstance(frame, bytes) else bad.socket.send_str(frame))
        await until(lambda: bad.ended in (1008, 1009), "it is closed")
        page.state("cell/voltage", 3.7)
        await until(lambda: other.states["cell/voltage"]["v"] == 3.7, "the other goes on")
        assert len(page.hub.viewers) == 1


async def test_a_flood_of_requests_ends_the_connection(tmp_path):
    async with serving(tmp_path) as page, browsing(page.address) as bad:
        await until(lambda: bad.kinds["end"], "the snapshot")
        for _ in range(200):
            if bad.socket.closed:
                break
            await bad.socket.send_str('{"k":"pong"}')
        await until(lambda: bad.ended == 1008, "it is closed")


async def test_one_more_page_than_allowed_is_told_to_come_later(tmp_path):
    async with serving(tmp_path, viewers=2) as page, browsing(page.address), browsing(page.address):
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            async with browsing(page.address):
                pass
        assert error.value.status == 503


async def test_a_connection_that_is_cut_leaves_nothing(tmp_path):
    async with serving(tmp_path) as page, browsing(page.address) as browser:
        await until(lambda: browser.kinds["end"], "the snapshot")
        browser.socket._response.connection.transport.abort()
        await until(lambda: not page.hub.viewers, "it is forgotten")
