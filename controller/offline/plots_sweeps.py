"""Impedance sweeps of a run: Nyquist with the fits, and what the Kramers-Kronig test leaves over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from controller.offline.plot_style import LEVELS
from controller.offline.svg import WIDTH, quiet_grid

if TYPE_CHECKING:
    from controller.offline.sweeps import Reduced

KILO = 1e3


def impedance(sweeps: Sequence[Reduced]) -> Figure | None:
    """Draw every sweep that has points; None when none has."""
    shown = [one for one in sweeps if one.sweep.good]
    if not shown:
        return None
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    nyquist, rest = figure.subplots(1, 2, width_ratios=[1.35, 1])
    colours = colormaps[LEVELS](np.linspace(0.42, 0.8, len(shown)))  # to be seen on white and on black
    for colour, one in zip(colours, shown, strict=True):
        z = one.z_ohm / KILO
        label = f"{one.told['number']}: {one.told['step']}"
        broken = one.result is None
        nyquist.plot(z.real, -z.imag, "x" if broken else "o", ms=4, mfc="white", color=colour, label=label)
        fit = one.fitted()
        if fit is not None:
            nyquist.plot(fit.real / KILO, -fit.imag / KILO, color=colour, lw=1.2)
        if one.result is not None:
            test = one.result.test
            rest.semilogx(test.frequency_hz, 100 * test.residual.real, "o-", ms=3, lw=0.8, color=colour)
            rest.semilogx(test.frequency_hz, 100 * test.residual.imag, "s:", ms=2.6, lw=0.8, color=colour)
    nyquist.set_aspect("equal", adjustable="datalim")
    nyquist.set_xlabel("Re Z / kΩ")
    nyquist.set_ylabel("−Im Z / kΩ")
    nyquist.set_title("Nyquist, lines: fitted circuit")
    rest.set_xlabel("frequency / Hz")
    rest.set_ylabel("residual / % of |Z|")
    rest.set_title("Kramers-Kronig: round Re, square Im")
    for axes in (nyquist, rest):
        quiet_grid(axes)
    figure.legend(loc="outside lower center", ncols=min(len(shown), 3))
    return figure
