"""Tuning: chosen on the first days, checked on days not used to choose."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.sweep.trials import Played
from simulator.sweep.tune import Span, cheapest, tune, upper_bad_ratio, walking_forward

REQUESTS = np.full(8, 1e6)


def played(name: float, hours: float, bad: list[float]) -> Played:
    return Played((("targetQps", name),), np.full(8, hours), np.array(bad), REQUESTS)


GOOD = played(1.0, 20.0, [0.0] * 8)
CHEAP_AT_FIRST = played(2.0, 10.0, [0.0] * 4 + [5e3] * 4)
BAD = played(3.0, 5.0, [1e5] * 8)


def test_folds_walk_forward_and_never_check_what_they_chose_on() -> None:
    for choosing, checking in walking_forward(28):
        assert choosing.first == 0
        assert choosing.last == checking.first < checking.last


def test_one_day_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="cannot be split"):
        walking_forward(1)


def test_the_cheapest_that_keeps_the_target_is_chosen() -> None:
    assert cheapest([GOOD, CHEAP_AT_FIRST, BAD], Span(0, 4), 1e-3) is CHEAP_AT_FIRST
    assert cheapest([GOOD, CHEAP_AT_FIRST, BAD], Span(0, 8), 1e-3) is GOOD
    assert cheapest([BAD], Span(0, 8), 1e-3) is None


def test_a_choice_that_later_days_refute_is_not_kept() -> None:
    found = tune([GOOD, CHEAP_AT_FIRST, BAD], 1e-3)
    assert found.chosen is GOOD
    assert not found.folds[0].kept


def test_where_nothing_keeps_the_target_the_nearest_is_told() -> None:
    found = tune([CHEAP_AT_FIRST, BAD], 1e-4)
    assert found.chosen is None
    assert found.nearest is CHEAP_AT_FIRST
    assert not found.certified


def test_days_without_a_miss_certify_no_more_than_three_over_their_minutes() -> None:
    assert upper_bad_ratio(GOOD, seed=0) == pytest.approx(3 / (8 * 1440))
    found = tune([GOOD], 1e-4)
    assert found.chosen is GOOD
    assert not found.certified
    assert found.days_to_certify == 21
