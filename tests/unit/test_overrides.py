"""A person's word in a decision: what it overrides, what holds against it, when it ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from forecaster.calendar import Calendar
from forecaster.registry import combined
from policies.context import (
    Override,
    OverrideKind,
    Problem,
    ProblemKind,
    ProblemSource,
    ScalingContext,
)
from policies.decision import OutcomeKind, Reason
from policies.engine import decide
from policies.guardrails import bound, override, pause
from policies.registry import POLICIES
from scaler.loop import ControlLoop, LoopSettings, Ports
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.overrides import RELEASE, OverrideRequest, record_override
from tests.fakes import FakeMetrics, FakeTarget
from tests.situations import NOON, flat_forecast, settings, situation
from tests.traffic import weeks
from tests.unit.test_loop import loop_settings

HOUR = timedelta(hours=1)


def holding(kind: OverrideKind, replicas: int | None = None, hours: float = 1.0) -> Override:
    until = NOON + timedelta(hours=hours)
    return Override(1, kind, replicas, "ana", "cell migration", until)


def decided(override: Override | None, **changes: object) -> ScalingContext:
    context = situation(current=20, forecast=flat_forecast(9_000.0))
    return replace(context, override=override, **changes)  # type: ignore[arg-type]


def test_a_pause_changes_nothing_whatever_else_holds() -> None:
    pause = holding(OverrideKind.PAUSE)
    for policy in (settings(), settings(minimum=30), settings(maximum=5)):
        decision = decide(decided(pause, settings=policy))
        assert (decision.desired, decision.reason) == (20, Reason.PAUSED)
    assert decide(decided(None)).desired == 9


def test_a_number_holds_against_the_policy_and_on_doubt_but_not_against_the_bounds() -> None:
    wanted = holding(OverrideKind.REPLICAS, 3)
    stale = Problem(ProblemSource.DEMAND, ProblemKind.STALE, "old")
    decision = decide(decided(wanted, problems=(stale,)))
    assert (decision.desired, decision.reason) == (3, Reason.OVERRIDDEN)
    assert decision.recommended > 3
    bounded = decide(decided(wanted, settings=settings(minimum=4)))
    assert (bounded.desired, bounded.reason) == (4, Reason.TOO_FEW_REPLICAS)
    above = decide(decided(holding(OverrideKind.REPLICAS, 5_000)))
    assert above.desired == 1_000


def test_a_minimum_raises_and_never_lowers() -> None:
    assert decide(decided(holding(OverrideKind.MINIMUM, 40))).desired == 40
    below = decide(decided(holding(OverrideKind.MINIMUM, 5)))
    assert (below.desired, below.reason) == (9, Reason.FORECAST_PEAK)


def test_an_expired_override_is_none() -> None:
    for kind, replicas in ((OverrideKind.PAUSE, None), (OverrideKind.REPLICAS, 3)):
        assert decide(decided(holding(kind, replicas, hours=0))).desired == 9


def test_who_and_why_stand_in_the_step() -> None:
    step = decide(decided(holding(OverrideKind.MINIMUM, 40))).steps[-1]
    assert step.message == ("ana asked for at least 40 until 2026-03-16 13:00 UTC: cell migration")


def test_every_policy_listens_to_people() -> None:
    for name, policy in POLICIES.items():
        assert policy.guardrails[-3:] == (override, bound, pause), name


@pytest.mark.parametrize(
    ("kind", "replicas"), [(OverrideKind.PAUSE, 3), (OverrideKind.MINIMUM, None)]
)
def test_a_kind_and_its_number_go_together(kind: OverrideKind, replicas: int | None) -> None:
    with pytest.raises(ValueError, match="a pause has no number"):
        holding(kind, replicas)


class Bench:
    """A loop of a policy without a forecast on a real log."""

    def __init__(self, folder: Path) -> None:
        self.engine = open_engine(f"sqlite:///{folder / 'daybreak.db'}")
        upgrade(self.engine)
        self.target = FakeTarget(12)
        self.now = weeks().start + timedelta(days=20, hours=11)
        chosen: LoopSettings = replace(
            loop_settings(), policy=settings("static", parameters={"replicas": 30.0})
        )
        metrics = FakeMetrics(weeks(), lambda _: 9_000.0)
        ports = Ports(metrics, self.target, SqlDecisionStore(self.engine))
        self.loop = ControlLoop(chosen, ports, combined(Calendar()))

    def override(self, kind: str, replicas: int | None = None, minutes: int = 60) -> None:
        duration = None if kind == RELEASE else timedelta(minutes=minutes)
        asked = OverrideRequest(kind, "ana", "why not", "token", replicas, duration)
        record_override(self.engine, "grammar", self.now, asked)

    def tick(self, minutes: float = 0.25) -> str:
        self.now += timedelta(minutes=minutes)
        result = self.loop.tick(self.now)
        return f"{result.decision.desired} {result.decision.reason.value}"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_pause_is_heard_at_the_next_tick_and_ends_by_itself(bench: Bench) -> None:
    bench.override(OverrideKind.PAUSE, minutes=2)
    assert bench.tick() == "12 Paused"
    assert bench.tick() == "12 Paused"
    assert bench.target.applied == []
    assert bench.tick(minutes=2) == "30 Fixed"
    assert bench.target.applied == [30]


def test_a_release_ends_it_at_once_and_the_newest_word_holds(bench: Bench) -> None:
    bench.override(OverrideKind.REPLICAS, 17)
    assert bench.tick() == "17 Overridden"
    bench.override(OverrideKind.MINIMUM, 44)
    assert bench.tick() == "44 Overridden"
    bench.override(RELEASE)
    assert bench.tick() == "30 Fixed"


def test_a_pause_is_in_the_log_with_the_decision(bench: Bench) -> None:
    bench.override(OverrideKind.PAUSE)
    bench.tick()
    store = SqlDecisionStore(bench.engine)
    (row,) = store.stored("grammar", bench.now - HOUR, bench.now + HOUR)
    assert row.context.override is not None
    assert row.context.override.owner == "ana"
    assert decide(row.context) == row.decision


def test_without_the_log_the_last_known_word_stands(bench: Bench) -> None:
    bench.override(OverrideKind.PAUSE, minutes=30)
    bench.tick()
    with bench.engine.begin() as connection:
        connection.execute(text("ALTER TABLE manual_override RENAME TO away"))
    assert bench.tick() == "12 Paused"
    # It ends when it was to end, whether the log is back or not.
    assert bench.tick(minutes=31) == "30 Fixed"


def test_a_paused_loop_writes_nothing_for_an_hour(bench: Bench) -> None:
    """It does not even ask the target for what is there already: a floor would be written."""
    bench.override(OverrideKind.PAUSE, minutes=61)
    asked: list[int] = []

    def heard(replicas: int) -> int:
        asked.append(replicas)
        return replicas

    bench.target.meddler = heard
    outcomes = set()
    for _ in range(240):
        bench.now += timedelta(seconds=15)
        outcomes.add(bench.loop.tick(bench.now).outcome.kind)
    assert outcomes == {OutcomeKind.UNCHANGED}
    assert asked == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": "Nonsense"}, "kind: expected one of Pause, Replicas, Minimum, Release"),
        ({"owner": ""}, "owner: expected 1 to 100 printable characters"),
        ({"owner": "a\nb"}, "owner: expected 1 to 100 printable characters"),
        ({"reason": "\u202e"}, "reason: expected 1 to 500 printable characters"),
        ({"reason": "x" * 501}, "reason: expected 1 to 500 printable characters"),
        ({"replicas": 3}, "replicas: Pause takes no number"),
        ({"kind": "Replicas"}, "replicas: expected 0 to 100,000, got None"),
        ({"kind": "Minimum", "replicas": -1}, "replicas: expected 0 to 100,000, got -1"),
        ({"duration": None}, "expiry: expected more than nothing and at most 7 days"),
        ({"duration": timedelta(0)}, "expiry: expected more than nothing"),
        ({"duration": timedelta(days=8)}, "expiry: expected more than nothing and at most 7 days"),
    ],
)
def test_what_a_request_must_say(changes: dict[str, object], expected: str) -> None:
    given: dict[str, object] = {
        "kind": "Pause", "owner": "ana", "reason": "why", "source": "token", "duration": HOUR,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"expected|takes") as caught:
        OverrideRequest(**(given | changes))  # type: ignore[arg-type]
    assert expected in str(caught.value)
