"""Asks OSV (osv.dev) whether a locked package has a known vulnerability; sends only names and versions.

Usage: python .ci/audit.py [--must] [--url URL]
Exit code: 0 none known, or nobody could be asked (1 with --must); 1 there are some.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

LOCK = Path(__file__).parent.parent / "requirements.lock"
URL = "https://api.osv.dev/v1/querybatch"
TIMEOUT_S = 30.0
ACCEPTED: dict[str, str] = {}  # id of an advisory: why it does not concern us


def locked() -> list[tuple[str, str]]:
    """Return name and version of every package in the lock file, for whichever platform."""
    found = set()
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip("\\ "))
            (pin,) = requirement.specifier
            found.add((requirement.name, pin.version))
    return sorted(found)


def advisories(url: str, packages: list[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """Return the ids of the advisories of each package that has any. Raises OSError, ValueError."""
    waiting = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in packages
    ]
    known: dict[tuple[str, str], list[str]] = {}
    while waiting:
        results = ask(url, waiting)["results"]
        again = []
        for query, result in zip(waiting, results, strict=True):
            ids = [advisory["id"] for advisory in result.get("vulns", [])]
            known.setdefault((query["package"]["name"], query["version"]), []).extend(ids)
            if result.get("next_page_token"):
                again.append({**query, "page_token": result["next_page_token"]})
        waiting = again
    return {package: ids for package, ids in known.items() if ids}


def ask(url: str, queries: list[dict[str, Any]]) -> dict[str, Any]:
    """Send one batch."""
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  # our own url
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
        answer: dict[str, Any] = json.load(reply)
    return answer


def main() -> int:
    """Ask, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--must", action="store_true", help="fail when the service cannot be reached")
    parser.add_argument("--url", default=URL)
    args = parser.parse_args()
    packages = locked()
    try:
        known = advisories(args.url, packages)
    except (OSError, ValueError, KeyError) as error:
        print(f"audit: NOT DONE, {args.url} cannot be asked: {error}")
        return int(args.must)
    bad = 0
    for (name, version), ids in known.items():
        for one in ids:
            print(f"audit: {name} {version}: {one} {ACCEPTED.get(one, '')}".rstrip())
            bad += one not in ACCEPTED
    print(f"audit: {len(packages)} locked packages, {bad} known vulnerabilities that are not accepted")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
