"""The waterfall: why more was paid than the least that the demand could have cost.

Pure: minutes and the optimum in, slices that add up out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.history import Floats
from storage.reports import words
from storage.reports.minutes import Minutes

_SURPLUS = {
    words.FORECAST: "ready ahead of forecast demand",
    words.OBSERVED: "above the demand that was followed",
    words.LIMIT: "kept by limits and stabilization",
    words.DOUBT: "kept while inputs were in doubt",
    words.BOUND: "bounds and fixed numbers",
    words.PEOPLE: "overrides and pauses",
}


@dataclass(frozen=True, slots=True)
class Slice:
    """GPU-hours that one cause added, or saved where negative; a total stands for all so far."""

    label: str
    pod_hours: float
    total: bool = False


def waterfall(minutes: Minutes, optimum_pod_hours: float) -> tuple[Slice, ...]:
    """From the optimum to what was used; the slices between add up to the difference.

    Ready replicas beyond what the minute's demand needed are shared out among the kinds of rules
    that bound in it.
    """
    need = minutes.carried_need
    surplus = minutes.ready - need
    slices = [
        Slice("less the optimum's starts and gaps", minutes.hours(need) - optimum_pod_hours),
        Slice("cold starts", minutes.hours(minutes.starting)),
        Slice("draining", minutes.hours(minutes.draining)),
        *_by_family(minutes, np.maximum(surplus, 0.0)),
        Slice("too few replicas", minutes.hours(np.minimum(surplus, 0.0))),
    ]
    return (
        Slice("optimum", optimum_pod_hours, total=True),
        *(one for one in slices if abs(one.pod_hours) > 1e-9),
        Slice("used", minutes.hours(minutes.provisioned), total=True),
    )


def _by_family(minutes: Minutes, surplus: Floats) -> list[Slice]:
    shares = {name: np.zeros(len(minutes)) for name in words.FAMILIES}
    for index, counts in enumerate(minutes.reasons):
        total = sum(counts.values())
        for reason, count in counts.items():
            shares[words.family(reason)][index] += count / total
    return [Slice(_SURPLUS[name], minutes.hours(surplus * share)) for name, share in shares.items()]
