"""The adapters of outside tools, where bench-forecast has them: they follow, and see no future."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forecaster.calendar import Calendar
from forecaster.demand import Demand, demand_of
from forecaster.forecast import ForecastError, Window
from forecaster.member import Member
from forecaster.outside import OUTSIDE, outside_member
from tests.traffic import weeks

AHEAD = (Window("5m", 1, 2), Window("1h", 12, 15))
CUT = 8 * 288
ORIGINS = CUT + np.arange(3, 288, 16, dtype=np.int64)


@pytest.fixture(params=sorted(OUTSIDE))
def member(request: pytest.FixtureRequest) -> Member:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return outside_member(request.param)


@pytest.fixture(scope="module")
def demand() -> Demand:
    """From a Monday on, in steps of five minutes, with a gap of a quarter of an hour."""
    history = weeks(2).resampled(300)
    values = np.array(history.values)
    values[CUT + 100 : CUT + 103] = np.nan
    return demand_of(replace(history, values=values), Calendar())


def fitted(member: Member, demand: Demand) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tools' own
        return member.fit(demand.before(CUT), AHEAD)


def located(member: Member, parameters: Any, demand: Demand) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return member.locate(parameters, demand, AHEAD, ORIGINS)


def test_each_follows_a_plain_day(member: Member, demand: Demand) -> None:
    peaks = np.column_stack([demand.peaks(window, ORIGINS) for window in AHEAD])
    near, far = np.nanmean(np.abs(located(member, fitted(member, demand), demand) - peaks), axis=0)
    # A curve over time is as good an hour ahead as five minutes, and neither is very good.
    assert near < (0.2 if member.name == "prophet" else 0.08)
    assert far < 0.3


def test_none_looks_ahead(member: Member, demand: Demand) -> None:
    parameters = fitted(member, demand)
    middle = int(ORIGINS[8])
    logs = np.array(demand.logs)
    logs[middle:] += 1.0
    before = located(member, parameters, demand)
    after = located(member, parameters, replace(demand, logs=logs))
    assert before[:9] == pytest.approx(after[:9], rel=1e-9)


def test_what_is_said_does_not_depend_on_where_the_history_starts(
    member: Member, demand: Demand
) -> None:
    parameters = fitted(member, demand)
    later = Demand(
        demand.logs[288:],
        demand.local[288:],
        demand.day_type[288:],
        demand.step_seconds,
        demand.offset,
    )
    whole = located(member, parameters, demand)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = member.locate(parameters, later, AHEAD, ORIGINS - 288)
    assert part == pytest.approx(whole, rel=0.01)


def test_too_little_history_is_refused_or_done_without(member: Member, demand: Demand) -> None:
    if member.name.startswith("dynamo"):
        assert fitted(member, demand.before(CUT)) is not None
        return
    with pytest.raises(ForecastError, match="needs two days"):
        member.fit(demand.before(500), AHEAD)
