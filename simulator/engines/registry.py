"""Engines by the name that the command line and reports use."""

from __future__ import annotations

from collections.abc import Callable

from forecaster.history import Floats
from simulator.engines.engine import Engine, Retries
from simulator.engines.exact_fleet import ExactFleetEngine
from simulator.engines.fluid import FluidEngine
from simulator.pod import PodProfile

NewEngine = Callable[[PodProfile, Floats, int, str, float, Retries], Engine]
"""From a profile, the mean rate of each second, a seed, a balancer's name, the objective and what
becomes of lost requests."""


def _fluid(
    profile: PodProfile,
    rates: Floats,
    seed: int,
    _balancer: str,
    _slo_seconds: float,
    retries: Retries,
) -> Engine:
    return FluidEngine(profile, rates, seed, retries)


ENGINES: dict[str, NewEngine] = {"exact": ExactFleetEngine, "fluid": _fluid}
