"""KEDA with a Prometheus trigger: idle, empty results, fallbacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from policies.context import Problem, ProblemKind, ProblemSource, Replicas, ScalingContext
from policies.engine import decide
from policies.peers.keda_prometheus import fallback
from tests.golden.sequence import decided, later
from tests.situations import settings, situation


def trigger(
    current: int, demand: float | None, minimum: int = 0, more: Mapping[str, float] | None = None
) -> ScalingContext:
    parameters = {"targetQps": 1_000.0, **(more or {})}
    policy = settings("keda_prometheus", minimum, parameters=parameters)
    return situation(current, demand, policy=policy)


def failing(context: ScalingContext, kind: ProblemKind) -> ScalingContext:
    problem = Problem(ProblemSource.DEMAND, kind, "no answer")
    return replace(context, problems=(problem,))


def every_30_s(context: ScalingContext, count: int) -> list[ScalingContext]:
    return [later(context, 30.0 * step) for step in range(count)]


def test_from_one_on_it_is_the_hpa() -> None:
    assert [decide(trigger(10, demand)).recommended for demand in (11_500, 10_900)] == [12, 10]


@pytest.mark.parametrize(("minimum", "expected"), [(0, 1), (3, 3)])
def test_it_wakes_to_one_or_the_minimum(minimum: int, expected: int) -> None:
    assert decide(trigger(0, 50_000.0, minimum)).desired == expected


def test_it_idles_only_after_the_cooldown() -> None:
    decisions = decided([trigger(4, 2_000.0), *every_30_s(later(trigger(4, 0.0), 30), 11)])
    recommended = [decision.recommended for decision in decisions]
    # Active at second 0 for the last time; the cooldown of 300 s ends with the decision there.
    assert recommended[1:] == [1] * 9 + [0] * 2
    assert decisions[-1].desired == 0


def test_an_idle_count_of_its_own() -> None:
    contexts = [
        trigger(4, 2_000.0, more={"idleReplicas": 2.0}),
        *every_30_s(later(trigger(4, 0.0, more={"idleReplicas": 2.0}), 30), 11),
    ]
    assert decided(contexts)[-1].desired == 2


def test_below_its_activation_it_is_inactive() -> None:
    assert decide(trigger(0, 40.0, more={"activationQps": 40.0})).desired == 0
    assert decide(trigger(0, 41.0, more={"activationQps": 40.0})).desired == 1


def test_an_empty_result_is_no_load_as_shipped() -> None:
    """The proposal is KEDA's; that nothing shrinks on doubt is our guardrail."""
    decision = decide(failing(trigger(20, None, minimum=2), ProblemKind.NO_DATA))
    assert decision.recommended == 1
    assert decision.desired == 20


def test_an_empty_result_can_be_a_failure() -> None:
    context = trigger(20, None, more={"ignoreNullValues": 0.0})
    assert decide(failing(context, ProblemKind.NO_DATA)).recommended == 20


@pytest.mark.parametrize(
    ("behavior", "expected"), [(0, (12, 12)), (1, (20, 8)), (2, (20, 12)), (3, (12, 8))]
)
def test_fallback_behaviors(behavior: int, expected: tuple[int, int]) -> None:
    assert (fallback(behavior, 20, 12), fallback(behavior, 8, 12)) == expected


def test_the_fallback_needs_more_failures_than_its_threshold() -> None:
    fallen = trigger(20, None, more={"failureThreshold": 3.0, "fallbackReplicas": 30.0})
    contexts = every_30_s(failing(fallen, ProblemKind.UNREACHABLE), 4)
    assert [decision.recommended for decision in decided(contexts)] == [20, 20, 20, 30]


def test_a_good_answer_forgets_the_failures() -> None:
    more = {"failureThreshold": 1.0, "fallbackReplicas": 30.0}
    bad = failing(trigger(20, None, more=more), ProblemKind.UNREACHABLE)
    good = trigger(20, 20_000.0, more=more)
    contexts = [bad, later(good, 30), later(bad, 60), later(bad, 90)]
    assert [decision.recommended for decision in decided(contexts)] == [20, 20, 20, 30]


def test_failures_do_not_pass_for_idleness() -> None:
    busy = trigger(4, 4_000.0)
    bad = failing(trigger(4, None), ProblemKind.UNREACHABLE)
    quiet = later(trigger(4, 0.0), 330)
    decisions = decided([busy, *every_30_s(later(bad, 30), 10), quiet])
    assert {decision.recommended for decision in decisions[:-1]} == {4}
    # The last activity is still known: that of second 0.
    assert decisions[-1].recommended == 0


def test_woken_pods_are_the_hpas_from_then_on() -> None:
    context = replace(trigger(0, 9_000.0), replicas=Replicas(1, 0))
    assert decide(context).recommended == 9
