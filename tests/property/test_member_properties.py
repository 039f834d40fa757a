"""What must hold for every member of the combination, whatever the traffic."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.calendar import Calendar
from forecaster.demand import Demand, demand_of
from forecaster.forecast import Parameters, Window
from forecaster.history import Floats, TrafficHistory, on_grid
from forecaster.member import Member
from forecaster.models.direct import Direct
from forecaster.models.double_seasonal import DoubleSeasonal
from forecaster.models.harmonic import Harmonic
from forecaster.models.mstl import Decomposition
from forecaster.models.seasonal_naive import DampedSeasonalNaive
from tests.traffic import weeks

WINDOWS = (Window("order", 1, 3), Window("hold", 0, 3), Window("a day ahead", 144, 146))
STEP_SECONDS = 600
A_DAY = 144
FITTED = 12 * A_DAY
MEMBERS: list[Member] = [
    Direct(),
    Direct(past_days=False),
    DampedSeasonalNaive(),
    Decomposition(),
    DoubleSeasonal(),
    Harmonic(),
]
each_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
steps = st.integers(FITTED, 15 * A_DAY)


@cache
def traffic() -> TrafficHistory:
    return weeks().resampled(STEP_SECONDS)


def demand(history: TrafficHistory) -> Demand:
    return demand_of(history, Calendar("Europe/Berlin"))


@cache
def fitted_by(name: str) -> tuple[Parameters, Demand]:
    whole = demand(traffic())
    member = next(member for member in MEMBERS if member.name == name)
    return member.fit(whole.before(FITTED), WINDOWS), whole


def fitted(member: Member) -> tuple[Parameters, Demand]:
    """On twelve days of the three weeks; the demand is that of all three."""
    return fitted_by(member.name)


def said(member: Member, history: TrafficHistory) -> Floats:
    """At the end of a history, by a fit on all of it."""
    seen = demand(history)
    return member.locate(member.fit(seen, WINDOWS), seen, WINDOWS, np.array([len(seen)]))


@each_member
@given(origin=steps, factor=st.floats(1e-3, 1e3), hole=st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_comes_at_or_after_an_origin_changes_nothing(
    member: Member, origin: int, factor: float, hole: bool
) -> None:
    parameters, whole = fitted(member)
    logs = whole.logs.copy()
    logs[origin:] = np.nan if hole else logs[origin:] + np.log(factor)
    at = np.array([origin])
    np.testing.assert_array_equal(
        member.locate(parameters, replace(whole, logs=logs), WINDOWS, at),
        member.locate(parameters, whole, WINDOWS, at),
    )


@each_member
@given(origins=st.lists(steps, min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_an_origin_says_the_same_in_any_company(member: Member, origins: list[int]) -> None:
    parameters, whole = fitted(member)
    located = member.locate(parameters, whole, WINDOWS, np.array(origins))
    for row, origin in enumerate(origins):
        alone = member.locate(parameters, whole.before(origin), WINDOWS, np.array([origin]))
        np.testing.assert_array_equal(alone[0], located[row])


@each_member
@given(origin=steps, first=st.integers(0, FITTED), length=st.integers(1, A_DAY))
@settings(max_examples=40, deadline=None)
def test_it_speaks_in_spite_of_a_gap(member: Member, origin: int, first: int, length: int) -> None:
    parameters, whole = fitted(member)
    logs = whole.logs.copy()
    logs[first : min(first + length, origin - 6)] = np.nan
    located = member.locate(parameters, replace(whole, logs=logs), WINDOWS, np.array([origin]))[0]
    peaks = np.array([whole.peaks(window, np.array([origin]))[0] for window in WINDOWS])
    known = np.isfinite(located)
    assert known.all() or isinstance(member, DampedSeasonalNaive)  # which has one day to go by
    assert (np.abs(located - peaks)[known] < 1.0).all()


@each_member
@given(factor=st.floats(1e-3, 1e6))
@settings(max_examples=5, deadline=None)
def test_demand_times_k_adds_log_k(member: Member, factor: float) -> None:
    history = traffic()
    scaled = said(member, replace(history, values=history.values * factor))
    np.testing.assert_allclose(scaled, said(member, history) + np.log(factor), atol=1e-6)


@each_member
@given(hours=st.integers(1, 400))
@settings(max_examples=5, deadline=None)
def test_a_history_in_two_parts_is_that_of_one(member: Member, hours: int) -> None:
    history = traffic()
    middle = history.start + timedelta(hours=hours)
    begun = history.between(history.start, middle)
    joined = begun.extended(history.between(middle, history.end), len(history))
    np.testing.assert_array_equal(said(member, joined), said(member, history))


@each_member
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None)
def test_the_order_of_samples_and_repeats_change_nothing(member: Member, seed: int) -> None:
    history = traffic()
    samples = np.column_stack([history.epoch_seconds(), history.values])
    rng = np.random.Generator(np.random.Philox(key=seed))
    again = rng.permutation(np.concatenate([samples, samples[rng.integers(0, len(samples), 300)]]))
    laid = on_grid(
        "x", [(at, rate) for at, rate in again.tolist()], history.start, history.end, STEP_SECONDS
    )
    np.testing.assert_array_equal(said(member, laid), said(member, history))
