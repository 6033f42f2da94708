"""Every streaming reducer: data in parts, reduced apart, merged in several orders: the bits of one pass.

Compton, particles, radiography, tomography, projected maps and gamma have this test beside the others of
theirs (``test_compton_frames``, ``test_particles_events``, ``test_radiography``, ``test_tomography_scan``,
``test_spectra``); here are the ion beam, impedance, cycling and the maps of others.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edge.cycling import Accuracy, CyclingReducer, Records
from edge.foreign_maps import MassSums, make_window
from edge.geometry import Grid
from edge.impedance import ImpedanceRules, SweepSeries
from edge.impedance_circuits import parse
from edge.ion_beam import Events, IonBeamReducer, PassStart, ScanStart
from edge.settings import Settings
from edge.spectra import MapSums
from tests.edge.ion_beam_model import SETTINGS, Model
from tests.edge.test_ion_beam import add_pass

PARTS = 4
Made = tuple[list[Any], Callable[[Any], object]]  # the whole and the parts; what is compared


def ion_beam() -> Made:
    """Events of an open pass dealt out at random, and finished passes on top of them."""
    settings = Settings.from_dict(copy.deepcopy(SETTINGS))
    start = ScanStart(0, "as prepared", "reference", Grid(**Model(8, 12, dwell=0.3).raster()))
    reducers = [IonBeamReducer(settings) for _ in range(PARTS + 1)]
    for reducer in reducers:
        reducer.add(start)
    for n in range(1, PARTS + 1):
        for reducer in (reducers[0], reducers[n]):
            reducer.gains = {name: type(gain)() for name, gain in reducer.gains.items()}
            add_pass(reducer, Model(8, 12, dwell=0.3, seed=50 + n), 0, n)
    found = [reducer.gains for reducer in reducers[1:]]
    for reducer in reducers:  # the windows of the pass that is open now lie where they lay for all
        reducer.gains = {name: type(gain)() for name, gain in reducer.gains.items()}
        reducer.add(PassStart(0, 99))
    for reducer, gains in zip(reducers[1:], found, strict=True):
        reducer.gains = gains  # four scales, each followed over one pass
    best = {name: max((gains[name] for gains in found), key=lambda g: g.value) for name in found[0]}
    assert len({gains["pixe"].value for gains in found}) == PARTS
    reducers[0].gains = best
    rng = np.random.default_rng(5)
    for name in ("pixe", "pige"):
        _, channel, frame, *_ = Model(8, 12, dwell=0.3, seed=40).one_pass(name)
        dealt = rng.integers(1, PARTS + 1, channel.size)
        reducers[0].add(Events(0, 99, name, channel, frame))
        for k in range(1, PARTS + 1):
            reducers[k].add(Events(0, 99, name, channel[dealt == k], frame[dealt == k]))

    def said(reducer: IonBeamReducer) -> object:
        counts = reducer.open[0, 99]
        bits = [
            getattr(counts[name], part).tobytes() for name in counts for part in ("segments", "spectrum_off")
        ]
        blocks = reducer.scans[0].blocks
        sums = [blocks[n].detectors[name].segments.tobytes() for n in sorted(blocks) for name in counts]
        charges = [(n, blocks[n].time_us.tobytes(), blocks[n].charge.tobytes()) for n in sorted(blocks)]
        return reducer.scans[0].passes, bits, sums, charges, reducer.gains, reducer.result().to_dict()

    return list(reducers), said


def impedance() -> Made:
    circuit, f = parse("R0-p(R1,C1)"), np.geomspace(1e4, 1.0, 24)
    rng = np.random.default_rng(6)
    series = [SweepSeries(ImpedanceRules(circuit)) for _ in range(PARTS + 1)]
    for soc in (0.2, 0.8):
        z = circuit.impedance(np.array([0.02, 0.01 + 0.02 * soc, 0.05]), f)
        z = z * (1 + 1e-3 * (rng.normal(size=24) + 1j * rng.normal(size=24)))
        dealt = rng.integers(1, PARTS + 1, 24)
        series[0].add(soc, 1, f, z)
        for k in range(1, PARTS + 1):
            series[k].add(soc, 1, f[dealt == k], z[dealt == k])

    def said(one: SweepSeries) -> object:
        return [
            (r.label, r.z_ohm.tobytes(), r.fit.values.tobytes()) for r in one.result() if r.fit is not None
        ]

    return list(series), said


def cycling() -> Made:
    rng = np.random.default_rng(7)
    n = 400
    current = np.where(np.arange(n) < 200, 0.1, -0.1) + rng.normal(0, 1e-5, n)
    columns = {
        "cycle": np.ones(n, np.int64), "step": np.where(np.arange(n) < 200, 1, 2),
        "time_s": np.arange(n) * 7.3,
        "current_a": current, "voltage_v": 3.6 + np.cumsum(current) * 0.01,
        "state": np.where(np.arange(n) < 200, 1, -1),
    }  # fmt: skip

    def records(rows: slice) -> Records:
        return Records(**{name: values[rows] for name, values in columns.items()})

    reducers = [CyclingReducer() for _ in range(PARTS + 1)]
    for k, (first, last) in enumerate(pairwise((0, 33, 190, 230, 233, 300, 399, n))):
        reducers[0].add(k, records(slice(first, last)))
        reducers[1 + k % PARTS].add(k, records(slice(first, last)))
    return list(reducers), lambda one: pickle.dumps(one.result(Accuracy(current_resolution_a=1e-6))[1])


def map_sums() -> Made:
    rng = np.random.default_rng(8)
    sums = [MapSums(12, 2, rng.random((3, 2, 64)) < 0.2) for _ in range(1)]
    sums += [MapSums(12, 2, sums[0].windows) for _ in range(PARTS)]
    columns = [rng.integers(0, high, 4000) for high in (12, 2, 70, 9)]
    dealt = rng.integers(1, PARTS + 1, 4000)
    sums[0].add(*columns)
    for k in range(1, PARTS + 1):
        sums[k].add(*(column[dealt == k] for column in columns))
    return list(sums), lambda s: (s.spectra.tobytes(), s.maps.tobytes(), s.totals.tobytes(), s.outside)


def mass_sums() -> Made:
    rng = np.random.default_rng(9)
    window, edges = make_window("Li", 7.016, 0.05, [7.016], background=True), np.linspace(0.0, 20.0, 41)
    sums = [MassSums(9, (window,), edges) for _ in range(PARTS + 1)]
    for _ in range(60):
        spectrum = (
            int(rng.integers(9)),
            rng.uniform(6.8, 7.3, 30),
            rng.poisson(2.0, 30) * rng.choice([1.0, 0.5]),
        )
        sums[0].add(*spectrum)
        sums[int(rng.integers(1, PARTS + 1))].add(*spectrum)
    return list(sums), lambda s: (s.maps.tobytes(), s.totals.tobytes(), s.spectrum.tobytes(), s.not_counts)


@pytest.mark.parametrize("make", [ion_beam, impedance, cycling, map_sums, mass_sums])
def test_parts_merged_in_any_order_are_one_pass(make: Callable[[], Made]):
    (whole, *parts), said = make()
    expected = said(whole)
    assert said(parts[0]) != expected  # a part is not all of it
    for order in itertools.islice(itertools.permutations(range(PARTS)), 0, None, 5):
        first, *others = (copy.deepcopy(parts[k]) for k in order)
        for other in others:
            first.merge(other)
        assert said(first) == expected
    a, b, c, d = (copy.deepcopy(part) for part in parts)
    c.merge(d)
    a.merge(b)
    c.merge(a)  # pairs of pairs, as a tree does
    assert said(c) == expected
