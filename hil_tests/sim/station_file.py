"""The station file that a bench writes about itself: where its instruments are and what they are wired to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hil_tests.sim.physics.components import LITHIUM
from hil_tests.sim.physics.holder import Holder
from hil_tests.sim.scenario import World

LIMITS = {
    "temperature": '{ low = "263 K", high = "343 K" }',
    "temperature_rate": '"20 K/min"',
    "voltage": '{ low = "2.5 V", high = "4.05 V" }',
    "current": '"40 uA"',
    "charge": '"1 mAh"',
    "dose": '"1e17 /cm2"',  # protons per area
    "dwell": '"100 ms"',  # longest time of an unblanked beam on one pixel
}


@dataclass(frozen=True)
class Place:
    """Where one bench is to be found."""

    socket: str
    nonce: str
    epoch: float
    speed: float
    heater_port: str
    cell_port: str
    io_port: int
    pixe_port: int
    pige_port: int


def station_file(world: World, place: Place) -> str:
    """Return the text of ``station.toml``."""
    parts = [
        f"# Written by the virtual bench, scenario {world.name}. It lives as long as that process.\n",
        '[station]\nname = "bench"\n',
        _bench(place),
        _lines(place),
        _heater_and_cell(world),
        _io(),
        *(_detector(name, world.file["electronics"][name]) for name in ("pixe", "pige")),
        '[roles]\nheater = "heater"\ncell = "cell"\nscanner = "io"\npixe = "pixe"\npige = "pige"\n',
        _beam(world),
        "[limits]\n" + "".join(f"{name} = {value}\n" for name, value in LIMITS.items()),
        '[[interlock]]\nname = "permit"\ncondition = "io.permit == false"\ngrace = "0 s"\n'
        'action = "safe"\nlatch = true\n',
        '[[interlock]]\nname = "vacuum"\ncondition = "io.vacuum == false"\ngrace = "0 s"\naction = "safe"\n'
        'acknowledge = "the gauge and the beam line: what had raised the pressure?"\n',
        '[[interlock]]\nname = "window"\ncondition = "io.window == false"\ngrace = "0 s"\naction = "safe"\n'
        'acknowledge = "the exit window: is it whole?"\n',
        '[broker]\nkind = "embedded"\n',
        "[remote]\nenabled = false\n",
    ]
    return "\n".join(parts)


def _bench(place: Place) -> str:
    return (
        f'[bench]\nsocket = "{place.socket}"\nnonce = "{place.nonce}"\n'
        f"epoch = {place.epoch!r}\nspeed = {place.speed!r}\n"
    )


def _lines(place: Place) -> str:
    serial = {"heater": (place.heater_port, 9600), "cell": (place.cell_port, 921600)}
    network = {
        "io": ("tcp", place.io_port),
        "pixe": ("udp", place.pixe_port),
        "pige": ("udp", place.pige_port),
    }
    text = [
        f'[line.{name}]\nkind = "serial"\nport = "{port}"\nbaud = {baud}\n'
        for name, (port, baud) in serial.items()
    ]
    text += [
        f'[line.{name}]\nkind = "{kind}"\nhost = "127.0.0.1"\nport = {port}\n'
        for name, (kind, port) in network.items()
    ]
    return "\n".join(text)


def _heater_and_cell(world: World) -> str:
    return f"""[device.heater]
driver = "eurotherm_3200"
line = "heater"
unit_id = 1
period = "0.25 s"
sensor_break = {{ setting = "latching", safe_output = "0 %", \
confirmed_by = "virtual bench", confirmed_on = 2026-01-01 }}
plant = {{ {_plant(world.holder)} }}

[device.cell]
driver = "palmsens_emstat4"
line = "cell"
model = "es4_hr"
period = "1 s"
"""


def _plant(holder: Holder) -> str:
    """Return what an identification would find: one heat capacity, one loss, as seen by the sensor."""
    p = holder.parameters
    through_cell = p.joint_w_per_k * p.cell_loss_w_per_k / (p.joint_w_per_k + p.cell_loss_w_per_k)
    return (
        f'power = "{p.max_power_w:g} W", capacity = "{p.plate_j_per_k + p.cell_j_per_k:g} J/K", '
        f'loss = "{p.plate_loss_w_per_k + through_cell:.4g} W/K", lag = "15 s", '
        f'ambient = "{p.ambient_k:g} K", ambient_within = "0.5 K", tolerance = "5 %", '
        'identified_by = "virtual bench", identified_on = 2026-01-01'
    )


def _io() -> str:
    return """[device.io]
driver = "labjack_t7"
line = "io"
period = "0.1 s"
scanner = { x_dac = 0, y_dac = 1, centre = "2.5 V", scale_x = "100 um/V", scale_y = "200 um/V", \
pixel_clock = 0, blank = 1, settle = "2 ms" }
beam_current = { ain = 0, scale = "10 pA/V" }
relay = { fio = 2 }
shutter = { fio = 3, readback = 4 }
permit = { fio = 5 }
switches = { vacuum = { fio = 6 }, window = { fio = 7 } }
watchdog = { timeout = "3 s" }
"""


def _detector(name: str, electronics: Mapping[str, Any]) -> str:
    return f"""[device.{name}]
driver = "amptek_dp5"
line = "{name}"
detector = "{electronics["detector"]}"
channels = {electronics["channels"]}
energy = {{ offset = "0 keV", gain = "{electronics["kev_per_channel"]:g} keV" }}
period = "0.05 s"
fifo_words = 8192
list_clock = "1 us"
"""


def _beam(world: World) -> str:
    beam, rates = world.file["beam"], world.file["rates"]
    line = beam["lithium_line"]
    expected = ", ".join(f'{name} = "{rates[name]:g} /s"' for name in ("pixe", "pige", "lithium"))
    low, high = line["centroid_kev"] - line["fwhm_kev"], line["centroid_kev"] + line["fwhm_kev"]
    under = world.photons["pige"].components.on_prepared_host_per_s(low, high, without=LITHIUM)
    expected += f', lithium_background = "{under:.2g} /s"'
    return f"""[beam]
species = "proton"
energy = "{beam["energy_mev"] * 1000:g} keV"
foil_loss = "{beam["foil_loss_mev"] * 1000:g} keV"
current = "{beam["current_a"] * 1e12:g} pA"
pige_angle = "{beam["pige_angle_deg"]:g} deg"
lithium_line = {{ centroid = "{line["centroid_kev"]:g} keV", fwhm = "{line["fwhm_kev"]:g} keV" }}
rates = {{ {expected} }}
"""
