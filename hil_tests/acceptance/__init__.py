"""The same tests against real instruments and against the virtual bench, with a report to be signed."""
