"""The acceptance report: what was measured, against which limit, by whom, on which instruments.

One HTML file with everything in it, also as JSON, and a digest of that JSON: ``python -m
hil_tests.acceptance.report FILE`` says whether a report still is what was written.
"""

from __future__ import annotations

import hashlib
import html
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA = "operando/acceptance/1"
Verdict = Literal["pass", "fail", "skip", "told"]  # told: measured, without a limit
BEGIN, END = '<script type="application/json" id="data">', "</script>"
WORDS = {"pass": "passed", "fail": "FAILED", "skip": "skipped", "told": "noted"}


@dataclass(frozen=True)
class Row:
    """One measured value, or why there is none."""

    test: str
    what: str
    verdict: Verdict
    device: str = ""
    value: float | str | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass
class Report:
    """Everything that goes into the report."""

    station: str = ""
    station_sha256: str = ""
    began: str = ""
    ended: str = ""
    operator: str = ""
    host: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    virtual: bool = False
    energised: bool = False
    dummy: str = ""
    trace: str = ""
    instruments: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Return ``failed`` with any failure, ``incomplete`` with anything skipped, else ``passed``."""
        verdicts = {row.verdict for row in self.rows}
        if "fail" in verdicts or not verdicts & {"pass", "told"}:
            return "failed"
        return "incomplete" if "skip" in verdicts else "passed"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, with its verdict and its digest."""
        data = {"schema": SCHEMA, "verdict": self.verdict, **asdict(self)}
        return {**data, "sha256": digest(data)}


def digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a report's data without its digest: JSON, keys sorted, no blanks, UTF-8."""
    rest = {key: value for key, value in data.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def data_of(page: str) -> dict[str, Any]:
    """Return the data of a report. Raises ValueError if there are none, or they are not what was written."""
    begin, end = page.find(BEGIN), page.rfind(END)
    if begin < 0 or end < begin:
        raise ValueError("this is no acceptance report")
    data: dict[str, Any] = json.loads(page[begin + len(BEGIN) : end])
    if digest(data) != data.get("sha256"):
        raise ValueError("the data of this report were changed after it was written")
    if page != page_of(data):
        raise ValueError("the page of this report does not show its data")
    return data


def page_of(data: Mapping[str, Any]) -> str:
    """Return the report as a page."""
    inside = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Acceptance of {_text(data['station'])}, {_text(data['began'])}</title>"
        f"<style>{STYLE}</style></head><body>\n{_head(data)}{_instruments(data)}{_tests(data)}{_lines(data)}"
        f"{_signature(data)}{BEGIN}{inside}{END}\n</body></html>\n"
    )


def write(report: Report, path: Path) -> dict[str, Any]:
    """Write the report; return its data."""
    data: dict[str, Any] = json.loads(json.dumps(report.as_dict()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page_of(data), encoding="utf-8")
    return data


def _head(data: Mapping[str, Any]) -> str:
    counts = {word: sum(row["verdict"] == word for row in data["rows"]) for word in WORDS}
    told = ", ".join(f"{count} {WORDS[word]}" for word, count in counts.items() if count)
    facts = {
        "Station": f"{data['station']} (file sha256 {data['station_sha256'][:16]}…)",
        "From, to": f"{data['began']}, {data['ended']}",
        "Operator": data["operator"] or "not named",
        "Computer": data["host"],
        "Software": ", ".join(f"{name} {version}" for name, version in data["versions"].items()),
        "Energised": "yes, as allowed by the operator" if data["energised"] else "nothing was energised",
        "Dummy load": data["dummy"] or "none declared",
        "Wire trace": data["trace"] or "not recorded",
    }
    if data["virtual"]:
        facts["Instruments"] = "VIRTUAL BENCH: this report says nothing about real instruments"
    rows = "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in facts.items())
    verdict = data["verdict"]
    return (
        f'<header><h1>Acceptance of station {_text(data["station"])}</h1><p class="verdict {verdict}">'
        f'{verdict.upper()} <span>{told}</span></p></header><table class="facts">{rows}</table>\n'
    )


def _instruments(data: Mapping[str, Any]) -> str:
    names = ("role", "device", "manufacturer", "model", "serial", "firmware", "driver", "where")
    cells = [[one.get(name) or "not told" for name in names] for one in data["instruments"]]
    titles = ("Role", "Device", "Made by", "Model", "Serial number", "Firmware", "Driver", "On")
    return f"<h2>Instruments, as they named themselves</h2>{_table(titles, cells)}"


def _tests(data: Mapping[str, Any]) -> str:
    parts = ["<h2>Tests</h2>"]
    titles = ("What", "Device", "Measured", "Limit", "Result", "Remark")
    for test in dict.fromkeys(row["test"] for row in data["rows"]):
        cells, classes = [], []
        for row in data["rows"]:
            if row["test"] == test:
                cells.append([
                    row["what"], row["device"], _value(row), _limit(row), WORDS[row["verdict"]], row["reason"]
                ])  # fmt: skip
                classes.append(row["verdict"])
        table = _table(titles, cells, classes).replace("<table>", '<table class="tests">')
        parts.append(f"<h3>{_text(test)}</h3>{table}")
    return "".join(parts)


def _lines(data: Mapping[str, Any]) -> str:
    names = ("requests", "replies", "timeouts", "bad_replies", "reopenings", "p50_ms", "p99_ms", "max_ms")
    titles = ("Line", "Requests", "Replies", "Timed out", "Bad", "Reopened", "Half within / ms",
              "99 % within / ms", "Slowest / ms")  # fmt: skip
    cells = [
        [line, *("–" if stats[name] is None else f"{stats[name]:.4g}" for name in names)]
        for line, stats in data["lines"].items()
    ]
    return f"<h2>Lines</h2>{_table(titles, cells)}"


def _signature(data: Mapping[str, Any]) -> str:
    boxes = "".join(
        f'<div class="box"><div class="line"></div>{what}</div>'
        for what in ("Name", "Signature", "Place and date")
    )
    return (
        '<section class="sign"><h2>Accepted by</h2><p>I have read the values above, and what was skipped. '
        f'</p><div class="boxes">{boxes}</div><p class="digest">SHA-256 of the data in this file: '
        f"{data['sha256']}<br>python -m hil_tests.acceptance.report FILE compares it.</p></section>\n"
    )


def _value(row: Mapping[str, Any]) -> str:
    value = row["value"]
    if value is None:
        return "–"
    return f"{_number(value)} {row['unit']}".strip()


def _limit(row: Mapping[str, Any]) -> str:
    low, high = row["low"], row["high"]
    if low is None and high is None:
        other = {"yes": "no", "no": "yes"}.get(str(row["value"]), "–")
        wanted = {"pass": row["value"], "fail": other}.get(row["verdict"])
        return str(wanted) if other != "–" and wanted is not None else "–"
    if low == high:
        return f"{_number(low)} {row['unit']}".strip()
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)} {row['unit']}".strip()
    return f"{'≥' if high is None else '≤'} {_number(low if high is None else high)} {row['unit']}".strip()


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"


def _table(
    titles: Sequence[str], cells: Sequence[Sequence[object]], classes: Sequence[str] | None = None
) -> str:
    head = "".join(f"<th>{_text(title)}</th>" for title in titles)
    rows = [
        f"<tr{f' class={chr(34)}{classes[n]}{chr(34)}' if classes else ''}>"
        + "".join(f"<td>{_text(cell)}</td>" for cell in row)
        + "</tr>"
        for n, row in enumerate(cells)
    ]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>\n"


def _text(value: object) -> str:
    return html.escape(str(value))


STYLE = """
@page { size: A4 landscape; margin: 14mm }
body { font: 13px/1.4 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem }
header { display: flex; justify-content: space-between; align-items: baseline; flex-wrap: wrap; gap: 0 2rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem }
h3 { font-size: .95rem; margin: 1rem 0 .3rem; font-weight: 600 }
.verdict { font-size: 1.3rem; font-weight: 700; margin: 0 }
.verdict span { font-size: .9rem; font-weight: 400 }
.verdict.passed { color: #12692f } .verdict.failed { color: #b00020 } .verdict.incomplete { color: #8a5300 }
table { border-collapse: collapse; width: 100%; margin: .2rem 0 } .facts { width: auto; margin-top: .8rem }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #ddd;
  overflow-wrap: anywhere }
thead th { border-bottom: 2px solid #888; font-weight: 600 }
.facts th { font-weight: 600; padding-right: 1.4rem }
tr.fail td { background: #fde7ea; font-weight: 600 } tr.skip td { color: #6b5200; background: #fff8e1 }
tbody td:nth-child(3) { font-variant-numeric: tabular-nums }
.tests { table-layout: fixed } .tests th:nth-child(1) { width: 24% } .tests th:nth-child(2) { width: 7% }
.tests th:nth-child(3) { width: 14% } .tests th:nth-child(4) { width: 13% }
.tests th:nth-child(5) { width: 7% }
.sign { break-inside: avoid; margin-top: 2rem } .boxes { display: flex; gap: 2rem; margin-top: 3rem }
.box { flex: 1; color: #555 } .line { border-top: 1px solid #1a1a1a; margin-bottom: .2rem }
.digest { font-family: ui-monospace, monospace; font-size: .75rem; color: #555; margin-top: 1.5rem }
tr { break-inside: avoid } thead { display: table-header-group } h3 { break-after: avoid }
""".replace("\n", " ").strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Say of each file whether it is what was written."""
    code = 0
    for name in sys.argv[1:] if arguments is None else arguments:
        try:
            data = data_of(Path(name).read_text(encoding="utf-8"))
            print(f"{name}: as written; {data['verdict']}, station {data['station']}, {data['ended']}")
        except (OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
