"""report.pdf through the Chromium of the machine: found, or the test fails with the line that installs it."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from controller.offline import finish, pdf, report
from controller.offline.finish import Finish
from controller.offline.pdf import PdfError, find, print_pdf
from tests.controller.offline.make_run import make_run


def fake(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of that name in the place of Chromium."""
    program = folder / "chromium"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def inside(data: bytes) -> bytes:
    """Return the unpacked streams of a PDF."""
    found = []
    for part in re.findall(rb"stream\r?\n(.*?)endstream", data, re.DOTALL):
        try:
            found.append(zlib.decompress(part))
        except zlib.error:
            continue
    return b"\n".join(found)


def test_a_report_is_printed_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find()  # fails with the line that installs it
    monkeypatch.setattr(report, "draw", lambda view: ({}, []))
    folder = make_run(tmp_path)
    made = Finish(folder)
    assert made.all("report", ["report.html", "report.pdf"]) == []
    data = (folder / "report.pdf").read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", data + inside(data)))
    assert pages >= 2
    box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", data + inside(data))
    assert box is not None
    width, height = float(box[1]), float(box[2])
    assert (round(width), round(height)) == (595, 842)  # A4 in points
    assert b"/StructTreeRoot" in data + inside(data)  # tagged: it can be read out


def test_without_chromium_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PdfError, match=r"there is none on this machine: sudo apt-get install .*chromium"):
        print_pdf(tmp_path / "report.html", tmp_path / "report.pdf")


def test_the_command_tells_it_and_the_page_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "draw", lambda view: ({}, []))
    monkeypatch.setattr(pdf, "NAMES", ())
    folder = make_run(tmp_path, until_s=3.0)
    assert finish.main([str(folder), "--only", "report", "--pdf"]) == 6
    said = capsys.readouterr()
    assert "report.pdf could not be made: printing a PDF needs Chromium" in said.err
    assert str(folder / "report.html") in said.out
    assert not (folder / "report.pdf").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo no display; exit 1", "chromium wrote no PDF: no display"),
        ("for a in \"$@\"; do case $a in --print-to-pdf=*) echo half > ${a#*=};; esac; done", "wrote no PDF"),
    ],
)  # fmt: skip
def test_a_chromium_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    fake(tmp_path, body, monkeypatch)
    with pytest.raises(PdfError, match=said):
        print_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["chromium"]


def test_a_chromium_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "sleep 600", monkeypatch)
    with pytest.raises(PdfError, match=r"did not end within 0.2 s"):
        print_pdf(tmp_path / "report.html", tmp_path / "report.pdf", limit_s=0.2)
