"""The status server over real sockets: what it answers, what it refuses, how it stops."""

from __future__ import annotations

import html
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from socket import create_connection, socket
from urllib.parse import quote

import markupsafe
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, text

from policies.context import Observation, ScalingContext
from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from scaler import status_server
from scaler.exposition import Exposition
from scaler.listening import CannotListenError
from scaler.loop import TickResult
from scaler.obstacles import Unapplied
from scaler.status_server import Served, StatusServer, build_app
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from tests.log_builder import MIDNIGHT, fill_log
from tests.situations import NOON, situation

HOSTILE = "<script>alert('x')</script>/\"&'; DROP TABLE decision; --"


@dataclass
class Site:
    """A running server with what stands behind it."""

    server: StatusServer
    engine: Engine
    unready: list[str] = field(default_factory=list)

    def ask(
        self, path: str, method: str = "GET", host: str | None = None
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.server.port}")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read().decode()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return answer.status, headers, body


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    path: Path = tmp_path_factory.mktemp("log") / "daybreak.db"
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    registry = CollectorRegistry()
    exposition = Exposition(registry, {"grammar": "shadow"})

    def tick(context: ScalingContext) -> None:
        result = TickResult(context, decide(context), Outcome(OutcomeKind.SHADOW), 1)
        exposition.observe(result)

    store = SqlDecisionStore(engine)
    fill_log(store, hours=4.0, tick=tick)
    fill_log(store, HOSTILE, hours=0.2)
    unready: list[str] = []
    app = build_app(engine, registry, lambda: list(unready), ["daybreak.llm.svc"])
    server = StatusServer(app, "127.0.0.1", 0)
    server.start()
    yield Site(server, engine, unready)
    server.stop()
    engine.dispose()


def test_connections_that_ask_for_nothing_shut_nobody_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_server, "REQUEST_SECONDS", 0.5)
    with ExitStack() as silent:
        for number in range(status_server.MOST_CONNECTIONS):
            one = silent.enter_context(create_connection(("127.0.0.1", site.server.port)))
            if number % 2:
                one.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        assert site.ask("/healthz")[0] == 503
        wait_until(lambda: site.ask("/healthz")[0] == 200)


@pytest.mark.parametrize(
    "left_open",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /workloads/a/override HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["headers", "body"],
)
def test_a_second_request_must_come_to_its_end_as_well(
    site: Site, monkeypatch: pytest.MonkeyPatch, left_open: bytes
) -> None:
    monkeypatch.setattr(status_server, "REQUEST_SECONDS", 0.5)
    with ExitStack() as open_ones:
        many = []
        for _ in range(status_server.MOST_CONNECTIONS - 1):
            address = ("127.0.0.1", site.server.port)
            one = open_ones.enter_context(create_connection(address, timeout=20))
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
            one.sendall(left_open)
            many.append(one)
        wait_until(lambda: not any(_still_open(one) for one in many))
        assert site.ask("/healthz")[0] == 200


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _still_open(one: socket) -> bool:
    one.settimeout(0.01)
    try:
        return one.recv(4096) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


def test_a_slow_answer_is_waited_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for clients: ours may be long over an answer."""
    monkeypatch.setattr(status_server, "REQUEST_SECONDS", 0.2)

    def readiness() -> list[str]:
        time.sleep(1.0)
        return []

    server = StatusServer(build_app(engine, CollectorRegistry(), readiness), "127.0.0.1", 0)
    server.start()
    try:
        with create_connection(("127.0.0.1", server.port), timeout=20) as one:
            one.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
            # Who then asks for half of something is given up on all the same.
            one.sendall(b"GET / HTTP/1.1\r\n")
            wait_until(lambda: not _still_open(one))
    finally:
        server.stop()


def test_headers_and_body_have_their_time_each(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "REQUEST_SECONDS", 1.0)
    with create_connection(("127.0.0.1", site.server.port), timeout=20) as one:
        one.sendall(b"POST /workloads/a/override HTTP/1.1\r\nHost: localhost\r\n")
        time.sleep(0.6)
        one.sendall(b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n")
        time.sleep(0.6)
        one.sendall(b"{}")
        assert one.recv(4096).startswith(b"HTTP/1.1 4")


def test_a_stuck_daemon_is_not_healthy(engine: Engine) -> None:
    """So that whoever probes it starts it anew."""
    stuck: list[str] = []
    served = Served(frozenset({"grammar"}), dict, lambda: stuck)
    app = build_app(engine, CollectorRegistry(), list, served=served)
    server = StatusServer(app, "127.0.0.1", 0)
    server.start()
    try:
        site = Site(server, engine)
        assert site.ask("/healthz")[0] == 200
        stuck.append("grammar")
        assert (site.ask("/healthz")[0], site.ask("/healthz")[2]) == (503, "stuck: grammar\n")
    finally:
        server.stop()


def test_health_and_readiness(site: Site) -> None:
    assert site.ask("/healthz")[0] == 200
    assert site.ask("/readyz")[0] == 200
    site.unready.append("grammar: no recent decision")
    try:
        status, _, body = site.ask("/readyz")
        assert status == 503
        assert json.loads(body)["reasons"] == ["grammar: no recent decision"]
        assert "no recent decision" in site.ask("/")[2]
        assert "Not ready" in site.ask("/workloads/grammar")[2]
        assert "Not ready" not in site.ask(f"/workloads/{quote(HOSTILE, safe='')}")[2]
    finally:
        site.unready.clear()


def test_readiness_names_whose_decisions_are_not_applied(engine: Engine) -> None:
    refused = Outcome(OutcomeKind.REFUSED, "Deployment llm/grammar is paused")
    standing = {"grammar": Unapplied(refused, NOON, None)}
    served = Served(frozenset({"grammar"}), lambda: standing)
    app = build_app(engine, CollectorRegistry(), list, served=served)
    server = StatusServer(app, "127.0.0.1", 0)
    server.start()
    status, _, body = Site(server, engine).ask("/readyz")
    server.stop()
    assert status == 200
    assert json.loads(body)["not_applied"] == {
        "grammar": {
            "outcome": "Refused",
            "since": NOON.isoformat(),
            "detail": "Deployment llm/grammar is paused",
        }
    }


@pytest.mark.parametrize(
    ("leader", "shown"),
    [
        (None, None),
        ("", "nobody leads at the moment"),
        ("daybreak-0", "daybreak-0 leads and decides"),
        (HOSTILE, f"{markupsafe.escape(HOSTILE)} leads and decides"),
    ],
)
def test_who_stands_by_says_who_leads(
    engine: Engine, leader: str | None, shown: str | None
) -> None:
    fill_log(SqlDecisionStore(engine), "grammar", hours=0.2)
    served = Served(frozenset({"grammar"}), dict, led_by=lambda: leader)
    server = StatusServer(
        build_app(engine, CollectorRegistry(), list, served=served), "127.0.0.1", 0
    )
    server.start()
    pages = [Site(server, engine).ask(path)[2] for path in ("/", "/workloads/grammar")]
    server.stop()
    for page in pages:
        assert ("Standing by" in page) == (shown is not None)
        assert shown is None or shown in page
        assert "Not ready" not in page


def test_metrics_are_those_of_the_registry(site: Site) -> None:
    status, headers, body = site.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert 'daybreak_desired_replicas{workload="grammar"}' in body


def test_the_overview_lists_workloads_at_a_glance(site: Site) -> None:
    status, _, body = site.ask("/")
    assert status == 200
    for part in ('href="/workloads/grammar"', "shadow", "trusted", "UTC"):
        assert part in body


@pytest.mark.parametrize(
    ("passed", "ages", "badge"),
    [
        (timedelta(seconds=45), ("45 s ago", "60 s old"), "good"),
        (timedelta(days=90), ("90 d ago", "90 d old"), "none since"),
        (timedelta(minutes=-20), ("20 min ahead", "20 min ahead"), "none since"),
    ],
)
def test_ages_are_counted_from_now(
    engine: Engine, passed: timedelta, ages: tuple[str, str], badge: str
) -> None:
    fill_log(SqlDecisionStore(engine), hours=0.1)
    now = MIDNIGHT + timedelta(minutes=5) + passed
    app = build_app(engine, CollectorRegistry(), list, now=lambda: now)
    server = StatusServer(app, "127.0.0.1", 0)
    server.start()
    site = Site(server, engine)
    (found,) = json.loads(site.ask("/api/workloads")[2])["workloads"]
    assert found["decided_age_seconds"] == passed.total_seconds()
    assert found["data_age_seconds"] == passed.total_seconds() + 15.0
    assert found["overdue"] is (badge != "good")
    for path in ("/", "/workloads/grammar"):
        body = site.ask(path)[2]
        assert "16 Mar 2026 00:05:00" in body
        assert badge in body
        assert ("badge good" in body) is (badge == "good")
        assert all(age in body for age in ages)
    server.stop()


def test_the_age_of_no_data_is_not_known(engine: Engine) -> None:
    context = replace(situation(), observation=Observation(at=NOON))
    SqlDecisionStore(engine).record(context, decide(context))
    server = StatusServer(build_app(engine, CollectorRegistry(), list), "127.0.0.1", 0)
    server.start()
    site = Site(server, engine)
    (found,) = json.loads(site.ask("/api/workloads")[2])["workloads"]
    assert found["data_age_seconds"] is None
    assert found["decided_age_seconds"] is None
    assert "age unknown" in site.ask("/")[2]
    server.stop()


def test_a_workload_shows_charts_and_decisions_in_words(site: Site) -> None:
    status, _, body = site.ask("/workloads/grammar")
    assert status == 200
    assert body.count("data-live-image") == 4
    assert body.count("<ol") == 20
    assert "ordered for the peak forecast" in body or "kept for the peak forecast" in body


def test_without_javascript_the_page_is_whole_and_refreshes(site: Site) -> None:
    body = site.ask("/workloads/grammar")[2]
    pictures = re.findall(r'<img class="chart" src="(/workloads/grammar/[^"]+)"', body)
    assert len(pictures) == 4
    assert all(site.ask(html.unescape(path))[0] == 200 for path in pictures)
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in body


@pytest.mark.parametrize("chart", ["traffic", "replicas", "latency", "reasons"])
@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_charts_are_pictures(site: Site, chart: str, layout: str) -> None:
    path = f"/workloads/grammar/{chart}.svg?window=6h&layout={layout}"
    status, headers, body = site.ask(path)
    assert status == 200
    assert headers["content-type"] == "image/svg+xml"
    assert body.startswith("<svg")
    assert "<path" in body


def test_json_holds_decisions_with_steps(site: Site) -> None:
    assert [w["workload"] for w in json.loads(site.ask("/api/workloads")[2])["workloads"]] == [
        HOSTILE,
        "grammar",
    ]
    body = json.loads(site.ask("/api/workloads/grammar/decisions?limit=3")[2])
    assert len(body["decisions"]) == 3
    newest = body["decisions"][0]
    assert newest["steps"][-1]["replicas"] == newest["desired"]
    assert newest["outcome"]["kind"] == "Unchanged"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/workloads/nobody", 404),
        ("/workloads/nobody/traffic.svg", 404),
        ("/workloads/grammar/secrets.svg", 404),
        ("/workloads/grammar/traffic.svg?layout=huge", 404),
        ("/workloads/grammar/traffic.svg?window=9y", 400),
        ("/api/workloads/nobody/decisions", 404),
        ("/api/workloads/grammar/decisions?limit=0", 400),
        ("/api/workloads/grammar/decisions?limit=" + "9" * 5_000, 400),
        ("/api/workloads/grammar/decisions?limit=1e9", 400),
        ("/assets/..%2f..%2fpyproject.toml", 404),
        ("/assets/../status_server.py", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_not_there_is_said_so(site: Site, path: str, status: int) -> None:
    assert site.ask(path)[0] == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_reading_is_allowed(site: Site, method: str) -> None:
    assert site.ask("/workloads/grammar", method)[0] == 405


def test_head_has_the_headers_and_no_body(site: Site) -> None:
    status, headers, body = site.ask("/", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:9464", 200),
        ("10.1.2.3:9464", 200),
        ("daybreak.llm.svc:9464", 200),
        ("DAYBREAK.llm.svc.", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("daybreak.llm.svc.evil.example:9464", 421),
        ("", 421),
    ],
)
def test_foreign_host_names_are_refused(site: Site, host: str, status: int) -> None:
    assert site.ask("/", host=host or " ")[0] == status


def test_every_answer_is_guarded(site: Site) -> None:
    for path in ("/", "/workloads/grammar", "/nothing", "/metrics", "/assets/live.js"):
        headers = site.ask(path)[1]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_hostile_names_are_inert_and_can_be_followed(site: Site) -> None:
    for path in ("/", f"/workloads/{quote(HOSTILE, safe='')}"):
        status, _, body = site.ask(path)
        assert status == 200
        assert "<script>alert" not in body
        assert "&lt;script&gt;alert" in body
    picture = site.ask(f"/workloads/{quote(HOSTILE, safe='')}/traffic.svg")
    assert picture[0] == 200
    assert "alert" not in picture[2]


def test_pages_ask_for_nothing_from_elsewhere(site: Site) -> None:
    for path in ("/", "/workloads/grammar", "/assets/live.css", "/assets/live.js"):
        body = site.ask(path)[2]
        assert "http://" not in body
        assert "https://" not in body
        assert "style=" not in body
        assert "onclick" not in body


def test_a_log_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'daybreak.db'}")
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE workload RENAME TO lost"))
    server = StatusServer(build_app(engine, CollectorRegistry(), list), "127.0.0.1", 0)
    server.start()
    try:
        site = Site(server, engine)
        status, _, body = site.ask("/")
        assert status == 503
        assert "the decision log cannot be read" in body
        assert site.ask("/healthz")[0] == 200
    finally:
        server.stop()
        engine.dispose()


def test_an_empty_log_says_what_will_come(engine: Engine) -> None:
    server = StatusServer(build_app(engine, CollectorRegistry(), list), "127.0.0.1", 0)
    server.start()
    try:
        assert "No decision has been made yet" in Site(server, engine).ask("/")[2]
    finally:
        server.stop()


def test_it_stops_within_two_seconds_with_a_connection_open(engine: Engine) -> None:
    running = set(threading.enumerate())
    server = StatusServer(build_app(engine, CollectorRegistry(), list), "127.0.0.1", 0)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    began = time.monotonic()
    server.stop()
    took = time.monotonic() - began
    connection.close()
    assert took < 2
    assert not [thread for thread in set(threading.enumerate()) - running if not thread.daemon]
    assert "status" not in [thread.name for thread in set(threading.enumerate()) - running]


def test_a_port_in_use_is_an_error_at_start(site: Site) -> None:
    app = build_app(site.engine, CollectorRegistry(), list)
    with pytest.raises(CannotListenError, match="in use"):
        StatusServer(app, "127.0.0.1", site.server.port).start()


def test_charts_are_of_the_newest_decision(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'daybreak.db'}")
    upgrade(engine)
    store = SqlDecisionStore(engine)
    fill_log(store, hours=0.5)
    server = StatusServer(build_app(engine, CollectorRegistry(), list), "127.0.0.1", 0)
    server.start()
    try:
        site = Site(server, engine)
        before = site.ask("/workloads/grammar/traffic.svg")[2]
        assert site.ask("/workloads/grammar/traffic.svg")[2] == before
        fill_log(store, hours=1.0)
        assert site.ask("/workloads/grammar/traffic.svg")[2] != before
    finally:
        server.stop()
        engine.dispose()
