"""The audit of a workload: the log's own figures, the optimum, and what other policies would have
done on the demand that was recorded.

Knows how the parts of a report are put together. Knows no command line and no page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isfinite

import numpy as np
from sqlalchemy import Engine

from forecaster.history import Floats
from policies.context import ScalingContext
from simulator.clairvoyant import optimum_pod_slots
from storage.reports import timeline
from storage.reports.audit import (
    AuditReport,
    Comparison,
    Coverage,
    audit_of,
    counterfactual_run,
    recorded_run,
)
from storage.reports.counterfactual import (
    DEFAULT_LEAD_SECONDS,
    as_if,
    as_it_ran,
    reference_settings,
    reproduction,
)
from storage.reports.findings import Objective, came_in_span
from storage.reports.minutes import Minutes, contexts_of, read_minutes

DEFAULT_SLO_SECONDS = 1.0


def audit(
    engine: Engine,
    workload: str,
    since: datetime,
    until: datetime,
    slo_seconds: float = DEFAULT_SLO_SECONDS,
    price_per_pod_hour: float | None = None,
) -> AuditReport:
    """The whole audit of [since, until), with the capacity that decisions were made with.

    Raises StoreError where the log cannot be read, NoDecisionError where it has no decision there.
    """
    minutes = read_minutes(engine, workload, since, until)
    events = timeline.scale_events(engine, workload, since, until)
    chosen = _objective(minutes, slo_seconds, price_per_pod_hour)
    if not len(minutes) or not np.isfinite(minutes.qps_per_replica).any():
        return audit_of(minutes, events, since, until, chosen, Comparison())
    optimum = optimum_pod_hours(minutes)
    ours = recorded_run(minutes, since, until, chosen, events, optimum)
    others = (
        counterfactual_run(minutes, as_if(minutes, settings), since, until, optimum)
        for settings in reference_settings(minutes).values()
    )
    judge = Judge(came_in_span(minutes))
    again = as_it_ran(minutes, judge.seeing(contexts_of(engine, minutes)))
    found = Comparison(
        runs=(ours, *others),
        clairvoyant_pod_hours=optimum,
        reproduction=None if again is None else reproduction(minutes, again),
        coverage=judge.coverage,
    )
    return audit_of(minutes, events, since, until, chosen, found)


def last_moment(engine: Engine, workloads: Sequence[str]) -> datetime | None:
    """Just after the newest decision of these workloads; None where there is none."""
    newest = [
        decision.at for name in workloads for decision in timeline.last_decisions(engine, name, 1)
    ]
    return max(newest) + timedelta(microseconds=1) if newest else None


def _objective(minutes: Minutes, slo_seconds: float, price: float | None) -> Objective:
    known = minutes.qps_per_replica[np.isfinite(minutes.qps_per_replica)]
    return Objective(slo_seconds, float(np.median(known)) if len(known) else 1.0, price)


def optimum_pod_hours(minutes: Minutes) -> float:
    """Of a planner who knew the recorded demand, cold starts billed; what was not known is taken
    to be what the minute before it needed."""
    slots = np.maximum(1, minutes.held_seconds // 60).astype(np.int64)
    each = np.repeat(minutes.carried_need, slots)
    lead = minutes.lead_seconds[np.isfinite(minutes.lead_seconds)]
    cold = float(np.median(lead)) if len(lead) else DEFAULT_LEAD_SECONDS
    return optimum_pod_slots(each.astype(np.int64), round(cold / 60)) / 60


@dataclass(slots=True)
class Judge:
    """How often each stated quantile of the order window held what came, by the minute."""

    came: Floats
    held: Counter[float] = field(default_factory=Counter)
    judged: Counter[float] = field(default_factory=Counter)

    def seeing(self, contexts: Iterator[ScalingContext | None]) -> Iterator[ScalingContext | None]:
        """The same contexts, judged as they pass."""
        for context, peak in zip(contexts, self.came.tolist(), strict=True):
            forecast = context.forecast if context is not None else None
            order = forecast.window("order") if forecast is not None else None
            if order is not None and isfinite(peak):
                for point in order.quantiles:
                    self.judged[point.level] += 1
                    self.held[point.level] += peak <= point.qps
            yield context

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        found = sorted(self.judged.items())
        return tuple(Coverage(level, self.held[level] / count) for level, count in found)
