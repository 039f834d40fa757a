"""`daybreak explain` on a day of decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from forecaster.forecast import Calibration
from policies.context import Override, OverrideKind
from policies.engine import decide
from storage import schema
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.reports.explanation import Explanation
from storage.reports.lookup import Reference, explained, parse_reference
from storage.reports.prose import explanation_document, explanation_text
from tests.integration.commands import run
from tests.log_builder import MIDNIGHT, OUTAGE, SURGE_AT, fill_log
from tests.situations import NOON, flat_forecast, situation, window_forecast

HOSTILE = "<script>\x1b[2J\u202egpj'; DROP TABLE decision; --@x"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('day') / 'daybreak.db'}")
    upgrade(engine)
    fill_log(SqlDecisionStore(engine), interval_seconds=30, hours=17)
    fill_log(SqlDecisionStore(engine), HOSTILE, hours=0.1)
    yield engine
    engine.dispose()


def at(engine: Engine, moment: timedelta) -> Explanation:
    return explained(engine, Reference(None, "grammar", MIDNIGHT + moment))


def test_a_decision_is_found_by_id_and_by_time(day: Engine) -> None:
    by_time = explained(day, parse_reference("grammar@2026-03-16T08:15:20Z"))
    assert by_time.at == MIDNIGHT + timedelta(hours=8, minutes=15)
    assert explained(day, parse_reference(str(by_time.id))) == by_time
    assert explained(day, parse_reference("grammar@2026-03-16T09:15:20+01:00")) == by_time


def test_a_calm_moment_was_foreseen(day: Engine) -> None:
    found = at(day, timedelta(hours=8))
    after = found.aftermath
    assert after.within_order is True
    assert after.spare_replicas is not None
    assert after.spare_replicas >= 0
    assert after.forecast_error_ratio is not None
    assert abs(after.forecast_error_ratio) < 0.1
    assert found.steps[-1].after == found.desired
    assert found.binding.startswith(f"{found.steps[-1].rule} (")


def test_what_came_is_what_was_logged_of_the_span(day: Engine) -> None:
    found = at(day, timedelta(hours=8))
    lag = timedelta(seconds=15)
    table = schema.decision.c
    query = select(table.demand_qps).where(
        table.workload == "grammar",
        table.at >= found.aftermath.since + lag,
        table.at < found.aftermath.until + lag,
    )
    with day.connect() as connection:
        assert found.aftermath.demand_qps == max(connection.execute(query).scalars())


def test_before_the_surge_too_little_was_asked_for(day: Engine) -> None:
    found = at(day, SURGE_AT - MIDNIGHT + timedelta(minutes=2))
    assert found.aftermath.within_order is False
    assert found.aftermath.spare_replicas is not None
    assert found.aftermath.spare_replicas < 0
    assert "short" in explanation_text(found)


def test_by_a_forecast_that_was_not_trusted_nothing_was_ordered(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    for number in range(20):
        context = situation(forecast=flat_forecast(9_900.0, trusted=False))
        context = replace(context, now=context.now + timedelta(seconds=15 * number))
        store.record(replace(context, epoch=number + 1), decide(context))
    found = explained(engine, Reference(1))
    assert found.aftermath.demand_qps == 9_000.0
    assert found.aftermath.within_order is None
    told = explanation_text(found)
    assert "the median forecast was 10 % too high; it was not trusted" in _spaced(told)
    assert "not trusted, else be ready for" in told
    assert "what was ordered for" not in told


def _spaced(text: str) -> str:
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_in_an_outage_the_doubt_is_told(day: Engine) -> None:
    found = at(day, OUTAGE[0] - MIDNIGHT + timedelta(minutes=1))
    shown = explanation_text(found)
    assert "demand: data too old: newest sample is 240 s old" in shown
    assert "metrics, not trusted, 15 s old" in shown


def test_the_end_of_the_log_is_not_made_up(day: Engine) -> None:
    found = at(day, timedelta(days=2))
    assert found.aftermath.demand_qps is None
    assert found.aftermath.spare_replicas is None
    assert "the log does not tell what came from" in explanation_text(found)


def test_every_figure_is_in_the_document(day: Engine) -> None:
    found = at(day, timedelta(hours=8))
    document = json.loads(json.dumps(explanation_document(found), allow_nan=False))
    assert document["at"] == "2026-03-16T08:00:00+00:00"
    assert [window["name"] for window in document["forecast"]["windows"]] == ["order", "hold"]
    assert document["forecast"]["windows"][0]["quantiles"][0] == {
        "level": 0.05,
        "qps": found.forecast.windows[0].quantiles[0][1] if found.forecast else None,
    }
    assert (
        document["outcome"] == {"kind": found.outcome.kind.value, "detail": ""}
        if (found.outcome)
        else None
    )
    assert {"name", "value", "unit", "source", "age_seconds"} == set(document["inputs"][0])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (OverrideKind.PAUSE, "without the pause"),
        (OverrideKind.REPLICAS, "without the override"),
        (OverrideKind.MINIMUM, "without the override"),
    ],
)
def test_an_override_that_changed_nothing_is_told(
    engine: Engine, kind: OverrideKind, change: str
) -> None:
    desired = decide(situation()).desired
    number = None if kind is OverrideKind.PAUSE else desired
    held = Override(1, kind, number, "ana", "cell\x1b migration", NOON + timedelta(hours=1))
    for hours in (0, 2):
        # The second time it is over.
        later = NOON + timedelta(hours=hours)
        context = replace(situation(current=desired), now=later, override=held, epoch=1 + hours)
        SqlDecisionStore(engine).record(context, decide(context))
    found = explained(engine, Reference(1))
    assert not {"pause", "override"} & {step.rule for step in found.steps}
    assert change in [one.change for one in found.alternatives]
    shown = explanation_text(found)
    assert "asked for by ana: cell" in shown
    assert "migration; until 2026-" in shown
    document = explanation_document(found)["override"]
    assert (document["kind"], document["replicas"]) == (kind.value, number)
    assert document["expires_at"] == held.expires_at.isoformat()
    assert explained(engine, Reference(2)).override is None
    assert "ana" not in explanation_text(explained(engine, Reference(2)))


def test_a_bare_decision_can_be_explained(engine: Engine) -> None:
    """No forecast, no demand, no outcome, nothing after it."""
    SqlDecisionStore(engine).record(situation(demand=None), decide(situation(demand=None)))
    found = explained(engine, Reference(1))
    shown = explanation_text(found)
    assert "Outcome: not known" in shown
    assert "nothing that was looked at" in shown
    assert "\n  none\n" in shown
    json.dumps(explanation_document(found), allow_nan=False)


@pytest.mark.parametrize(
    ("spare", "told"),
    [
        ({"hourly": 0.9}, "0.9 times a jump at this time of the hour"),
        (
            {"daily": 0.9, "daily_seconds": 600},
            "0.9 times the highest rate around this time of day",
        ),
    ],
)
def test_how_the_margin_was_found_is_told(engine: Engine, spare: dict[str, Any], told: str) -> None:
    """The target, what was replayed for it, and what is kept besides; so after the log too."""
    chosen = Calibration(1e-3, 2.0, **spare, expected_bad_ratio=6.4e-4, requests=8.1e9)
    forecast = replace(window_forecast(14_000, 14_000, 0.02), calibration=chosen)
    context = situation(demand=9_000.0, forecast=forecast)
    SqlDecisionStore(engine).record(context, decide(context))
    found = explained(engine, Reference(1))
    expected = (
        "margin 2 for a target of 0.001: a bad ratio of 6.4e-04 is estimated from 8,100,000,000 "
        f"requests replayed; besides {told}"
    )
    assert expected in explanation_text(found)
    document = json.loads(json.dumps(explanation_document(found), allow_nan=False))
    assert document["forecast"]["calibration"] == {
        "target_bad_ratio": 1e-3,
        "margin": 2.0,
        "steady": False,
        "burst_factor": 0.0,
        "burst_days": 0,
        "headroom": 0.0,
        "hourly": 0.0,
        "daily": 0.0,
        "daily_seconds": 0,
        "expected_bad_ratio": 6.4e-4,
        "requests": 8.1e9,
        "kept": True,
        **spare,
    }
    nearest = replace(forecast, calibration=replace(chosen, hourly=0.0, daily=0.0, kept=False))
    context = situation(demand=9_000.0, forecast=nearest)
    SqlDecisionStore(engine).record(context, decide(context))
    shown = explanation_text(explained(engine, Reference(2)))
    assert "0.001, the nearest to it that was found: a bad" in shown
    assert "besides" not in shown


def test_hostile_names_steer_no_terminal(day: Engine) -> None:
    found = explained(day, parse_reference(f"{HOSTILE}@2026-03-17"))
    shown = explanation_text(found)
    assert shown.replace("\n", "").replace("\N{NARROW NO-BREAK SPACE}", " ").isprintable()
    assert "<script>\\x1b[2J\\u202egpj" in shown


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("99999999", "there is no decision 99999999; the log holds 1 to "),
        ("nobody@2026-03-16", "there is no workload 'nobody' in the log; there are: "),
        ("grammar@2020-01-01", "the log holds no decision of 'grammar' at or before 2020-01-01"),
        ("grammar@yesterday", "expected a decision's id, or WORKLOAD@TIME"),
        ("grammar", "expected a decision's id, or WORKLOAD@TIME"),
        ("-3", "expected a decision's id, or WORKLOAD@TIME"),
    ],
)
def test_what_is_not_there_is_said_so(day: Engine, reference: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"no |expected") as caught:
        explained(day, parse_reference(reference))
    assert expected in str(caught.value)


def test_the_command_in_words_and_as_json(day: Engine, tmp_path: Path) -> None:
    url = str(day.url)
    shown = run("explain", "grammar@2026-03-16T08:00:00", "--database", url)
    assert shown.returncode == 0, shown.stderr
    for heading in ("Inputs", "Forecast", "Steps", "What bound", "What happened then"):
        assert f"\n{heading}\n" in shown.stdout
    document = json.loads(run("explain", "17", "--database", url, "--json", "-").stdout)
    assert document["id"] == 17
    path = tmp_path / "why.json"
    run("explain", "17", "--database", url, "--json", str(path))
    assert json.loads(path.read_text()) == document


def test_a_decision_that_is_not_there_is_bad_input(day: Engine) -> None:
    ended = run("explain", "nobody@2026-03-16", "--database", str(day.url))
    assert ended.returncode == 2
    assert "there is no workload 'nobody'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_decision_that_cannot_be_read_is_said_so(day: Engine) -> None:
    with day.begin() as connection:
        connection.execute(text("UPDATE decision SET context = x'00' WHERE id = 40"))
    ended = run("explain", "40", "--database", str(day.url))
    assert ended.returncode == 2
    assert "stored decision 40 cannot be read" in ended.stderr
