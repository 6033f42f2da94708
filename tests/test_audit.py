"""The audit of the locked packages, against a service of our own: the real one needs the network."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def service():
    """A service that knows what a test tells it, and what it was asked."""

    class Service(BaseHTTPRequestHandler):
        asked, vulnerable, pages = [], {}, {}

        def do_POST(self):
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            Service.asked.append(queries)
            results = []
            for query in queries:
                name = query["package"]["name"]
                if name in Service.pages and "page_token" not in query:
                    results.append({"next_page_token": "2"})
                else:
                    ids = Service.pages.get(name) or Service.vulnerable.get(name, [])
                    results.append(
                        {"vulns": [{"id": one, "modified": "2026-01-01"} for one in ids]} if ids else {}
                    )
            body = json.dumps({"results": results}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        Service.url = f"http://127.0.0.1:{server.server_port}/v1/querybatch"
        yield Service
        server.shutdown()
        thread.join()


def audit(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py", *arguments], capture_output=True, text=True, timeout=60
    )


def test_every_locked_package_is_asked_about_with_its_version(service):
    done = audit("--url", service.url)
    assert done.returncode == 0, done.stdout + done.stderr
    (queries,) = service.asked
    locked = [
        line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
    ]
    assert {query["package"]["name"] for query in queries} == {line for line in locked if line[0].isalnum()}
    assert all(query["package"]["ecosystem"] == "PyPI" and query["version"][0].isdigit() for query in queries)


@pytest.mark.parametrize("where", ["vulnerable", "pages"])
def test_a_known_vulnerability_fails_and_is_named(service, where):
    getattr(service, where)["amqtt"] = ["GHSA-2hjf-7455-w946"]
    done = audit("--url", service.url)
    assert done.returncode == 1
    assert "amqtt 0.12.1: GHSA-2hjf-7455-w946" in done.stdout


def test_without_the_service_it_says_so_and_only_fails_if_it_must():
    nowhere = "http://127.0.0.1:1/v1/querybatch"
    done = audit("--url", nowhere)
    assert (done.returncode, done.stdout.startswith("audit: NOT DONE")) == (0, True)
    assert audit("--url", nowhere, "--must").returncode == 1
