"""What a bench can hold: for each role the instruments to choose from, as twins with their part of the file.

An entry makes the twins of one instrument and writes its ``[line.X]`` and ``[device.X]`` tables. A new
instrument is one function here; nothing else of the bench knows brands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hil_tests.sim.aimtti_cpx400dp import CpxTwin
from hil_tests.sim.amptek_dp5 import AmptekTwin
from hil_tests.sim.camera import FolderCamera, StreamCamera
from hil_tests.sim.clock import LabClock
from hil_tests.sim.eurotherm_3200 import EurothermTwin
from hil_tests.sim.hexitec import HexitecTwin
from hil_tests.sim.icpdas_m7015 import M7015Twin
from hil_tests.sim.keithley_2400 import Keithley2400Twin
from hil_tests.sim.keithley_2450 import Keithley2450Twin
from hil_tests.sim.labjack_t7 import LabJackT7Twin
from hil_tests.sim.modbus_pid import ModbusPidTwin
from hil_tests.sim.palmsens_emstat4 import EmStatTwin
from hil_tests.sim.physics.holder import Holder
from hil_tests.sim.physics.neutrons import Radiograph
from hil_tests.sim.scenario import World
from hil_tests.sim.zaber_ascii import ZaberTwin

STAGE_CENTRE_UM = 25_000.0
NONE = "none"  # in place of a driver: the role stays empty


class Twin(Protocol):
    """What the bench asks of every twin."""

    async def start(self) -> str:
        """Open the port; return its name, or "host:port"."""
        ...

    async def stop(self) -> None:
        """Close it."""
        ...

    def advance(self, now_s: float) -> None:
        """Let lab time pass."""
        ...

    def inject(self, fault: Mapping[str, Any]) -> None:
        """Make something go wrong."""
        ...

    def counters(self) -> dict[str, Any]:
        """Return what it counted and which of its outputs are on."""
        ...


@dataclass(frozen=True)
class Around:
    """What an instrument is connected to."""

    world: World
    clock: LabClock
    io: LabJackT7Twin
    sources: Mapping[str, Any]  # photons by detector


@dataclass(frozen=True)
class Fitted:
    """One instrument in the rack."""

    twins: dict[str, Twin]  # by the name that faults use, which is also that of line and device
    tables: Callable[[Mapping[str, str]], str]  # ports by twin -> its tables of the station file
    device: str  # that plays the role
    extra: dict[str, Any] = field(default_factory=dict)  # for the truth


Entry = Callable[[Around], Fitted]


def serial_line(name: str, port: str, baud: int) -> str:
    """Return the table of a serial line."""
    return f'[line.{name}]\nkind = "serial"\nport = "{port}"\nbaud = {baud}\n\n'


def network_line(name: str, kind: str, where: str) -> str:
    """Return the table of a TCP or UDP line at "host:port"."""
    host, _, port = where.rpartition(":")
    return f'[line.{name}]\nkind = "{kind}"\nhost = "{host}"\nport = {port}\n\n'


def plant(holder: Holder) -> str:
    """Return what an identification would find: one heat capacity, one loss, as seen by the sensor."""
    p = holder.parameters
    through_cell = p.joint_w_per_k * p.cell_loss_w_per_k / (p.joint_w_per_k + p.cell_loss_w_per_k)
    return (
        f'power = "{p.max_power_w:g} W", capacity = "{p.plate_j_per_k + p.cell_j_per_k:g} J/K", '
        f'loss = "{p.plate_loss_w_per_k + through_cell:.4g} W/K", lag = "15 s", '
        f'ambient = "{p.ambient_k:g} K", ambient_within = "0.5 K", tolerance = "5 %", '
        'identified_by = "virtual bench", identified_on = 2026-01-01'
    )


def eurotherm_3200(around: Around) -> Fitted:
    """Temperature controller with its own loop, on a pseudo-terminal."""
    world = around.world
    twin = EurothermTwin(world.holder, around.clock, relay_closed=around.io.relay_closed)

    def tables(ports: Mapping[str, str]) -> str:
        return (
            serial_line("heater", ports["heater"], 9600)
            + f"""[device.heater]
driver = "eurotherm_3200"
line = "heater"
unit_id = 1
period = "0.25 s"
sensor_break = {{ setting = "latching", safe_output = "0 %", \
confirmed_by = "virtual bench", confirmed_on = 2026-01-01 }}
plant = {{ {plant(world.holder)} }}
"""
        )

    return Fitted({"heater": twin}, tables, "heater")


def modbus_pid(around: Around) -> Fitted:
    """Controller without a driver of its own (a Watlow EZ-ZONE PM), described in the station file."""
    world = around.world
    twin = ModbusPidTwin(world.holder, around.clock, relay_closed=around.io.relay_closed)
    coded = 'type = "float32", word_order = "low first"'

    def tables(ports: Mapping[str, str]) -> str:
        return (
            serial_line("heater", ports["heater"], 9600)
            + f"""[device.heater]
driver = "modbus_pid"
line = "heater"
unit_id = 1
period = "0.5 s"
maker = "Watlow"
model = "EZ-ZONE PM"
process_value = {{ register = 360, {coded}, unit = "degF", low = -58, high = 750 }}
setpoint = {{ register = 2160, {coded}, unit = "degF", write = 16, low = 32, high = 392 }}
output = {{ register = 1904, {coded}, unit = "%" }}
manual_output = {{ register = 2162, {coded}, unit = "%", write = 16, low = 0, high = 100 }}
mode = {{ register = 1880, type = "uint16", write = 6, auto = 10, off = 62, manual = 54 }}
ramp.register = 2192
ramp.type = "float32"
ramp.word_order = "low first"
ramp.unit = "degF/min"
ramp.write = 16
ramp.enable = {{ register = 2186, type = "uint16", write = 6, on = 1647, off = 62 }}
status = [{{ register = 362, type = "uint16", unlike = [61], says = "sensor error", sensor = true }}]
sensor_break = {{ setting = "on", safe_output = "0 %", \
confirmed_by = "virtual bench", confirmed_on = 2026-01-01 }}
plant = {{ {plant(world.holder)} }}
"""
        )

    return Fitted({"heater": twin}, tables, "heater")


def host_pid(around: Around) -> Fitted:
    """RTD module on a pseudo-terminal and supply on a TCP socket: the loop between them runs in the host."""
    world, ohm = around.world, 25.0
    supply = CpxTwin(world.holder, around.clock, around.io.relay_closed, {"heater_ohm": ohm})

    def pt100_k() -> float:
        supply.advance(around.clock.now_s())  # it is the one that lets the holder's time pass
        return world.holder.pt100_k

    thermometer = M7015Twin([pt100_k, lambda: world.holder.ambient_k], around.clock)  # 1: the room

    def tables(ports: Mapping[str, str]) -> str:
        return (
            serial_line("thermometer", ports["thermometer"], 9600)
            + network_line("supply", "tcp", ports["supply"])
            + f"""[device.thermometer]
driver = "icpdas_m7015"
line = "thermometer"
period = "0.5 s"

[device.supply]
driver = "aimtti_cpx400dp"
line = "supply"
heater = "{ohm:g} ohm"
power_cap = "{world.holder.parameters.max_power_w:g} W"
period = "0.5 s"

[device.heater]
driver = "host_pid"
thermometer = "thermometer"
supply = "supply"
power = "{world.holder.parameters.max_power_w:g} W"
period = "0.5 s"
gains = {{ kp = "7.5 W/K", ti = "32 s", td = "1.9 s", filter = "1 s" }}
plant = {{ {plant(world.holder)} }}
"""
        )

    return Fitted({"thermometer": thermometer, "supply": supply}, tables, "heater")


def palmsens_emstat4(around: Around) -> Fitted:
    """Potentiostat, on a pseudo-terminal."""
    twin = EmStatTwin(around.world.cell, around.clock, {"seed": around.world.seed})

    def tables(ports: Mapping[str, str]) -> str:
        return (
            serial_line("cell", ports["cell"], 921600)
            + """[device.cell]
driver = "palmsens_emstat4"
line = "cell"
model = "es4_hr"
period = "1 s"
"""
        )

    return Fitted({"cell": twin}, tables, "cell")


def keithley_2400(around: Around) -> Fitted:
    """Source of a cell, on a pseudo-terminal."""
    twin = Keithley2400Twin(around.world.cell, around.clock, {"seed": around.world.seed, "power_on": "HIMP"})

    def tables(ports: Mapping[str, Any]) -> str:
        return (
            serial_line("cell", ports["cell"], 57600)
            + """[device.cell]
driver = "keithley_2400"
line = "cell"
period = "1 s"
"""
        )

    return Fitted({"cell": twin}, tables, "cell")


def keithley_2450(around: Around) -> Fitted:
    """Source of a cell with a lease of its own, on a TCP socket."""
    twin = Keithley2450Twin(around.world.cell, around.clock, {"seed": around.world.seed, "power_on": "HIMP"})

    def tables(ports: Mapping[str, Any]) -> str:
        return (
            network_line("cell", "tcp", ports["cell"])
            + """[device.cell]
driver = "keithley_2450"
line = "cell"
period = "1 s"
lease = "10 s"
"""
        )

    return Fitted({"cell": twin}, tables, "cell")


def amptek_dp5(name: str, serial: int) -> Entry:
    """Return the entry of a list-mode detector on a UDP port."""

    def make(around: Around) -> Fitted:
        electronics = around.world.file["electronics"][name]
        settings = {
            "detector": electronics["detector"],
            "channels": electronics["channels"],
            "full_scale_kev": electronics["channels"] * electronics["kev_per_channel"],
            "serial": serial,
        }
        twin = AmptekTwin(around.sources[name], around.clock, settings, upstream=around.io.advance)

        def tables(ports: Mapping[str, str]) -> str:
            return (
                network_line(name, "udp", ports[name])
                + f"""[device.{name}]
driver = "amptek_dp5"
line = "{name}"
detector = "{electronics["detector"]}"
channels = {electronics["channels"]}
energy = {{ offset = "0 keV", gain = "{electronics["kev_per_channel"]:g} keV" }}
period = "0.05 s"
fifo_words = 8192
list_clock = "1 us"
"""
            )

        return Fitted({name: twin}, tables, name)

    return make


def zaber_ascii(around: Around) -> Fitted:
    """Two-axis stage under the holder, on a pseudo-terminal; the sample's origin is at 25 mm, 25 mm."""

    def moved(position_um: tuple[float, ...]) -> None:
        around.world.beam.displace(STAGE_CENTRE_UM - position_um[0], STAGE_CENTRE_UM - position_um[1])

    twin = ZaberTwin(
        around.clock, {"at_um": (STAGE_CENTRE_UM, STAGE_CENTRE_UM)}, on_moved=moved,
        seen=lambda: {"moved_under_beam_um": around.world.beam.moved_on_um},
    )  # fmt: skip

    def tables(ports: Mapping[str, str]) -> str:
        axis = 'microstep = "0.047625 um", low = "1 mm", high = "49 mm", centre = "25 mm"'
        return (
            serial_line("stage", ports["stage"], 115200)
            + f"""[device.stage]
driver = "zaber_ascii"
line = "stage"
period = "0.5 s"
timeout = "30 s"
axes.x = {{ device = 1, axis = 1, {axis} }}
axes.y = {{ device = 1, axis = 2, {axis} }}
"""
        )

    return Fitted({"stage": twin}, tables, "stage")


def hexitec(around: Around) -> Fitted:
    """Pixel camera: commands on a TCP port, frames as UDP packets in real time."""
    world = around.world
    settings = {"seed": world.seed, **world.file.get("hexitec", {})}

    def lithium_lost() -> float:
        sample = world.sample
        sites = sample.sites_per_um2 * sample.area_um2 * sample.host.lithium_per_host
        return min(max(world.cell.lithium_atoms_out / sites, 0.0), 1.0)

    twin = HexitecTwin(settings, light=lambda: around.io.shutter_open, lithium_lost=lithium_lost)

    def tables(ports: Mapping[str, str]) -> str:
        return (
            network_line("compton", "tcp", ports["compton"])
            + f"""[device.compton]
driver = "hexitec"
line = "compton"
period = "1 s"
listen = {{ host = "127.0.0.1", port = {twin.frames_port} }}
frame_rate = "{twin.settings["frame_hz"]:g} Hz"
bias = "-500 V"
settle = "1.5 s"
energy = {{ gain = "0.027 keV" }}
threshold = "3 keV"
"""
        )

    return Fitted({"compton": twin}, tables, "compton")


def camera(live: bool) -> Entry:
    """Return the entry of a camera that takes radiographs: files in a folder, or ZeroMQ messages."""

    def make(around: Around) -> Fitted:
        world, kind = around.world, StreamCamera if live else FolderCamera
        rng = np.random.default_rng([world.seed, 7])
        radiograph = Radiograph(world.sample, rng, world.file.get("camera", {}))
        twin = kind(radiograph, around.io)
        told = radiograph.settings

        def tables(ports: Mapping[str, str]) -> str:
            where = ports["radiography"]
            line = (
                network_line("radiography", "zmq", where)
                if live
                else f'[line.radiography]\nkind = "folder"\npath = "{where}"\n\n'
            )
            files = "" if live else 'files = "neutrons_*.tif"\nsettle = "0.5 s"\npatience = "20 s"\n'
            return (
                line
                + f"""[device.radiography]
driver = "{"frame_live" if live else "frame_folder"}"
line = "radiography"
period = "0.5 s"
pixels = [{told["columns"]:g}, {told["rows"]:g}]
exposure = "{told["exposure_s"]:g} s"
delay = "1 s"
{files}"""
            )

        return Fitted({"radiography": twin}, tables, "radiography")

    return make


def labjack_tables(where: str, *, scans: bool = True) -> str:
    """Return the tables of the I/O box, which every bench has: it holds the off path."""
    scanner = """\
scanner = { x_dac = 0, y_dac = 1, centre = "2.5 V", scale_x = "100 um/V", scale_y = "200 um/V", \
pixel_clock = 0, blank = 1, settle = "2 ms" }
"""
    return (
        network_line("io", "tcp", where)
        + """[device.io]
driver = "labjack_t7"
line = "io"
period = "0.1 s"
"""
        + (scanner if scans else "")
        + """\
beam_current = { ain = 0, scale = "10 pA/V" }
relay = { fio = 2 }
shutter = { fio = 3, readback = 4 }
permit = { fio = 5 }
switches = { vacuum = { fio = 6 }, window = { fio = 7 } }
watchdog = { timeout = "3 s" }
"""
    )


CHOICES: dict[str, dict[str, Entry]] = {
    "heater": {"eurotherm_3200": eurotherm_3200, "host_pid": host_pid, "modbus_pid": modbus_pid},
    "cell": {
        "palmsens_emstat4": palmsens_emstat4,
        "keithley_2400": keithley_2400,
        "keithley_2450": keithley_2450,
    },
    "pixe": {"amptek_dp5": amptek_dp5("pixe", 4711)},
    "pige": {"amptek_dp5": amptek_dp5("pige", 4712)},
    "stage": {"zaber_ascii": zaber_ascii},
    "compton": {"hexitec": hexitec},
    "radiography": {"frame_folder": camera(live=False), "frame_live": camera(live=True)},
}
USUAL = {"heater": "eurotherm_3200", "cell": "palmsens_emstat4", "pixe": "amptek_dp5", "pige": "amptek_dp5"}


def fit(around: Around, chosen: Mapping[str, str]) -> dict[str, Fitted]:
    """Return the instruments of a bench by role: the usual ones, but for what is chosen.

    Raises:
        ValueError: there is no such role or no such instrument for it.
    """
    for role, driver in chosen.items():
        if role not in CHOICES:
            raise ValueError(f"no role {role!r} in a rack; there are {', '.join(CHOICES)}")
        if driver != NONE and driver not in CHOICES[role]:
            known = ", ".join([*CHOICES[role], NONE])
            raise ValueError(f"no twin of {driver!r} for {role}; there are {known}")
    drivers = {role: driver for role, driver in {**USUAL, **chosen}.items() if driver != NONE}
    return {role: entry[drivers[role]](around) for role, entry in CHOICES.items() if role in drivers}
