"""The offline optimum: what a planner that knows the future would pay.

Closed form, level by level: the k-th pod is kept across a gap in its need exactly when the gap is
no longer than a cold start, else stopped and restarted; every start is billed its cold start.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Limits:
    """What binds a planner beside the need, in pods and slots; None is no limit.

    `max_up` and `max_down` are pods a slot; `min_life_slots` is how long a started pod must run.
    """

    max_up: int | None = None
    max_down: int | None = None
    min_life_slots: int = 0
    max_pods: int | None = None


def optimum_under_limits(
    pods: npt.NDArray[np.int64], cold_start_slots: int, limits: Limits
) -> float:
    """Pod-slots of the cheapest schedule under limits, by linear programme (HiGHS).

    min sum n + C sum u  with  n_t = n_(t-1) + u_t - d_t,  n_t >= need_t, the stock at the first
    slot free, and n_t >= sum of the starts within a minimum life. Without limits it equals
    `optimum_pod_slots`. Raises ValueError where the need cannot be met.
    """
    # Imported here: the closed form is asked for often, and need not wait for a solver.
    from scipy import sparse  # noqa: PLC0415
    from scipy.optimize import linprog  # noqa: PLC0415

    slots = len(pods)
    if slots == 0:
        return 0.0
    ones = np.ones(slots)
    cost = np.concatenate([ones, cold_start_slots * ones, 0 * ones])
    bounds = [
        *((float(wanted), limits.max_pods) for wanted in pods),
        (0.0, 0.0),  # the first stock is there from the start, at no cost
        *[(0.0, limits.max_up)] * (slots - 1),
        (0.0, 0.0),
        *[(0.0, limits.max_down)] * (slots - 1),
    ]
    identity, none = sparse.identity(slots), sparse.csr_matrix((slots, slots))
    step = (identity - sparse.eye(slots, k=-1)).tocsr()[1:]
    balance = sparse.hstack([step, -identity.tocsr()[1:], identity.tocsr()[1:]])
    life = max(1, limits.min_life_slots)
    started = sparse.diags_array(
        [np.ones(slots - back) for back in range(min(life, slots))],
        offsets=[-back for back in range(min(life, slots))],
    )
    alive = sparse.hstack([-identity, started, none])
    found = linprog(
        cost,
        A_eq=balance if slots > 1 else None,
        b_eq=np.zeros(slots - 1) if slots > 1 else None,
        A_ub=alive if limits.min_life_slots else None,
        b_ub=np.zeros(slots) if limits.min_life_slots else None,
        bounds=bounds,
        method="highs",
    )
    if not found.success:
        raise ValueError(f"no schedule meets the need under these limits: {found.message}")
    return float(found.fun)
