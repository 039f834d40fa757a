"""PrometheusSource against a server that misbehaves in ways a real one will not on demand."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.context import Observation, ProblemKind, ProblemSource
from scaler.finding import Severity
from scaler.ports import MetricsError, Reading
from scaler.settings import Prometheus, Workload
from scaler.telemetry.source import PrometheusSource, check_metrics
from tests.integration.fault_server import Answerer, Exchange, FaultServer, serving
from tests.integration.prometheus_server import unavailable

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
T = int(NOW.timestamp())
SECRET = "s3cret-token"


def workload(**more: Any) -> Workload:
    return Workload.model_validate(
        {
            "name": "chat",
            "target": {"name": "chat", "mode": "shadow"},
            "demand": {"query": "sum(rate(requests_total[1m]))"},
            "capacity": {"qpsPerReplica": 1},
            "maxReplicas": 2,
            **more,
        }
    )


def observe(server: FaultServer, of: Workload | None = None, **settings: Any) -> Observation:
    return observed(server, of, **settings).value


def observed(
    server: FaultServer, of: Workload | None = None, **settings: Any
) -> Reading[Observation]:
    prometheus = Prometheus.model_validate({"url": server.url, "timeoutSeconds": 5, **settings})
    with PrometheusSource(prometheus, of or workload()) as source:
        return source.observe(NOW)


def history_problems(answer: Answerer, hours: float = 1) -> Reading[Any]:
    with serving(answer) as server, PrometheusSource(Prometheus(url=server.url), workload()) as it:
        return it.demand_history(NOW - timedelta(hours=hours), NOW, 60)


def refusal(server: FaultServer, **settings: Any) -> MetricsError:
    """The error that observing raises: always of one line and naming host and purpose."""
    with pytest.raises(MetricsError) as raised:
        observe(server, **settings)
    message = str(raised.value)
    assert message.startswith(f"{server.host}: demand: ")
    assert "\n" not in message
    assert len(message) < 400
    return raised.value


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


# Time


def drip_body(exchange: Exchange) -> None:
    exchange.send_response(200)
    exchange.send_header("Content-Length", "1000000")
    exchange.end_headers()
    while exchange.wait(0.1):
        exchange.wfile.write(b" ")


def drip_without_end(exchange: Exchange) -> None:
    """No length: when the connection is cut the answer seems to be complete."""
    exchange.send_response(200)
    exchange.end_headers()
    exchange.wfile.write(b'{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}')
    while exchange.wait(0.1):
        exchange.wfile.write(b" ")


def drip_headers(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while exchange.wait(0.1):
        exchange.wfile.write(b"a")


def hang(exchange: Exchange) -> None:
    exchange.wait(30)


@pytest.mark.parametrize("fault", [drip_body, drip_without_end, drip_headers, hang])
def test_the_deadline_is_for_the_whole_exchange(fault: Answerer) -> None:
    before = threading.active_count()
    with serving(fault) as server, at_most(1.5):
        error = refusal(server, timeoutSeconds=0.6)
    assert error.kind is ProblemKind.UNREACHABLE
    assert "no complete answer in the time allowed" in str(error)
    assert threading.active_count() <= before + 1  # the server's own handler may be going still


def test_the_deadline_of_history_covers_all_chunks_and_attempts() -> None:
    def slow(exchange: Exchange) -> None:
        exchange.wait(0.4)
        exchange.send_samples()

    with (
        serving(slow) as server,
        PrometheusSource(
            Prometheus.model_validate({"url": server.url, "historyTimeoutSeconds": 1}), workload()
        ) as source,
        at_most(1.6),
        pytest.raises(MetricsError, match="history: no complete answer"),
    ):
        source.demand_history(NOW - timedelta(days=60), NOW, 60)


def test_threads_do_not_share_a_deadline() -> None:
    busy = threading.Event()

    def answer(exchange: Exchange) -> None:
        if exchange.api == "query":
            exchange.send_value("7")
        elif busy.is_set():
            exchange.send_samples([T, "5"])
        else:
            exchange.send(b"", 503, Retry_After="1")
            busy.set()

    with serving(answer) as server:
        prometheus = Prometheus.model_validate({"url": server.url, "timeoutSeconds": 0.5})
        with PrometheusSource(prometheus, workload()) as source, ThreadPoolExecutor(1) as refit:
            fetch = refit.submit(source.demand_history, NOW - timedelta(hours=2), NOW, 60)
            assert busy.wait(5)
            assert source.observe(NOW).value.demand_qps == 7.0
            assert fetch.result().value.values[-1] == 5.0


def test_a_slow_signal_does_not_hold_demand_up() -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.asked["query"] == "slow":
            exchange.wait(30)
        else:
            exchange.send_value("7")

    signals = {"requestsRunning": "slow", "requestsWaiting": "fast"}
    with serving(answer) as server, at_most(3):
        reading = observed(server, workload(signals=signals), timeoutSeconds=10)
    assert (reading.value.demand_qps, reading.value.requests_waiting) == (7.0, 7.0)
    (problem,) = reading.problems
    assert (problem.source, problem.kind) == (ProblemSource.SIGNALS, ProblemKind.UNREACHABLE)
    assert "requests_running" in problem.message


# Size and form


def test_a_gzip_bomb_is_measured_after_decompression() -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024), compresslevel=1)
    with serving(lambda it: it.send(bomb, Content_Encoding="gzip")) as server:
        tracemalloc.start()
        error = refusal(server, maxResponseBytes=1024 * 1024)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "larger than maxResponseBytes (1048576)" in str(error)
    assert peak < 20 * 1024 * 1024


def test_200_megabytes_are_not_read_to_the_end() -> None:
    sent = []

    def answer(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.end_headers()
        for _ in range(200):
            exchange.wfile.write(b" " * 1024 * 1024)
            sent.append(1)

    with serving(answer) as server:
        error = refusal(server, maxResponseBytes=1024 * 1024)
    assert "larger than maxResponseBytes" in str(error)
    assert len(sent) < 100


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!doctype html><title>Sign in</title>", "an HTML page, which is not Prometheus's API"),
        (b"", "no JSON object"),
        (b"[" * 200_000, "no JSON object"),
        (b'{"status":"success","data":' + b'{"a":' * 100_000, "no JSON object"),
        (b"[1, 2]", "no JSON object"),
        (b"\xff\xfe\x00", "no JSON object"),
        (b'{"status":"success"}', "JSON without a result"),
        (b'{"status":"error","errorType":"x","error":"line one\\nline two"}', "line one line two"),
        (
            b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}',
            "got a vector without plain numbers",
        ),
        (
            b'{"status":"success","data":{"resultType":"vector","result":[7]}}',
            "got a vector without plain numbers",
        ),
        (
            b'{"status":"success","data":{"resultType":"scalar","result":[1e300, "7"]}}',
            "is not a time",
        ),
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes, words: str) -> None:
    with serving(lambda it: it.send(body)) as server:
        assert words in str(refusal(server))


def test_an_answer_that_breaks_off_is_an_error() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(b'{"status":', Content_Length="5000")

    with serving(answer) as server:
        assert refusal(server).kind is ProblemKind.UNREACHABLE


# Status, redirects and retries


@pytest.mark.parametrize(
    ("status", "body", "kind", "words", "attempts"),
    [
        (400, b'{"error":"parse error: x"}', ProblemKind.NO_DATA, "refused: parse error: x", 1),
        (422, b'{"error":"too many"}', ProblemKind.NO_DATA, "refused: too many", 1),
        (400, b"<html>", ProblemKind.UNREACHABLE, "HTTP 400", 1),
        (401, b"", ProblemKind.UNREACHABLE, "HTTP 401: the credentials were refused", 1),
        (403, b"", ProblemKind.UNREACHABLE, "HTTP 403: the credentials were refused", 1),
        (404, b"<html>", ProblemKind.UNREACHABLE, "HTTP 404, which is not Prometheus's API", 1),
        (500, b"", ProblemKind.UNREACHABLE, "HTTP 500", 3),
        (503, b'{"error":"query timed out"}', ProblemKind.UNREACHABLE, "query timed out", 3),
    ],
)
def test_status(status: int, body: bytes, kind: ProblemKind, words: str, attempts: int) -> None:
    with serving(lambda it: it.send(body, status)) as server:
        error = refusal(server)
    assert error.kind is kind
    assert words in str(error)
    assert len(server.seen) == attempts


def test_a_server_that_recovers_is_asked_again() -> None:
    def answer(exchange: Exchange) -> None:
        if len(exchange.server.seen) < 3:
            exchange.send(b"", 503)
        else:
            exchange.send_value("7")

    with serving(answer) as server:
        assert observe(server).demand_qps == 7.0


def busy_once(seconds: int) -> Answerer:
    def answer(exchange: Exchange) -> None:
        if len(exchange.server.seen) == 1:
            exchange.send(b"", 429, Retry_After=str(seconds))
        else:
            exchange.send_value("7")

    return answer


def test_retry_after_is_kept() -> None:
    with serving(busy_once(1)) as server:
        began = time.monotonic()
        assert observe(server).demand_qps == 7.0
        assert time.monotonic() - began >= 1.0


def test_a_retry_after_beyond_the_deadline_is_not_waited_for() -> None:
    with serving(busy_once(3600)) as server, at_most(1):
        error = refusal(server)
    assert "HTTP 429" in str(error)
    assert len(server.seen) == 1


def test_redirects_are_refused() -> None:
    with serving(lambda it: it.send_value("7")) as other:
        place = f"{other.url}/api/v1/query"
        with serving(lambda it: it.send(b"", 302, Location=place)) as server:
            error = refusal(server)
        assert "redirects to 127.0.0.1 are not followed" in str(error)
        assert other.seen == []


def test_a_connection_that_is_reset() -> None:
    def answer(exchange: Exchange) -> None:
        linger = struct.pack("ii", 1, 0)
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        exchange.connection.close()

    with serving(answer) as server:
        assert refusal(server).kind is ProblemKind.UNREACHABLE
    assert len(server.seen) == 3


def test_nobody_there() -> None:
    with serving(hang) as server:
        pass
    error = refusal(server)
    assert error.kind is ProblemKind.UNREACHABLE
    assert "Connection refused" in str(error)


def test_a_host_without_an_address() -> None:
    prometheus = Prometheus.model_validate(
        {"url": "http://prometheus.invalid:9090", "timeoutSeconds": 2}
    )
    (finding,) = check_metrics(prometheus, workload(), NOW)
    assert finding.severity is Severity.ERROR
    assert finding.message.startswith("prometheus.invalid:9090: demand: ")


# Partial and untimely answers


@pytest.mark.parametrize(
    ("envelope", "words"),
    [
        ({"warnings": ["store 10.0.0.1 is down"]}, "store 10.0.0.1 is down"),
        ({"isPartial": True}, "marks the answer as partial"),
    ],
)
def test_a_partial_answer_is_a_problem(envelope: dict[str, Any], words: str) -> None:
    with serving(lambda it: it.send_value("7", **envelope)) as server:
        (problem,) = observed(server).problems
    assert (problem.source, problem.kind) == (ProblemSource.DEMAND, ProblemKind.PARTIAL)
    assert words in problem.message
    (problem,) = history_problems(lambda it: it.send_samples([T, "1"], **envelope)).problems
    assert (problem.source, problem.kind) == (ProblemSource.HISTORY, ProblemKind.PARTIAL)
    assert words in problem.message


def test_advice_on_the_query_is_no_doubt_about_the_answer() -> None:
    advice = 'PromQL info: metric might not be a counter, name does not end in _total: "requests"'
    with serving(lambda it: it.send_value("7", warnings=[advice])) as server:
        assert observed(server).problems == ()


def test_doubts_about_one_answer_are_not_held_against_the_next() -> None:
    def answer(exchange: Exchange) -> None:
        warnings = ["half"] if len(exchange.server.seen) == 1 else []
        exchange.send_value("7", warnings=warnings)

    with serving(answer) as server, PrometheusSource(Prometheus(url=server.url), workload()) as it:
        assert it.observe(NOW).problems != ()
        assert it.observe(NOW).problems == ()


@pytest.mark.parametrize(
    ("age", "kinds"),
    [(15, []), (179, []), (181, [ProblemKind.STALE]), (-300, [ProblemKind.IMPLAUSIBLE])],
)
def test_age_is_that_of_the_servers_sample(age: int, kinds: list[ProblemKind]) -> None:
    result = [{"metric": {}, "value": [T - age, "7"]}]
    with serving(lambda it: it.send_result(result)) as server:
        reading = observed(server)
    assert reading.value.at == NOW - timedelta(seconds=age)
    assert [problem.kind for problem in reading.problems] == kinds


# Samples of a history


def test_samples_that_cannot_be_trusted_are_dropped_and_counted() -> None:
    bad = [
        [T - 3000, "NaN"],
        [T - 2940, "+Inf"],
        [T - 2880, "-Inf"],
        [T - 2820, "1e999"],
        [T - 2760, "-3"],
        [T - 2700, "many"],
        [T - 2640, None],
        [T - 2580],
        [T - 2550, "9"],
        [T + 60, "9"],
        [T - 7200, "9"],
    ]
    good = [[T - 1200, "1"], [T - 1140, "2"], [T - 1140, "9"], [T - 1200, "9"], [T, "-0"]]
    reading = history_problems(lambda it: it.send_samples(*bad, *good))
    values = reading.value.values
    assert {int(i): values[i] for i in np.flatnonzero(np.isfinite(values))} == {
        39: 1.0,
        40: 2.0,
        59: 0.0,
    }
    (problem,) = reading.problems
    assert (problem.source, problem.kind) == (ProblemSource.HISTORY, ProblemKind.IMPLAUSIBLE)
    for words in (
        "81.2% of the samples",
        "3 infinite",
        "3 not a number",
        "2 out of order or twice",
        "1 NaN",
        "1 negative",
        "1 off the grid",
        "1 in the future",
        "1 before the period asked for",
    ):
        assert words in problem.message


def test_a_dropped_sample_in_a_hundred_is_let_pass() -> None:
    samples = [[T - 60 * age, "NaN" if age == 7 else "5"] for age in range(99, -1, -1)]
    assert history_problems(lambda it: it.send_samples(*samples), hours=2).problems == ()


def test_chunks_are_small_enough_and_ask_for_no_moment_twice() -> None:
    spans = []

    def answer(exchange: Exchange) -> None:
        asked = exchange.asked
        start, end, step = (int(asked[key]) for key in ("start", "end", "step"))
        spans.append((start, end))
        exchange.send_samples(*([at, "5"] for at in range(start, end + 1, step)))

    reading = history_problems(answer, hours=24 * 28)
    assert reading.value.known_ratio == 1.0
    assert spans[0][0] == T - 28 * 86_400 + 60
    assert spans[-1][1] == T
    assert all((end - start) // 60 + 1 <= 10_000 for start, end in spans)
    assert all(after[0] == before[1] + 60 for before, after in pairwise(spans))


def test_a_series_that_changes_its_labels_on_the_way_is_two() -> None:
    def answer(exchange: Exchange) -> None:
        start = int(exchange.asked["start"])
        series = {"metric": {"pod": str(start)}, "values": [[start, "1"]]}
        exchange.send_result([series], "matrix")

    with pytest.raises(MetricsError, match=r"5 series .* wrap it in sum\(\.\.\.\)"):
        history_problems(answer, hours=24 * 28)


# Credentials


def test_what_is_sent_with_every_request() -> None:
    headers = {"X-Team": "inference"}
    with serving(lambda it: it.send_value("7")) as server:
        observe(server, headers=headers, tenant="blue", tenantHeader="X-Tenant")
    (request,) = server.seen
    assert (request.headers["X-Team"], request.headers["X-Tenant"]) == ("inference", "blue")
    assert request.headers["Authorization"] is None
    assert request.path.startswith("/api/v1/query?")


def test_a_rotated_token_is_read_anew(tmp_path: Path) -> None:
    token = tmp_path / "token"
    with serving(lambda it: it.send_value("7")) as server:
        prometheus = Prometheus.model_validate({"url": server.url, "bearerTokenFile": token})
        with PrometheusSource(prometheus, workload()) as source:
            for secret in ("first", "second"):
                token.write_text(f"{secret}\n", encoding="utf-8")
                source.observe(NOW)
    sent = [request.headers["Authorization"] for request in server.seen]
    assert sent == ["Bearer first", "Bearer second"]


def test_basic_auth(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("pä:ss\n", encoding="utf-8")
    basic = {"username": "reader", "passwordFile": str(secret)}
    with serving(lambda it: it.send_value("7")) as server:
        observe(server, basicAuth=basic)
    assert server.seen[0].headers["Authorization"] == "Basic cmVhZGVyOnDDpDpzcw=="


@pytest.mark.parametrize("content", [f"{SECRET}\nX-Evil: 1", f"{SECRET}-🙂"])
def test_a_token_that_cannot_be_sent_is_not_shown(tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content, encoding="utf-8")
    with serving(lambda it: it.send_value("7")) as server:
        error = refusal(server, bearerTokenFile=str(token))
    assert error.kind is ProblemKind.UNREACHABLE
    assert SECRET not in str(error)
    assert server.seen == []


def test_a_token_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with serving(lambda it: it.send_value("7")) as server:
        error = refusal(server, bearerTokenFile=str(tmp_path / "gone"))
    assert f"cannot read the secret file {tmp_path / 'gone'}" in str(error)


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca, server and client: each .pem and .key. The authority's own lacks a key
    usage, as those of many clusters do, which Python refuses of itself since 3.13."""
    if shutil.which("openssl") is None:
        unavailable("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    lasting = ["-x509", "-days", "2"]
    for name, extra in {
        "ca": [],
        "server": ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"],
        "client": ["-CA", "ca.pem", "-CAkey", "ca.key"],
    }.items():
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"]
        subprocess.run(
            [*new, *lasting, *files, *extra], cwd=folder, check=True, capture_output=True
        )
    return folder


def server_side(certificates: Path) -> ssl.SSLContext:
    """A server that demands a client certificate of the same CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_certificate_file_that_is_not_there_is_named() -> None:
    prometheus = Prometheus.model_validate(
        {"url": "https://localhost:1", "tls": {"caFile": "/no/such/ca.pem"}}
    )
    (finding,) = check_metrics(prometheus, workload(), NOW)
    assert "/no/such/ca.pem" in finding.message


def test_private_ca_and_client_certificate(certificates: Path) -> None:
    ca = {"caFile": str(certificates / "ca.pem")}
    client = {
        "certFile": str(certificates / "client.pem"),
        "keyFile": str(certificates / "client.key"),
    }
    with serving(lambda it: it.send_value("7"), server_side(certificates)) as server:
        assert observe(server, tls={**ca, **client}).demand_qps == 7.0
        assert "certificate verify failed" in str(refusal(server, tls=client))
        assert refusal(server, tls=ca).kind is ProblemKind.UNREACHABLE
        gone = {"caFile": str(certificates / "gone.pem")}
        assert refusal(server, tls=gone).kind is ProblemKind.UNREACHABLE
    assert len(server.seen) == 1


def test_the_deadline_holds_inside_tls(certificates: Path) -> None:
    tls = {
        "caFile": str(certificates / "ca.pem"),
        "certFile": str(certificates / "client.pem"),
        "keyFile": str(certificates / "client.key"),
    }
    with serving(drip_body, server_side(certificates)) as server, at_most(1.5):
        error = refusal(server, tls=tls, timeoutSeconds=0.6)
    assert "no complete answer in the time allowed" in str(error)
