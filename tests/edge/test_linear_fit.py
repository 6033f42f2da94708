"""Many spectra at once: against a plain fit, by pulls at any counts, beside weights from the data."""

import importlib.util

import numpy as np
import pytest

from edge.linear_fit import BATCH, Shapes
from edge.peaks import fit_templates, gaussian
from edge.uncertainty import pulls

CHANNELS = 300
DRAWS = 3_200


def shapes():
    x = np.arange(CHANNELS, dtype=float)
    rows = [0.87 * gaussian(x, c, 14.0) + 0.13 * gaussian(x, 1.1 * c, 15.0) for c in (60.0, 120.0, 180.0)]
    rows += [np.full(CHANNELS, 1.0), np.exp(-3 * x / CHANNELS)]
    return np.array([row / row.sum() for row in rows])


TEMPLATES = shapes()


def drawn(counts, seed=17):
    truth = np.array([0.25, 0.05, 0.2, 0.3, 0.2]) * counts
    return np.random.default_rng(seed).poisson(truth @ TEMPLATES, (DRAWS, CHANNELS)), truth


def test_exact_shapes_come_back():
    truth = np.array([[100.0, 5.0, 0.0, 800.0, 40.0], [0.0, 0.0, 3e5, 1.0, 2e5]])
    for fit in (
        Shapes(TEMPLATES).unweighted(truth @ TEMPLATES),
        Shapes(TEMPLATES).weighted(truth @ TEMPLATES),
    ):
        assert np.allclose(fit.amplitudes, truth, rtol=1e-4, atol=0.5)


def test_it_is_the_fit_of_one_spectrum():
    """Against numpy in 64 bits, a batch that is not full included; weights iterated as often."""
    spectra, _ = drawn(5_000.0)
    spectra = spectra[: BATCH + 5]
    fit = Shapes(TEMPLATES).weighted(spectra, iterations=4)
    plain = Shapes(TEMPLATES).unweighted(spectra)
    gain = np.linalg.pinv(TEMPLATES.T)
    assert np.allclose(plain.amplitudes, spectra @ gain.T, atol=0.02)
    assert np.allclose(plain.sigma, np.sqrt(spectra @ (gain**2).T), rtol=1e-4)
    for i in (0, 7, BATCH + 4):
        one = fit_templates(spectra[i], TEMPLATES)
        assert np.allclose(fit.amplitudes[i], one.amplitudes, atol=0.02 * np.sqrt(one.covariance[0, 0]))
        assert np.allclose(fit.sigma[i], np.sqrt(np.diag(one.covariance)), rtol=0.02)


@pytest.mark.parametrize("counts", [200_000.0, 5_000.0, 600.0])
def test_pulls(counts):
    """High, medium and few counts (two per channel): 0 +- 1, without weights and with those of the model."""
    spectra, truth = drawn(counts)
    for fit in (Shapes(TEMPLATES).unweighted(spectra), Shapes(TEMPLATES).weighted(spectra)):
        for k in range(3):
            mean, std = pulls(fit.amplitudes[:, k], truth[k], fit.sigma[:, k])
            assert abs(mean) < 0.1
            assert 0.95 < std < 1.05


def test_coverage_at_two_counts_per_channel():
    spectra, truth = drawn(600.0, seed=23)
    fit = Shapes(TEMPLATES).weighted(spectra)
    for sigmas, level in ((1.0, 0.6827), (2.0, 0.9545)):
        covered = np.mean(np.abs(fit.amplitudes[:, :3] - truth[:3]) <= sigmas * fit.sigma[:, :3])
        assert covered == pytest.approx(level, abs=0.02)


def data_weighted(spectra):
    amplitudes, sigmas = [], []
    for one in spectra:
        weighted = TEMPLATES / np.maximum(one, 1.0)
        covariance = np.linalg.inv(weighted @ TEMPLATES.T)
        amplitudes.append(covariance @ weighted @ one)
        sigmas.append(np.sqrt(np.diag(covariance)))
    return np.array(amplitudes), np.array(sigmas)


def pymca(spectra, weight):
    """The linear algebra of PyMca's fast fit, as it calls it for ``weight`` 0 and 2."""
    from PyMca5.PyMcaMath.linalg import lstsq

    found = lstsq(TEMPLATES.T, spectra.T.astype(float), digested_output=True, svd=weight == 0,
                  sigma_b=None, weight=int(weight > 0))  # fmt: skip
    return found["parameters"].T, found["uncertainties"].T


def test_weights_from_the_data_are_biased_and_ours_are_not():
    spectra, truth = drawn(600.0)
    biased = data_weighted(spectra[:800])
    ours = Shapes(TEMPLATES).weighted(spectra)
    theirs = [np.mean((biased[0][:, k] - truth[k]) / biased[1][:, k]) for k in range(3)]
    mine = [np.mean((ours.amplitudes[:, k] - truth[k]) / ours.sigma[:, k]) for k in range(3)]
    assert np.mean(theirs) < -0.7  # sigma, at two counts per channel
    assert np.max(np.abs(mine)) < 0.1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(
    importlib.util.find_spec("PyMca5") is None, reason="PyMca5 is only in the extra benchmarks"
)
def test_pymca_beside_ours():
    """Weighted by the data it is biased; unweighted its errors are wrong. Same spectra, same shapes."""
    spectra, truth = drawn(600.0)
    amplitudes, sigmas = pymca(spectra[:800], 2)
    assert np.mean((amplitudes - truth)[:, :3] / sigmas[:, :3]) < -0.5
    amplitudes, sigmas = pymca(spectra, 0)
    ours = Shapes(TEMPLATES).unweighted(spectra)
    assert np.allclose(amplitudes, ours.amplitudes, atol=0.05)  # the same estimate
    their_std = np.std((amplitudes - truth)[:, :3] / sigmas[:, :3])
    our_std = np.std((ours.amplitudes - truth)[:, :3] / ours.sigma[:, :3])
    assert abs(our_std - 1.0) < 0.05 < abs(their_std - 1.0)


def test_refusals():
    with pytest.raises(ValueError, match="linearly dependent"):
        Shapes(np.array([TEMPLATES[0], 2 * TEMPLATES[0]]))
    with pytest.raises(ValueError, match="do not fit 300 channels"):
        Shapes(TEMPLATES).weighted(np.zeros((2, 5)))


def test_spectra_without_counts():
    fit = Shapes(TEMPLATES).weighted(np.zeros((3, CHANNELS)))
    assert np.array_equal(fit.amplitudes, np.zeros((3, 5)))
    assert np.all(fit.sigma > 0)
