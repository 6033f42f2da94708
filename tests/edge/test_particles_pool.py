"""Several measurements put together: nothing of them changes but the numbers of their samples."""

from __future__ import annotations

import numpy as np
import pytest

from controller.offline.product import pack, unpack
from edge import particles_pool
from edge.particles_events import ParticleReducer, TraceResult
from edge.particles_runs import EventRules, Events
from tests.edge.particles_model import two_lines


def measured(rules: EventRules, first: int, samples: int, seed: int) -> TraceResult:
    trace, _ = two_lines(np.full(20, 0.4), seed, samples=samples)
    reducer = ParticleReducer(("Li", "Mn"), rules)
    reducer.add(first, trace)
    return reducer.result()


@pytest.mark.parametrize("window", [None, 4000])
def test_events_keep_every_bit_and_only_move(window: int | None):
    rules = EventRules(window=window)
    results = [measured(rules, first, 15_000 + first, 7 + first) for first in (0, 3000, 120)]
    pool = particles_pool.pooled(
        [particles_pool.restored(unpack(pack(particles_pool.state(r))), rules) for r in results]
    )
    moved = particles_pool.shifts(results)
    assert pool.n_samples == sum(r.n_samples for r in results)
    assert pool.n_missing == 0
    for line in (0, 1):
        done = 0
        for k, (one, shift) in enumerate(zip(results, moved, strict=True)):
            own = pool.events[line].where(np.arange(done, done + len(one.events[line])))
            done += len(own)
            for name in Events.__dataclass_fields__:
                back = getattr(own, name) - shift if name in particles_pool.PLACES else getattr(own, name)
                assert np.array_equal(back, getattr(one.events[line], name))
            first, last = pool.measurements[k]
            assert (first, last) == (one.first + shift, one.last + shift)
            mine = [
                b for n, b in pool.baselines[line] if pool.reach(n)[0] <= last and pool.reach(n)[1] > first
            ]
            assert mine == [b for _, b in one.baselines[line]]
        assert done == len(pool.events[line])
        assert (np.diff(pool.events[line].start) > 0).all()
    for (_, last), (first, _) in zip(pool.measurements, pool.measurements[1:], strict=False):
        assert first - last > particles_pool.GAP


def test_measurements_that_do_not_belong_together():
    one = measured(EventRules(), 0, 15_000, 1)
    with pytest.raises(ValueError, match="same rules"):
        particles_pool.pooled([one, measured(EventRules(min_points=2), 0, 15_000, 1)])
    with pytest.raises(ValueError, match="no measurements"):
        particles_pool.pooled([])
