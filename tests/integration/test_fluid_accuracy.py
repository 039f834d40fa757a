"""The fluid engine against the exact one: the same latencies, the same minutes out of SLO."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.engines.engine import Engine, Minutes
from simulator.engines.exact_fleet import ExactFleetEngine
from simulator.engines.fluid import FluidEngine
from simulator.pod import PROFILES

PROFILE = PROFILES["h100-1200"]
PODS = 20


def served(engine: Engine, seconds: int) -> Minutes:
    for _ in range(PODS):
        engine.add()
    engine.advance(seconds)
    engine.finish()
    return engine.minutes(1.0)


def test_an_hour_through_an_overload_and_back() -> None:
    load = np.concatenate(
        [
            np.linspace(0.5, 0.95, 1200),
            np.linspace(0.95, 1.06, 600),
            np.linspace(1.06, 0.7, 900),
            np.full(900, 0.7),
        ]
    )
    rates = load * PROFILE.saturation_qps * PODS
    fluid = served(FluidEngine(PROFILE, rates, 1), len(rates))
    exact = served(ExactFleetEngine(PROFILE, rates, 1, "p2c", 1.0), len(rates))
    error = np.abs(fluid.p99 / exact.p99 - 1)
    overloaded = exact.p99 > 1.2
    assert 5 < overloaded.sum() < 30
    assert error[~overloaded].mean() < 0.01
    assert error[overloaded].mean() < 0.05
    assert np.array_equal(fluid.p99 > 1.0, exact.p99 > 1.0)
    assert fluid.requests.sum() == pytest.approx(exact.requests.sum(), rel=0.001)
    assert fluid.failed.sum() == pytest.approx(exact.failed.sum(), rel=0.1)
