"""The HPA's rules, metric by metric and limit by limit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from policies.context import Observation, Problem, ProblemKind, ProblemSource, Replicas
from policies.engine import decide
from policies.peers import hpa_rules
from tests.golden.sequence import decided, later
from tests.situations import NOON, decided_before, settings, situation


@pytest.mark.parametrize(("total", "expected"), [(115, 12), (109, 10), (91, 10), (89, 9)])
def test_average_value(total: float, expected: int) -> None:
    assert hpa_rules.average_value(total, 10.0, 10, 0.1) == expected
    policy = settings("hpa", parameters={"targetQps": 10.0})
    assert decide(situation(current=10, demand=total, policy=policy)).recommended == expected


@pytest.mark.parametrize(
    ("total", "current", "expected"), [(24, 22, 22), (24, 21, 24), (45, 49, 49), (45, 50, 50)]
)
def test_the_tolerance_swallows_a_tenth(total: float, current: int, expected: int) -> None:
    assert hpa_rules.average_value(total, 1.0, current, 0.1) == expected


@pytest.mark.parametrize(
    ("total", "current", "ready", "expected"), [(300, 4, 2, 6), (105, 4, 2, 4), (250, 0, 0, 3)]
)
def test_value_counts_ready_pods_only(
    total: float, current: int, ready: int, expected: int
) -> None:
    """Two of four pods load their model: the ratio of 3 is taken of the two that are ready."""
    assert hpa_rules.value(total, 100.0, current, ready, 0.1) == expected


@pytest.mark.parametrize(
    ("mean", "measured", "missing", "ignored", "expected"),
    [
        (15.0, 3, 1, 0, 5),
        (5.0, 3, 1, 0, 3),
        (15.0, 4, 0, 0, 6),
        (10.9, 4, 0, 0, 4),
        (5.0, 4, 0, 3, 2),  # pending pods are nothing on the way down
        (15.0, 4, 0, 3, 4),  # on the way up they count as idle: the direction would turn
        (11.5, 2, 2, 0, 4),  # missing pods turn the direction: n is kept
    ],
)
def test_pods_metric(mean: float, measured: int, missing: int, ignored: int, expected: int) -> None:
    assert hpa_rules.pods(mean / 10.0, 4, measured, missing, ignored, 0.1) == expected


@pytest.mark.parametrize(("start", "expected"), [(1, 5), (3, 7), (10, 20)])
def test_default_up_limit(start: int, expected: int) -> None:
    assert hpa_rules.up_limit(start, start, 4.0, 100.0) == expected
    policy = settings("hpa", parameters={"targetQps": 1.0})
    assert decide(situation(current=start, demand=1_000.0, policy=policy)).desired == expected


def test_percentages_are_in_floating_point_as_there() -> None:
    """ceil(50 x 1.10) is 56 there, and 55 in the integers of our own rules."""
    assert hpa_rules.up_limit(50, 50, 0.0, 10.0) == 56


def test_a_limit_never_turns_the_direction() -> None:
    assert hpa_rules.up_limit(12, 4, 4.0, 100.0) == 12
    assert hpa_rules.down_limit(5, 20, 50.0) == 5


def test_stabilization_is_two_sided() -> None:
    """A scale-down window once caused scale-ups (kubernetes/kubernetes#96671)."""
    assert hpa_rules.stabilized(10, 8, 12) == 10
    assert hpa_rules.stabilized(10, 12, 15) == 12
    assert hpa_rules.stabilized(10, 5, 7) == 7


@pytest.mark.parametrize(("age", "expected"), [(299, 15), (300, 9)])
def test_a_fall_waits_for_the_down_window(age: int, expected: int) -> None:
    policy = settings("hpa", parameters={"targetQps": 1_000.0})
    context = decided_before(situation(20, 9_000.0, policy=policy), {age: 15})
    assert decide(context).desired == expected


def test_pods_metric_of_a_fleet_whose_pods_start() -> None:
    """Concurrency 15 on three ready pods, one starting: 1.125 of four, so five."""
    policy = settings("hpa", parameters={"targetConcurrency": 10.0})
    seen = Observation(NOON, requests_running=40.0, requests_waiting=5.0)
    replicas = Replicas(spec=4, ready=3, starting=(NOON,))
    context = replace(situation(policy=policy), observation=seen, replicas=replicas)
    assert decide(context).desired == 5


def test_a_queue_with_a_value_target_over_shoots_while_pods_start() -> None:
    policy = settings("hpa", parameters={"targetWaiting": 100.0})
    seen = Observation(NOON, requests_waiting=300.0)
    context = replace(situation(policy=policy), observation=seen)
    after = []
    for spec in (4, 8, 16):
        context = replace(context, replicas=Replicas(spec, spec))
        after.append(decide(context).recommended)
    assert after == [12, 24, 48]


def test_a_failed_metric_holds() -> None:
    policy = settings("hpa", parameters={"targetQps": 1_000.0})
    doubt = Problem(ProblemSource.DEMAND, ProblemKind.UNREACHABLE, "down")
    context = replace(situation(12, 3_000.0, policy=policy), problems=(doubt,))
    assert decide(context).desired == 12


def test_growth_doubles_a_period_and_no_faster() -> None:
    policy = settings("hpa", parameters={"targetQps": 1_000.0})
    context, sizes = situation(5, 100_000.0, policy=policy), []
    for _ in range(2):
        desired = decided([context])[0].desired
        sizes.append(desired)
        context = later(replace(context, replicas=Replicas(desired, desired)), 15)
    assert sizes == [10, 20]


def test_a_change_within_the_period_counts_against_it() -> None:
    policy = settings("hpa", parameters={"targetQps": 1_000.0})
    first = situation(5, 100_000.0, policy=policy)
    second = later(replace(first, replicas=Replicas(10, 10)), 5)
    assert [decision.desired for decision in decided([first, second])] == [10, 10]


def test_the_default_target_is_a_share_of_the_rate_within_the_slo() -> None:
    context = situation(5, 8_500.0, policy=settings("hpa"))
    assert decide(context).recommended == 10
    assert decide(replace(context, now=NOON + timedelta(seconds=1))).recommended == 10


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="hpa needs the parameter targetQps above 0, got 0"):
        decide(situation(policy=settings("hpa", parameters={"targetQps": 0.0})))
