"""X-ray lines in groups: energies, weights within a group, and K-beta to K-alpha ratios at the atom.

Values from xraylib 4.3.0 (T. Schoonjans et al., Spectrochim. Acta B 66 (2011) 776): LineEnergy, which agrees
with the X-ray Data Booklet (LBNL 2009, table 1-2), and RadRate. A K series is two groups, Ka and Kb, since
absorption between atom and detector changes their ratio; an L series is three, by the subshell of the
vacancy.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class LineGroup:
    """Lines of one element that keep their ratio. Weights add up to 1."""

    element: str
    series: str  # Ka, Kb, L1, L2, L3, or "line" for a single unexplained one
    energies_kev: tuple[float, ...]
    weights: tuple[float, ...]
    ratio: float = 1.0  # of a Kb group: its intensity over that of Ka, at the atom
    extra_fwhm_kev: float = 0.0  # own width, added in squares to the detector's (scattered radiation)

    @property
    def name(self) -> str:
        """For example "Fe Ka"."""
        return f"{self.element} {self.series}"

    @property
    def mean_kev(self) -> float:
        """Weighted mean energy in keV."""
        return sum(e * w for e, w in zip(self.energies_kev, self.weights, strict=True))


# element, group, then energy (keV) and weight of each line; after the semicolon the ratio to Ka
_TABLE: Final = """
Na Ka 1.0410 1.0000 ; 1.0000
Mg Ka 1.2536 1.0000 ; 1.0000
Al Ka 1.4869 0.6667 1.4864 0.3333 ; 1.0000
Al Kb 1.5541 1.0000 ; 0.0132
Si Ka 1.7400 0.6652 1.7394 0.3348 ; 1.0000
Si Kb 1.8359 1.0000 ; 0.0277
P Ka 2.0102 0.6635 2.0093 0.3365 ; 1.0000
P Kb 2.1356 1.0000 ; 0.0445
S Ka 2.3078 0.6643 2.3066 0.3357 ; 1.0000
S Kb 2.4640 1.0000 ; 0.0617
Cl Ka 2.6224 0.6643 2.6208 0.3357 ; 1.0000
Cl Kb 2.8156 1.0000 ; 0.0807
Ar Ka 2.9574 0.6648 2.9553 0.3352 ; 1.0000
Ar Kb 3.1902 0.6630 3.1901 0.3370 ; 0.1020
K Ka 3.3138 0.6641 3.3111 0.3359 ; 1.0000
K Kb 3.5896 1.0000 ; 0.1156
Ca Ka 3.6917 0.6640 3.6881 0.3360 ; 1.0000
Ca Kb 4.0127 1.0000 ; 0.1257
Sc Ka 4.0906 0.6636 4.0861 0.3364 ; 1.0000
Sc Kb 4.4605 1.0000 ; 0.1283
Ti Ka 4.5109 0.6633 4.5049 0.3367 ; 1.0000
Ti Kb 4.9318 1.0000 ; 0.1300
V Ka 4.9522 0.6629 4.9446 0.3371 ; 1.0000
V Kb 5.4273 1.0000 ; 0.1317
Cr Ka 5.4147 0.6626 5.4055 0.3374 ; 1.0000
Cr Kb 5.9467 1.0000 ; 0.1287
Mn Ka 5.8987 0.6624 5.8876 0.3376 ; 1.0000
Mn Kb 6.4904 1.0000 ; 0.1339
Fe Ka 6.4039 0.6620 6.3909 0.3380 ; 1.0000
Fe Kb 7.0580 1.0000 ; 0.1344
Co Ka 6.9303 0.6617 6.9153 0.3383 ; 1.0000
Co Kb 7.6494 1.0000 ; 0.1351
Ni Ka 7.4781 0.6615 7.4609 0.3385 ; 1.0000
Ni Kb 8.2647 1.0000 ; 0.1356
Cu Ka 8.0478 0.6608 8.0279 0.3392 ; 1.0000
Cu Kb 8.9053 1.0000 ; 0.1338
Zn Ka 8.6389 0.6606 8.6158 0.3394 ; 1.0000
Zn Kb 9.5720 1.0000 ; 0.1369
Ga Ka 9.2517 0.6603 9.2248 0.3397 ; 1.0000
Ga Kb 10.2642 0.6619 10.2603 0.3381 ; 0.1405
Ge Ka 9.8864 0.6601 9.8553 0.3399 ; 1.0000
Ge Kb 10.9823 0.6480 10.9752 0.3307 11.1008 0.0213 ; 0.1463
As Ka 10.5436 0.6599 10.5081 0.3401 ; 1.0000
As Kb 11.7262 0.6380 11.7203 0.3263 11.8642 0.0357 ; 0.1517
Se Ka 11.2220 0.6596 11.1816 0.3404 ; 1.0000
Se Kb 12.4959 0.6272 12.4896 0.3208 12.6522 0.0520 ; 0.1582
Br Ka 11.9238 0.6587 11.8777 0.3413 ; 1.0000
Br Kb 13.2922 0.6151 13.2844 0.3148 13.4691 0.0463 13.4685 0.0238 ; 0.1641
Kr Ka 12.6507 0.6587 12.5984 0.3413 ; 1.0000
Kr Kb 14.1111 0.6022 14.1038 0.3078 14.3116 0.0595 14.3109 0.0305 ; 0.1681
Rb Ka 13.3953 0.6582 13.3358 0.3418 ; 1.0000
Rb Kb 14.9612 0.5938 14.9523 0.3036 15.1857 0.0677 15.1849 0.0349 ; 0.1734
Sr Ka 14.1650 0.6577 14.0978 0.3423 ; 1.0000
Sr Kb 15.8355 0.5863 15.8248 0.2999 16.0847 0.1138 ; 0.1785
Y Ka 14.9584 0.6572 14.8829 0.3428 ; 1.0000
Y Kb 16.7381 0.5820 16.7260 0.2978 17.0128 0.1202 ; 0.1831
Zr Ka 15.7753 0.6568 15.6909 0.3432 ; 1.0000
Zr Kb 17.6671 0.5786 17.6534 0.2962 17.9689 0.1252 ; 0.1869
Nb Ka 16.6151 0.6564 16.5209 0.3436 ; 1.0000
Nb Kb 18.6226 0.5763 18.6072 0.2952 18.9517 0.1285 ; 0.1905
Mo Ka 17.4793 0.6560 17.3744 0.3440 ; 1.0000
Mo Kb 19.6072 0.5745 19.5898 0.2944 19.9647 0.1311 ; 0.1935
Zr L3 2.0423 0.8653 2.0399 0.0974 1.7920 0.0373 ; 1.0000
Zr L2 2.1243 0.9682 1.8764 0.0318 ; 1.0000
Zr L1 2.2011 0.5545 2.1874 0.3185 2.5029 0.1270 ; 1.0000
Mo L3 2.2932 0.8384 2.2899 0.0945 2.0156 0.0355 2.5184 0.0316 ; 1.0000
Mo L2 2.3948 0.9380 2.6233 0.0323 2.1205 0.0297 ; 1.0000
Mo L1 2.4732 0.5468 2.4558 0.3177 2.8307 0.1355 ; 1.0000
La L3 4.6510 0.7474 5.3838 0.1359 4.6342 0.0844 4.1214 0.0323 ; 1.0000
La L2 5.0421 0.8371 5.7917 0.1398 4.5293 0.0231 ; 1.0000
La L1 5.1429 0.4906 5.0619 0.3199 6.0749 0.1162 6.0605 0.0733 ; 1.0000
Ta L3 8.1460 0.7355 9.6518 0.1291 8.0879 0.0834 7.1731 0.0377 9.6398 0.0144 ; 1.0000
Ta L2 9.3429 0.8259 10.8948 0.1519 8.4281 0.0222 ; 1.0000
Ta L1 9.4875 0.4472 9.2128 0.3516 11.2770 0.1153 11.2167 0.0859 ; 1.0000
W L3 8.3976 0.7339 9.9614 0.1302 8.3352 0.0832 7.3872 0.0383 9.9480 0.0145 ; 1.0000
W L2 9.6724 0.8244 11.2852 0.1534 8.7244 0.0222 ; 1.0000
W L1 9.8188 0.4435 9.5249 0.3543 11.6745 0.1153 11.6082 0.0870 ; 1.0000
Au L3 9.7130 0.7166 11.5848 0.1338 9.6276 0.0813 8.4938 0.0402 11.5667 0.0148 11.9162 0.0133 ; 1.0000
Au L2 11.4425 0.8166 13.3816 0.1613 10.3087 0.0221 ; 1.0000
Au L1 11.6098 0.4238 11.2050 0.3676 13.8074 0.1156 13.7091 0.0929 ; 1.0000
Pb L3 10.5512 0.7085 12.6223 0.1363 10.4496 0.0804 9.1845 0.0416 13.0147 0.0181 12.6000 0.0151 ; 1.0000
Pb L2 12.6144 0.8120 14.7648 0.1659 11.3493 0.0221 ; 1.0000
Pb L1 12.7944 0.4113 12.3066 0.3765 15.2163 0.1153 15.0969 0.0969 ; 1.0000
"""

Z_MIN_K = 11  # sodium: below, windows absorb the lines
_SILICON: Final = (
    (1.500, 535.57), (1.839, 309.0), (1.8391, 3192.0), (2.0, 2776.7), (3.0, 978.4), (4.0, 452.8), (5.0,
    245.1), (6.0, 147.0), (8.0, 64.69), (10.0, 33.88), (15.0, 10.34), (20.0, 4.46),
)  # fmt: skip
SILICON_CM2_G: Final = _SILICON
"""Mass attenuation of silicon (keV, cm2/g), NIST XCOM / Elam et al., Radiat. Phys. Chem. 63 (2002) 121."""

SILICON_KA_KEV: Final = 1.7398
SILICON_KA_CM2_G: Final = 359.5  # of silicon for its own K-alpha
SILICON_K_YIELD: Final = 0.0504  # fluorescence yield, xraylib 4.3.0
SILICON_K_JUMP: Final = 10.37  # absorption jump at the K edge, xraylib 4.3.0
SILICON_K_EDGE_KEV: Final = 1.839


def _parsed(table: str) -> dict[str, LineGroup]:
    groups = {}
    for row in table.split("\n"):
        if row.strip():
            left, ratio = row.split(";")
            element, series, *numbers = left.split()
            values = [float(number) for number in numbers]
            group = LineGroup(element, series, tuple(values[::2]), tuple(values[1::2]), float(ratio))
            groups[group.name] = group
    return groups


GROUPS: Final = MappingProxyType(_parsed(_TABLE))
ELEMENTS: Final = tuple(dict.fromkeys(group.element for group in GROUPS.values()))


def groups_of(element: str, series: str = "K") -> tuple[LineGroup, ...]:
    """Return the groups of an element's series ("K" or "L"). Raises ValueError if it is not listed."""
    found = tuple(g for g in GROUPS.values() if g.element == element and g.series.startswith(series))
    if not found:
        raise ValueError(f"no {series} lines of {element!r} are listed")
    return found


def single_line(energy_kev: float, extra_fwhm_kev: float = 0.0) -> LineGroup:
    """Return a group for one line of unknown origin, such as a scattered source line."""
    name = f"{energy_kev:.2f} keV"
    return LineGroup(name, "line", (energy_kev,), (1.0,), extra_fwhm_kev=extra_fwhm_kev)
