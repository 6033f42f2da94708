"""What stands under the figures of the report, by name: (title, caption)."""

from __future__ import annotations

CAPTIONS = {
    "timeline": (
        "The run in time",
        "Steps, by what they work with; outlines: as planned; small ticks are the ends of passes, crosses "
        "those that do not count; dotted: from constant current to constant voltage. Readings are broken "
        "where they were invalid or missing, and grey where there was no beam. The band "
        "about the charge is one sigma.",
    ),
    "soc": (
        "State of charge from beam and charge",
        "Left: in time; horizontal bars span the passes of a point. Right: one against the other, with the "
        "line of equality. Thick bars are statistical, thin ones total errors; the band is the error of the "
        "charge. All one sigma.",
    ),
    "impedance": (
        "Impedance sweeps",
        "Left: measured points and the fitted circuit; crosses belong to sweeps that were broken off or "
        "could not be reduced. Right: what the linear Kramers-Kronig test leaves over, in per cent of |Z|; "
        "above 1 % rms a sweep is rejected.",
    ),
    "maps": (
        "Element maps",
        "Net counts of each line per pass, whole pixels added up to cells that can be seen; nothing is "
        "smoothed or resampled. One scale of colours per element, from zero to the 99.5th percentile, "
        "following the square root, so that noise looks alike everywhere. Dashed: boundaries of the layers.",
    ),
    "soc_maps": (
        "Local state of charge",
        "State of charge of the host layer in regions that hold enough lithium counts, against the same "
        "material in the reference scan. Regions with fewer counts are not divided further.",
    ),
    "overviews": (
        "Mosaics",
        "The tiles of each mosaic in one map, on the sample: gross counts in the window of each line, and "
        "the dose that each place has got. Where tiles overlap both are added. Grey: not scanned.",
    ),
    "profiles": (
        "Profiles along the interface normal",
        "Net counts per live beam charge against the distance from the interface. Inner band: statistical "
        "error; outer band: total. Dashed: boundaries of the layers; bars at the bottom: what counts as a "
        "pure layer in the result. Last: lithium of the host layer over that of the reference scan, places "
        "put together until the reference is known to an eighth, with the statistical error.",
    ),
    "radiograph_profiles": (
        "Radiographs: profiles along the cell",
        "Lithium-6 along the rows of the image, one line for each exposure, from the transmission against "
        "the reference; bands: counting. Without a wavelength the optical depth.",
    ),
    "radiograph_regions": (
        "Radiographs: what the regions hold",
        "Lithium-6 of each region against the state of charge that the coulomb count gives; bars: counting. "
        "Doses and scattering move all points of one exposure together.",
    ),
    "lithium": (
        "The lithium line",
        "Counts of each scan about the lithium line, the window in which it is counted, the band on its high "
        "side from which the background is taken, and the line shape of the station fitted to the whole "
        "scan. The results themselves are counted layer by layer.",
    ),
    "spectra": (
        "Summed spectra",
        "All good passes of each scan, per second of beam. Blue: windows of the lines; grey: their "
        "background bands.",
    ),
}
