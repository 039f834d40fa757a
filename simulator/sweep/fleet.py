"""The compiled fleet: pods as counts, requests as a fluid, a slice of a second or more at a time.

Knows a constant cold start, drains and the fluid engine's formulas. It is what sweeps and the
daily calibration run on; verdicts come from the full loop and the exact engine.
"""

from __future__ import annotations

import numpy as np

from forecaster.compiled import compiled
from simulator.engines.fluid import still_waiting

READY, STARTING, OLDEST, BACKLOG, POD_SECONDS = range(5)
"""Places in a fleet's state: ready and starting pods, the oldest order that may still be
starting, waiting requests, and what was billed but for drains."""
STATE_WIDTH = 5


@compiled
def order(state, orders, tick, wanted):  # type: ignore[no-untyped-def]
    """Change the number asked for to `wanted`: the youngest starting pods go first. Returns how
    many ready ones go."""
    surplus = state[READY] + state[STARTING] - wanted
    if surplus <= 0:
        orders[tick] -= surplus
        state[STARTING] -= surplus
        return 0.0
    back = tick
    while surplus > 0 and state[STARTING] > 0:
        gone = min(surplus, orders[back])
        orders[back] -= gone
        state[STARTING] -= gone
        surplus -= gone
        back -= 1
    state[READY] -= surplus
    return surplus


@compiled
def start(state, orders, tick_seconds, cold_seconds, second):  # type: ignore[no-untyped-def]
    """Pods whose cold start has ended by now serve."""
    oldest = int(state[OLDEST])
    while oldest < len(orders) and oldest * tick_seconds + cold_seconds <= second:
        state[READY] += orders[oldest]
        state[STARTING] -= orders[oldest]
        orders[oldest] = 0.0
        oldest += 1
    state[OLDEST] = oldest


@compiled
def serve(  # type: ignore[no-untyped-def]
    state, arrivals, overdue, at, seconds, pod, length_cdf, slo, seen
):
    """The slice of traffic at a place. Returns late and failed requests; `seen` takes running and
    waiting, and `overdue`, which has a place a slice, those that will not be served in time.

    `pod`: idle step seconds, its slope a sequence, sequences at most, output tokens, front end
    seconds, timeout seconds. The formulas are the fluid engine's.
    """
    idle, slope, sequences, tokens, front_end, timeout = pod
    pods = state[READY]
    state[POD_SECONDS] += (pods + state[STARTING]) * seconds
    full = idle + slope * sequences
    ceiling = sequences / (tokens * full) * pods
    before = state[BACKLOG]
    wait = 0.0
    failed = 0.0
    came = arrivals[at]
    if pods > 0 and before == 0.0 and came < ceiling * seconds * (1 - 1e-9):
        step = idle / (1 - slope * tokens * came / seconds / pods)
        seen[0] = came / seconds * tokens * step
        seen[1] = 0.0
    else:
        waiting = max(0.0, before + came - ceiling * seconds)
        failed = max(0.0, waiting - ceiling * timeout)
        state[BACKLOG] = waiting - failed
        step = full
        wait = (before + state[BACKLOG]) / 2 / ceiling if pods > 0 else 0.0
        seen[0] = sequences * pods
        overdue[at] = failed if pods > 0 else 0.0
        seen[1] = state[BACKLOG] + still_waiting(overdue, at, timeout / seconds)
    longest = int(np.floor((slo - wait - front_end) / max(step, 1e-12) - 0.5))
    within = 0.0 if longest < 0 else length_cdf[min(longest, len(length_cdf) - 1)]
    return max(came - failed, 0.0) * (1 - within), failed
