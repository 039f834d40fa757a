"""Load to replicas and back, at the rate that one replica carries within the SLO."""

from __future__ import annotations

import math

from policies.context import Capacity


def replicas_for(load_qps: float, capacity: Capacity) -> int:
    """The fewest replicas that carry the load within the SLO.

    The small tolerance keeps a load that is an exact multiple of the capacity from costing one
    replica more for a rounding error in its last bit.
    """
    return max(0, math.ceil(load_qps / capacity.qps_per_replica - 1e-9))


def backlog_qps(waiting_requests: float, capacity: Capacity) -> float:
    """The extra rate at which a backlog must be served to be gone in time."""
    return max(0.0, waiting_requests) / capacity.backlog_seconds
