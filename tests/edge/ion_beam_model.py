"""A small direct draw of ion-beam experiments for tests; of edge/ it knows the settings dictionary only."""

import math

import numpy as np

SETTINGS = {
    "detectors": {
        "pixe": {"kind": "sdd", "channels": 2048, "offset_kev": 0.0, "gain_kev": 0.01},
        "pige": {"kind": "hpge", "channels": 8192, "offset_kev": 0.0, "gain_kev": 0.25},
    },
    "lithium_line": {"centroid_kev": 481.0, "fwhm_kev": 6.0},
    "lines": [
        {"element": "Li", "detector": "pige"},
        {"element": "Co", "detector": "pixe"},
        {"element": "P", "detector": "pixe"},
    ],
    "layers": [
        {"name": "anode", "kind": "metal"},
        {"name": "separator", "kind": "separator", "normaliser": "P"},
        {
            "name": "cathode",
            "kind": "host",
            "host": "LiCoO2",
            "normaliser": "Co",
            "mass_fractions": {"LiCoO2": 0.85, "C": 0.05, "MEEP-LiBOB": 0.05, "PVdF": 0.05},
        },
    ],
    "interface": ["separator", "cathode"],
    "reference": "as prepared",
    "calibration": "lco-meep-2.91MeV",
    "beam": {"energy_kev": 2911.0, "angle_deg": 0.0},
    "capacity_coulomb": 0.072,
    "capacity_error": 0.05,
}

# counts per second in each layer at full current: anode, separator, cathode
RATES = {
    "pige": {"Li": (30.0, 0.6, 3.5), "511": (4.0, 4.0, 4.0)},
    "pixe": {"Co": (0.0, 0.0, 46.0), "P": (0.0, 25.0, 2.0)},
}
CONTINUUM = {"pige": (90.0, 110.0, 130.0), "pixe": (60.0, 80.0, 100.0)}
RANGE_KEV = {"pige": (20.0, 2000.0), "pixe": (0.9, 20.0)}
LINES_KEV = {  # centroid, FWHM
    "Li": (481.0, 6.0),
    "511": (511.0, 2.8),
    "Co": (6.9253, 0.153),
    "P": (2.0134, 0.1094),
}
DEAD_S = {"pige": 3e-5, "pixe": 8e-6}
CURRENT_A = 24e-12


class Model:
    """Layers along +y: anode, separator, cathode; borders at ``anode_um`` below and 0 of the interface."""

    def __init__(self, nx=32, ny=32, width=100.0, height=300.0, dwell=0.06, angle_deg=1.5, place=-10.0,
                 blur=1.5, anode_um=-90.0, seed=1):  # fmt: skip
        self.nx, self.ny, self.width, self.height, self.dwell = nx, ny, width, height, dwell
        self.angle, self.place, self.blur, self.anode_um = math.radians(angle_deg), place, blur, anode_um
        self.rng = np.random.default_rng(seed)
        self.gain = {"pige": 1.0, "pixe": 1.0}
        self.be7_hz = 0.0
        self.lithium = 1.0  # of the cathode, relative
        self.separator = 1.0  # same, of the lithium in the separator
        x = (np.arange(nx) + 0.5) * width / nx - width / 2
        y = (np.arange(ny) + 0.5) * height / ny - height / 2
        self.x, self.y = np.tile(x, ny), np.repeat(y, nx)

    def raster(self):
        return {
            "nx": self.nx, "ny": self.ny, "width_um": self.width, "height_um": self.height,
            "centre_x_um": 0.0, "centre_y_um": 0.0, "dwell_s": self.dwell,
        }  # fmt: skip

    def shares(self):
        """Share of each layer under every pixel, (pixels, 3)."""
        d = self.y * np.cos(self.angle) - self.x * np.sin(self.angle) - self.place
        upper = 0.5 * (1 + np.vectorize(math.erf)(d / self.blur / math.sqrt(2)))
        lower = 0.5 * (1 + np.vectorize(math.erf)((d - self.anode_um) / self.blur / math.sqrt(2)))
        return np.stack([1 - lower, lower * (1 - upper), upper], axis=1)

    def rates(self, detector):
        """Expected counts per second and pixel of every component, {name: (pixels,)}."""
        shares = self.shares()
        found = {name: shares @ np.array(rate) for name, rate in RATES[detector].items()}
        if "Li" in found:
            scale = np.array([1.0, self.separator, self.lithium])
            found["Li"] = shares @ (np.array(RATES[detector]["Li"]) * scale)
        found["continuum"] = shares @ np.array(CONTINUUM[detector])
        return found

    def energies(self, detector, component, n):
        if component == "continuum":
            low, high = RANGE_KEV[detector]
            return self.rng.uniform(low, high, n)
        if component == "be7":
            return self.rng.normal(477.6, 2.0 / 2.3548, n)
        centre, fwhm = LINES_KEV[component]
        return self.rng.normal(centre, fwhm / 2.3548, n)

    def one_pass(self, detector, current=1.0):
        """Return (time_s, channel, frame) of the recorded events, and the fast count; dead time applied.

        The beam dwells ``dwell`` on each pixel and is parked 0.1 s after each line.
        """
        parked_s = 0.1
        line_s = self.nx * self.dwell + parked_s
        times, energies = [], []
        pixel = np.arange(self.nx * self.ny)
        start = (pixel // self.nx) * line_s + (pixel % self.nx) * self.dwell
        for component, rate in self.rates(detector).items():
            counts = self.rng.poisson(rate * self.dwell * current)
            which = np.repeat(pixel, counts)
            times.append(start[which] + self.rng.uniform(0, self.dwell, which.size))
            energies.append(self.energies(detector, component, which.size))
        whole_s = self.ny * line_s
        if detector == "pige" and self.be7_hz:
            n = self.rng.poisson(self.be7_hz * whole_s)
            times.append(self.rng.uniform(0, whole_s, n))
            energies.append(self.energies(detector, "be7", n))
        time, energy = np.concatenate(times), np.concatenate(energies)
        order = np.argsort(time)
        time, energy = time[order], energy[order]
        alive = np.diff(time, prepend=-1.0) > DEAD_S[detector]
        fast = time.size
        time, energy = time[alive], energy[alive]
        line = (time // line_s).astype(np.int64)
        column = np.minimum(((time - line * line_s) // self.dwell).astype(np.int64), self.nx)
        per_channel = 0.01 if detector == "pixe" else 0.25
        channel = np.rint(energy / per_channel / self.gain[detector]).astype(np.uint16)
        return time, channel, line * (self.nx + 1) + column + 1, fast, whole_s

    def charge(self, current=1.0):
        return np.full(self.nx * self.ny, CURRENT_A * self.dwell * current)
