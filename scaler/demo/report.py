"""The demo's report: its log, and what the same day would have been under other policies."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from scaler.audit import Measured, Period, audit
from scaler.demo.service import WORKLOAD, DemoRun
from simulator.scorecard import Scorecard
from storage.reports.report import AuditReport, PolicyRun

LABELS = {
    "predictive": "daybreak",
    "asymmetric_concurrency": "reactive",
    "hpa": "HPA",
    "static": "static peak",
}
PRICE_PER_POD_HOUR = 3.0
"""An H100's hour at list price, in dollars; only for the sums in the report."""


def audit_report(run: DemoRun, engine: Engine) -> AuditReport:
    period = Period(
        WORKLOAD,
        run.starts_at,
        run.until,
        run.settings.workloads[0].slo.p99_seconds,
        PRICE_PER_POD_HOUR,
    )
    runs = tuple(_policy_run(card, run) for card in run.scorecards)
    return audit(engine, period, Measured(runs, run.scorecards[0].clairvoyant_pod_hours))


def _policy_run(card: Scorecard, run: DemoRun) -> PolicyRun:
    return PolicyRun(
        label=LABELS[card.policy],
        policy=card.policy,
        pod_hours=card.pod_hours,
        excess=card.excess,
        bad_ratio=card.bad_ratio,
        bad_by_minute=card.bad_by_minute,
        p99_seconds=card.p99_seconds,
        worst_minute_p99=card.worst_minute_p99,
        worst_minute_at=run.starts_at + timedelta(minutes=card.worst_minute),
        minutes_p99_over_slo=card.minutes_p99_over_slo,
        scale_ups=card.scale_ups,
        scale_downs=card.scale_downs,
        max_replicas=card.max_replicas,
        starts_at=run.starts_at,
        p99_by_minute=card.p99_by_minute,
        demand_by_minute=card.demand_by_minute,
        ready_by_minute=card.ready_by_minute,
        parameters=tuple(sorted(run.parameters.get(card.policy, {}).items())) or None,
    )
