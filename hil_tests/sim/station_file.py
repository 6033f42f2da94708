"""The station file that a bench writes about itself: where its instruments are and what they are wired to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hil_tests.sim.physics.components import LITHIUM
from hil_tests.sim.rack import Fitted, labjack_tables
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
    """Where one bench is to be found, and its ports by twin."""

    socket: str
    nonce: str
    epoch: float
    speed: float
    ports: Mapping[str, str]


def station_file(world: World, place: Place, rack: Mapping[str, Fitted], *, page: bool = False) -> str:
    """Return the text of ``station.toml``; ``page``: with a live page on a free port of this machine."""
    playing = {role: one.device for role, one in rack.items()}
    scans = bool({"pixe", "pige"} & set(rack))  # without a detector there is nothing to scan for
    if scans:
        playing = {"scanner": "io", **playing}
    parts = [
        f"# Written by the virtual bench, scenario {world.name}. It lives as long as that process.\n",
        '[station]\nname = "bench"\n',
        _bench(place),
        labjack_tables(place.ports["io"], scans=scans),
        *(one.tables(place.ports) for one in rack.values()),
        "[roles]\n" + "".join(f'{role} = "{name}"\n' for role, name in playing.items()),
        *([_beam(world)] if scans else []),
        "[limits]\n" + "".join(f"{name} = {value}\n" for name, value in LIMITS.items()),
        '[[interlock]]\nname = "permit"\ncondition = "io.permit == false"\ngrace = "0 s"\n'
        'action = "safe"\nlatch = true\n',
        '[[interlock]]\nname = "vacuum"\ncondition = "io.vacuum == false"\ngrace = "0 s"\naction = "safe"\n'
        'acknowledge = "the gauge and the beam line: what had raised the pressure?"\n',
        '[[interlock]]\nname = "window"\ncondition = "io.window == false"\ngrace = "0 s"\naction = "safe"\n'
        'acknowledge = "the exit window: is it whole?"\n',
        '[broker]\nkind = "embedded"\n',
        "[remote]\nenabled = false\n",
        *(["[web]\nport = 0\n"] if page else []),
    ]
    return "\n".join(parts)


def _bench(place: Place) -> str:
    return (
        f'[bench]\nsocket = "{place.socket}"\nnonce = "{place.nonce}"\n'
        f"epoch = {place.epoch!r}\nspeed = {place.speed!r}\n"
    )


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
