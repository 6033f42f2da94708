"""Finding drivers: ours, a stranger's installed one, and every way in which that fails."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from drivers import registry
from drivers.amptek_dp5 import AmptekDp5
from drivers.errors import BadReply
from drivers.eurotherm_3200 import Eurotherm3200
from drivers.registry import UnknownDriver, driver_class, driver_names, driver_origin
from drivers.roles import Device

ROOT = Path(registry.__file__).parents[1]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package of a third party: a module and the metadata that pip would write."""

    def install(entry_points, source):
        (tmp_path / "acme_operando.py").write_text(source)
        info = tmp_path / "acme_operando-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-operando\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[operando.drivers]\n{entry_points}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "acme_operando", raising=False)

    yield install
    sys.modules.pop("acme_operando", None)


def test_built_in_drivers_are_those_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["operando.drivers"] == registry.BUILT_IN


def test_built_in_drivers_are_found():
    assert driver_class("eurotherm_3200") is Eurotherm3200
    assert driver_class("amptek_dp5") is AmptekDp5
    assert {"amptek_dp5", "eurotherm_3200", "labjack_t7", "palmsens_emstat4"} <= set(driver_names())


def test_unknown_name_lists_what_exists():
    with pytest.raises(
        UnknownDriver, match=r"'keithly' is not installed; there are .*amptek_dp5, epics_pv, eurotherm_3200"
    ):
        driver_class("keithly")


async def test_a_third_party_adds_the_driver_of_the_readme(installed, line, port):
    readme = (ROOT / "drivers" / "README.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (entry_point,) = re.findall(r"^acme_thermometer = \"(.*)\"$", readme, re.MULTILINE)
    installed(f"acme_thermometer = {entry_point}", source)
    assert "acme_thermometer" in driver_names()
    device = driver_class("acme_thermometer")(line, name="oven", clock=None, settings={})
    assert isinstance(device, Device)
    port.expect(b"T?\n", b"29", b"8.15\n")
    assert await device.read_values() == {"temperature": 298.15}
    port.expect(b"T?\n", b"hot\n")
    with pytest.raises(BadReply, match="not a number"):
        await device.read_values()
    await device.close()


@pytest.mark.parametrize(
    ("entry_point", "source", "message"),
    [
        ("broken = acme_operando:Missing", "", "cannot be loaded: .*Missing"),
        (
            "broken = acme_operando:X",
            "import no_such_module",
            "cannot be loaded: No module named 'no_such_module'",
        ),
        ("broken = acme_operando:X", "X = 5", r"\(acme_operando:X\) is no class"),
    ],
)
def test_driver_that_cannot_be_used(installed, entry_point, source, message):
    installed(entry_point, source)
    with pytest.raises(UnknownDriver, match=message):
        driver_class("broken")


def test_two_packages_that_claim_a_name(installed):
    installed("eurotherm_3200 = acme_operando:Heater", "class Heater: ...")
    with pytest.raises(UnknownDriver, match=r"claimed by acme_operando:Heater and by drivers\.eurotherm"):
        driver_class("eurotherm_3200")


def test_where_a_driver_is_from(installed):
    """The package of a foreign one with its version; ours are ours, also those made of others."""
    installed("acme_gauge = acme_operando:Gauge", "class Gauge: ...")
    assert driver_origin("acme_gauge") == {
        "name": "acme_gauge", "code": "acme_operando:Gauge", "distribution": "acme-operando",
        "version": "1.0",
    }  # fmt: skip
    for name in ("eurotherm_3200", "host_pid"):
        assert driver_origin(name)["distribution"] == "operando"
