"""Figures of the offline reductions, as bytes of PNG or SVG."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl

from controller.offline import figures_gamma, figures_xrf
from controller.offline.gamma import GammaReport
from controller.offline.plot_style import STYLE, saved
from controller.offline.xrf import XrfReport

Picture = tuple[str, bytes]


def draw(report: GammaReport | XrfReport, kind: str) -> Iterator[Picture]:
    """Yield (name, file content) of each figure of a report; ``kind`` is png or svg."""
    with mpl.rc_context(STYLE):
        if isinstance(report, XrfReport):
            for result, spectrum in zip(report.results, report.spectra, strict=True):
                yield (
                    f"spectrum-{spectrum.detector}",
                    saved(figures_xrf.xrf_spectrum(report, result, spectrum.detector), kind),
                )
            if report.maps:
                yield "maps", saved(figures_xrf.element_maps(report), kind)
        elif report.germanium:
            yield "spectrum", saved(figures_gamma.germanium_spectrum(report, report.germanium), kind)
            yield "lines", saved(figures_gamma.line_fits(report, report.germanium), kind)
            yield "calibration", saved(figures_gamma.calibration(report, report.germanium), kind)
            if report.be7:
                yield "477keV", saved(figures_gamma.be7_region(report, report.be7), kind)
                yield "efficiency", saved(figures_gamma.efficiency(report, report.be7), kind)
        elif report.broad:
            yield "spectrum", saved(figures_gamma.broad_spectrum(report, report.broad), kind)
