"""The station file: what stands on the bench, how it is wired, and the limits no experiment can widen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from controller.config import files
from controller.config.acceptance import Acceptance
from controller.config.base import Table, refuse, rules
from controller.config.conditions import Condition, parse_condition
from controller.config.devices import AnyDevice
from controller.config.files import Source
from controller.config.gateways import Epics, Secop
from controller.config.instruments.base import Composite
from controller.config.monitored import Channels, monitored
from controller.config.notify import Notify
from controller.config.problems import ConfigErrors, in_file_order
from controller.config.quantities import Quantity
from controller.config.station_rules import check, guard_names, switch_names
from controller.config.translate import from_pydantic
from controller.config.unfilled import besides, unfilled
from controller.config.web import Web
from drivers.port_find import wrong as wrong_port

LITHIUM_REST_KEV = 477.6  # 7Li(p,p'g)7Li at rest; science notes, "Line shape"
SLUG = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"

Name = Annotated[str, Field(pattern=SLUG)]


class StationInfo(Table):
    """``[station]``."""

    name: Name


class Bench(Table):
    """``[bench]``: written by a virtual bench, which must answer for it. Never written by hand."""

    socket: str
    nonce: Annotated[str, Field(min_length=8)]
    epoch: float
    speed: Annotated[float, Field(ge=1.0, le=10_000.0)]


class SerialLine(Table):
    """A serial port: a path, or what is plugged in (``serial:FT4ABC12``, see ``drivers/port_find.py``)."""

    kind: Literal["serial"]
    port: Annotated[str, Field(min_length=1)]
    baud: Annotated[int, Field(ge=300, le=4_000_000)] = 9600
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1

    @field_validator("port")
    @classmethod
    def _selects(cls, value: str) -> str:
        if wrong_port(value):
            raise refuse(wrong_port(value))
        return value


class NetworkLine(Table):
    """A TCP or UDP endpoint, that of a ZeroMQ stream, or where EPICS PVs are searched for."""

    kind: Literal["tcp", "udp", "zmq", "epics"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]


class FolderLine(Table):
    """A folder into which a camera's own software writes; it may be on a network file system."""

    kind: Literal["folder"]
    path: Annotated[str, Field(min_length=1, max_length=1000)]


Line = Annotated[SerialLine | NetworkLine | FolderLine, Field(discriminator="kind")]


class Roles(Table):
    """``[roles]``: which device does what. The names on the left are those that experiments use."""

    heater: str | None = None
    cell: str | None = None
    scanner: str | None = None
    pixe: str | None = None
    pige: str | None = None
    stage: str | None = None
    compton: str | None = None
    radiography: str | None = None

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield (role, device) for every role that is given."""
        for role in type(self).model_fields:
            device = getattr(self, role)
            if device is not None:
                yield role, device


class LithiumLine(Table):
    """The lithium line as measured on this station: it is shifted and broadened by the recoil."""

    centroid_kev: Annotated[float, Quantity("keV", low=472.5, high=483.0)] = Field(alias="centroid")
    fwhm_kev: Annotated[float, Quantity("keV", low=0.5, high=10.0)] = Field(alias="fwhm")


class Rates(Table):
    """Expected count rates, for estimates only, at the nominal current.

    ``pixe`` and ``pige`` are whole detectors; ``lithium`` are net counts of the lithium line and
    ``lithium_background`` the continuum inside its window, both while the beam is on the host layer.
    """

    pixe_hz: Annotated[float, Quantity("1/s", above=0.0)] = Field(alias="pixe")
    pige_hz: Annotated[float, Quantity("1/s", above=0.0)] = Field(alias="pige")
    lithium_hz: Annotated[float, Quantity("1/s", above=0.0)] = Field(alias="lithium")
    lithium_background_hz: Annotated[float, Quantity("1/s", low=0.0)] | None = Field(
        alias="lithium_background", default=None
    )


class Beam(Table):
    """``[beam]``."""

    species: Literal["proton"]
    energy_kev: Annotated[float, Quantity("keV", low=500.0, high=10_000.0)] = Field(alias="energy")
    foil_loss_kev: Annotated[float, Quantity("keV", low=0.0)] = Field(alias="foil_loss", default=0.0)
    current_a: Annotated[float, Quantity("A", above=0.0, high=1e-6)] = Field(alias="current")
    pige_angle_deg: Annotated[float, Quantity("deg", low=0.0, high=180.0)] = Field(alias="pige_angle")
    spot_um: Annotated[float, Quantity("um", above=0.0)] | None = Field(alias="spot", default=None)
    lithium_line: LithiumLine
    rates: Rates

    @model_validator(mode="after")
    def _possible(self) -> Beam:
        with rules() as rule:
            if self.foil_loss_kev >= self.energy_kev:
                rule.broken("foil_loss", "is not below the beam energy: no proton would reach the sample")
            if self.rates.lithium_hz >= self.rates.pige_hz:
                rule.broken(
                    "rates.lithium", "is not below rates.pige, which counts lithium among everything else"
                )
            if self.pige_angle_deg < 45.0 and self.lithium_line.centroid_kev < LITHIUM_REST_KEV:
                rule.broken(
                    "lithium_line.centroid",
                    f"is below {LITHIUM_REST_KEV} keV: a detector in forward direction sees the line shifted "
                    "upwards, near 481 keV",
                    f"{LITHIUM_REST_KEV} keV",
                )
        return self

    @property
    def sample_kev(self) -> float:
        """Energy behind the entrance foil, keV."""
        return self.energy_kev - self.foil_loss_kev


class TemperatureBand(Table):
    """Lowest and highest temperature."""

    low_k: Annotated[float, Quantity("K")] = Field(alias="low")
    high_k: Annotated[float, Quantity("K")] = Field(alias="high")

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureBand:
        with rules() as rule:
            if self.low_k >= self.high_k:
                rule.broken("high", "is not above the low limit")
        return self


class VoltageBand(Table):
    """Lowest and highest cell voltage."""

    low_v: Annotated[float, Quantity("V")] = Field(alias="low")
    high_v: Annotated[float, Quantity("V")] = Field(alias="high")

    @model_validator(mode="after")
    def _ordered(self) -> VoltageBand:
        with rules() as rule:
            if self.low_v >= self.high_v:
                rule.broken("high", "is not above the low limit")
        return self


class Limits(Table):
    """``[limits]``: hard limits. All are required; there is no "unlimited"."""

    temperature: TemperatureBand
    temperature_rate_k_per_s: Annotated[float, Quantity("K/s", above=0.0)] = Field(alias="temperature_rate")
    voltage: VoltageBand
    current_a: Annotated[float, Quantity("A", above=0.0)] = Field(alias="current")
    charge_coulomb: Annotated[float, Quantity("C", above=0.0)] = Field(alias="charge")
    dose_per_cm2: Annotated[float, Quantity("1/cm2", above=0.0)] = Field(alias="dose")
    dwell_s: Annotated[float, Quantity("s", above=0.0)] = Field(alias="dwell")


class Interlock(Table):
    """One ``[[interlock]]`` row: when ``condition`` has held for ``grace``, do ``action``.

    ``acknowledge`` says what a person at the station must look at and answer before the latch is cleared.
    """

    name: Name
    condition: str
    grace_s: Annotated[float, Quantity("s", low=0.0)] = Field(alias="grace")
    action: Literal["hold", "open_circuit", "heater_off", "shutter", "safe"]
    latch: bool = True
    acknowledge: Annotated[str, Field(min_length=3, max_length=500)] | None = None

    @model_validator(mode="after")
    def _acknowledged_if_latched(self) -> Interlock:
        with rules() as rule:
            if self.acknowledge is not None and not self.latch:
                rule.broken("acknowledge", "is never asked for: the row has latch = false")
        return self


class Tls(Table):
    """Certificates for a broker."""

    ca: str
    certificate: str | None = None
    key: str | None = None


class Broker(Table):
    """``[broker]``: the embedded one (this machine only), or a url."""

    kind: Literal["embedded", "external"] = "embedded"
    url: str | None = None
    credentials: str | None = None  # a file with user name and password, one per line
    viewer_credentials: str | None = None  # the same of the account that may only read: page and gateways
    tls: Tls | None = None

    @model_validator(mode="after")
    def _complete(self) -> Broker:
        with rules() as rule:
            if self.kind == "embedded":
                for key in ("url", "credentials", "viewer_credentials", "tls"):
                    if getattr(self, key) is not None:
                        rule.broken(key, 'belongs to kind = "external"; the embedded broker needs none')
            elif self.url is None:
                rule.broken("url", 'is missing: where the broker is, such as "mqtt://192.168.0.10:1883"')
            else:
                _check_url(self.url, rule.broken)
        return self


def _check_url(url: str, broken: Callable[[str, str], None]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts"):
        broken("url", "must begin with mqtt:// or mqtts://")
    elif not parts.hostname:
        broken("url", "names no host")
    if parts.password or parts.username:
        broken("url", "carries a password: put user name and password into a file and name it in credentials")


class Remote(Table):
    """``[remote]``: signed commands from elsewhere; off unless enabled here."""

    enabled: bool = False
    keys: str | None = None  # a file with the secret keys (HMAC) of those who may
    allow: tuple[Literal["pause", "proceed", "stop", "abort", "safe", "answer"], ...] = Field(
        default=("safe",), strict=False
    )

    @model_validator(mode="after")
    def _keys(self) -> Remote:
        with rules() as rule:
            if self.enabled and self.keys is None:
                rule.broken("keys", "is missing: without a file of keys nobody could sign a command")
        return self


class Station(Table):
    """A whole station file."""

    station: StationInfo
    bench: Bench | None = None
    lines: dict[Name, Line] = Field(alias="line")
    devices: dict[Name, AnyDevice] = Field(alias="device")
    roles: Roles
    beam: Beam | None = None  # required with a scanner
    limits: Limits
    interlocks: tuple[Interlock, ...] = Field(alias="interlock", default=(), strict=False)
    broker: Broker = Broker()
    remote: Remote = Remote()
    web: Web | None = None
    acceptance: Acceptance = Acceptance()
    secop: Secop | None = None
    notify: Notify | None = None
    epics: Epics | None = None

    _source: Source | None = PrivateAttr(default=None)
    _conditions: tuple[Condition, ...] = PrivateAttr(default=())
    _monitors: dict[str, Channels] = PrivateAttr(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the station."""
        return self.station.name

    @property
    def source(self) -> Source:
        """The file it was read from."""
        return self._source or Source("station.toml", {})

    @property
    def monitors(self) -> dict[str, Channels]:
        """What every device measures that plays no role: device -> channel -> unit, None for a switch."""
        return self._monitors

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The parsed condition of each interlock row, in order."""
        return self._conditions

    def device(self, role: str) -> AnyDevice | None:
        """Return the device that plays ``role``, or None."""
        name = getattr(self.roles, role)
        return self.devices[name] if name is not None else None

    def drives(self, name: str) -> tuple[str, ...]:
        """Return the names of the devices that a device is made of; none for an instrument."""
        device = self.devices.get(name)
        return device.drives if isinstance(device, Composite) else ()

    def lines_of(self, name: str) -> tuple[str, ...]:
        """Return the lines on which a device speaks: its own, or those of its parts."""
        device = self.devices[name]
        if isinstance(device, Composite):
            return tuple(dict.fromkeys(line for part in device.drives for line in self.lines_of(part)))
        return (device.line,)

    def lines_to_off(self, name: str) -> tuple[str, ...]:
        """Return the lines without which a device cannot be switched off."""
        device = self.devices[name]
        if isinstance(device, Composite) and device.off_parts:
            parts = (str(getattr(device, part)) for part in device.off_parts)
            return tuple(dict.fromkeys(line for part in parts for line in self.lines_of(part)))
        return self.lines_of(name)

    def line_settings(self, name: str) -> dict[str, Any]:
        """Return the table of a line as ``drivers.ports.open_line`` takes it."""
        return self.lines[name].model_dump()

    @property
    def io_name(self) -> str | None:
        """Name of the box with relay, permit, shutter and scanner, which the guard calls ``io``."""
        return next((name for name, kind in guard_names(self.source.data).items() if kind == "io"), None)


def load_station(path: Path | str) -> Station:
    """Read and validate a station file. Raises ConfigErrors with every problem found."""
    return station_from(files.read(path))


def station_from(source: Source) -> Station:
    """Validate a station that has been read. Raises ConfigErrors with every problem found."""
    problems = check(source)
    station = None
    try:
        station = Station.model_validate(source.data)
    except ValidationError as error:
        problems += from_pydantic(error, source, Station)
    problems = besides(problems, unfilled(source, Station))
    if problems or station is None:
        raise ConfigErrors(in_file_order(problems))
    names, switches = guard_names(source.data), switch_names(source.data)
    station._source = source
    station._monitors = monitored(source.data)
    station._conditions = tuple(
        parse_condition(row.condition, names, switches, station._monitors) for row in station.interlocks
    )
    return station
