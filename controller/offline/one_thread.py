"""Imported before numpy: one thread for linear algebra, because sums over several end in other last bits.

Which bits depends on the number of cores; with one thread a board and a cluster come to the same.
"""

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
