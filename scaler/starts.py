"""Starts: how long pods took from their creation until they served, as it was seen.

Knows no cluster; whoever sees pods tells it. A pod counts once, by the first time that it was
ready: after that it may lose its readiness and come back, which is no start.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime, timedelta
from statistics import quantiles

from policies.context import LeadTime

REMEMBERED = timedelta(days=7)
LONGEST_SECONDS = 3600.0
"""What takes longer was no start: a pod that lost its readiness long ago and came back while nobody
looked, or one that waited for a quota."""
FEWEST = 20
"""Below so many a P95 is one pod's bad luck."""


class Starts:
    """Those of the last seven days. One thread may tell while another asks."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, tuple[datetime, float]] = {}

    def __contains__(self, pod: Hashable) -> bool:
        return pod in self._seconds

    def note(self, pod: Hashable, created_at: datetime, seconds: float) -> None:
        """That it was ready so many seconds after its creation; only the first time counts."""
        self._seconds.setdefault(pod, (created_at, seconds))

    def lead_time(self, now: datetime, fewest: int = FEWEST) -> LeadTime | None:
        """P50 and P95; None with fewer pods. The age of metrics is not measured and stays 0."""
        for pod, (created_at, _) in list(self._seconds.items()):
            if now - created_at > REMEMBERED:
                del self._seconds[pod]
        taken = [took for _, took in list(self._seconds.values()) if took <= LONGEST_SECONDS]
        if len(taken) < fewest:
            return None
        percentiles = quantiles(taken, n=100, method="inclusive")
        source = f"measured on {len(taken)} pods"
        return LeadTime(percentiles[49], percentiles[94], source=source)
