"""The offline optimum: what a planner that knows the future would pay.

Closed form, level by level: the k-th pod is kept across a gap in its need exactly when the gap is
no longer than a cold start, else stopped and restarted; every start is billed its cold start.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.history import Floats


def need(demand_qps: Floats, qps_per_replica: float) -> npt.NDArray[np.int64]:
    """Pods that carry the demand of each slot within the SLO."""
    return np.ceil(demand_qps / qps_per_replica - 1e-9).astype(np.int64)


def optimum_pod_slots(pods: npt.NDArray[np.int64], cold_start_slots: int) -> int:
    """Pod-slots of the cheapest schedule, cold starts billed.

    The stock at the first slot is free; a gap at the end is never kept.
    """
    total = 0
    for level in range(1, int(pods.max(initial=0)) + 1):
        on = np.flatnonzero(pods >= level)
        gaps = np.diff(on) - 1
        total += len(on) + int(np.minimum(gaps, cold_start_slots).sum())
        total += min(int(on[0]), cold_start_slots)
    return total
