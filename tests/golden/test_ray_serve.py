"""Ray Serve: the target, and the patience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from policies.context import Observation, ScalingContext
from policies.peers.ray_serve import acted, counted, scaled
from tests.golden.sequence import decided, later
from tests.situations import NOON, settings, situation


def ongoing(
    current: int, load: float, minimum: int = 1, more: Mapping[str, float] = {}
) -> ScalingContext:
    policy = settings("ray_serve", minimum, parameters={"targetConcurrency": 2.0, **more})
    seen = Observation(NOON, requests_running=load, requests_waiting=0.0)
    return replace(situation(current, policy=policy), observation=seen)


def recommended(*contexts: ScalingContext) -> list[int]:
    every_15_s = [later(context, 15.0 * tick) for tick, context in enumerate(contexts)]
    return [decision.recommended for decision in decided(every_15_s)]


@pytest.mark.parametrize(
    ("current", "load", "up", "down", "expected"),
    [
        (4, 14.0, 1.0, 1.0, 7),
        (4, 14.0, 0.5, 1.0, 6),
        (4, 6.0, 1.0, 1.0, 3),
        (4, 6.0, 1.0, 0.5, 3),  # 3.5 rounds up to 4, where it would be stuck
        (4, 7.0, 1.0, 1.0, 4),
    ],
)
def test_target(current: int, load: float, up: float, down: float, expected: int) -> None:
    assert scaled(current, load, 2.0, up, down) == expected


def test_growth_after_more_than_30_s_of_the_same_word() -> None:
    """A tick each 15 s: int(30 / 15) = 2 are not yet enough."""
    assert recommended(*[ongoing(4, 14.0)] * 4) == [4, 4, 7, 4]


def test_the_newest_word_is_used_once_it_counts() -> None:
    loads = [ongoing(4, load, more={"averageWindowSeconds": 1.0}) for load in (14, 14, 18)]
    assert recommended(*loads)[-1] == 9


def test_another_word_starts_the_count_anew() -> None:
    quick = {"averageWindowSeconds": 1.0}
    up, down = ongoing(4, 14.0, more=quick), ongoing(4, 4.0, more=quick)
    assert recommended(up, up, down, up, up, up) == [4, 4, 4, 4, 4, 7]


def test_shrinking_takes_ten_minutes() -> None:
    sizes = recommended(*[ongoing(4, 4.0)] * 41)
    assert sizes[:40] == [4] * 40
    assert sizes[40] == 2


def test_from_none_at_once() -> None:
    assert recommended(ongoing(0, 5.0, minimum=0)) == [1]
    assert recommended(ongoing(0, 0.0, minimum=0)) == [0]


def test_to_none_only_from_one() -> None:
    assert acted(3, 0, -41, 40) == (1, 0)
    assert acted(1, 0, -41, 40) == (0, 0)


@pytest.mark.parametrize(
    ("ticks", "wanted", "expected"), [(3, 5, 4), (-3, 5, 1), (3, 4, 0), (3, 2, -1), (-3, 2, -4)]
)
def test_ticks_in_a_row(ticks: int, wanted: int, expected: int) -> None:
    assert counted(ticks, 4, wanted) == expected
