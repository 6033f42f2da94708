"""Gamma lines: energies and emission probabilities with their errors.

Energies in keV, intensities in photons per 100 decays of the nuclide named, normalisation error included.
Source: Evaluated Nuclear Structure Data File, release of September 2023, as archived in paceENSDF 0.6.3 (A.
M. Hurst et al., EPJ Web of Conferences 284 (2023) 18002). For Ac-228 that is the evaluation of K. Abusaleem,
Nucl. Data Sheets 116 (2014) 163: 478.33(5) keV 0.209(15) %, 911.204(4) keV 25.8(4) %.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class GammaLine:
    """One photon of a decay."""

    nuclide: str
    energy_kev: float
    energy_sigma_kev: float
    intensity: float  # photons per 100 decays
    intensity_sigma: float

    @property
    def name(self) -> str:
        """For example "Ac-228 911.2"."""
        return f"{self.nuclide} {self.energy_kev:.1f}"


_TABLE: Final = """
Be-7    477.6035 0.0020 10.44  0.04
K-40   1460.820  0.005  10.66  0.13
Ba-133   80.9979 0.0011 32.95  0.31
Ba-133  276.3989 0.0012  7.161 0.043
Ba-133  302.8508 0.0005 18.34  0.11
Ba-133  356.0129 0.0007 62.05  0.19
Ba-133  383.8485 0.0012  8.941 0.056
Cs-134  475.365  0.002   1.477 0.007
Cs-134  604.721  0.002  97.62  0.11
Cs-134  795.864  0.004  85.46  0.06
Cs-137  661.657  0.003  85.1   0.2
Eu-152  121.7817 0.0003 28.53  0.16
Eu-152  244.6974 0.0008  7.55  0.04
Eu-152  344.2785 0.0012 26.59  0.20
Eu-152  778.9045 0.0024 12.93  0.08
Eu-152  964.057  0.005  14.51  0.07
Eu-152 1112.076  0.003  13.67  0.08
Eu-152 1408.013  0.003  20.87  0.09
Pb-212  238.632  0.002  43.6   0.5
Pb-212  300.087  0.010   3.30  0.04
Tl-208  583.187  0.002  85.0   0.3
Tl-208  860.557  0.004  12.5   0.1
Tl-208 2614.511  0.010  99.754 0.004
Ra-224  240.986  0.006   4.10  0.05
Pb-214  241.995  0.004   7.263 0.038
Pb-214  295.224  0.002  18.47  0.11
Pb-214  351.9321 0.0021 35.72  0.24
Pb-214  480.43   0.02    0.3368 0.0048
Pb-214  487.11   0.07    0.4327 0.0058
Bi-214  469.76   0.04    0.132 0.008
Bi-214  474.43   0.05    0.097 0.009
Bi-214  609.321  0.007  45.44  0.19
Bi-214  665.446  0.009   1.540 0.011
Bi-214  768.360  0.007   4.889 0.024
Bi-214  934.056  0.008   3.094 0.019
Bi-214 1120.294  0.006  14.90  0.08
Bi-214 1238.122  0.010   5.830 0.030
Bi-214 1764.491  0.014  15.29  0.08
Ac-228  338.320  0.003  11.27  0.19
Ac-228  463.004  0.006   4.40  0.07
Ac-228  474.75   0.10    0.022 0.003
Ac-228  478.33   0.05    0.209 0.015
Ac-228  480.94   0.20    0.023 0.005
Ac-228  772.291  0.005   1.49  0.03
Ac-228  794.947  0.005   4.25  0.07
Ac-228  911.204  0.004  25.8   0.4
Ac-228  964.766  0.010   4.99  0.09
Ac-228  968.971  0.017  15.8   0.3
"""


def _parsed(table: str) -> tuple[GammaLine, ...]:
    lines = []
    for row in table.split("\n"):
        if row.strip():
            nuclide, *numbers = row.split()
            lines.append(GammaLine(nuclide, *(float(number) for number in numbers)))
    return tuple(lines)


LINES: Final = _parsed(_TABLE)


def line(nuclide: str, energy_kev: float) -> GammaLine:
    """Return the listed line of a nuclide near an energy. Raises ValueError if none lies within 0.5 keV."""
    near = [entry for entry in LINES if entry.nuclide == nuclide and abs(entry.energy_kev - energy_kev) < 0.5]
    if not near:
        raise ValueError(f"no line of {nuclide} at {energy_kev} keV is listed")
    return min(near, key=lambda entry: abs(entry.energy_kev - energy_kev))


def _set(*names: str) -> tuple[GammaLine, ...]:
    return tuple(line(name.split()[0], float(name.split()[1])) for name in names)


CALIBRATION_SETS: Final = MappingProxyType(
    {
        "natural": _set(
            "Pb-214 351.9", "Tl-208 583.2", "Bi-214 609.3", "Cs-137 661.7", "Ac-228 911.2", "Bi-214 1120.3",
            "K-40 1460.8", "Bi-214 1764.5", "Tl-208 2614.5",
        ),
        "Eu-152": _set(
            "Eu-152 121.8", "Eu-152 244.7", "Eu-152 344.3", "Eu-152 778.9", "Eu-152 964.1", "Eu-152 1112.1",
            "Eu-152 1408.0",
        ),
        "Ba-133": _set("Ba-133 81.0", "Ba-133 276.4", "Ba-133 302.9", "Ba-133 356.0", "Ba-133 383.8"),
    }
)  # fmt: skip
"""Strong, single lines by which a germanium spectrum is recognised and its energy corrected."""

BROAD_SETS: Final = MappingProxyType(
    {
        "natural": (_set("Bi-214 609.3", "K-40 1460.8"), _set("Bi-214 1120.3", "Bi-214 1764.5")),
        "Ba-133 + Cs-137": (_set("Ba-133 81.0", "Ba-133 356.0", "Cs-137 661.7"), _set("K-40 1460.8")),
    }
)
"""Lines that a scintillator resolves: those that must be there, and those that may."""

EFFICIENCY_LINES: Final = _set(
    "Pb-214 295.2", "Pb-214 351.9", "Bi-214 609.3", "Bi-214 768.4", "Bi-214 934.1", "Bi-214 1120.3",
    "Bi-214 1238.1", "Ac-228 338.3", "Ac-228 463.0", "Ac-228 794.9", "Ac-228 911.2", "Ac-228 969.0",
    "Tl-208 583.2", "Tl-208 860.6",
)  # fmt: skip
"""Lines of the natural chains from which the relative efficiency between 295 and 1240 keV is found."""

EQUILIBRIUM: Final = MappingProxyType(
    {"Pb-214": "Ra-226 progeny", "Bi-214": "Ra-226 progeny", "Ac-228": "Ac-228", "Tl-208": "Tl-208"}
)
"""Nuclides that share one activity: Bi-214 (20 min) follows Pb-214 (27 min) within hours."""

BE7: Final = line("Be-7", 477.6)

INTERFERENCES: Final = (
    (line("Ac-228", 478.33), line("Ac-228", 911.2)),
    (line("Pb-214", 480.43), line("Pb-214", 351.9)),
    (line("Pb-214", 487.11), line("Pb-214", 351.9)),
    (line("Bi-214", 469.76), line("Bi-214", 609.3)),
    (line("Bi-214", 474.43), line("Bi-214", 609.3)),
    (line("Ac-228", 474.75), line("Ac-228", 911.2)),
    (line("Ac-228", 480.94), line("Ac-228", 911.2)),
    (line("Cs-134", 475.4), line("Cs-134", 604.7)),
)
"""Lines beside 477.6 keV, each with the strong line of its own nuclide from which it is predicted."""

COMPTON_EDGE_CS137_KEV: Final = 477.34
"""2 E^2 / (mc^2 + 2E) for E = 661.657 keV: the Compton edge of Cs-137 lies under the 477.6 keV line."""
