"""The metrics: their names and values, and that absent is never zero."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from forecaster.forecast import FittedModel
from policies.context import Observation, Problem, ProblemKind, ProblemSource, ScalingContext
from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from scaler.exposition import Exposition
from scaler.loop import TickResult
from scaler.rounds import Failure
from tests.situations import NOON, flat_forecast, situation

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def ticked(context: ScalingContext, kind: OutcomeKind = OutcomeKind.APPLIED) -> TickResult:
    return TickResult(context, decide(context), Outcome(kind), 1)


def samples(registry: CollectorRegistry) -> Samples:
    """What a scrape reads."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset({"workload": "grammar", **labels}.items())))


def test_a_tick_is_exposed_under_the_contract_names() -> None:
    registry = CollectorRegistry()
    exposition = Exposition(registry, {"grammar": "floor"})
    context = situation(current=8, demand=9_000.0, forecast=flat_forecast(9_500.0))
    context = replace(context, now=NOON + timedelta(seconds=20))
    exposition.observe(ticked(context), tick_seconds=0.03)
    found = samples(registry)
    expected: list[tuple[str, dict[str, str], float]] = [
        ("daybreak_demand_qps", {}, 9_000.0),
        ("daybreak_forecast_qps", {"bound": "median", "horizon": "lead"}, 9_500.0),
        ("daybreak_forecast_qps", {"bound": "high", "horizon": "lead"}, 9_500.0),
        ("daybreak_forecast_qps", {"bound": "low", "horizon": "lead"}, 9_500.0),
        ("daybreak_desired_replicas", {}, 10.0),
        ("daybreak_replicas", {"state": "desired"}, 10.0),
        ("daybreak_replicas", {"state": "spec"}, 8.0),
        ("daybreak_replicas", {"state": "ready"}, 8.0),
        ("daybreak_replicas", {"state": "starting"}, 0.0),
        ("daybreak_replicas", {"state": "draining"}, 0.0),
        ("daybreak_decisions_total", {"reason": "ForecastPeak"}, 1.0),
        ("daybreak_outcomes_total", {"outcome": "Applied"}, 1.0),
        ("daybreak_not_applied", {"outcome": "Refused"}, 0.0),
        ("daybreak_forecast_trusted", {}, 1.0),
        ("daybreak_forecast_skill", {}, 0.5),
        ("daybreak_data_age_seconds", {}, 20.0),
        ("daybreak_lead_time_seconds", {"quantile": "0.5"}, 150.0),
        ("daybreak_lead_time_seconds", {"quantile": "0.95"}, 180.0),
        ("daybreak_tick_failures_total", {}, 0.0),
        ("daybreak_tick_seconds_count", {}, 1.0),
        ("daybreak_tick_seconds_bucket", {"le": "0.05"}, 1.0),
        ("daybreak_tick_seconds_bucket", {"le": "0.025"}, 0.0),
        ("daybreak_mode", {"mode": "floor"}, 1.0),
        ("daybreak_last_decision_timestamp_seconds", {}, context.now.timestamp()),
    ]
    for name, labels, number in expected:
        assert value(found, name, **labels) == number, (name, labels)


def test_a_write_that_is_refused_stands_until_one_is_not() -> None:
    registry = CollectorRegistry()
    exposition = Exposition(registry)
    for kind, refused, failed in (
        (OutcomeKind.REFUSED, 1.0, 0.0),
        (OutcomeKind.FAILED, 0.0, 1.0),
        (OutcomeKind.APPLIED, 0.0, 0.0),
    ):
        exposition.observe(ticked(situation(), kind))
        found = samples(registry)
        assert value(found, "daybreak_not_applied", outcome="Refused") == refused
        assert value(found, "daybreak_not_applied", outcome="Failed") == failed


def test_what_is_not_known_is_absent_and_not_zero() -> None:
    registry = CollectorRegistry()
    exposition = Exposition(registry)
    exposition.observe(ticked(situation(forecast=flat_forecast(9_000.0))))
    problem = Problem(ProblemSource.DEMAND, ProblemKind.STALE, "too old")
    blind = replace(situation(demand=None), problems=(problem,), observation=Observation(NOON))
    exposition.observe(ticked(blind))
    found = samples(registry)
    for name, labels in (
        ("daybreak_demand_qps", {}),
        ("daybreak_data_age_seconds", {}),
        ("daybreak_forecast_trusted", {}),
        ("daybreak_forecast_skill", {}),
        ("daybreak_forecast_qps", {"bound": "high", "horizon": "lead"}),
    ):
        assert value(found, name, **labels) is None, name
    assert value(found, "daybreak_problems_total", source="demand", kind="Stale") == 1
    assert value(found, "daybreak_decisions_total", reason="NoTrustedInput") == 1


def test_a_failed_tick_keeps_the_decision_and_forgets_the_measurements() -> None:
    registry = CollectorRegistry()
    exposition = Exposition(registry)
    exposition.observe(ticked(situation(current=9, forecast=flat_forecast(9_500.0))))
    exposition.observe(Failure("grammar", NOON, "target unreadable"), tick_seconds=2.0)
    found = samples(registry)
    assert value(found, "daybreak_tick_failures_total") == 1
    assert value(found, "daybreak_desired_replicas") == 10
    assert value(found, "daybreak_last_decision_timestamp_seconds") == NOON.timestamp()
    assert value(found, "daybreak_tick_seconds_count") == 1
    gone = ("daybreak_demand_qps", "daybreak_replicas", "daybreak_forecast_qps")
    assert not [name for name, _ in found if name in gone]


def test_one_workload_s_failure_leaves_the_others_alone() -> None:
    registry = CollectorRegistry()
    exposition = Exposition(registry)
    exposition.observe(ticked(replace(situation(), workload="other")))
    exposition.observe(ticked(situation()))
    exposition.observe(Failure("grammar", NOON, "gone"))
    found = samples(registry)
    assert ("daybreak_demand_qps", frozenset({("workload", "other")})) in found
    assert value(found, "daybreak_demand_qps") is None


def test_refits_show_the_skill_or_count_as_failed() -> None:
    registry = CollectorRegistry()
    exposition = Exposition(registry)
    fitted = FittedModel("combined", NOON, NOON, 60, (), {}, skill=0.4)
    exposition.observe_refit("grammar", fitted)
    exposition.observe_refit("grammar", Failure("grammar", NOON, "too few days"))
    found = samples(registry)
    assert value(found, "daybreak_forecast_skill") == 0.4
    assert value(found, "daybreak_model_fitted_timestamp_seconds") == NOON.timestamp()
    assert value(found, "daybreak_refit_failures_total") == 1


def test_hostile_names_stay_one_label() -> None:
    registry = CollectorRegistry()
    name = 'x"} 1\ndaybreak_desired_replicas{workload="grammar'
    Exposition(registry).observe(ticked(replace(situation(), workload=name)))
    found = samples(registry)
    assert ("daybreak_demand_qps", frozenset({("workload", name)})) in found
    assert value(found, "daybreak_desired_replicas") is None
