"""The daemon as a process: real Prometheus, a real database, the Kubernetes protocol over HTTP."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, select

from policies.context import ProblemSource
from scaler.clock import SystemClock
from storage import schema
from storage.database import open_engine, prepare
from storage.decisions import SqlDecisionStore, StoredDecision
from tests.integration.commands import DAYBREAK, run
from tests.integration.kubernetes_server import Drop, Fault, KubernetesServer
from tests.integration.prometheus_server import LIVE, PrometheusServer
from tests.integration.test_cluster import kubeconfig

QUERY = f"sum(rate({LIVE}[1m]))"
NAME = "grammar"


@pytest.fixture
def cluster() -> Iterator[KubernetesServer]:
    with KubernetesServer() as server:
        deploy(server, NAME, replicas=3)
        yield server


def deploy(server: KubernetesServer, name: str, replicas: int) -> None:
    server.put(
        "deployments",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "llm"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": []}},
            },
            "status": {"replicas": replicas, "updatedReplicas": replicas},
        },
    )


def workload(name: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": name,
        "target": {"namespace": "llm", "name": name, "mode": "scale"},
        "demand": {"query": QUERY},
        "capacity": {"qpsPerReplica": 500},
        "history": {"days": 6},  # a margin is found by deciding every second of them
        "minReplicas": 1,
        "maxReplicas": 100,
        **changed,
    }


@pytest.fixture
def config(
    tmp_path: Path, cluster: KubernetesServer, prometheus_server: PrometheusServer
) -> dict[str, Any]:
    """Settings over real servers, as a document that a test may change."""
    return {
        "intervalSeconds": 1,
        "prometheus": {"url": prometheus_server.url, "timeoutSeconds": 2},
        "database": {"url": f"sqlite:///{tmp_path / 'daybreak.db'}"},
        "server": {"port": free_port()},
        "kubernetes": {
            "kubeconfig": str(kubeconfig(tmp_path / "kubeconfig", cluster.url)),
            "timeoutSeconds": 1,
        },
        "workloads": [workload(NAME)],
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def daybreak(
    folder: Path, config: dict[str, Any], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    path = folder / "daybreak.yaml"
    path.write_text(yaml.safe_dump(config))
    return run(*arguments, "--config", str(path), environment=environment)


@contextmanager
def running(
    folder: Path, config: dict[str, Any], log_file: str = "log"
) -> Iterator[subprocess.Popen[str]]:
    """The daemon, from its start until it is ended by the test, or killed after it."""
    path = folder / "daybreak.yaml"
    path.write_text(yaml.safe_dump(config))
    with (folder / log_file).open("w") as log:
        process = subprocess.Popen([DAYBREAK, "run", "--config", path], stderr=log, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def decisions(config: dict[str, Any], name: str = NAME) -> list[StoredDecision]:
    engine = open_engine(config["database"]["url"])
    prepare(engine)
    now = SystemClock().now()
    store = SqlDecisionStore(engine)
    found = list(store.stored(name, now - timedelta(hours=1), now + timedelta(hours=1)))
    engine.dispose()
    return found


def outcomes(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [row.kind for row in connection.execute(select(schema.outcome))]


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the daemon did not get there in time"
        time.sleep(0.1)


def get(config: dict[str, Any], path: str) -> tuple[int, str]:
    try:
        url = f"http://127.0.0.1:{config['server']['port']}{path}"
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def spec_replicas(cluster: KubernetesServer, name: str = NAME) -> int:
    return int(cluster.objects["deployments", "llm", name]["spec"]["replicas"])


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_once_fetches_fits_decides_records_and_scales(
    tmp_path: Path,
    config: dict[str, Any],
    cluster: KubernetesServer,
    prometheus_server: PrometheusServer,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    if kind == "postgresql":
        config["database"] = {"urlEnv": "DAYBREAK_DATABASE_URL"}
        url = request.getfixturevalue("postgres_url")
        ended = daybreak(tmp_path, config, "run", "--once", DAYBREAK_DATABASE_URL=url)
        config["database"] = {"url": url}
    else:
        ended = daybreak(tmp_path, config, "run", "--once")
    assert ended.returncode == 0, ended.stderr
    (stored,) = decisions(config)
    context = stored.context
    assert [p for p in context.problems if p.source is not ProblemSource.SIGNALS] == []
    assert context.forecast is not None
    assert context.forecast.model == "combined"
    newest = prometheus_server.live_qps(context.observation.at)
    assert context.demand_qps == pytest.approx(newest, rel=0.05)
    assert stored.decision.desired >= newest / 500
    assert spec_replicas(cluster) == stored.decision.desired
    engine = open_engine(config["database"]["url"])
    assert outcomes(engine) == ["Applied"]
    engine.dispose()


def test_sigterm_ends_within_ten_seconds_with_nothing_half_written(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    with running(tmp_path, config) as process:
        wait_for(lambda: get(config, "/readyz")[0] == 200)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - began < 10
    stored = decisions(config)
    engine = open_engine(config["database"]["url"])
    assert len(outcomes(engine)) == len(stored) > 0
    engine.dispose()


def test_a_full_log_disk_stops_neither_metrics_nor_a_stop(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    with running(tmp_path, config, "/dev/full") as process:
        wait_for(lambda: get(config, "/readyz")[0] == 200)
        text = get(config, "/metrics")[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert f'daybreak_desired_replicas{{workload="{NAME}"}}' in text
    lost = re.search(r"^daybreak_log_lines_lost_total (.+)", text, re.MULTILINE)
    assert lost
    assert float(lost[1]) >= 1


def test_every_line_of_the_log_is_json_and_the_first_says_what_runs(
    tmp_path: Path, config: dict[str, Any], cluster: KubernetesServer
) -> None:
    config["kubernetes"]["timeoutSeconds"] = 30
    cluster.fail(Fault("get", "deployments", drop=Drop.HANG, lasts=99))
    log = tmp_path / "log"
    with running(tmp_path, config):
        wait_for(lambda: "run skipped" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["event"] == "started"
    assert lines[0]["settings"] == str(tmp_path / "daybreak.yaml")
    assert lines[0]["page"] == f"http://127.0.0.1:{config['server']['port']}/"
    assert lines[0]["workloads"] == {NAME: f"scale llm/{NAME}"}
    assert {line["event"] for line in lines[1:]} == {"run skipped"}


def test_sigterm_is_not_held_up_by_a_hanging_api_server(
    tmp_path: Path, config: dict[str, Any], cluster: KubernetesServer
) -> None:
    config["kubernetes"]["timeoutSeconds"] = 30
    with running(tmp_path, config) as process:
        wait_for(lambda: get(config, "/readyz")[0] == 200)
        cluster.fail(Fault("get", "deployments", drop=Drop.HANG, lasts=99))
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        process.wait(timeout=12)
        assert time.monotonic() - began < 10


def test_health_readiness_and_metrics_are_told(tmp_path: Path, config: dict[str, Any]) -> None:
    with running(tmp_path, config):
        wait_for(lambda: get(config, "/healthz")[0] == 200)
        wait_for(lambda: get(config, "/readyz")[0] == 200)
        status, text = get(config, "/metrics")
    assert status == 200
    assert f'daybreak_desired_replicas{{workload="{NAME}"}}' in text
    assert "daybreak_decisions_total" in text


def test_growth_in_vain_is_told_until_the_target_is_another(
    tmp_path: Path, config: dict[str, Any], cluster: KubernetesServer
) -> None:
    cluster.objects["deployments", "llm", NAME]["spec"]["paused"] = True
    log = tmp_path / "log"
    with running(tmp_path, config):
        wait_for(lambda: "in vain" in get(config, "/readyz")[1])
        refused = json.loads(get(config, "/readyz")[1])
        text = get(config, "/metrics")[1]
        del cluster.objects["deployments", "llm", NAME]
        deploy(cluster, NAME, replicas=3)
        wait_for(lambda: spec_replicas(cluster) > 3)
        wait_for(lambda: get(config, "/readyz")[0] == 200)
        healthy = json.loads(get(config, "/readyz")[1])
    assert refused["not_applied"][NAME]["outcome"] == "Refused"
    assert "is paused" in refused["not_applied"][NAME]["detail"]
    assert f'daybreak_not_applied{{outcome="Refused",workload="{NAME}"}} 1.0' in text
    assert healthy == {"ready": True, "reasons": [], "not_applied": {}}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [line["why"] for line in lines if line["event"] == "not applied"]
    assert ["is paused" in why for why in told] == [True, False]
    assert "created anew" in told[1]
    assert [line["event"] for line in lines].count("taken on anew") == 1


def test_what_was_last_asked_for_is_told_before_anything_can_be_decided(
    tmp_path: Path, config: dict[str, Any], cluster: KubernetesServer
) -> None:
    """An autoscaler that reads a missing series as zero would drop the fleet."""
    config["workloads"][0]["target"]["mode"] = "metric"
    daybreak(tmp_path, config, "run", "--once")
    (stored,) = decisions(config)
    cluster.fail(Fault("*", "*", status=503, lasts=10**6))
    with running(tmp_path, config):
        wait_for(lambda: get(config, "/healthz")[0] == 200)
        text = get(config, "/metrics")[1]
        assert get(config, "/readyz")[0] == 503
    assert f'daybreak_desired_replicas{{workload="{NAME}"}} {stored.decision.desired}.0' in text
    assert f'daybreak_last_decision_timestamp_seconds{{workload="{NAME}"}}' in text


def test_one_bad_workload_never_stops_the_others(
    tmp_path: Path, config: dict[str, Any], cluster: KubernetesServer
) -> None:
    deploy(cluster, "unmeasured", replicas=5)
    config["workloads"].insert(0, workload("missing"))
    config["workloads"].insert(0, workload("unmeasured", demand={"query": "sum(rate("}))
    with running(tmp_path, config):
        wait_for(lambda: len(decisions(config)) >= 3)
        status, text = get(config, "/readyz")
    assert status == 503
    assert "llm/missing does not exist" in text
    assert decisions(config, "missing") == []
    held = decisions(config, "unmeasured")
    assert {row.decision.desired for row in held} == {5}


def test_decisions_keep_their_cadence_while_a_model_is_fitted(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    """A fit reads and works for a good second; the decisions beside it come on time."""
    config["workloads"][0]["history"]["days"] = 28
    with running(tmp_path, config):
        wait_for(lambda: len(decisions(config)) >= 6)
    at = [row.context.now for row in decisions(config)]
    gaps = [(later - sooner).total_seconds() for sooner, later in pairwise(at)]
    assert max(gaps[1:]) < 2.5


def test_a_killed_daemon_goes_on_where_it_was(tmp_path: Path, config: dict[str, Any]) -> None:
    with running(tmp_path, config) as process:
        wait_for(lambda: any(row.context.forecast for row in decisions(config)))
        process.kill()
    before = decisions(config)
    with running(tmp_path, config):
        wait_for(lambda: len(decisions(config)) > len(before))
    first = decisions(config)[len(before)]
    assert first.context.epoch > before[-1].context.epoch
    assert first.context.forecast is not None
    assert before[-1].context.forecast is not None
    assert first.context.forecast.fitted_at == before[-1].context.forecast.fitted_at
