"""What all tests share: the list of reference values that were not run, printed at the end."""

from __future__ import annotations

import pytest

from tests.data_sets import NOT_RUN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: list[str] = []
    for report in terminalreporter.stats.get("skipped", []):
        text = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if NOT_RUN in text:
            reasons.append(text.split(NOT_RUN, 1)[1])
    terminalreporter.section("reference values not run")
    for reason in sorted(set(reasons)):
        terminalreporter.write_line(reason)
    if not reasons:
        terminalreporter.write_line("none: all reference values of the collected tests were run")
