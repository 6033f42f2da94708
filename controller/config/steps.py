"""What an experiment can do, one model for each kind of step.

Every wait has a timeout and says what happens then (``on_timeout``: continue, pause, abort or ask; abort
unless the file says otherwise). A step of fixed duration is its own timeout. Inside ``parallel`` a scan may
leave out ``until``: it then follows the other steps and ends, after the line it is on, when all have ended.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from controller.config.base import Table, refuse, rules
from controller.config.exposures import Expose
from controller.config.manual import Manual
from controller.config.problems import NEEDED_FOR
from controller.config.quantities import Difference, Quantity, show
from controller.config.scans import Calibrate, Duration, Length, Scan, StepBase


class Heat(StepBase):
    """Heat to a temperature at a limited ramp and wait until it has been stable."""

    do: Literal["heat"]
    to_k: Annotated[float, Quantity("K")] = Field(alias="to")
    within_k: Annotated[float, Difference(above=0.0, high=50.0)] = Field(alias="within")
    ramp_k_per_s: Annotated[float, Quantity("K/s", above=0.0)] = Field(alias="ramp")
    stable_s: Annotated[float, Quantity("s", low=0.0, high=86400.0)] = Field(alias="stable", default=0.0)
    timeout_s: Duration = Field(alias="timeout")

    @model_validator(mode="after")
    def _has_time(self) -> Heat:
        with rules() as rule:
            if self.stable_s >= self.timeout_s:
                rule.broken("stable", "is not shorter than the timeout: this step could only time out")
        return self


class Cool(StepBase):
    """Cool to a temperature: passively (heater off) or, with ``ramp``, along a falling set-point."""

    do: Literal["cool"]
    to_k: Annotated[float, Quantity("K")] = Field(alias="to")
    within_k: Annotated[float, Difference(above=0.0, high=50.0)] = Field(alias="within", default=2.0)
    ramp_k_per_s: Annotated[float, Quantity("K/s", above=0.0)] | None = Field(alias="ramp", default=None)
    timeout_s: Duration = Field(alias="timeout")


class Hold(StepBase):
    """Keep the temperature as it is, the circuit open, for a while."""

    do: Literal["hold"]
    duration_s: Duration = Field(alias="duration")


class OpenCircuit(StepBase):
    """Record the open-circuit voltage."""

    do: Literal["ocv"]
    duration_s: Duration = Field(alias="duration")
    interval_s: Annotated[float, Quantity("s", low=0.1, high=600.0)] = Field(alias="interval", default=1.0)


class Rest(StepBase):
    """Leave the cell at open circuit, recorded once in a while."""

    do: Literal["rest"]
    duration_s: Duration = Field(alias="duration")
    interval_s: Annotated[float, Quantity("s", low=0.1, high=600.0)] = Field(alias="interval", default=10.0)


class CellUntil(Table):
    """What ends a charge or discharge: whichever comes first."""

    duration_s: Duration | None = Field(alias="duration", default=None)
    voltage_v: Annotated[float, Quantity("V")] | None = Field(alias="voltage", default=None)
    current_below_a: Annotated[float, Quantity("A", above=0.0, c_rate=True)] | None = Field(
        alias="current_below", default=None
    )
    charge_coulomb: Annotated[float, Quantity("C", above=0.0)] | None = Field(alias="charge", default=None)
    soc: Annotated[float, Quantity("1", low=0.0, high=1.0)] | None = None

    @field_validator("charge_coulomb")
    @classmethod
    def _fits_the_cell(cls, value: float | None, info: ValidationInfo) -> float | None:
        capacity = (info.context or {}).get("capacity_coulomb")
        if value is not None and capacity is not None and value > capacity * (1 + 1e-9):
            raise refuse(
                f"is more than the cell holds: sample.capacity is {show(capacity, 'C')}", show(capacity, "C")
            )
        return value

    @model_validator(mode="after")
    def _something(self) -> CellUntil:
        with rules() as rule:
            if not self.model_fields_set:
                rule.broken(
                    "",
                    "needs an end: duration, voltage, current_below, charge or soc, such as "
                    '{ duration = "2 h" }',
                )
        return self


class CellStep(StepBase):
    """Constant current, constant voltage, or both: CC to ``voltage``, which is then held (CC-CV)."""

    current_a: Annotated[float, Quantity("A", above=0.0, c_rate=True)] | None = Field(
        alias="current", default=None
    )
    voltage_v: Annotated[float, Quantity("V")] | None = Field(alias="voltage", default=None)
    until: CellUntil
    interval_s: Annotated[float, Quantity("s", low=0.1, high=60.0)] = Field(alias="interval", default=1.0)
    timeout_s: Duration = Field(alias="timeout")

    @property
    def mode(self) -> Literal["cc", "cv", "cccv"]:
        """Constant current, constant voltage, or one after the other."""
        if self.voltage_v is None:
            return "cc"
        return "cv" if self.current_a is None else "cccv"

    @model_validator(mode="after")
    def _consistent(self) -> CellStep:
        until = self.until
        with rules() as rule:
            if self.current_a is None and self.voltage_v is None:
                rule.broken(
                    "", "needs a current (constant current), a voltage (constant voltage), or both (CC-CV)"
                )
            if self.voltage_v is not None and until.voltage_v is not None:
                rule.broken(
                    "until.voltage",
                    "contradicts voltage, which is held once it is reached: leave one of them out",
                )
            if self.voltage_v is None and until.current_below_a is not None:
                rule.broken(
                    "until.current_below", "can only end a constant-voltage phase: give a voltage as well"
                )
            if self.current_a is not None and (until.current_below_a or 0.0) >= self.current_a:
                rule.broken(
                    "until.current_below",
                    f"is not below the current {show(self.current_a, 'A')}: the step would end at once",
                    show(self.current_a, "A"),
                )
            if until.duration_s is not None and until.duration_s > self.timeout_s:
                rule.broken(
                    "timeout",
                    f"is shorter than until.duration, {show(until.duration_s, 's')}: it would strike first",
                )
        return self


class Charge(CellStep):
    """Charge the cell (currents are written positive)."""

    do: Literal["charge"]


class Discharge(CellStep):
    """Discharge the cell (currents are written positive, too)."""

    do: Literal["discharge"]


class Pulse(StepBase):
    """Current pulses with rests between them (GITT)."""

    do: Literal["pulse"]
    direction: Literal["charge", "discharge"]
    current_a: Annotated[float, Quantity("A", above=0.0, c_rate=True)] = Field(alias="current")
    on_s: Duration = Field(alias="on")
    rest_s: Duration = Field(alias="rest")
    times: Annotated[int, Field(ge=1, le=10_000)]
    interval_s: Annotated[float, Quantity("s", low=0.1, high=60.0)] = Field(alias="interval", default=1.0)


CIRCUIT = "R0-p(R1,CPE1)-W2"  # electrolyte, charge transfer, diffusion


class Impedance(StepBase):
    """Impedance sweep: a sine of voltage (EIS) or of current (GEIS) about a bias; amplitudes are rms."""

    do: Literal["eis"]
    mode: Literal["potentiostatic", "galvanostatic"] = "potentiostatic"
    start_hz: Annotated[float, Quantity("Hz", low=1e-4, high=2e5)] = Field(alias="start")
    stop_hz: Annotated[float, Quantity("Hz", low=1e-4, high=2e5)] = Field(alias="stop")
    points: Annotated[int, Field(ge=2, le=500)]
    amplitude_v: Annotated[float, Quantity("V", above=0.0, high=0.1)] = Field(alias="amplitude", default=0.01)
    voltage_v: Annotated[float, Quantity("V")] | None = Field(alias="voltage", default=None)
    current_amplitude_a: Annotated[float, Quantity("A", above=0.0, c_rate=True)] | None = Field(
        alias="current_amplitude", default=None
    )
    current_a: Annotated[float, Quantity("A")] = Field(alias="current", default=0.0)
    circuit: Annotated[str, Field(pattern=r"^[RCLPEWosp0-9(),\- ]{1,200}$")] = CIRCUIT
    timeout_s: Duration = Field(alias="timeout")

    @property
    def galvanostatic(self) -> bool:
        """Whether the current is what is set."""
        return self.mode == "galvanostatic"

    @model_validator(mode="after")
    def _downwards(self) -> Impedance:
        with rules() as rule:
            if self.start_hz <= self.stop_hz:
                rule.broken("stop", "is not below start: a sweep goes from high to low frequency")
        return self

    @model_validator(mode="after")
    def _of_its_mode(self) -> Impedance:
        wrong = ("voltage", "amplitude") if self.galvanostatic else ("current", "current_amplitude")
        names = {"voltage": "voltage_v", "amplitude": "amplitude_v", "current": "current_a",
                 "current_amplitude": "current_amplitude_a"}  # fmt: skip
        with rules() as rule:
            for key in wrong:
                if names[key] in self.model_fields_set:
                    rule.broken(key, f"has no meaning in a {self.mode} sweep")
            if self.galvanostatic and self.current_amplitude_a is None:
                rule.broken("current_amplitude", 'is missing: the sine of current, rms, such as "2 uA"')
        return self


class Move(StepBase):
    """Shift the origin of all rasters that follow, or move the stage, or both; beam blanked, shutter closed.

    ``stage`` are coarse coordinates, those of the stage itself; ``home`` looks for its reference first.
    """

    do: Literal["move"]
    to_um: Annotated[tuple[Length, Length], Field(strict=False, alias="to")] = (0.0, 0.0)
    stage_um: Annotated[tuple[Length, ...], Field(strict=False, min_length=2, max_length=3)] | None = Field(
        alias="stage", default=None
    )
    home: bool = False

    @model_validator(mode="after")
    def _somewhere(self) -> Move:
        with rules() as rule:
            if not {"to_um", "stage_um"} & self.model_fields_set and not self.home:
                rule.broken("", 'goes nowhere: give "to", "stage", or home = true')
        return self


class Background(StepBase):
    """Spectra with the beam off: natural background and activation."""

    do: Literal["background"]
    duration_s: Duration = Field(alias="duration")


class Repeat(StepBase):
    """The steps inside, several times."""

    do: Literal["repeat"]
    times: Annotated[int, Field(ge=1, le=10_000)]
    steps: Annotated[tuple[Step, ...], Field(alias="step", min_length=1, strict=False)]


class Parallel(StepBase):
    """The steps inside at the same time: scan *while* charging. Ends when all have ended."""

    do: Literal["parallel"]
    steps: Annotated[tuple[Step, ...], Field(alias="step", min_length=2, strict=False)]


Choice = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._%+-]{0,39}$")]


class Message(StepBase):
    """Tell the operator something; with ``wait``, ask and wait for an answer."""

    do: Literal["message"]
    text: Annotated[str, Field(min_length=1, max_length=1000)]
    wait: bool = False
    timeout_s: Duration | None = Field(alias="timeout", default=None)
    choices: Annotated[tuple[Choice, ...], Field(min_length=2, max_length=8, strict=False)] | None = None
    default: Choice | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Message:
        with rules() as rule:
            if self.wait and self.timeout_s is None:
                rule.broken("timeout", f"is missing: {NEEDED_FOR['timeout']}")
            for key in ("choices", "default"):
                if getattr(self, key) is not None and not self.wait:
                    rule.broken(key, "is for a message that waits: add wait = true and a timeout")
            choices = self.choices or ("continue", "stop", "abort")
            if len({choice.casefold() for choice in choices}) < len(choices):
                rule.broken("choices", "names one answer twice")
            if self.default is not None and self.default not in choices:
                rule.broken("default", f"is not one of the answers: {', '.join(choices)}")
            if self.default is not None and "on_timeout" in self.model_fields_set:
                rule.broken("default", "and on_timeout both say what happens without an answer: keep one")
            if self.wait and self.on_timeout == "ask":
                rule.broken("on_timeout", "cannot be ask here: nobody answered this very question")
        return self


Step = Annotated[
    Heat
    | Cool
    | Hold
    | OpenCircuit
    | Rest
    | Charge
    | Discharge
    | Pulse
    | Impedance
    | Scan
    | Move
    | Calibrate
    | Background
    | Expose
    | Repeat
    | Parallel
    | Manual
    | Message,
    Field(discriminator="do"),
]
Repeat.model_rebuild()
Parallel.model_rebuild()

USES: dict[str, str] = {
    "heat": "heater",
    "cool": "heater",
    "hold": "heater",
    "ocv": "cell",
    "rest": "cell",
    "charge": "cell",
    "discharge": "cell",
    "pulse": "cell",
    "eis": "cell",
    "scan": "beam",
    "move": "beam",
    "calibrate": "beam",
    "background": "beam",
}
"""The instrument that a step has to itself: two such steps cannot run at the same time."""

SHARES = {**USES, "expose": "beam"}  # a camera needs no scanner, but the shutter is that of the beam

CONTAINERS = ("parallel", "repeat")  # they hold steps, and do nothing themselves
PASSES_CHARGE = ("charge", "discharge", "pulse")
