"""PrometheusSource: demand, history and signals as the loop needs them.

Knows what the answers mean: which number is demand, which time it stands for, and when it is not
to be trusted. Knows nothing of HTTP. An absent or doubtful number is a problem or an error, never
a zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from types import TracebackType

from forecaster.history import TrafficHistory, on_grid
from policies.context import Observation, Problem, ProblemKind, ProblemSource
from scaler.clock import SystemClock
from scaler.finding import Finding, Severity
from scaler.ports import MetricsError, Reading
from scaler.settings import Prometheus, Workload
from scaler.telemetry.client import Answer, PrometheusClient, Question, Series
from scaler.telemetry.promql import (
    SIGNALS,
    demand_query,
    newest_scrape_query,
    signal_queries,
)
from scaler.telemetry.samples import Trusted, parse_sample, trusted_samples

# Prometheus refuses more than 11,000 points a series.
CHUNK_POINTS = 10_000
# What stands beside demand must not hold a decision up for longer than this.
SIGNALS_SECONDS = 2.0
# The workers give up by themselves at the deadline; only a hung name resolution outlasts it.
GRACE_SECONDS = 0.5
SHORT_HISTORY_SECONDS = 3600
DROPPED_RATIO = 0.01
CLOCK_SKEW_SECONDS = 5.0
REACTIVE_DAYS = 2.0


class PrometheusLines:
    """Threads and connections to one Prometheus, shared by all workloads that it measures.

    Demand, the time of its newest scrape and every signal of a workload are asked for at once;
    `workloads` is how many are decided side by side.
    """

    def __init__(self, prometheus: Prometheus, workloads: int = 1) -> None:
        self.client = PrometheusClient(prometheus)
        self.workers = ThreadPoolExecutor(
            workloads * (len(SIGNALS) + 2), thread_name_prefix="metrics"
        )

    def close(self) -> None:
        """Wait for queries under way, each up to its deadline, and close the connections."""
        self.workers.shutdown()
        self.client.close()


class PrometheusSource:
    """One workload's figures from one Prometheus; several threads may use it at once.

    With no lines given it has its own; close it, or use it in a `with` statement, to give them up.
    """

    def __init__(
        self, prometheus: Prometheus, workload: Workload, lines: PrometheusLines | None = None
    ) -> None:
        self._settings = prometheus
        self._workload = workload
        self._own = PrometheusLines(prometheus) if lines is None else None
        shared = lines or self._own
        assert shared is not None
        self._client, self._workers = shared.client, shared.workers
        self._signals = signal_queries(workload)

    def __enter__(self) -> PrometheusSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up threads and connections of its own; shared ones stay."""
        if self._own is not None:
            self._own.close()

    def observe(self, now: datetime) -> Reading[Observation]:
        """Demand as it was metricLagSeconds ago, in requests a second, with the signals beside it.

        `at` is the time that the server gives the sample; for vLLM not later than its newest
        scrape. A query of the user's own hides when its targets were last scraped: Prometheus
        repeats a gauge for up to 5 minutes, and a rate over a long window fades instead of
        ending. A short window, such as [1m], makes a dead scrape an empty answer soon.

        Raises MetricsError where there is no usable demand. A missing signal is a problem.
        """
        at = now - timedelta(seconds=self._workload.lead_time.metric_lag_seconds)
        signals = self._ask_signals(at)
        scrape = self._ask_newest_scrape(at)
        try:
            answer = self._result(self._ask(demand_query(self._workload.demand), "demand", at))
            measured_at, demand = self._number(answer, "demand")
            if scrape is not None:
                measured_at = min(measured_at, self._number(self._result(scrape), "scrape time")[1])
            observed = self._moment(measured_at)
            figures, missing = self._collect_signals(signals)
        finally:
            for pending in signals.values():
                pending.cancel()
        problems = [
            *_partial(answer, ProblemSource.DEMAND, "demand"),
            *self._untimely(observed, now),
            *missing,
        ]
        return Reading(Observation(observed, demand, **figures), tuple(problems))

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        """Mean demand in requests a second per step, start and end floored to whole steps.

        A rate evaluated at T looks back from T, so the value of the step [T - step, T) is asked
        for at its end and laid one step earlier. It is the mean over the whole step where the
        query's window equals the step. Raises MetricsError where there is no history at all.
        """
        first = int(start.timestamp()) // step_seconds * step_seconds
        last = int(end.timestamp()) // step_seconds * step_seconds
        name = self._workload.name
        answers = list(self._chunks(first + step_seconds, last, step_seconds))
        if not answers:
            return Reading(on_grid(name, [], _utc(first), _utc(first), step_seconds))
        joined = _joined(answers)
        series = self._one_series(joined, "history")
        trusted = trusted_samples(series.samples, first + step_seconds, last, step_seconds)
        earlier = [(at - step_seconds, value) for at, value in trusted.samples]
        history = on_grid(name, earlier, _utc(first), _utc(last), step_seconds)
        problems = [*_partial(joined, ProblemSource.HISTORY, "history"), *_doubtful(trusted)]
        return Reading(history, tuple(problems))

    def _chunks(self, first: int, last: int, step_seconds: int) -> Iterator[Answer]:
        """The answers for the moments first, first + step, ..., last, none asked for twice."""
        query = demand_query(self._workload.demand, step_seconds)
        # The newest steps are read within a decision, the whole history beside it.
        short = last - first <= SHORT_HISTORY_SECONDS
        allowed = (
            self._settings.timeout_seconds if short else self._settings.history_timeout_seconds
        )
        deadline = SystemClock().monotonic() + allowed
        question = Question(query, "history", deadline)
        span = (CHUNK_POINTS - 1) * step_seconds
        for begin in range(first, last + 1, span + step_seconds):
            until = min(last, begin + span)
            yield self._client.over(question, _utc(begin), _utc(until), step_seconds)

    def _ask(
        self, query: str, purpose: str, at: datetime, seconds: float | None = None
    ) -> Future[Answer]:
        """Without `seconds` the query has the whole timeout and may be retried."""
        allowed = self._settings.timeout_seconds if seconds is None else seconds
        deadline = SystemClock().monotonic() + allowed
        question = Question(query, purpose, deadline, attempts=3 if seconds is None else 1)
        return self._workers.submit(self._client.instant, question, at)

    def _ask_signals(self, at: datetime) -> dict[str, Future[Answer]]:
        seconds = min(SIGNALS_SECONDS, self._settings.timeout_seconds)
        return {name: self._ask(query, name, at, seconds) for name, query in self._signals.items()}

    def _ask_newest_scrape(self, at: datetime) -> Future[Answer] | None:
        query = newest_scrape_query(self._workload.demand)
        return None if query is None else self._ask(query, "scrape time", at)

    def _result(self, future: Future[Answer]) -> Answer:
        try:
            return future.result(self._settings.timeout_seconds + GRACE_SECONDS)
        except TimeoutError as error:
            future.cancel()
            raise self._error(
                ProblemKind.UNREACHABLE, "demand", "no answer in the time allowed"
            ) from error

    def _collect_signals(
        self, futures: dict[str, Future[Answer]]
    ) -> tuple[dict[str, float], list[Problem]]:
        wait(futures.values(), SIGNALS_SECONDS + GRACE_SECONDS)
        figures: dict[str, float] = {}
        problems: list[Problem] = []
        for name, future in futures.items():
            try:
                if not future.done():
                    raise self._error(ProblemKind.UNREACHABLE, name, "no answer in time")
                answer = future.result()
                figures[name] = self._number(answer, name)[1]
                problems += _partial(answer, ProblemSource.SIGNALS, name)
            except MetricsError as error:
                problems.append(Problem(ProblemSource.SIGNALS, error.kind, str(error)))
        return figures, problems

    def _number(self, answer: Answer, purpose: str) -> tuple[float, float]:
        """The one sample of an answer: epoch seconds and value."""
        at, value, reason = parse_sample(self._one_series(answer, purpose).samples[0])
        if reason:
            kind = ProblemKind.NO_DATA if reason == "NaN" else ProblemKind.IMPLAUSIBLE
            raise self._error(kind, purpose, f"the value is {reason}")
        return at, value

    def _one_series(self, answer: Answer, purpose: str) -> Series:
        if not answer.series:
            cause = "the query gives no series; the metric is absent, or a label does not match"
            raise self._error(ProblemKind.NO_DATA, purpose, cause)
        if len(answer.series) > 1:
            first, second = answer.series[:2]
            cause = (
                f"the query gives {len(answer.series)} series where one is expected, among them "
                f"{first} and {second}; wrap it in sum(...)"
            )
            raise self._error(ProblemKind.IMPLAUSIBLE, purpose, cause)
        return answer.series[0]

    def _moment(self, epoch_seconds: float) -> datetime:
        try:
            return _utc(epoch_seconds)
        except (ValueError, OverflowError, OSError) as error:
            cause = f"{epoch_seconds} is not a time"
            raise self._error(ProblemKind.IMPLAUSIBLE, "demand", cause) from error

    def _untimely(self, at: datetime, now: datetime) -> Iterator[Problem]:
        age, limit = (now - at).total_seconds(), self._workload.history.max_age_seconds
        if age > limit:
            message = f"the newest sample is {age:.0f} s old, more than maxAgeSeconds ({limit:g})"
            yield Problem(ProblemSource.DEMAND, ProblemKind.STALE, message)
        if age < -CLOCK_SKEW_SECONDS:
            message = f"the newest sample lies {-age:.0f} s in the future; compare the clocks"
            yield Problem(ProblemSource.DEMAND, ProblemKind.IMPLAUSIBLE, message)

    def _error(self, kind: ProblemKind, purpose: str, cause: str) -> MetricsError:
        return MetricsError(kind, f"{self._client.host}: {purpose}: {cause}")


def _utc(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, UTC)


def _joined(answers: list[Answer]) -> Answer:
    """Chunks as one answer: a series that changes its labels on the way is two series."""
    samples: dict[tuple[tuple[str, str], ...], list[object]] = {}
    for answer in answers:
        for series in answer.series:
            samples.setdefault(series.labels, []).extend(series.samples)
    doubts = dict.fromkeys(doubt for answer in answers for doubt in answer.doubts)
    return Answer(tuple(Series(labels, found) for labels, found in samples.items()), tuple(doubts))


def _partial(answer: Answer, source: ProblemSource, purpose: str) -> Iterator[Problem]:
    if answer.doubts:
        message = f"{purpose} may be incomplete: {'; '.join(answer.doubts)}"
        yield Problem(source, ProblemKind.PARTIAL, message)


def _doubtful(trusted: Trusted) -> Iterator[Problem]:
    if trusted.dropped_ratio > DROPPED_RATIO:
        message = f"{trusted.dropped_ratio:.1%} of the samples were dropped: {trusted.reasons}"
        yield Problem(ProblemSource.HISTORY, ProblemKind.IMPLAUSIBLE, message)


def check_metrics(prometheus: Prometheus, workload: Workload, now: datetime) -> list[Finding]:
    """What can be said of a workload's metrics before it is run: demand, signals and history."""
    with PrometheusSource(prometheus, workload) as source:
        subject = f"{workload.name}: demand"
        try:
            observed = source.observe(now)
        except MetricsError as error:
            return [Finding(Severity.ERROR, subject, str(error))]
        demand, at = observed.value.demand_qps, observed.value.at
        said = f"{demand:.4g} requests/s at {at.isoformat(timespec='seconds')}"
        findings = [Finding(Severity.OK, subject, said), *_warnings(workload, observed.problems)]
        return [*findings, *_check_history(source, workload, now)]


def _check_history(source: PrometheusSource, workload: Workload, now: datetime) -> list[Finding]:
    subject = f"{workload.name}: history"
    start = now - timedelta(days=workload.history.days)
    try:
        reading = source.demand_history(start, now, workload.history.step_seconds)
    except MetricsError as error:
        return [Finding(Severity.ERROR, subject, str(error))]
    history = reading.value
    known = history.known_ratio * history.days
    said = f"{known:.1f} of {workload.history.days:g} days, in steps of {history.step_seconds} s"
    finding = Finding(Severity.OK, subject, said)
    if known < REACTIVE_DAYS:
        more = f"only {said}; scaling is reactive until there are {REACTIVE_DAYS:g} days"
        finding = Finding(Severity.WARNING, subject, more)
    return [finding, *_warnings(workload, reading.problems)]


def _warnings(workload: Workload, problems: tuple[Problem, ...]) -> list[Finding]:
    return [
        Finding(Severity.WARNING, f"{workload.name}: {problem.source}", problem.message)
        for problem in problems
    ]
