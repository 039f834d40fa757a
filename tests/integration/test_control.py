"""Pausing and overriding from the live page, over real sockets: who may, and what is kept of it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import yaml
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from policies.context import OverrideKind
from scaler.cli.daemon import _control
from scaler.control import Control
from scaler.settings import load_settings
from scaler.settings_file import SettingsError
from scaler.status_server import Served, StatusServer, build_app
from storage import schema
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.overrides import OverrideRequest, record_override
from storage.verification import verify
from tests.integration.test_verification import tamper
from tests.log_builder import MIDNIGHT, fill_log

TOKEN = "correct-horse-battery-staple"
NOW = MIDNIGHT + timedelta(hours=1)
HOSTILE = "<script>alert(1)</script>=\"'"
GOOD = {"kind": "Pause", "minutes": "30", "owner": "ana", "reason": "cell migration"}


@dataclass
class Site:
    server: StatusServer
    engine: Engine
    registry: CollectorRegistry

    def ask(
        self,
        path: str,
        fields: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: str | None = None,
    ) -> tuple[int, dict[str, str], str]:
        """A GET, or with fields or a body a POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        sent = body if body is not None else urlencode(fields) if fields is not None else None
        given = {"Content-Type": "application/x-www-form-urlencoded"} if sent is not None else {}
        method = "GET" if sent is None else "POST"
        connection.request(method, path, sent, given | (headers or {}))
        answer = connection.getresponse()
        text = answer.read().decode()
        found = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return answer.status, found, text

    def rows(self) -> list[dict[str, object]]:
        with self.engine.connect() as connection:
            query = select(schema.manual_override).order_by(schema.manual_override.c.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def counted(self, outcome: str) -> float:
        labels = {"outcome": outcome}
        return self.registry.get_sample_value("daybreak_override_requests_total", labels) or 0.0


def running(folder: Path, control: Control | None, served: Served | None = None) -> Iterator[Site]:
    engine = open_engine(f"sqlite:///{folder / 'daybreak.db'}")
    upgrade(engine)
    store = SqlDecisionStore(engine)
    fill_log(store, hours=1.0)
    fill_log(store, HOSTILE, hours=0.1)
    registry = CollectorRegistry()
    hosts = ["daybreak.example"]
    app = build_app(engine, registry, list, hosts, control, lambda: NOW, served=served)
    server = StatusServer(app, "127.0.0.1", 0)
    server.start()
    yield Site(server, engine, registry)
    server.stop()
    engine.dispose()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from running(tmp_path, Control(token=TOKEN))


@pytest.fixture
def in_service(tmp_path: Path) -> Iterator[Site]:
    """Of a daemon whose settings name one workload that is new and none that the log holds."""
    yield from running(tmp_path, Control(token=TOKEN), Served(frozenset({"new"}), dict))


@pytest.fixture
def behind_proxy(tmp_path: Path) -> Iterator[Site]:
    yield from running(tmp_path, Control(user_header="X-Forwarded-User"))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Site]:
    yield from running(tmp_path, None)


PATH = "/workloads/grammar/override"


def test_a_pause_is_recorded_shown_and_chained(site: Site) -> None:
    status, headers, _ = site.ask(PATH, GOOD | {"token": TOKEN})
    assert (status, headers["location"]) == (303, "/workloads/grammar")
    (row,) = site.rows()
    assert (row["kind"], row["owner"], row["reason"]) == ("Pause", "ana", "cell migration")
    assert (row["source"], row["replicas"]) == ("token", None)
    assert row["expires_at"] == NOW + timedelta(minutes=30)
    page = site.ask("/workloads/grammar")[2]
    assert "paused: no change</strong> until 16 Mar 01:30 UTC, asked for by ana" in page
    assert "paused: no change" in site.ask("/")[2]
    store = SqlDecisionStore(site.engine)
    held = store.override("grammar", NOW)
    assert held is not None
    assert held.kind is OverrideKind.PAUSE
    assert store.override("grammar", NOW + timedelta(minutes=31)) is None
    assert store.override(HOSTILE, NOW) is None
    assert verify(site.engine).sound
    assert site.counted("taken") == 1


def test_the_api_takes_json_and_a_bearer_token(site: Site) -> None:
    asked = {"kind": "Minimum", "replicas": 40, "minutes": 90, "owner": "bo", "reason": "launch"}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    status, _, body = site.ask(
        "/api/workloads/grammar/override", headers=headers, body=json.dumps(asked)
    )
    assert status == 201
    assert json.loads(body)["replicas"] == 40
    workloads = json.loads(site.ask("/api/workloads")[2])["workloads"]
    assert [one["override"] and one["override"]["kind"] for one in workloads] == [None, "Minimum"]


def test_a_release_ends_what_holds(site: Site) -> None:
    site.ask(PATH, GOOD | {"token": TOKEN})
    site.ask(PATH, {"kind": "Release", "owner": "bo", "reason": "done", "token": TOKEN})
    assert SqlDecisionStore(site.engine).override("grammar", NOW) is None
    assert "released to the policy" in site.ask("/workloads/grammar")[2]
    assert "asked for by ana" not in site.ask("/workloads/grammar")[2]


@pytest.mark.parametrize(
    ("fields", "headers", "status", "why"),
    [
        ({}, {}, 401, "give the server's token"),
        ({"token": "wrong"}, {}, 403, "the token is not the server's"),
        ({"token": TOKEN[:-1]}, {}, 403, "the token is not the server's"),
        ({}, {"Authorization": "Bearer nope"}, 403, "the token is not the server's"),
        ({}, {"X-Forwarded-User": "mallory"}, 401, "give the server's token"),
        ({"token": TOKEN}, {"Origin": "https://evil.example"}, 403, "from another site"),
        ({"token": TOKEN}, {"Origin": "null"}, 403, "from another site"),
        ({"token": TOKEN}, {"Sec-Fetch-Site": "cross-site"}, 403, "from another site"),
        ({"token": TOKEN, "kind": "Explode"}, {}, 400, "kind: expected one of"),
        ({"token": TOKEN, "minutes": "0"}, {}, 400, "expiry: expected more than nothing"),
        ({"token": TOKEN, "minutes": "999999"}, {}, 400, "at most 7 days"),
        ({"token": TOKEN, "minutes": "\u0663"}, {}, 400, "minutes: expected a whole number"),
        ({"token": TOKEN, "owner": "a\nb"}, {}, 400, "owner: expected"),
        ({"token": TOKEN, "kind": "Replicas", "replicas": "-1"}, {}, 400, "replicas: expected"),
        ({"token": TOKEN, "kind": "Replicas", "replicas": "1e9"}, {}, 400, "replicas: expected"),
        ({"token": TOKEN, "reason": "x" * 20_000}, {}, 413, "too long"),
    ],
)
def test_who_is_refused_changes_nothing_and_is_written_down(
    site: Site, fields: dict[str, str], headers: dict[str, str], status: int, why: str
) -> None:
    with capture_logs() as logs:
        answered, _, page = site.ask(PATH, GOOD | fields, headers)
    assert answered == status
    assert why.replace("'", "&#39;") in page
    assert site.rows() == []
    (line,) = [line for line in logs if line["event"] == "override refused"]
    assert (line["workload"], line["client"]) == ("grammar", "127.0.0.1")
    assert why in line["why"]
    assert TOKEN not in str(logs)
    assert site.counted("refused") == 1


def test_what_is_no_form_is_refused(site: Site) -> None:
    for kind, body, status in (
        ("text/plain", "kind=Pause", 415),
        ("application/json", "[1]", 415),
        ("application/json", "{", 400),
        ("application/x-www-form-urlencoded", "&".join(f"a{n}=1" for n in range(30)), 400),
    ):
        assert site.ask(PATH, headers={"Content-Type": kind}, body=body)[0] == status
    assert site.rows() == []


SPOKEN = {"kind": "Pause", "minutes": 30, "owner": "ana", "reason": "why", "token": TOKEN}


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ("[" * 15_000, 400, "nested too deeply"),
        (json.dumps(SPOKEN | {"token": "\ud800aaaa"}), 403, "the token is not the server's"),
        (json.dumps(SPOKEN | {"minutes": 10**9}), 400, "minutes: expected a whole number"),
        ('{"minutes": ' + "9" * 5_000 + "}", 400, "cannot be read"),
        (json.dumps(SPOKEN | {"owner": {"a": 1}}), 400, "owner: expected a text, got dict"),
        (json.dumps(SPOKEN | {"reason": ["x"]}), 400, "reason: expected a text, got list"),
        (json.dumps(SPOKEN | {"owner": "\ud800"}), 400, "owner: expected 1 to 100 printable"),
        (json.dumps(SPOKEN | {"minutes": True}), 400, "minutes: expected a whole number, got bool"),
        (json.dumps(SPOKEN | {"untill": "\ud800"}), 400, "got 'untill'"),
    ],
)
def test_hostile_json_is_refused_and_counted(site: Site, body: str, status: int, why: str) -> None:
    headers = {"Content-Type": "application/json"}
    with capture_logs() as logs:
        answered, _, told = site.ask("/api/workloads/grammar/override", headers=headers, body=body)
    assert (answered, why in json.loads(told)["error"]) == (status, True)
    assert [line["event"] for line in logs] == ["override refused"]
    assert site.rows() == []
    assert site.counted("refused") == 1


def test_an_origin_that_is_no_address_is_refused(site: Site) -> None:
    assert site.ask(PATH, GOOD | {"token": TOKEN}, {"Origin": "http://["})[0] == 403
    assert site.counted("refused") == 1


def test_the_scheme_of_a_bearer_token_is_written_in_any_case(site: Site) -> None:
    assert site.ask(PATH, GOOD, {"Authorization": f"bearer {TOKEN}"})[0] == 303


def test_a_workload_that_is_not_there_cannot_be_paused(site: Site) -> None:
    assert site.ask("/workloads/nobody/override", GOOD | {"token": TOKEN})[0] == 404
    assert site.rows() == []


def test_a_workload_can_be_paused_before_its_first_decision(in_service: Site) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert in_service.ask("/api/workloads/new/override", GOOD, headers)[0] == 201
    held = SqlDecisionStore(in_service.engine).override("new", NOW)
    assert held is not None
    assert held.kind is OverrideKind.PAUSE


def test_a_workload_that_left_the_settings_is_shown_as_past(in_service: Site) -> None:
    assert in_service.ask(PATH, GOOD | {"token": TOKEN})[0] == 404
    assert in_service.rows() == []
    shown = json.loads(in_service.ask("/api/workloads")[2])["workloads"]
    assert {(one["in_settings"], one["overdue"]) for one in shown} == {(False, False)}
    page = in_service.ask("/workloads/grammar")[2]
    for body in (page, in_service.ask("/")[2]):
        assert "not in the settings" in body
        assert "none since" not in body
        assert "badge good" not in body
    assert "<form" not in page


def test_our_own_page_may_ask_by_any_of_its_names(site: Site) -> None:
    for origin, host in (
        (f"http://127.0.0.1:{site.server.port}", f"127.0.0.1:{site.server.port}"),
        ("https://daybreak.example", "daybreak.example"),
        ("https://daybreak.example", "10.0.0.7:9464"),
    ):
        headers = {"Origin": origin, "Host": host, "Sec-Fetch-Site": "same-origin"}
        assert site.ask(PATH, GOOD | {"token": TOKEN}, headers)[0] == 303


def test_the_proxy_names_who_it_is(behind_proxy: Site) -> None:
    assert behind_proxy.ask(PATH, GOOD)[0] == 401
    status, _, _ = behind_proxy.ask(PATH, GOOD | {"owner": "root"}, {"X-Forwarded-User": "eve"})
    assert status == 303
    (row,) = behind_proxy.rows()
    assert (row["owner"], row["source"]) == ("eve", "header X-Forwarded-User")
    page = behind_proxy.ask("/workloads/grammar", headers={"X-Forwarded-User": "eve"})[2]
    assert "Who: eve" in page
    assert 'name="token"' not in page
    assert behind_proxy.ask(PATH, GOOD, {"X-Forwarded-User": "e\tve"})[0] == 400


def test_without_control_the_page_only_shows(read_only: Site) -> None:
    page = read_only.ask("/workloads/grammar")[2]
    assert "<form" not in page
    assert "This page only shows" in page
    with capture_logs() as logs:
        assert read_only.ask(PATH, GOOD | {"token": TOKEN})[0] == 403
    assert [line["event"] for line in logs] == ["override refused"]
    assert read_only.rows() == []


def test_reading_needs_no_token(site: Site) -> None:
    assert site.ask("/workloads/grammar")[0] == 200
    assert site.ask(PATH)[0] in (404, 405)


def test_hostile_words_are_text(site: Site) -> None:
    path = f"/workloads/{quote(HOSTILE, safe='')}/override"
    status, headers, _ = site.ask(
        path, GOOD | {"owner": HOSTILE, "reason": HOSTILE, "token": TOKEN}
    )
    assert status == 303
    page = site.ask(headers["location"])[2]
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;=&#34;&#39;") >= 5


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE manual_override SET owner = 'bob'",
        "UPDATE manual_override SET expires_at = '2026-03-16 09:00:00.000000'",
        "DELETE FROM manual_override",
    ],
)
def test_an_override_cannot_be_changed_afterwards(site: Site, statement: str) -> None:
    site.ask(PATH, GOOD | {"token": TOKEN})
    tamper(site.engine, statement)
    assert verify(site.engine).fault_count == 1


def test_overrides_are_chained_on_each_database(engine: Engine) -> None:
    fill_log(SqlDecisionStore(engine), hours=0.1)
    asked = OverrideRequest("Pause", "ana", "why", "token", None, timedelta(hours=1))
    row = record_override(engine, "grammar", NOW, asked)
    assert row.id == 1
    assert verify(engine).sound
    assert verify(engine).entries == 13


def test_a_clock_is_needed_and_a_token_that_cannot_be_guessed(engine: Engine) -> None:
    with pytest.raises(ValueError, match="overrides need a clock"):
        build_app(engine, CollectorRegistry(), list, (), Control(TOKEN))
    with pytest.raises(ValueError, match="16 characters"):
        Control("short")
    with pytest.raises(ValueError, match="a token or a header"):
        Control()


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({"tokenFile": "/nowhere", "tokenEnv": "X"}, "give at most one of tokenFile and tokenEnv"),
        ({"userHeader": "X-User", "host": "0.0.0.0"}, "userHeader needs host to be loopback"),
        ({"userHeader": "X User"}, "should match pattern"),
        ({"tokenFile": "/nowhere"}, "cannot read the secret file /nowhere"),
        ({"tokenFile": "TOKEN"}, "the server's token must have 16 characters at least"),
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(
    tmp_path: Path, server: dict[str, str], expected: str
) -> None:
    short = tmp_path / "token"
    short.write_text("short\n")
    path = tmp_path / "daybreak.yaml"
    document = {
        "prometheus": {"url": "http://localhost:9090"},
        "server": {key: str(short) if value == "TOKEN" else value for key, value in server.items()},
        "workloads": [
            {
                "name": "grammar",
                "target": {"name": "grammar", "mode": "shadow"},
                "demand": {"query": "x"},
                "capacity": {"qpsPerReplica": 10},
                "maxReplicas": 3,
            }
        ],
    }
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(SettingsError) as caught:
        _control(load_settings(path))
    assert expected in str(caught.value)


def test_settings_without_a_word_of_it_let_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "daybreak.yaml"
    path.write_text(
        "prometheus: {url: 'http://localhost:9090'}\nworkloads:\n- {name: g, target: {name: g, "
        "mode: shadow}, demand: {query: x}, capacity: {qpsPerReplica: 1}, maxReplicas: 3}\n"
    )
    settings = load_settings(path)
    assert _control(settings) is None
    assert settings.server.host == "127.0.0.1"
