"""PrometheusSource against a real Prometheus with 28 days of back-filled traffic."""

from __future__ import annotations

import threading
import time
import tracemalloc
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from policies.context import ProblemKind, ProblemSource
from scaler.finding import Severity
from scaler.ports import MetricsError
from scaler.settings import Prometheus, Workload
from scaler.telemetry.source import PrometheusSource, check_metrics
from tests.integration.prometheus_server import (
    DAYS,
    GATEWAY,
    NOT_A_NUMBER,
    STOPPED,
    VLLM_COLON,
    VLLM_MIXED,
    VLLM_ODD,
    YOUNG,
    PrometheusServer,
    unavailable,
)

DAILY = f'sum(rate({GATEWAY}{{trace="daily"}}[1m]))'


def workload(query: str = DAILY, **more: Any) -> Workload:
    """A workload whose metrics end at the very moment that is asked for."""
    return Workload.model_validate(
        {
            "name": "chat",
            "target": {"name": "chat", "mode": "shadow"},
            "demand": {"query": query},
            "capacity": {"qpsPerReplica": 100},
            "maxReplicas": 100,
            "leadTime": {"metricLagSeconds": 0},
            **more,
        }
    )


def vllm(model: str) -> Workload:
    return workload(demand={"vllm": {"labels": {"model_name": model}}})


def source(server: PrometheusServer, of: Workload) -> PrometheusSource:
    # A trailing slash is what people paste.
    return PrometheusSource(Prometheus(url=f"{server.url}/"), of)


@pytest.mark.parametrize("trace", ["daily", "isp_uk", "wc98"])
def test_28_days_by_the_minute_equal_the_trace(
    prometheus_server: PrometheusServer, trace: str
) -> None:
    if trace not in prometheus_server.traces:
        unavailable(f"the recorded trace {trace} is not in this checkout")
    end = prometheus_server.end
    query = f'sum(rate({GATEWAY}{{trace="{trace}"}}[1m]))'
    tracemalloc.start()
    began = time.monotonic()
    with source(prometheus_server, workload(query)) as metrics:
        reading = metrics.demand_history(end - timedelta(days=DAYS), end, 60)
    seconds, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{len(reading.value)} steps in {seconds:.2f} s, at most {peak / 1e6:.1f} MB")
    assert seconds < 10
    assert peak < 50e6
    history = reading.value
    assert reading.problems == ()
    assert (history.start, history.end) == (end - timedelta(days=DAYS), end)
    assert len(history) == DAYS * 1440
    assert history.known_ratio == 1.0
    # rate() extrapolates to the window's edges and the rate is constant within each minute, so
    # only rounding is left; the first minute is off, as rate() assumes no count below zero.
    np.testing.assert_allclose(
        history.values[1:], prometheus_server.traces[trace][1:], rtol=1e-6, atol=1e-6
    )


def test_an_unaligned_period_is_floored_to_whole_steps(
    prometheus_server: PrometheusServer,
) -> None:
    end = prometheus_server.end
    with source(prometheus_server, workload()) as metrics:
        reading = metrics.demand_history(
            end - timedelta(minutes=90, seconds=17), end - timedelta(seconds=1), 60
        )
    assert reading.value.start == end - timedelta(minutes=91)
    assert reading.value.end == end - timedelta(minutes=1)
    expected = prometheus_server.traces["daily"][-91:-1]
    np.testing.assert_allclose(reading.value.values, expected, rtol=1e-6)


def test_minutes_without_samples_are_gaps(prometheus_server: PrometheusServer) -> None:
    end = prometheus_server.end
    with source(prometheus_server, workload(f"sum(rate({STOPPED}[1m]))")) as metrics:
        history = metrics.demand_history(end - timedelta(minutes=20), end, 60).value
    assert np.isfinite(history.values[:10]).all()
    assert np.isnan(history.values[10:]).all()
    assert history.last_known_end == end - timedelta(minutes=10)


def test_observation(prometheus_server: PrometheusServer) -> None:
    now = prometheus_server.end
    with source(prometheus_server, workload()) as metrics:
        reading = metrics.observe(now)
    assert reading.problems == ()
    assert reading.value.at == now
    assert reading.value.demand_qps == pytest.approx(
        prometheus_server.traces["daily"][-1], rel=1e-6
    )
    assert reading.value.requests_running is None


def test_demand_is_asked_for_as_it_was_one_metric_lag_ago(
    prometheus_server: PrometheusServer,
) -> None:
    now = prometheus_server.end
    lagging = workload(leadTime={"metricLagSeconds": 600}, history={"maxAgeSeconds": 700})
    with source(prometheus_server, lagging) as metrics:
        reading = metrics.observe(now)
    assert reading.value.at == now - timedelta(minutes=10)
    assert reading.value.demand_qps == pytest.approx(
        prometheus_server.traces["daily"][-11], rel=1e-6
    )
    assert reading.problems == ()


@pytest.mark.parametrize(("model", "pods"), [(VLLM_COLON, 1), (VLLM_MIXED, 2), (VLLM_ODD, 1)])
def test_demand_and_signals_from_vllm_alone(
    prometheus_server: PrometheusServer, model: str, pods: int
) -> None:
    now = prometheus_server.end
    with source(prometheus_server, vllm(model)) as metrics:
        reading = metrics.observe(now)
    seen = reading.value
    assert reading.problems == ()
    assert seen.demand_qps == pytest.approx(pods * prometheus_server.vllm_qps, rel=1e-9)
    assert seen.requests_running == pods * prometheus_server.vllm_running
    assert seen.requests_waiting == pytest.approx(pods * 8000, rel=0.01)
    assert seen.kv_cache_usage_ratio == 0.5
    assert seen.errors_qps == pytest.approx(pods * 0.5)
    # Half below 1 s and half up to 2 s: linear interpolation puts the 99th percentile at 1.98 s.
    assert seen.latency_p99_seconds == pytest.approx(1.98)


def test_vllm_that_is_no_longer_scraped_is_as_old_as_its_newest_scrape(
    prometheus_server: PrometheusServer,
) -> None:
    now = prometheus_server.end + timedelta(seconds=30)
    with source(prometheus_server, vllm(VLLM_COLON)) as metrics:
        reading = metrics.observe(now)
    newest = reading.value.at
    assert now - timedelta(seconds=45) <= newest <= now - timedelta(seconds=30)


def test_an_absent_signal_is_a_problem_and_no_error(prometheus_server: PrometheusServer) -> None:
    signals = {
        "requestsRunning": "sum(no_such_metric)",
        "latencyP99Seconds": NOT_A_NUMBER,
        "requestsWaiting": "vector(3)",
        "kvCacheUsageRatio": "scalar(vector(0.25))",
        "errorsQps": "sum(",
    }
    with source(prometheus_server, workload(signals=signals)) as metrics:
        reading = metrics.observe(prometheus_server.end)
    seen = reading.value
    assert seen.demand_qps is not None
    assert (seen.requests_waiting, seen.kv_cache_usage_ratio) == (3.0, 0.25)
    assert seen.requests_running is seen.latency_p99_seconds is seen.errors_qps is None
    assert {problem.source for problem in reading.problems} == {ProblemSource.SIGNALS}
    said = " | ".join(problem.message for problem in reading.problems)
    assert "requests_running: the query gives no series" in said
    assert "latency_p99_seconds: the value is NaN" in said
    assert "errors_qps: the query was refused" in said
    assert "parse error" in said


@pytest.mark.parametrize(
    ("query", "kind", "words"),
    [
        ("sum(rate(no_such_metric[1m]))", ProblemKind.NO_DATA, ["no series"]),
        (f"sum(rate({STOPPED}[1m]))", ProblemKind.NO_DATA, ["no series"]),
        (NOT_A_NUMBER, ProblemKind.NO_DATA, ["NaN"]),
        ("vector(-1)", ProblemKind.IMPLAUSIBLE, ["negative"]),
        ("1 / vector(0)", ProblemKind.IMPLAUSIBLE, ["infinite"]),
        ("sum(rate(x[1m])", ProblemKind.NO_DATA, ["refused", "parse error"]),
        (
            f"{GATEWAY}[1m]",
            ProblemKind.IMPLAUSIBLE,
            ["series where one is expected", "wrap it in sum"],
        ),
        ('"text"', ProblemKind.IMPLAUSIBLE, ["got a string"]),
        (
            f'rate({GATEWAY}{{trace="daily"}}[1m])',
            ProblemKind.IMPLAUSIBLE,
            ["2 series", "path='/chat'", "path='/embed'", "wrap it in sum(...)"],
        ),
    ],
)
def test_no_usable_demand_is_an_error_that_says_why(
    prometheus_server: PrometheusServer, query: str, kind: ProblemKind, words: list[str]
) -> None:
    with (
        source(prometheus_server, workload(query)) as metrics,
        pytest.raises(MetricsError) as raised,
    ):
        metrics.observe(prometheus_server.end)
    message = str(raised.value)
    assert raised.value.kind is kind
    assert message.startswith(f"{prometheus_server.url.removeprefix('http://')}: demand: ")
    assert all(word in message for word in words)
    assert "\n" not in message


def test_history_of_two_series_is_an_error(prometheus_server: PrometheusServer) -> None:
    end = prometheus_server.end
    with (
        source(prometheus_server, workload(f"rate({GATEWAY}[1m])")) as metrics,
        pytest.raises(MetricsError, match="wrap it in sum") as raised,
    ):
        metrics.demand_history(end - timedelta(hours=1), end, 60)
    assert raised.value.kind is ProblemKind.IMPLAUSIBLE


def test_history_that_is_nowhere_is_no_data(prometheus_server: PrometheusServer) -> None:
    end = prometheus_server.end
    with (
        source(prometheus_server, workload("sum(rate(no_such_metric[1m]))")) as metrics,
        pytest.raises(MetricsError) as raised,
    ):
        metrics.demand_history(end - timedelta(hours=1), end, 60)
    assert raised.value.kind is ProblemKind.NO_DATA


def test_control_and_refit_may_ask_at_the_same_time(prometheus_server: PrometheusServer) -> None:
    end = prometheus_server.end
    expected = prometheus_server.traces["daily"]
    wrong: list[str] = []

    def refit() -> None:
        for _ in range(3):
            history = metrics.demand_history(end - timedelta(days=10), end, 60).value
            if not np.allclose(history.values, expected[-14_400:], rtol=1e-6):
                wrong.append("history")

    with source(prometheus_server, workload()) as metrics:
        thread = threading.Thread(target=refit)
        thread.start()
        seen = [metrics.observe(end).value.demand_qps for _ in range(20)]
        thread.join()
    assert wrong == []
    assert seen == pytest.approx([expected[-1]] * 20, rel=1e-6)


def test_check_says_what_is_there(prometheus_server: PrometheusServer) -> None:
    demand, history = check_metrics(
        Prometheus(url=prometheus_server.url), workload(), prometheus_server.end
    )
    assert (demand.severity, history.severity) == (Severity.OK, Severity.OK)
    assert demand.subject == "chat: demand"
    assert f"{prometheus_server.traces['daily'][-1]:.4g} requests/s" in demand.message
    assert "28.0 of 28 days" in history.message


def test_check_says_that_a_short_history_means_reactive(
    prometheus_server: PrometheusServer,
) -> None:
    demand, history = check_metrics(
        Prometheus(url=prometheus_server.url),
        workload(f"sum(rate({YOUNG}[1m]))"),
        prometheus_server.end,
    )
    assert demand.severity is Severity.OK
    assert history.severity is Severity.WARNING
    assert "only 1.0 of 28 days" in history.message
    assert "reactive until there are 2 days" in history.message


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sum(", "parse error"),
        ("sum(no_such_metric)", "no series"),
        (f"rate({GATEWAY}[1m])", "wrap it in sum(...)"),
    ],
)
def test_check_has_a_message_of_its_own_for_each_mistake(
    prometheus_server: PrometheusServer, query: str, words: str
) -> None:
    (finding,) = check_metrics(
        Prometheus(url=prometheus_server.url), workload(query), prometheus_server.end
    )
    assert finding.severity is Severity.ERROR
    assert words in finding.message


def test_check_of_a_path_that_is_not_the_api(prometheus_server: PrometheusServer) -> None:
    (finding,) = check_metrics(
        Prometheus(url=f"{prometheus_server.url}/graph"), workload(), prometheus_server.end
    )
    assert "which is not Prometheus's API" in finding.message
