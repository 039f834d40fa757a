"""Capacity: from rates to a number of replicas, in plain arithmetic.

Numbers in, numbers out, so that sweeps over many settings run the very same code compiled.
"""

from __future__ import annotations

import math

HOT_SLOPE = 1.5
HOT_MARGIN = 1.0
HOT_SHARE = 0.85
"""Of the room between the rate within the SLO and saturation that a small margin may use."""
MOST_REPLICAS = 1e9
"""No fleet is larger; without an end a wild forecast has no whole number in compiled code."""


def rate_per_replica(within_slo: float, saturation: float, margin: float) -> float:
    """What a replica is loaded with: the rate within the SLO, and more where little margin is
    asked for, since bad requests are tolerated then.

    mu(k) = mu_slo * (1 + share * room / (1 + exp(slope * (k - 1)))) where room is
    saturation / mu_slo - 1.
    """
    room = max(0.0, saturation / within_slo - 1.0)
    steep = min(HOT_SLOPE * (margin - HOT_MARGIN), 50.0)
    return within_slo * (1.0 + HOT_SHARE * room / (1.0 + math.exp(steep)))


def replicas_at(load: float, rate: float) -> int:
    """The fewest replicas that carry a load. The small tolerance keeps a load that is an exact
    multiple of the rate from costing one replica more for a rounding error in its last bit."""
    return max(0, math.ceil(min(load / rate, MOST_REPLICAS) - 1e-9))


def needed(observed: float, waiting: float, saturation: float, backlog_seconds: float) -> float:
    """Load that is there already: what arrives, and what waits, worked off in time.

    In units of the rate within the SLO: a replica that only has to keep up may run at saturation,
    which is `saturation` times that rate.
    """
    return observed / saturation + max(0.0, waiting) / backlog_seconds


def desired(order: int, hold: int, current: int) -> int:
    """Rise to the order at once; fall no lower than the hold, and not below the order."""
    return max(order, min(current, hold))
