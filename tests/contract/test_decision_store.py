"""What every decision store must do: SQLite, PostgreSQL, memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

import pytest

from forecaster.calendar import Calendar
from forecaster.forecast import FittedModel, Window
from forecaster.registry import combined
from policies.context import PastDecision, ScalingContext
from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from scaler.ports import DecisionStore
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.memory import MemoryDecisionStore
from tests.situations import NOON, flat_forecast, situation
from tests.traffic import weeks


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DecisionStore]:
    if request.param == "memory":
        yield MemoryDecisionStore()
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('log') / 'daybreak.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    engine = open_engine(url)
    upgrade(engine)
    yield SqlDecisionStore(engine)
    engine.dispose()


def at(now: datetime, epoch: int = 1, workload: str = "grammar") -> ScalingContext:
    context = situation(demand=9_000.5, forecast=flat_forecast(9_000, 0.2))
    return replace(context, now=now, epoch=epoch, workload=workload)


def record(store: DecisionStore, context: ScalingContext) -> int:
    return store.record(context, decide(context))


@cache
def fitted() -> FittedModel:
    history = weeks().last(4 * 1440)
    windows = (Window("order", 3, 6), Window("hold", 0, 5))
    return combined(Calendar()).fit(history, history.end, windows)


def test_recent_gives_what_later_decisions_need_oldest_first(store: DecisionStore) -> None:
    for number in range(5):
        record(store, at(NOON + timedelta(seconds=15 * number), number + 1))
    recent = store.recent("grammar", NOON + timedelta(seconds=30))
    desired = decide(at(NOON)).desired
    assert list(recent) == [
        PastDecision(NOON + timedelta(seconds=15 * number), 10, desired, desired, 9_000.5, None)
        for number in (2, 3, 4)
    ]
    assert recent[0].at.utcoffset() == timedelta(0)


def test_workloads_do_not_see_each_other(store: DecisionStore) -> None:
    record(store, at(NOON, 7, "one"))
    assert store.recent("two", NOON - timedelta(days=1)) == []
    assert (store.last_epoch("one"), store.last_epoch("two")) == (7, 0)


def test_ids_differ_and_take_an_outcome_each(store: DecisionStore) -> None:
    ids = {record(store, at(NOON, epoch)) for epoch in (1, 2, 3)}
    assert len(ids) == 3
    for decision_id in ids:
        store.record_outcome(decision_id, NOON, Outcome(OutcomeKind.APPLIED, "done"))


def test_a_log_knows_which_epochs_it_wrote(store: DecisionStore) -> None:
    """One without an outcome counts: the process may have ended after it had written."""
    kinds = {1: OutcomeKind.APPLIED, 2: OutcomeKind.UNCHANGED, 3: OutcomeKind.UNKNOWN, 4: None}
    for epoch, kind in kinds.items():
        decision_id = record(store, at(NOON, epoch))
        if kind is not None:
            store.record_outcome(decision_id, NOON, Outcome(kind))
    assert [epoch for epoch in range(6) if store.wrote("grammar", epoch, NOON)] == [1, 3, 4]
    assert not store.wrote("other", 1, NOON)


def test_the_newest_model_comes_back_exactly(store: DecisionStore) -> None:
    assert store.latest_model("grammar") is None
    old, new = fitted(), replace(fitted(), fitted_at=NOON)
    store.save_model("grammar", old)
    store.save_model("grammar", new)
    assert store.latest_model("grammar") == new
    assert store.latest_model("other") is None


def test_microseconds_and_zones_survive(store: DecisionStore) -> None:
    moment = NOON + timedelta(microseconds=123_456)
    record(store, at(moment))
    assert store.recent("grammar", moment)[0].at == moment
