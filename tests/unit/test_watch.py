"""What the outside may know of the rounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from policies.engine import decide
from scaler.settings import Settings
from scaler.wiring import STANDS, Watch
from storage.memory import MemoryDecisionStore
from tests.fakes import FragileStore
from tests.situations import NOON, flat_forecast, situation

SECOND = timedelta(seconds=1)


class Still:
    def now(self) -> datetime:
        return NOON


def watch(most: int = 100) -> Watch:
    workload = {
        "name": "grammar",
        "target": {"name": "grammar", "mode": "metric"},
        "demand": {"query": "up"},
        "capacity": {"qpsPerReplica": 1.0},
        "maxReplicas": most,
    }
    document = {"prometheus": {"url": "http://prometheus:9090"}, "workloads": [workload]}
    return Watch(Settings.model_validate(document), Still())


def decided(store: MemoryDecisionStore, at: datetime) -> None:
    """Ten replicas are asked for."""
    context = situation(current=8, demand=9_000.0, forecast=flat_forecast(9_500.0))
    context = replace(context, now=at)
    store.record(context, decide(context))


def shown(of: Watch, name: str) -> float | None:
    return of.registry.get_sample_value(f"daybreak_{name}", {"workload": "grammar"})


@pytest.mark.parametrize(
    ("ago", "desired"),
    [
        (SECOND, 10.0),
        (STANDS, 10.0),
        (STANDS + SECOND, None),
        (-STANDS, 10.0),
        (-STANDS - SECOND, None),
    ],
)
def test_a_decision_of_another_process_stands_for_an_hour(
    ago: timedelta, desired: float | None
) -> None:
    store, of = MemoryDecisionStore(), watch()
    decided(store, NOON - ago)
    of.recall(store)
    assert shown(of, "desired_replicas") == desired
    at = shown(of, "last_decision_timestamp_seconds")
    assert at == (None if desired is None else (NOON - ago).timestamp())
    assert of.unready() == ["grammar: no recent decision"]


def test_what_is_recalled_keeps_to_today_s_bounds() -> None:
    store, of = MemoryDecisionStore(), watch(most=7)
    decided(store, NOON - SECOND)
    of.recall(store)
    assert shown(of, "desired_replicas") == 7.0


def test_without_the_log_nothing_is_recalled() -> None:
    store, of = FragileStore(), watch()
    store.broken = True
    of.recall(store)
    assert shown(of, "desired_replicas") is None
