"""What stands in the way of decisions: told when it changes, kept while it stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from structlog.testing import capture_logs

from policies.context import Problem, ProblemKind, ProblemSource
from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from scaler.loop import TickResult
from scaler.obstacles import MOST_TOLD, Teller, Writes
from scaler.rounds import Failure
from tests.situations import NOON, flat_forecast, situation

RIVAL = Outcome(OutcomeKind.REFUSED, "Deployment llm/grammar is scaled by the HPA rival")
APPLIED = Outcome(OutcomeKind.APPLIED)
MINUTE = timedelta(minutes=1)


def ticked(
    outcome: Outcome, at: datetime = NOON, current: int = 8, problems: tuple[Problem, ...] = ()
) -> TickResult:
    """Of 9,500 requests a second, for which ten replicas are wanted."""
    context = situation(current=current, demand=9_000.0, forecast=flat_forecast(9_500.0))
    context = replace(context, now=at, problems=problems)
    return TickResult(context, decide(context), outcome, 1)


def unreachable(message: str) -> tuple[Problem, ...]:
    return (Problem(ProblemSource.DEMAND, ProblemKind.UNREACHABLE, message),)


def told(*results: TickResult | Failure) -> list[str]:
    teller = Teller()
    with capture_logs() as lines:
        for result in results:
            teller.after_tick(result)
    assert {(line["log_level"], line["workload"]) for line in lines} <= {("warning", "grammar")}
    return [f"{line['event']}, {line['kind']}: {line['why']}" for line in lines]


def test_why_a_decision_was_not_applied_is_told_once_while_it_stands() -> None:
    paused = Outcome(OutcomeKind.REFUSED, "Deployment llm/grammar is paused")
    unchanged = Outcome(OutcomeKind.UNCHANGED)
    rival = f"not applied, Refused: {RIVAL.detail}"
    assert told(ticked(RIVAL), ticked(RIVAL)) == [rival]
    assert told(ticked(RIVAL), ticked(paused)) == [rival, f"not applied, Refused: {paused.detail}"]
    assert told(ticked(RIVAL), ticked(unchanged), ticked(RIVAL)) == [rival]
    assert told(ticked(RIVAL), ticked(APPLIED), ticked(RIVAL)) == [rival, rival]
    assert told(ticked(RIVAL), Failure("grammar", NOON, "gone"), ticked(RIVAL)) == [rival]


def test_what_is_doubtful_is_told_with_its_message() -> None:
    results = [
        ticked(APPLIED, problems=unreachable(f"nobody answers since {seconds} s"))
        for seconds in (15, 30)
    ]
    other = ticked(APPLIED, problems=unreachable("the name is not known"))
    assert told(*results, other) == [
        "doubtful, Unreachable: nobody answers since 15 s",
        "doubtful, Unreachable: the name is not known",
    ]


def test_a_message_that_is_another_each_time_does_not_fill_the_log() -> None:
    names = [chr(ord("a") + number) for number in range(2 * MOST_TOLD)]
    assert len(told(*(ticked(APPLIED, problems=unreachable(name)) for name in names))) == MOST_TOLD


def test_a_workload_that_grows_in_vain_starves() -> None:
    writes = Writes()
    writes.after_tick(ticked(RIVAL))
    writes.after_tick(ticked(RIVAL, NOON + MINUTE))
    writes.after_tick(Failure("grammar", NOON + MINUTE, "gone"))
    assert writes.standing()["grammar"].since == NOON
    assert list(writes.starving(NOON + MINUTE, MINUTE)) == []
    assert list(writes.starving(NOON + 2 * MINUTE, MINUTE)) == [
        "grammar: asks for more replicas since 12:00:00 UTC in vain: Refused: " + RIVAL.detail
    ]
    writes.after_tick(ticked(APPLIED, NOON + 2 * MINUTE))
    assert writes.standing() == {}


def test_a_fleet_that_only_is_not_made_smaller_lacks_nothing() -> None:
    """A roll-out holds a scale-down for hours."""
    writes = Writes()
    writes.after_tick(ticked(RIVAL, current=10))
    assert writes.standing()["grammar"].growing is None
    assert list(writes.starving(NOON + timedelta(hours=9), MINUTE)) == []
