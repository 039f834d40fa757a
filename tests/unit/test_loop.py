"""ControlLoop: what a tick does when its ports do and do not answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

import pytest
from structlog.testing import capture_logs

from forecaster.calendar import Calendar
from forecaster.forecast import FittedModel, Forecast, Forecaster, Window
from forecaster.history import TrafficHistory
from forecaster.registry import combined
from policies.context import Capacity, LeadTime, Problem, ProblemKind, ProblemSource
from policies.decision import OutcomeKind, Reason
from scaler.loop import ControlLoop, LoopSettings, Ports
from scaler.ports import MetricsError, Reading, TargetError
from scaler.rounds import Failure, Rounds
from scaler.settings import Settings
from scaler.wiring import Watch
from simulator.clock import VirtualClock
from storage.memory import MemoryDecisionStore
from tests.fakes import FakeMetrics, FakeTarget, FragileStore
from tests.situations import settings
from tests.traffic import weeks

NOW = weeks().start + timedelta(days=20, hours=11)


def loop_settings() -> LoopSettings:
    return LoopSettings(
        workload="grammar",
        policy=settings(maximum=400, parameters={"lookBackSeconds": 300.0}),
        capacity=Capacity(1080.0),
        lead_time=LeadTime(150.0, 180.0, 15.0),
        interval_seconds=15.0,
        history_steps=14 * 1440,
        step_seconds=60,
    )


def test_at_steps_of_a_tick_the_windows_are_those_of_the_decision() -> None:
    """Steps 13 to 15 after a history that ends 15 s ago begin 180, 195 and 210 s from now."""
    every_tick = replace(loop_settings(), step_seconds=15)
    assert every_tick.windows == (Window("order", 13, 16), Window("hold", 1, 15))


@pytest.mark.parametrize("step", [5, 15, 60, 300, 3600])
@pytest.mark.parametrize("lead", [0.0, 12.0, 180.0, 481.5])
@pytest.mark.parametrize("lag", [0.0, 15.0, 100.0])
def test_windows_cover_the_decision_wherever_in_a_step_it_is_made(
    step: int, lead: float, lag: float
) -> None:
    configured = replace(
        loop_settings(), step_seconds=step, lead_time=LeadTime(0.0, lead, lag), interval_seconds=20
    )
    order, hold = configured.windows
    for into in (0.0, 0.4 * step, 0.99 * step):  # how long before now - lag the history ends
        now = into + lag
        assert order.first * step <= now + lead
        assert order.last * step >= now + lead + 20
        assert hold.first * step <= now
        assert hold.last * step > now + lead + 20 - step


def rate_at(history: TrafficHistory, now: datetime) -> float:
    return float(history.values[int((now - history.start).total_seconds() // 60)])


class Bench:
    """A loop with everything around it at hand."""

    def __init__(self, replicas: int = 150) -> None:
        self.metrics = FakeMetrics(weeks(), lambda now: rate_at(weeks(), now))
        self.target = FakeTarget(replicas)
        self.store = FragileStore()
        self.restart()

    def restart(
        self, configured: LoopSettings | None = None, forecaster: Forecaster | None = None
    ) -> None:
        ports = Ports(self.metrics, self.target, self.store)
        chosen = forecaster or combined(Calendar())
        self.loop = ControlLoop(configured or loop_settings(), ports, chosen)
        self.loop.catch_up(NOW - timedelta(hours=1))


@dataclass
class Watched:
    """A forecaster that keeps the histories that it was asked to predict from."""

    inner: Forecaster
    seen: list[TrafficHistory]

    @property
    def name(self) -> str:
        return self.inner.name

    def fit(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> FittedModel:
        return self.inner.fit(history, fitted_at, windows)

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        self.seen.append(history)
        return self.inner.predict(fitted, history, issued_at)


@cache
def fitted() -> FittedModel:
    bench = Bench()
    return bench.loop.refit(NOW)


@pytest.fixture
def bench() -> Bench:
    """With a model that was fitted at NOW."""
    built = Bench()
    built.store.save_model("grammar", fitted())
    built.restart()
    return built


def test_a_tick_records_its_intent_and_its_outcome(bench: Bench) -> None:
    result = bench.loop.tick(NOW)
    assert result.outcome.kind is OutcomeKind.APPLIED
    assert bench.target.replicas == result.decision.desired
    assert bench.store.decisions["grammar"] == [result.decision]
    assert bench.store.outcomes[result.decision_id or 0] == result.outcome
    assert result.context.forecast is not None
    assert result.context.problems == ()


def test_before_any_fit_the_loop_is_reactive_and_says_so() -> None:
    result = Bench().loop.tick(NOW)
    assert [problem.kind for problem in result.context.problems] == [
        ProblemKind.FORECAST_UNAVAILABLE
    ]
    assert result.decision.steps[0].rule == "reactive"


def test_a_restart_finds_the_model_in_the_log(bench: Bench) -> None:
    before = bench.loop.tick(NOW).context.forecast
    bench.restart()
    after = bench.loop.tick(NOW).context.forecast
    assert before == after
    assert not bench.loop.refit_due(NOW + timedelta(minutes=59), 3600)
    assert bench.loop.refit_due(NOW + timedelta(minutes=60), 3600)


def test_a_stored_model_for_other_windows_is_not_used(bench: Bench) -> None:
    bench.restart(replace(loop_settings(), lead_time=LeadTime(300.0, 480.0, 15.0)))
    result = bench.loop.tick(NOW)
    assert result.context.forecast is None
    assert any("no model yet" in problem.message for problem in result.context.problems)
    assert bench.loop.refit_due(NOW, 3600)


SLOW = LeadTime(200.0, 420.0, 0.0, "measured on 40 pods")


def test_slower_starts_are_planned_with_within_the_hour(bench: Bench) -> None:
    hour = timedelta(hours=1)
    assert not bench.loop.refit_due(NOW, 86_400)
    bench.target.seen_lead = SLOW
    assert not bench.loop.refit_due(NOW + hour / 2, 86_400)
    assert bench.loop.refit_due(NOW + hour, 86_400)
    windows = bench.loop.refit(NOW + hour).windows
    assert windows == replace(loop_settings(), lead_time=LeadTime(200.0, 420.0, 15.0)).windows
    context = bench.loop.tick(NOW + hour).context
    assert context.lead_time == LeadTime(200.0, 420.0, 15.0, "measured on 40 pods")
    assert context.forecast is not None
    assert context.forecast.windows[0].starts_at > NOW + hour + timedelta(seconds=340)
    assert not bench.loop.refit_due(NOW + 2 * hour, 86_400)


def test_slower_starts_that_cannot_be_fitted_are_tried_again(bench: Bench) -> None:
    hour, minute = timedelta(hours=1), timedelta(minutes=1)
    bench.metrics.broken = ProblemKind.UNREACHABLE
    bench.restart()
    assert not bench.loop.refit_due(NOW, 86_400)
    bench.target.seen_lead = SLOW
    assert bench.loop.refit_due(NOW + hour, 86_400)
    with pytest.raises(MetricsError):
        bench.loop.refit(NOW + hour)
    bench.metrics.broken = None
    assert bench.loop.refit_due(NOW + hour + minute, 86_400)
    bench.loop.catch_up(NOW + hour + minute)
    assert bench.loop.tick(NOW + hour + minute).context.forecast is not None


def test_a_restart_keeps_the_model_for_the_lead_time_that_was_learned(bench: Bench) -> None:
    bench.target.seen_lead = SLOW
    bench.loop.refit(NOW)
    bench.restart()
    assert bench.loop.tick(NOW).context.forecast is not None
    assert not bench.loop.refit_due(NOW, 3600)


@pytest.mark.parametrize("p95", [60.0, 180.0, 195.0])
def test_quicker_starts_and_chance_change_nothing(bench: Bench, p95: float) -> None:
    bench.target.seen_lead = LeadTime(50.0, p95)
    assert not bench.loop.refit_due(NOW, 86_400)
    bench.loop.refit(NOW)
    assert bench.loop.settings == loop_settings()


def test_starts_that_become_quick_again_count_at_the_next_fit(bench: Bench) -> None:
    bench.target.seen_lead = SLOW
    bench.loop.refit(NOW)
    bench.target.seen_lead = LeadTime(50.0, 60.0)
    assert not bench.loop.refit_due(NOW + timedelta(hours=2), 86_400)
    bench.loop.refit(NOW + timedelta(hours=2))
    assert bench.loop.settings == loop_settings()


def test_a_target_that_cannot_be_read_leaves_the_lead_time_as_it_is(bench: Bench) -> None:
    bench.target.seen_lead = SLOW
    bench.loop.refit(NOW)
    bench.target.readable = False
    bench.loop.refit(NOW + timedelta(hours=2))
    assert bench.loop.settings.lead_time.p95_seconds == 420.0


def test_learning_can_be_turned_off(bench: Bench) -> None:
    fixed = replace(loop_settings(), learns_lead_time=False)
    bench.restart(fixed)
    bench.target.seen_lead = SLOW
    assert not bench.loop.refit_due(NOW, 86_400)
    bench.loop.refit(NOW)
    assert bench.loop.settings == fixed


@pytest.mark.parametrize("fault", ["gaps", "short", "unreachable"])
def test_the_history_ends_one_metric_lag_ago_and_late_steps_are_asked_for_again(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether what is missing comes as gaps, as fewer steps, or as no answer at all."""
    bench = Bench()
    seen: list[TrafficHistory] = []
    bench.restart(forecaster=Watched(combined(Calendar()), seen))
    bench.loop.refit(NOW + timedelta(minutes=1, seconds=20))
    known_end = NOW + timedelta(minutes=1)
    with monkeypatch.context() as faulty:
        if fault == "gaps":
            faulty.setattr(bench.metrics, "known_until", known_end)
        elif fault == "short":
            short = Reading(weeks().between(known_end, known_end))
            faulty.setattr(bench.metrics, "demand_history", lambda *_: short)
        else:
            faulty.setattr(bench.metrics, "broken", ProblemKind.UNREACHABLE)
        for minute in (2, 3):
            bench.loop.tick(NOW + timedelta(minutes=minute, seconds=20))
    assert (seen[-1].end, seen[-1].last_known_end) == (NOW + timedelta(minutes=3), known_end)
    bench.loop.tick(NOW + timedelta(minutes=4, seconds=14))
    assert seen[-1].last_known_end == seen[-1].end == NOW + timedelta(minutes=3)


class Counted(FakeMetrics):
    """Says what spans of history it was asked for; `doubt` is about every span of a day and more,
    `known_from` the first that it knows."""

    def __init__(self) -> None:
        super().__init__(weeks(), lambda now: rate_at(weeks(), now))
        self.asked: list[timedelta] = []
        self.doubt: ProblemKind | None = None
        self.known_from = weeks().start

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        self.asked.append(end - start)
        told = super().demand_history(max(start, self.known_from), end, step_seconds)
        if self.doubt is None or end - start < timedelta(days=1):
            return told
        return Reading(told.value, (Problem(ProblemSource.HISTORY, self.doubt, "of old"),))


@pytest.fixture
def counted(bench: Bench) -> Counted:
    bench.metrics = metrics = Counted()
    return metrics


def test_a_source_with_less_than_was_asked_for_is_asked_for_the_whole_once(
    bench: Bench, counted: Counted
) -> None:
    counted.known_from = NOW - timedelta(days=10)
    bench.restart()
    for minute in range(5):
        bench.loop.tick(NOW + timedelta(minutes=minute))
    bench.loop.refit(NOW + timedelta(minutes=5))
    assert counted.asked == [timedelta(days=14), timedelta(hours=1)] + 5 * [timedelta(minutes=1)]


def test_a_tick_never_waits_for_the_whole_history(bench: Bench, counted: Counted) -> None:
    """After a restart with a model: weeks may take a minute, and a decision may not."""
    counted.broken = ProblemKind.UNREACHABLE
    bench.restart()
    counted.broken = None
    counted.asked.clear()
    result = bench.loop.tick(NOW)
    assert counted.asked == [timedelta(hours=1)]
    assert result.context.forecast is None
    assert [problem.message for problem in result.context.problems] == [
        "the history is still to be read"
    ]
    bench.loop.catch_up(NOW)
    assert counted.asked == [timedelta(hours=1), timedelta(days=14)]
    assert bench.loop.tick(NOW + timedelta(minutes=1)).context.problems == ()


def test_what_is_doubtful_far_back_is_left_out_and_not_read_again(
    bench: Bench, counted: Counted
) -> None:
    counted.doubt = ProblemKind.IMPLAUSIBLE
    bench.restart()
    for minute in range(3):
        result = bench.loop.tick(NOW + timedelta(minutes=minute))
        bench.loop.catch_up(NOW + timedelta(minutes=minute))
        assert (result.context.problems, result.context.forecast is None) == ((), False)
    assert counted.asked.count(timedelta(days=14)) == 1


def test_a_whole_of_which_a_part_is_missing_serves_in_doubt_until_it_is_read_again(
    bench: Bench, counted: Counted
) -> None:
    counted.doubt = ProblemKind.PARTIAL
    bench.restart()
    bench.target.replicas = 300
    result = bench.loop.tick(NOW)
    assert result.context.forecast is not None
    assert result.decision.reason is Reason.METRICS_UNAVAILABLE  # that is, never shrink
    assert counted.asked.count(timedelta(days=14)) == 1
    counted.doubt = None
    bench.loop.catch_up(NOW)
    assert counted.asked.count(timedelta(days=14)) == 2
    assert bench.loop.tick(NOW + timedelta(minutes=1)).context.problems == ()


def test_lost_metrics_hold_the_fleet(bench: Bench) -> None:
    bench.loop.tick(NOW)
    bench.target.replicas = 300
    bench.metrics.broken = ProblemKind.UNREACHABLE
    result = bench.loop.tick(NOW + timedelta(minutes=1))
    assert result.decision.desired == 300
    assert result.decision.reason is Reason.METRICS_UNAVAILABLE
    sources = {problem.source for problem in result.context.problems}
    assert {ProblemSource.DEMAND, ProblemSource.HISTORY} <= sources


def test_while_metrics_are_lost_the_last_forecast_may_still_raise(bench: Bench) -> None:
    bench.loop.tick(NOW)
    bench.target.replicas = 100
    bench.metrics.broken = ProblemKind.UNREACHABLE
    result = bench.loop.tick(NOW + timedelta(minutes=2))
    assert result.decision.reason is Reason.FORECAST_PEAK
    assert result.decision.desired > 100


def test_a_stale_history_gives_no_forecast(bench: Bench) -> None:
    bench.loop.tick(NOW)
    bench.metrics.broken = ProblemKind.UNREACHABLE
    result = bench.loop.tick(NOW + timedelta(minutes=30))
    assert result.context.forecast is None
    assert any("history ends" in problem.message for problem in result.context.problems)


def test_zero_from_a_busy_source_is_doubted(bench: Bench) -> None:
    bench.metrics.demand = lambda _: 0.0
    bench.metrics.running = None
    result = bench.loop.tick(NOW)
    assert ProblemKind.IMPLAUSIBLE in {problem.kind for problem in result.context.problems}
    assert result.context.demand_qps is None
    assert result.decision.desired >= 150


def test_zero_is_believed_when_the_pods_are_idle_too(bench: Bench) -> None:
    bench.metrics.demand = lambda _: 0.0
    bench.metrics.running = 0.0
    result = bench.loop.tick(NOW)
    assert result.context.demand_qps == 0.0


def test_an_unreadable_target_is_no_decision(bench: Bench) -> None:
    bench.target.readable = False
    with pytest.raises(TargetError, match="not found"):
        bench.loop.tick(NOW)
    assert bench.store.decisions["grammar"] == []


def test_a_change_behind_our_back_is_a_conflict_not_overwritten(bench: Bench) -> None:
    bench.target.meddler = lambda _: 77
    result = bench.loop.tick(NOW)
    assert result.outcome.kind is OutcomeKind.CONFLICT
    assert bench.target.replicas == 77


def test_epochs_rise_and_outrank_what_the_target_carries(bench: Bench) -> None:
    bench.target.epoch = 41
    first = bench.loop.tick(NOW).decision.epoch
    second = bench.loop.tick(NOW + timedelta(seconds=15)).decision.epoch
    assert 41 < first < second


def rivals() -> tuple[Bench, Bench]:
    """Two loops on one target with a log each; the other one is sure that fewer will do."""
    ours, other = Bench(), Bench()
    other.target = ours.target
    other.metrics = FakeMetrics(weeks(), lambda now: 0.7 * rate_at(weeks(), now))
    other.restart()
    return ours, other


def test_two_daemons_with_separate_logs_do_not_fight() -> None:
    ours, other = rivals()
    outcomes = []
    for tick in range(12):
        now = NOW + tick * timedelta(seconds=15)
        ours.loop.tick(now)
        outcomes.append(other.loop.tick(now))
    assert len(ours.target.applied) <= 2, "each used to undo what the other had done"
    refused = [result for result in outcomes if result.outcome.kind is OutcomeKind.REFUSED]
    assert refused
    assert "another daybreak writes to this target" in refused[0].outcome.detail
    assert refused[0].rival == refused[0].outcome.detail


def test_a_rival_is_an_error_of_the_log_and_a_reason_why_the_daemon_is_not_ready() -> None:
    workload = {
        "name": "grammar",
        "target": {"name": "grammar", "mode": "shadow"},
        "demand": {"query": "up"},
        "capacity": {"qpsPerReplica": 1.0},
        "maxReplicas": 9,
    }
    given = {"prometheus": {"url": "http://prometheus:9090"}, "workloads": [workload]}
    now = NOW + timedelta(seconds=15)
    watch = Watch(Settings.model_validate(given), VirtualClock(now))
    ours, other = rivals()
    ours.loop.tick(NOW)
    with capture_logs() as logged:
        Rounds({"grammar": other.loop}, watch.after_tick).decide_all(now)
    assert ("two writers", "error") in [(line["event"], line["log_level"]) for line in logged]
    (reason,) = watch.unready()
    assert reason.startswith("grammar: another daybreak writes to this target")


def test_a_rival_is_taken_over_from_once_it_has_been_silent_for_long() -> None:
    ours, other = rivals()
    ours.loop.tick(NOW)
    wanted = [other.loop.tick(NOW + tick * timedelta(seconds=15)) for tick in range(60)]
    assert {result.outcome.kind for result in wanted[1:]} <= {
        OutcomeKind.REFUSED,
        OutcomeKind.UNCHANGED,
    }
    taken = other.loop.tick(NOW + timedelta(minutes=15))
    assert (taken.outcome.kind, taken.rival) == (OutcomeKind.APPLIED, "")
    assert other.loop.tick(NOW + timedelta(minutes=16)).rival == ""


def test_beside_a_rival_the_fleet_may_grow() -> None:
    """Where the log was lost, nothing may keep a fresh process from ordering what is needed."""
    bench = Bench(replicas=10)
    bench.target.epoch = 41
    grown = bench.loop.tick(NOW)
    assert (grown.outcome.kind, bool(grown.rival)) == (OutcomeKind.APPLIED, True)
    assert bench.loop.tick(NOW + timedelta(seconds=15)).rival == ""


def test_a_restart_and_a_second_daemon_on_one_log_know_each_others_marks() -> None:
    ours, other = rivals()
    other.store = ours.store
    other.restart()
    for tick in range(8):
        now = NOW + tick * timedelta(seconds=15)
        assert ours.loop.tick(now).rival == ""
        assert other.loop.tick(now).rival == ""
        if tick == 4:
            ours.restart()


def test_a_mark_is_not_doubted_while_the_log_cannot_be_asked(bench: Bench) -> None:
    bench.target.replicas, bench.target.epoch = 300, 41
    bench.store.broken = True
    assert bench.loop.tick(NOW).rival == ""
    bench.store.broken = False
    assert bench.loop.tick(NOW + timedelta(seconds=15)).rival


def test_without_the_log_the_fleet_grows_but_never_shrinks(bench: Bench) -> None:
    bench.store.broken = True
    bench.target.replicas = 300
    held = bench.loop.tick(NOW)
    assert (held.decision.desired, held.decision.reason) == (300, Reason.LOG_UNAVAILABLE)
    assert held.decision_id is None
    bench.target.replicas = 10
    assert bench.loop.tick(NOW + timedelta(seconds=15)).outcome.kind is OutcomeKind.APPLIED


def test_decisions_made_without_the_log_are_written_when_it_is_back(bench: Bench) -> None:
    bench.loop.tick(NOW)
    bench.store.broken = True
    for tick in range(1, 4):
        bench.loop.tick(NOW + tick * timedelta(seconds=15))
    bench.store.broken = False
    bench.loop.tick(NOW + timedelta(minutes=1))
    assert len(bench.store.decisions["grammar"]) == 5
    assert len(bench.store.outcomes) == 5
    epochs = [decision.epoch for decision in bench.store.decisions["grammar"]]
    assert len(set(epochs)) == 5


def test_a_refit_that_fails_keeps_the_last_good_model(bench: Bench) -> None:
    bench.metrics.broken = ProblemKind.UNREACHABLE
    bench.restart()
    with pytest.raises(MetricsError):
        bench.loop.refit(NOW + timedelta(hours=1))
    bench.metrics.broken = None
    bench.loop.catch_up(NOW + timedelta(hours=1))
    assert bench.loop.tick(NOW + timedelta(hours=1)).context.forecast is not None


def test_manual_changes_count_against_the_rate_limits(bench: Bench) -> None:
    bench.loop.tick(NOW)
    bench.target.replicas = 200
    changes = bench.loop.tick(NOW + timedelta(seconds=15)).context.changes
    assert changes[-1].after == 200


def test_one_bad_workload_does_not_stop_the_others() -> None:
    class Exploding(FakeTarget):
        def read(self, now: datetime):  # type: ignore[no-untyped-def]
            raise RuntimeError(f"a fault nobody foresaw at {now}")

    metrics = FakeMetrics(weeks(), lambda now: rate_at(weeks(), now))
    seen: list[object] = []
    loops = {
        name: ControlLoop(
            loop_settings(),
            Ports(metrics, target, MemoryDecisionStore()),
            combined(Calendar()),
        )
        for name, target in (
            ("explodes", Exploding(5)),
            ("unreadable", FakeTarget(5, readable=False)),
            ("fine", FakeTarget(5)),
        )
    }
    Rounds(loops, lambda result, _: seen.append(result)).decide_all(NOW)
    assert [isinstance(result, Failure) for result in seen] == [True, True, False]
    assert "nobody foresaw" in str(seen[0])
