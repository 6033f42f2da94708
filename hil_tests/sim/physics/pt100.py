"""A Pt100 that reports something else than its temperature: frozen, displaced, drifting or noisy.

An open or shorted one is the business of the instrument that measures it; these are the faults that no
instrument can see in a single reading.
"""

from __future__ import annotations

import random


class Sensor:
    """What stands between the temperature of the element and the input of an instrument. Kelvin.

    Args:
        seed: of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._frozen_k: float | None = None
        self.mend()

    def mend(self) -> None:
        """Make it report its temperature again."""
        self._frozen_k = None
        self.offset_k = 0.0
        self.drift_k_per_s = 0.0
        self.noise_k = 0.0

    def freeze(self, true_k: float) -> None:
        """Report from now on what it reports now."""
        self._frozen_k = self.reading_k(true_k)

    def process(self, dt_s: float) -> None:
        """Let the offset drift for ``dt_s`` seconds."""
        self.offset_k += self.drift_k_per_s * dt_s

    def reading_k(self, true_k: float) -> float:
        """Return what it reports at a temperature."""
        if self._frozen_k is not None:
            return self._frozen_k
        noise_k = self._random.gauss(0.0, self.noise_k) if self.noise_k > 0.0 else 0.0
        return true_k + self.offset_k + noise_k
