"""Physics values that may be set from outside, with unit and meaning: the one list of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settable:
    """One value: where it is kept, its unit, what it does."""

    part: str  # of the world: beam, holder, cell, sample
    attribute: str
    unit: str
    about: str


SETTABLE = {
    "beam.lost": Settable("beam", "lost", "", "true: the accelerator gives no beam"),
    "beam.longest_stay_s": Settable(
        "beam", "longest_stay_s", "s", "longest stay of the beam on one place so far; set 0 to begin anew"
    ),
    "holder.ambient_k": Settable("holder", "ambient_k", "K", "temperature of the room"),
    "holder.cell_power_w": Settable("holder", "cell_power_w", "W", "heat made inside the cell"),
    "holder.stuck_power_w": Settable(
        "holder", "stuck_power_w", "W", "heat from a heater that nothing switches off"
    ),
    "cell.short_ohm": Settable("cell", "short_ohm", "ohm", "resistance of an internal short; null: none"),
    "cell.contact_ohm": Settable("cell", "contact_ohm", "ohm", "resistance of a bad contact in series"),
    "cell.dummy_ohm": Settable(
        "cell", "dummy_ohm", "ohm", "a resistor in place of the cell; 0: the cell again"
    ),
    "sample.drift_um": Settable("sample", "drift_um", "um", "displacement of the sample against the beam"),
}
