"""A stage for the live page: serves ``controller/web/static`` and plays a host, without any host behind it.

For whoever works on the page, for its pictures and for tests of states that a run reaches seldom. It speaks
the protocol of ``controller/web/README.md`` and nothing else; it shares no code with the server.

    python -m hil_tests.page_stage --scene running --port 8000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from aiohttp import WSMsgType, web

from hil_tests.page_scenes import SCENES, Scene

STATIC = Path(__file__).parent.parent / "controller" / "web" / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
TOLD = ("heater/temperature", "cell/voltage", "cell/current", "cell/charge", "run/elapsed", "beam/current")
SAMPLED = ("heater/temperature", "cell/voltage", "cell/current")


def application(scene: Scene) -> web.Application:
    """Return the web application that plays a scene."""

    async def live(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("operando.live.1",))
        await socket.prepare(request)
        await socket.send_str(json.dumps(scene.snapshot()))
        for frame in scene.series() + scene.products():
            await socket.send_bytes(frame)
        await socket.send_str('{"k": "end"}')
        n = 9
        while not socket.closed:
            await socket.send_str(json.dumps({"k": "beat", "t": time.time(), "age_s": 0.2, "behind": 0}))
            if scene.name in ("running", "early", "flood"):
                states = scene.states()
                changed = {
                    name: states[name]
                    for name in (
                        "heater/temperature",
                        "cell/voltage",
                        "cell/current",
                        "cell/charge",
                        "soc/charge",
                        "run/elapsed",
                        "beam/current",
                    )
                }
                await socket.send_str(json.dumps({"k": "states", "states": changed}))
                t = time.time()
                tele = {
                    name: [[t, changed[name]["v"] * (1 + 1e-4 * scene.random.normal())]]
                    for name in ("heater/temperature", "cell/voltage", "cell/current")
                }
                await socket.send_str(json.dumps({"k": "tele", "series": tele}))
            if scene.name == "flood":
                n += 1
                await socket.send_bytes(scene.one_map(n))
            try:
                message = await socket.receive(timeout=0.5 if scene.name == "flood" else 1.0)
                if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
                    break
            except TimeoutError:
                continue
        return socket

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": CSP})

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get("/live", live)
    app.router.add_static("/", STATIC)
    return app


@contextmanager
def served(name: str, *, pixels: int = 64) -> Iterator[str]:
    """Serve a scene from a thread of its own; yields its address."""
    ready, over = Event(), Event()
    port: list[int] = []

    async def serve() -> None:
        runner = web.AppRunner(application(Scene(name, pixels=pixels)))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.append(runner.addresses[0][1])
        ready.set()
        while not over.is_set():
            await asyncio.sleep(0.05)
        await runner.cleanup()

    thread = Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(20.0)
    try:
        yield f"http://127.0.0.1:{port[0]}/"
    finally:
        over.set()
        thread.join(10.0)


def main() -> None:
    """Serve one scene until interrupted."""
    parser = argparse.ArgumentParser(description="serve the live page with a host that is only played")
    parser.add_argument("--scene", choices=SCENES, default="running")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--pixels", type=int, default=64)
    asked = parser.parse_args()
    scene = Scene(asked.scene, pixels=asked.pixels)
    web.run_app(application(scene), host="127.0.0.1", port=asked.port, print=None)


if __name__ == "__main__":
    main()
