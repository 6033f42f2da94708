"""Whose driver an instrument was read by: told in the report where it is not one of ours."""

from __future__ import annotations

import jsonschema

from controller.offline import report_text
from controller.offline.told import Told
from controller.summary import SCHEMA

GAUGE = {
    "name": "acme_gauge", "code": "acme_operando:Gauge", "distribution": "acme-operando", "version": "1.0",
}  # fmt: skip
OURS = {
    "name": "labjack_t7",
    "code": "drivers.labjack_t7:LabJackT7",
    "distribution": "operando",
    "version": "0",
}
LOOSE = {"name": "mine", "code": "here:Mine", "distribution": None, "version": None}


def test_a_foreign_driver_is_named_with_its_package_and_version() -> None:
    told = {
        "gauge": {"identity": {"manufacturer": "Acme", "model": "G-1"}, "notes": ["a note"], "driver": GAUGE},
        "io": {"identity": {}, "notes": [], "driver": OURS},
        "old": {"identity": {}, "notes": []},  # a run from before
        "loose": {"identity": {}, "notes": [], "driver": LOOSE},
    }
    jsonschema.validate(told, SCHEMA["properties"]["instruments"])
    summary = {"instruments": told, "roles": {}, "confirmed_by_person": [], "calibration": None, "layers": []}
    text = report_text.instruments(summary, Told()).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "driver acme_gauge from elsewhere: acme-operando 1.0" in text
    assert "driver mine from elsewhere: here:Mine, of no installed package" in text
    assert text.count("from elsewhere") == 2
