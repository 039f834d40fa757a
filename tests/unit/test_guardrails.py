"""Each guardrail holds what it promises to hold; removing one from the policy breaks its test."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from policies.context import (
    Observation,
    Override,
    OverrideKind,
    Problem,
    ProblemKind,
    ProblemSource,
    RateLimit,
    RateUnit,
    ReplicaChange,
    ScalingContext,
    ScalingRules,
    SelectPolicy,
)
from policies.decision import Reason
from policies.engine import decide
from policies.guardrails import limit_rate
from scaler.settings import Workload
from tests.situations import NOON, decided_before, flat_forecast, settings, situation

POD, PERCENT = RateUnit.PODS, RateUnit.PERCENT
HPA_DEFAULT_UP = ScalingRules(
    0, SelectPolicy.MAX, (RateLimit(PERCENT, 100, 15), RateLimit(POD, 4, 15))
)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (ProblemSource.HISTORY, ProblemKind.STALE),
        (ProblemSource.HISTORY, ProblemKind.PARTIAL),
        (ProblemSource.DEMAND, ProblemKind.IMPLAUSIBLE),
        (ProblemSource.DEMAND, ProblemKind.UNREACHABLE),
        (ProblemSource.REPLICAS, ProblemKind.PARTIAL),
    ],
)
def test_on_doubt_the_fleet_is_not_shrunk(source: ProblemSource, kind: ProblemKind) -> None:
    context = situation(current=20, demand=9_000.0, forecast=flat_forecast(9_000))
    decision = decide(replace(context, problems=(Problem(source, kind, "doubtful"),)))
    assert (decision.desired, decision.reason) == (20, Reason.METRICS_UNAVAILABLE)


def test_on_doubt_the_fleet_may_grow() -> None:
    context = situation(current=5, demand=None, forecast=flat_forecast(9_000))
    problem = Problem(ProblemSource.DEMAND, ProblemKind.UNREACHABLE, "down")
    assert decide(replace(context, problems=(problem,))).desired == 9


def test_a_lost_log_is_a_doubt_of_its_own() -> None:
    context = situation(current=20, forecast=flat_forecast(9_000))
    problem = Problem(ProblemSource.LOG, ProblemKind.LOG_UNAVAILABLE, "locked")
    decision = decide(replace(context, problems=(problem,)))
    assert (decision.desired, decision.reason) == (20, Reason.LOG_UNAVAILABLE)


@pytest.mark.parametrize("source", [ProblemSource.FORECAST, ProblemSource.SIGNALS])
def test_a_missing_forecast_or_signal_does_not_freeze_the_fleet(source: ProblemSource) -> None:
    context = situation(current=20, demand=9_000.0)
    problem = Problem(source, ProblemKind.NO_DATA, "none yet")
    assert decide(replace(context, problems=(problem,))).desired == 11  # 9,000 with headroom


def test_a_collapse_of_demand_keeps_the_fleet() -> None:
    context = situation(current=20, demand=3_000.0, forecast=flat_forecast(3_000))
    decision = decide(decided_before(context, {60: 20}, demand=18_000.0))
    assert (decision.desired, decision.reason) == (20, Reason.DEMAND_COLLAPSE)


def test_an_ordinary_fall_is_followed() -> None:
    context = situation(current=20, demand=12_000.0, forecast=flat_forecast(12_000))
    assert decide(decided_before(context, {60: 20}, demand=18_000.0)).desired == 12


def test_scale_down_waits_for_the_largest_proposal_of_its_window() -> None:
    policy = settings(down=ScalingRules(stabilization_window_seconds=60))
    context = situation(current=20, demand=9_000.0, forecast=flat_forecast(9_000), policy=policy)
    decision = decide(decided_before(context, {45: 15, 75: 20}))
    assert (decision.desired, decision.reason) == (15, Reason.SCALE_DOWN_STABILIZED)


def test_scale_up_waits_for_the_smallest_proposal_of_its_window() -> None:
    policy = settings(up=ScalingRules(stabilization_window_seconds=60))
    context = situation(current=10, demand=9_000.0, forecast=flat_forecast(30_000), policy=policy)
    decision = decide(decided_before(context, {45: 12, 75: 10}))
    assert (decision.desired, decision.reason) == (12, Reason.SCALE_UP_STABILIZED)


@pytest.mark.parametrize(("current", "ceiling"), [(1, 5), (3, 7), (10, 20)])
def test_hpa_default_up_limits(current: int, ceiling: int) -> None:
    """Golden values of the HPA's default scaleUp: 100 % or 4 pods in 15 s, whichever is more."""
    context = situation(current=current, policy=settings(up=HPA_DEFAULT_UP))
    step = limit_rate(context, 1000)
    assert step is not None
    assert (step.replicas, step.reason) == (ceiling, Reason.SCALE_UP_LIMIT)


def test_percentages_are_counted_in_integers() -> None:
    """50 + 10 % is 55; in floating point its ceiling would be 56."""
    rules = ScalingRules(0, SelectPolicy.MAX, (RateLimit(PERCENT, 10, 60),))
    step = limit_rate(situation(current=50, policy=settings(up=rules)), 1000)
    assert step is not None
    assert step.replicas == 55


def test_changes_within_the_period_count_against_the_limit() -> None:
    rules = ScalingRules(0, SelectPolicy.MAX, (RateLimit(POD, 5, 60),))
    context = situation(current=17, policy=settings(down=rules))
    changes = (
        ReplicaChange(NOON - timedelta(seconds=60), 30, 20),  # exactly a period ago: outside
        ReplicaChange(NOON - timedelta(seconds=30), 20, 17),
    )
    step = limit_rate(replace(context, changes=changes), 1)
    assert step is not None
    assert (step.replicas, step.reason) == (15, Reason.SCALE_DOWN_LIMIT)


@pytest.mark.parametrize(
    ("select", "floor"),
    [(SelectPolicy.MAX, 10), (SelectPolicy.MIN, 18), (SelectPolicy.DISABLED, 20)],
)
def test_select_policy_chooses_among_down_limits(select: SelectPolicy, floor: int) -> None:
    rules = ScalingRules(0, select, (RateLimit(PERCENT, 50, 60), RateLimit(POD, 2, 60)))
    step = limit_rate(situation(current=20, policy=settings(down=rules)), 1)
    assert step is not None
    assert step.replicas == floor


@pytest.mark.parametrize(
    ("demand", "desired", "reason"),
    [(500.0, 3, Reason.TOO_FEW_REPLICAS), (90_000.0, 50, Reason.TOO_MANY_REPLICAS)],
)
def test_bounds_always_hold(demand: float, desired: int, reason: Reason) -> None:
    policy = settings(minimum=3, maximum=50)
    context = situation(current=3, demand=demand, forecast=flat_forecast(demand), policy=policy)
    decision = decide(context)
    assert (decision.desired, decision.reason) == (desired, reason)


def test_bounds_hold_even_on_doubt() -> None:
    context = situation(current=60, demand=None, policy=settings(maximum=50))
    problem = Problem(ProblemSource.DEMAND, ProblemKind.NO_DATA, "none")
    assert decide(replace(context, problems=(problem,))).desired == 50


LOWERED = replace(
    settings(maximum=22, down=ScalingRules(0, SelectPolicy.MIN, (RateLimit(PERCENT, 10, 60),))),
    cuts_to_maximum=False,
)
STALE = Problem(ProblemSource.DEMAND, ProblemKind.STALE, "old")


def test_on_doubt_a_lowered_maximum_never_shrinks_the_fleet() -> None:
    for demand, reason in ((900.0, Reason.METRICS_UNAVAILABLE), (1e6, Reason.TOO_MANY_REPLICAS)):
        context = situation(170, demand, flat_forecast(demand), LOWERED)
        decision = decide(replace(context, problems=(STALE,)))
        assert (decision.desired, decision.reason) == (170, reason)


def test_the_way_down_to_a_lowered_maximum_is_that_of_any_other_fall() -> None:
    """22 may be a typo of 220, and the fleet of 170 be needed."""
    context = situation(170, 160_000.0, flat_forecast(160_000), LOWERED)
    decision = decide(context)
    assert (decision.desired, decision.reason) == (153, Reason.SCALE_DOWN_LIMIT)
    assert decision.steps[-1].message == (
        "maxReplicas is 22, 138 short; scaleDown policies allow 153 now"
    )
    near = decide(replace(context, replicas=replace(context.replicas, spec=23)))
    assert (near.desired, near.reason) == (22, Reason.TOO_MANY_REPLICAS)
    fallen = decide(situation(170, 9_000.0, flat_forecast(9_000), LOWERED))
    assert (fallen.desired, fallen.steps[-1].rule) == (153, "limit_rate")


def test_a_fleet_above_its_maximum_never_grows() -> None:
    free = replace(LOWERED, scale_down=ScalingRules(select_policy=SelectPolicy.DISABLED))
    for problems in ((), (STALE,)):
        context = situation(30, 90_000.0, flat_forecast(90_000), free)
        assert decide(replace(context, problems=problems)).desired == 30
    assert decide(situation(10, 90_000.0, flat_forecast(90_000), LOWERED)).desired == 22


def test_a_person_may_shrink_what_is_above_its_maximum() -> None:
    until = NOON + timedelta(hours=1)
    word = Override(1, OverrideKind.REPLICAS, 30, "ana", "budget", until)
    for problems in ((), (STALE,)):
        context = situation(170, 160_000.0, flat_forecast(160_000), LOWERED)
        assert decide(replace(context, override=word, problems=problems)).desired == 30


def test_peers_cut_to_their_maximum_at_once_and_ours_does_not() -> None:
    fields = {"name": "a", "demand": {"query": "up"}, "maxReplicas": 22}
    target = {"name": "a", "mode": "scale"}
    for policy, cuts in (("predictive", False), ("hpa", True), ("static", True)):
        workload = Workload.model_validate(
            {
                **fields,
                "target": target,
                "capacity": {"qpsPerReplica": 1},
                "policy": {"name": policy},
            }
        )
        assert workload.policy_settings().cuts_to_maximum is cuts


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), -1.0])
def test_an_impossible_figure_cannot_enter_a_context(figure: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Observation(NOON, demand_qps=figure)


def test_a_context_without_utc_is_refused() -> None:
    with pytest.raises(ValueError, match="UTC"):
        replace(situation(), now=NOON.astimezone(tz=None).replace(tzinfo=None))


def test_every_step_is_in_the_decision() -> None:
    policy = settings(maximum=12, up=ScalingRules(0, SelectPolicy.MAX, (RateLimit(POD, 4, 15),)))
    context: ScalingContext = situation(10, 9_000.0, flat_forecast(40_000), policy)
    decision = decide(context)
    assert [step.rule for step in decision.steps] == ["order", "limit_rate", "bound"]
    assert decision.recommended == 40
