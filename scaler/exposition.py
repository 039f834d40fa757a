"""Exposition: what the loops do, as Prometheus metrics.

Knows the names that dashboards and alerts rely on. Knows no server and no clock. A figure that is
not known is removed rather than shown as zero, with one exception: `daybreak_desired_replicas` is
a decision and not a measurement, so the last one stands until there is another. An autoscaler that
reads a missing series as zero would otherwise drop the fleet when one tick fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from forecaster.forecast import FittedModel
from policies.context import ScalingContext
from policies.decision import NOT_APPLIED
from scaler.band import forecast_band
from scaler.loop import TickResult
from scaler.rounds import Failure

TICK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
NO_MODES: Mapping[str, str] = MappingProxyType({})


class Exposition:
    """The metrics of one daemon; safe to use from several threads.

    `modes` names the mode that each workload runs in, such as "shadow".
    """

    def __init__(self, registry: CollectorRegistry, modes: Mapping[str, str] = NO_MODES) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"daybreak_{name}", text, ["workload", *labels], registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"daybreak_{name}", text, ["workload", *labels], registry=registry)

        self._demand = gauge("demand_qps", "Trusted observed demand, requests a second.")
        self._forecast = gauge(
            "forecast_qps",
            "Forecast demand one lead time ahead, requests a second; capacity is ordered for high.",
            "bound",
            "horizon",
        )
        self._replicas = gauge("replicas", "Replicas of the target by state.", "state")
        self._desired = gauge(
            "desired_replicas",
            "Replicas that the last decision asks for; stands until the next, also over a restart.",
        )
        self._trusted = gauge(
            "forecast_trusted", "1 where the forecast may order capacity, else 0."
        )
        self._skill = gauge("forecast_skill", "1 - error / error of the seasonal naive forecast.")
        self._age = gauge("data_age_seconds", "Age of the demand figure at the last decision.")
        self._lead = gauge("lead_time_seconds", "From creation to ready, by quantile.", "quantile")
        self._mode = gauge("mode", "1 for the mode that the workload runs in.", "mode")
        self._decided_at = gauge(
            "last_decision_timestamp_seconds", "When the last decision was made, Unix time."
        )
        self._fitted_at = gauge("model_fitted_timestamp_seconds", "When the model was fitted.")
        self._decisions = counter("decisions", "Decisions by the reason that bound.", "reason")
        self._outcomes = counter("outcomes", "What became of decisions.", "outcome")
        self._not_applied = gauge(
            "not_applied", "1 where this became of the last decision, else 0.", "outcome"
        )
        self._problems = counter("problems", "Doubts about inputs.", "source", "kind")
        self._failures = counter("tick_failures", "Ticks that came to no decision.")
        self._skipped = counter(
            "ticks_skipped", "Rounds without the workload: its tick before was not done."
        )
        self._refit_failures = counter("refit_failures", "Fits that failed; the old model stays.")
        self._seconds = Histogram(
            "daybreak_tick_seconds",
            "Wall time of a tick.",
            ["workload"],
            registry=registry,
            buckets=TICK_BUCKETS,
        )
        for workload, mode in modes.items():
            self._mode.labels(workload, mode).set(1)
        for workload in modes:
            # A counter that starts at 0 lets an alert see its first increase.
            self._failures.labels(workload)
            self._skipped.labels(workload)
            self._refit_failures.labels(workload)

    def recall(self, workload: str, at: datetime, desired: int) -> None:
        """Take in what was decided before this process was there."""
        self._decided_at.labels(workload).set(at.timestamp())
        self._desired.labels(workload).set(desired)

    def observe(self, result: TickResult | Failure, tick_seconds: float | None = None) -> None:
        """Take in a tick, and how long it took where that is known."""
        if isinstance(result, Failure):
            self._failures.labels(result.workload).inc()
            self._forget_measurements(result.workload)
            if tick_seconds is not None:
                self._seconds.labels(result.workload).observe(tick_seconds)
            return
        context, workload = result.context, result.context.workload
        if tick_seconds is not None:
            self._seconds.labels(workload).observe(tick_seconds)
        self._failures.labels(workload)
        self._decisions.labels(workload, result.decision.reason.value).inc()
        self._outcomes.labels(workload, result.outcome.kind.value).inc()
        for kind in NOT_APPLIED:
            standing = float(result.outcome.kind is kind)
            self._not_applied.labels(workload, kind.value).set(standing)
        for problem in context.problems:
            self._problems.labels(workload, problem.source.value, problem.kind.value).inc()
        self._decided_at.labels(workload).set(context.now.timestamp())
        self._desired.labels(workload).set(result.decision.desired)
        self._show_replicas(result)
        self._show_demand(context)
        self._show_forecast(context)

    def observe_skip(self, workload: str) -> None:
        """Take in that a round went without the workload."""
        self._skipped.labels(workload).inc()

    def observe_refit(self, workload: str, result: FittedModel | Failure) -> None:
        """Take in a fit of the workload's model."""
        if isinstance(result, Failure):
            self._refit_failures.labels(workload).inc()
            return
        self._fitted_at.labels(workload).set(result.fitted_at.timestamp())
        _show(self._skill, result.skill, workload)

    def _show_replicas(self, result: TickResult) -> None:
        workload, replicas = result.context.workload, result.context.replicas
        for state, count in (
            ("desired", result.decision.desired),
            ("spec", replicas.spec),
            ("ready", replicas.ready),
            ("starting", len(replicas.starting)),
            ("draining", replicas.draining),
        ):
            self._replicas.labels(workload, state).set(count)

    def _show_demand(self, context: ScalingContext) -> None:
        demand, workload = context.demand_qps, context.workload
        age = (context.now - context.observation.at).total_seconds()
        _show(self._demand, demand, workload)
        _show(self._age, None if demand is None else age, workload)
        self._lead.labels(workload, "0.5").set(context.lead_time.p50_seconds)
        self._lead.labels(workload, "0.95").set(context.lead_time.p95_seconds)

    def _show_forecast(self, context: ScalingContext) -> None:
        forecast, workload = context.forecast, context.workload
        band = forecast_band(context)
        _show(self._forecast, band.low_qps if band else None, workload, "low", "lead")
        _show(self._forecast, band.median_qps if band else None, workload, "median", "lead")
        _show(self._forecast, band.high_qps if band else None, workload, "high", "lead")
        _show(self._trusted, None if forecast is None else float(forecast.trusted), workload)
        _show(self._skill, None if forecast is None else forecast.skill, workload)

    def _forget_measurements(self, workload: str) -> None:
        """What was measured before a failed tick is not known to hold after it."""
        gone = {"workload": workload}
        for measured in (self._demand, self._age, self._trusted, self._skill):
            measured.remove_by_labels(gone)
        self._forecast.remove_by_labels(gone)
        self._replicas.remove_by_labels(gone)


class LostLines(Collector):
    """How much of the log is missing; the log cannot say it."""

    def __init__(self, lost: Callable[[], int]) -> None:
        self._lost = lost

    def collect(self) -> Iterator[CounterMetricFamily]:
        text = "Lines of the log that standard error did not take."
        yield CounterMetricFamily("daybreak_log_lines_lost", text, self._lost())


def _show(gauge: Gauge, value: float | None, *labels: str) -> None:
    if value is None or not math.isfinite(value):
        gauge.remove(*labels)
    else:
        gauge.labels(*labels).set(value)


def expose_leader(registry: CollectorRegistry, leads: Callable[[], bool]) -> None:
    """Which of several daemons acts."""
    gauge = Gauge(
        "daybreak_leader", "1 where this process acts, 0 where it stands by.", registry=registry
    )
    gauge.set_function(lambda: float(leads()))
