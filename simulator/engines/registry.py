"""Engines by the name that the command line and reports use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from forecaster.history import Floats
from simulator.balancers import USUAL_BALANCER, Balancer
from simulator.engines.engine import NO_RETRIES, Engine, Retries
from simulator.engines.exact_fleet import ExactFleetEngine
from simulator.engines.fluid import FluidEngine
from simulator.engines.scaled import ScaledEngine
from simulator.pod import PodProfile


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an engine is told beside its pods and rates; one pod in `scale` is simulated."""

    seed: int = 0
    balancer: Balancer = USUAL_BALANCER
    slo_seconds: float = 1.0
    retries: Retries = NO_RETRIES
    scale: int = 1


NewEngine = Callable[[PodProfile, Floats, EngineSettings], Engine]
"""From a profile and the mean rate of each second."""


def _exact(profile: PodProfile, rates: Floats, settings: EngineSettings) -> Engine:
    engine = ExactFleetEngine(
        profile,
        rates,
        settings.seed,
        _at_scale(settings.balancer, settings.scale),
        settings.slo_seconds,
        settings.retries,
    )
    return engine if settings.scale == 1 else ScaledEngine(engine, rates, settings.scale)


def _at_scale(balancer: Balancer, scale: int) -> Balancer:
    """A gateway in front of one pod in `scale` holds one request in so many."""
    gateway = balancer.gateway
    if gateway is None or gateway.max_waiting is None:
        return balancer
    held = math.ceil(gateway.max_waiting / scale)
    return replace(balancer, gateway=replace(gateway, max_waiting=held))


def _fluid(profile: PodProfile, rates: Floats, settings: EngineSettings) -> Engine:
    return FluidEngine(profile, rates, settings.seed, settings.retries)


ENGINES: dict[str, NewEngine] = {"exact": _exact, "fluid": _fluid}
