"""Minutes and events: what is summed up is what the decisions say, and it outlives them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, func, select, text

from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from scaler.audit import Period, audit
from scaler.ports import DecisionStore
from storage import rollups, schema
from storage.database import head, open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.reports import timeline
from storage.reports.export import audit_document
from storage.reports.minutes import contexts_of, read_minutes
from storage.retention import prune
from storage.verification import verify
from tests.integration.commands import run
from tests.integration.test_verification import load_version_1
from tests.log_builder import MIDNIGHT, OUTAGE, fill_log
from tests.situations import NOON, flat_forecast, situation

HOUR = timedelta(hours=1)
UNTIL = MIDNIGHT + timedelta(days=1)
LATER = UNTIL + timedelta(days=400)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six hours of two workloads, an outage of metrics in it."""
    path = tmp_path_factory.mktemp("written") / "daybreak.db"
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    fill_log(SqlDecisionStore(engine), hours=6, interval_seconds=20)
    fill_log(SqlDecisionStore(engine), "other", hours=2, interval_seconds=60)
    with engine.begin() as connection:
        connection.execute(text("PRAGMA journal_mode=DELETE"))
    engine.dispose()
    return path


@pytest.fixture
def log(written: Path, tmp_path: Path) -> Iterator[Engine]:
    path = tmp_path / "daybreak.db"
    copyfile(written, path)
    engine = open_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


def stored(engine: Engine, table: str) -> list[dict[str, object]]:
    found = schema.metadata.tables[table]
    with engine.connect() as connection:
        query = select(found).order_by(*found.primary_key.columns)
        return [dict(row) for row in connection.execute(query).mappings()]


def record(store: DecisionStore, at: timedelta, current: int = 10, epoch: int = 1) -> int:
    """A decision at NOON and so much."""
    context = replace(
        situation(current=current, forecast=flat_forecast(9_000.0)), now=NOON + at, epoch=epoch
    )
    return store.record(context, decide(context))


def test_a_minute_sums_its_decisions_up(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    for second, demand in ((5, 8_000.0), (25, 10_000.0), (45, None)):
        context = situation(current=12, demand=demand, forecast=flat_forecast(9_000.0))
        context = replace(context, now=NOON + timedelta(seconds=second))
        decision = decide(context)
        store.record_outcome(store.record(context, decision), NOON, Outcome(OutcomeKind.APPLIED))
    minutes = read_minutes(engine, "grammar", NOON, NOON + HOUR)
    assert len(minutes) == 1
    assert minutes.demand_qps[0] == 9_000.0
    assert minutes.demand_peak_qps[0] == 10_000.0
    assert (minutes.ready[0], minutes.decisions[0]) == (12.0, 3.0)
    assert minutes.outcomes[0] == {"Applied": 3}
    assert sum(minutes.reasons[0].values()) == 3
    assert minutes.qps_per_replica[0] == 1_000.0
    assert minutes.need[0] == 9
    assert minutes.at(0) == NOON


def test_the_store_sums_up_what_the_decisions_say(log: Engine) -> None:
    rows = {table: stored(log, table) for table in ("minute", "scale_event")}
    assert len(rows["minute"]) == 359 + 119
    with log.connect() as connection:
        for name in ("grammar", "other"):
            minutes, events = rollups.summed_up(connection, name, MIDNIGHT, UNTIL)
            mine = [row for row in rows["minute"] if row["workload"] == name]
            # The newest minute is not over yet.
            assert minutes[:-1] == mine
            changes = [row for row in rows["scale_event"] if row["workload"] == name]
            assert events[: len(changes)] == changes


def test_what_is_not_summed_up_yet_is_read_all_the_same(log: Engine) -> None:
    minutes = read_minutes(log, "grammar", MIDNIGHT, UNTIL)
    assert len(minutes) == 360
    assert float(minutes.decisions.sum()) == 1_080
    with log.begin() as connection:
        connection.execute(text("DELETE FROM minute"))
        connection.execute(text("DELETE FROM scale_event"))
        connection.execute(text("UPDATE workload SET rolled_up_to = NULL"))
    again = read_minutes(log, "grammar", MIDNIGHT, UNTIL)
    assert np.array_equal(minutes.demand_qps, again.demand_qps, equal_nan=True)
    assert minutes.contexts == again.contexts


def test_a_minute_that_is_stored_and_summed_up_now_counts_once(log: Engine) -> None:
    before = read_minutes(log, "grammar", MIDNIGHT, UNTIL)
    events = timeline.scale_events(log, "grammar", MIDNIGHT, UNTIL)
    with log.begin() as connection:
        back = "UPDATE workload SET rolled_up_to = '2026-03-16 02:00:00.000000'"
        connection.execute(text(back))
    again = read_minutes(log, "grammar", MIDNIGHT, UNTIL)
    assert float(again.decisions.sum()) == float(before.decisions.sum())
    assert timeline.scale_events(log, "grammar", MIDNIGHT, UNTIL) == events


def test_a_log_that_was_never_summed_up_catches_up(log: Engine) -> None:
    before = stored(log, "minute"), stored(log, "scale_event")
    with log.begin() as connection:
        connection.execute(text("DELETE FROM minute"))
        connection.execute(text("DELETE FROM scale_event"))
        connection.execute(text("UPDATE workload SET rolled_up_to = NULL"))
    shares: list[float] = []
    rollups.catch_up(log, shares.append)
    assert (stored(log, "minute"), stored(log, "scale_event")) == before
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_store_catches_up_hour_by_hour(log: Engine) -> None:
    with log.begin() as connection:
        connection.execute(text("DELETE FROM minute"))
        connection.execute(text("DELETE FROM scale_event"))
        connection.execute(text("UPDATE workload SET rolled_up_to = NULL"))
    store = SqlDecisionStore(log)
    for minute in range(8):
        context = replace(situation(), now=MIDNIGHT + timedelta(hours=6, minutes=minute))
        store.record(context, decide(context))
        with log.connect() as connection:
            mine = schema.minute.c.workload == "grammar"
            count = connection.execute(select(func.count()).where(mine)).scalar_one()
        assert count == min(60 * (minute + 1), 360 + minute)


def test_a_gap_of_weeks_is_stepped_over(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    record(store, timedelta())
    record(store, timedelta(days=40), epoch=2)
    record(store, timedelta(days=40, minutes=1), epoch=3)
    assert [row["decisions"] for row in stored(engine, "minute")] == [1, 1]


def test_a_clock_that_was_set_back_loses_no_decision(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    for epoch, minute in enumerate((0, 1, 2, 0, 1, 5)):
        record(store, timedelta(minutes=minute, seconds=epoch), epoch=epoch + 1)
    minutes = read_minutes(engine, "grammar", NOON, NOON + HOUR)
    assert minutes.decisions.tolist() == [2, 2, 1, 1]
    assert verify(engine).sound


def test_two_stores_on_one_log_sum_up_once(engine: Engine) -> None:
    one, other = SqlDecisionStore(engine), SqlDecisionStore(engine)
    for number in range(6):
        record(one if number % 2 else other, timedelta(seconds=30 * number), epoch=number + 1)
    assert [row["decisions"] for row in stored(engine, "minute")] == [2, 2]


def test_events_are_changes_of_what_was_asked_for(log: Engine) -> None:
    events = timeline.scale_events(log, "grammar", MIDNIGHT, UNTIL)
    line = timeline.timeline(log, "grammar", MIDNIGHT, UNTIL)
    changes = int((np.diff(line.desired) != 0).sum())
    assert len(events) in (changes, changes + 1)
    assert all(event.before != event.after for event in events)
    assert {event.outcome for event in events} == {OutcomeKind.APPLIED}


def test_contexts_lose_their_past_and_nothing_else(log: Engine) -> None:
    minutes = read_minutes(log, "grammar", MIDNIGHT, MIDNIGHT + HOUR)
    whole = list(SqlDecisionStore(log).stored("grammar", MIDNIGHT, MIDNIGHT + HOUR))
    for index, context in enumerate(contexts_of(log, minutes)):
        last = whole[3 * index + 2].context
        assert context == replace(last, recent=(), changes=())


def test_a_long_line_is_read_by_the_minute(log: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timeline.timeline(log, "grammar", MIDNIGHT, UNTIL)
    assert len(whole) == 1_080
    monkeypatch.setattr(timeline, "MOST_DECISIONS", 1_000)
    line = timeline.timeline(log, "grammar", MIDNIGHT, UNTIL)
    assert len(line) == 360
    assert np.nanmax(line.demand_qps) == np.nanmax(whole.demand_qps)
    assert timeline.problem_periods(line) == timeline.problem_periods(whole)


# Retention


def document(engine: Engine) -> dict[str, Any]:
    found = audit(engine, Period("grammar", MIDNIGHT, MIDNIGHT + timedelta(hours=6)))
    told: dict[str, Any] = json.loads(json.dumps(audit_document(found)))
    return told


def test_a_report_tells_the_same_after_pruning(log: Engine) -> None:
    before = document(log)
    shares: list[float] = []
    found = prune(log, LATER, HOUR, on_progress=shares.append)
    assert (found.decisions, found.minutes) == (897 + 119, 0)
    assert shares[-1] == 1.0
    after = document(log)
    # What came in a forecast's span is estimated from minutes where its decisions are gone.
    judged = [(told.pop("forecast"), told.pop("coverage")) for told in (before, after)]
    (told_before, shares_before), (told_after, shares_after) = judged
    assert (told_before["minutes_estimated"], told_after["minutes_estimated"] > 250) == (0, True)
    assert told_after["error_ratio"] == pytest.approx(told_before["error_ratio"], rel=0.1)
    for one, other in zip(shares_before, shares_after, strict=True):
        assert other["observed"] == pytest.approx(one["observed"], abs=0.05)
    # The check of the comparisons goes by single decisions: it says how many are left.
    checks = [told.pop("reproduction") for told in (before, after)]
    assert after == before
    assert [check["decisions"] for check in checks] == [1080, 183]
    assert all(abs(check["difference_ratio"]) < 0.01 for check in checks)
    line = timeline.timeline(log, "grammar", MIDNIGHT, UNTIL)
    assert len(line) == 360
    outage = timeline.problem_periods(line)[0]
    assert (outage.since, outage.until) == OUTAGE


def test_what_stays_after_pruning_verifies_and_goes_on(log: Engine) -> None:
    prune(log, LATER, HOUR)
    found = verify(log)
    assert found.sound
    assert (found.minutes, found.unverifiable_minutes) == (60, 299 + 119)
    assert found.pruned_entries == 2 * (897 + 119)
    told = run("verify", "--database", str(log.url))
    assert "not verifiable: 2,032 entries that were pruned, and 418 minutes" in told.stdout
    store = SqlDecisionStore(log)
    assert store.last_epoch("grammar") == 1_080
    # The newest decision of a workload that fell silent is its memory.
    assert store.last_epoch("other") == 120
    context = replace(situation(), now=MIDNIGHT + timedelta(hours=6), epoch=1_081)
    store.record_outcome(
        store.record(context, decide(context)), NOON, Outcome(OutcomeKind.UNCHANGED)
    )
    assert verify(log).sound


def test_a_row_that_is_missing_after_the_cut_is_found(log: Engine) -> None:
    prune(log, LATER, HOUR)
    with log.begin() as connection:
        first = select(func.min(schema.decision.c.id)).where(
            schema.decision.c.workload == "grammar"
        )
        row = connection.execute(first).scalar_one()
        connection.execute(text(f"DELETE FROM outcome WHERE decision_id = {row}"))
        connection.execute(text(f"DELETE FROM decision WHERE id = {row}"))
    assert [fault.kind.value for fault in verify(log).faults] == ["Missing"]


def test_pruning_twice_deletes_nothing_more(log: Engine) -> None:
    prune(log, LATER, HOUR)
    assert prune(log, LATER, HOUR).decisions == 0


def test_a_decision_of_a_clock_that_was_fast_does_not_make_the_others_old(log: Engine) -> None:
    store = SqlDecisionStore(log)
    record(store, timedelta(days=400), epoch=2_000)
    newest = MIDNIGHT + timedelta(hours=6, seconds=-20)
    found = prune(log, newest, HOUR, keep_minutes=2 * HOUR)
    assert (found.decisions, found.minutes) == (897 + 119, 359 + 119 - 119)


def test_old_minutes_go_where_that_is_asked_for(log: Engine) -> None:
    found = prune(log, LATER, HOUR, keep_minutes=2 * HOUR)
    assert found.minutes == 359 + 119 - 119
    assert len(read_minutes(log, "grammar", MIDNIGHT, UNTIL)) == 120


def test_the_chain_is_not_cut_between_a_decision_and_its_late_outcome(engine: Engine) -> None:
    """Two daemons on one log: their outcomes come after each other's decisions."""
    store = SqlDecisionStore(engine)
    for first in (0, 2, 4):
        ids = [record(store, timedelta(minutes=n), epoch=n + 1) for n in (first, first + 1)]
        for decision_id in reversed(ids):
            store.record_outcome(decision_id, NOON, Outcome(OutcomeKind.APPLIED))
    assert verify(engine).sound
    # Between the first two decisions nothing can be cut: the outcome of the first came later.
    assert prune(engine, LATER, timedelta(minutes=4)).decisions == 0
    assert verify(engine).sound
    assert prune(engine, LATER, timedelta(minutes=2)).decisions == 2
    assert verify(engine).sound


def test_pruning_works_on_each_database(engine: Engine) -> None:
    fill_log(SqlDecisionStore(engine), hours=0.5)
    found = prune(engine, LATER, timedelta(minutes=10))
    assert found.decisions == 19
    assert verify(engine).sound
    assert len(read_minutes(engine, "grammar", MIDNIGHT, UNTIL)) == 30


def test_a_log_of_version_1_is_summed_up_by_upgrading(database_url: str) -> None:
    engine = open_engine(database_url)
    load_version_1(engine)
    engine.dispose()
    ended = run("db", "upgrade", "--database", database_url)
    assert ended.returncode == 0, ended.stderr
    assert f"0001 -> {head()}" in ended.stdout
    engine = open_engine(database_url)
    minutes = read_minutes(engine, "grammar", MIDNIGHT, UNTIL)
    assert len(minutes) == 12
    assert Counter(minutes.policy) == {"predictive": 12}
    assert all(context is not None for context in contexts_of(engine, minutes))
    assert len(stored(engine, "minute")) == 11 + 5
    engine.dispose()


def test_the_command_prunes_and_tells(log: Engine) -> None:
    url = str(log.url)
    ended = run("db", "prune", "--keep-days", "0.041666", "--database", url)
    assert ended.returncode == 0, ended.stderr
    assert "deleted 1,016 decisions, 0 minutes, 0 models" in ended.stdout
    refused = run("db", "prune", "--keep-days", "2", "--keep-minute-days", "1", "--database", url)
    assert refused.returncode == 2
    assert "minutes must stay as long as decisions at least (2), got 1" in refused.stderr
