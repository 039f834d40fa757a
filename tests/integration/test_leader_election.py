"""Two daemons on one log: one decides, the other stands by and goes on where the first ended."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaler.daemon import FIRST_WAIT_SECONDS
from storage.decisions import StoredDecision
from tests.integration.kubernetes_server import Drop, Fault, KubernetesServer, Request
from tests.integration.test_daemon import (
    cluster,
    config,
    daybreak,
    decisions,
    free_port,
    get,
    running,
    wait_for,
)

__all__ = ["cluster", "config"]  # fixtures

LEASE_SECONDS = 3
KEY = ("leases", "llm", "daybreak")


@pytest.fixture
def shared(config: dict[str, Any], postgres_url: str) -> dict[str, Any]:
    """Settings of daemons that share a log and a Lease."""
    election = {"namespace": "llm", "leaseSeconds": LEASE_SECONDS}
    return config | {"database": {"url": postgres_url}, "leaderElection": election}


@contextmanager
def another(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A second daemon with the same settings and a page of its own."""
    other = settings | {"server": {"port": free_port()}}
    (folder / "other").mkdir()
    with running(folder / "other", other) as process:
        wait_for(lambda: get(other, "/readyz")[0] == 200)
        yield process, other


def metric(settings: dict[str, Any], name: str) -> float | None:
    found = re.search(rf"^{name}(?:{{.*}})? (.+)", get(settings, "/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else None


def forecast_ones(settings: dict[str, Any]) -> list[StoredDecision]:
    return [row for row in decisions(settings) if row.context.forecast is not None]


def holder(server: KubernetesServer) -> str:
    return str(server.objects[KEY]["spec"]["holderIdentity"])


def released(request: Request) -> bool:
    return request.verb == "update" and not request.body["spec"].get("holderIdentity")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_of_two_decides_and_the_other_goes_on(
    tmp_path: Path,
    shared: dict[str, Any],
    cluster: KubernetesServer,
    number: signal.Signals,
) -> None:
    with running(tmp_path, shared) as first:
        wait_for(lambda: len(forecast_ones(shared)) >= 2)
        with another(tmp_path, shared) as (_, standby):
            assert (metric(shared, "daybreak_leader"), metric(standby, "daybreak_leader")) == (1, 0)
            assert metric(standby, "daybreak_desired_replicas") is None
            leads = f"{holder(cluster)} leads and decides"
            assert [leads in get(each, "/")[1] for each in (shared, standby)] == [False, True]
            time.sleep(2 * LEASE_SECONDS)
            leader = holder(cluster)
            first.send_signal(number)
            assert first.wait(timeout=10) == (0 if number == signal.SIGTERM else -number)
            before = decisions(shared)
            wait_for(lambda: len(decisions(shared)) >= len(before) + 3)
            assert metric(standby, "daybreak_leader") == 1
            assert "Standing by" not in get(standby, "/")[1]
            assert holder(cluster) not in ("", leader)
    rows = decisions(shared)
    at = [row.context.now for row in rows]
    assert len(rows) <= (at[-1] - at[0]).total_seconds() + 2  # Two that decide make twice as many.
    away = (at[len(before)] - at[len(before) - 1]).total_seconds()
    assert away < LEASE_SECONDS + FIRST_WAIT_SECONDS + 2
    let_go = [one for one in cluster.log if one.resource == "leases" and released(one)]
    assert len(let_go) == (1 if number == signal.SIGTERM else 0)
    assert [row.context.epoch for row in rows] == list(range(1, len(rows) + 1))
    fitted = {row.context.forecast.fitted_at for row in rows[len(before) :] if row.context.forecast}
    fitted |= {one.fitted_at for row in before[-1:] if (one := row.context.forecast)}
    assert len(fitted) == 1  # The first decision already goes by the model of who led before.
    assert rows[len(before)].context.forecast is not None


def test_who_lost_the_lease_ends_and_is_to_be_started_anew(
    tmp_path: Path, shared: dict[str, Any], cluster: KubernetesServer
) -> None:
    with running(tmp_path, shared) as process:
        wait_for(lambda: len(decisions(shared)) >= 1)
        cluster.objects[KEY]["spec"]["holderIdentity"] = "somebody"
        assert process.wait(timeout=30) == 1
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert "leadership lost" in events
    assert holder(cluster) == "somebody"


def test_what_was_last_asked_for_is_told_as_soon_as_it_leads(
    tmp_path: Path, shared: dict[str, Any], cluster: KubernetesServer
) -> None:
    """Before anything can be decided: an autoscaler may read a missing series as zero."""
    shared["workloads"][0]["target"]["mode"] = "metric"
    daybreak(tmp_path, shared, "run", "--once")
    (stored,) = decisions(shared)
    cluster.fail(Fault("*", "deployments", status=503, lasts=10**6))
    with running(tmp_path, shared):
        wait_for(lambda: metric(shared, "daybreak_leader") == 1)
        wait_for(lambda: metric(shared, "daybreak_desired_replicas") is not None, seconds=20)
        asked_for = metric(shared, "daybreak_desired_replicas")
    assert asked_for == stored.decision.desired
    assert len(decisions(shared)) == 1


def test_who_was_cut_off_in_the_middle_does_not_let_go(
    tmp_path: Path, shared: dict[str, Any], cluster: KubernetesServer
) -> None:
    """What hangs may still be written: the Lease ends by itself, after that."""
    shared["kubernetes"]["timeoutSeconds"] = 30
    shared["leaderElection"]["leaseSeconds"] = 90
    with running(tmp_path, shared) as process:
        wait_for(lambda: len(decisions(shared)) >= 1)
        cluster.fail(Fault("get", "deployments", drop=Drop.HANG, lasts=10**6))
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 1
    assert holder(cluster) != ""
    assert not any(one.resource == "leases" and released(one) for one in cluster.log)


def test_who_cannot_read_the_lease_decides_nothing_and_says_why(
    tmp_path: Path, shared: dict[str, Any], cluster: KubernetesServer
) -> None:
    cluster.fail(Fault("*", "leases", status=403, lasts=10**6))
    with running(tmp_path, shared):
        wait_for(lambda: "403" in get(shared, "/readyz")[1])
        status, text = get(shared, "/readyz")
        assert get(shared, "/healthz")[0] == 200
        cluster.fail()
        wait_for(lambda: len(decisions(shared)) >= 1)
    assert status == 503
    (reason,) = json.loads(text)["reasons"]
    assert reason.startswith("lease: cannot get leases.coordination.k8s.io llm/daybreak: 403")


def test_once_decides_nothing_beside_a_leader(
    tmp_path: Path, shared: dict[str, Any], cluster: KubernetesServer
) -> None:
    ended = daybreak(tmp_path, shared, "run", "--once")
    assert ended.returncode == 0, ended.stderr
    assert holder(cluster) == ""
    cluster.objects[KEY]["spec"]["holderIdentity"] = "somebody"
    ended = daybreak(tmp_path, shared, "run", "--once")
    assert ended.returncode == 1
    assert "somebody leads" in ended.stderr
    assert len(decisions(shared)) == 1


def test_check_and_rbac_know_the_lease(
    tmp_path: Path, shared: dict[str, Any], cluster: KubernetesServer
) -> None:
    def checked() -> subprocess.CompletedProcess[str]:
        return daybreak(tmp_path, shared, "check")

    assert "sufficient for leader election" in checked().stdout
    cluster.denied.add(("update", "leases"))
    refused = checked()
    assert refused.returncode == 2
    assert "missing in namespace llm: update leases.coordination.k8s.io daybreak" in refused.stdout
    printed = yaml.safe_load_all(daybreak(tmp_path, shared, "rbac").stdout)
    roles = [one for one in printed if one["kind"] == "Role"]
    group = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    leases = [rule for role in roles for rule in role["rules"] if rule["resources"] == ["leases"]]
    assert leases == [
        group | {"verbs": ["create"]},
        group | {"resourceNames": ["daybreak"], "verbs": ["get", "update"]},
    ]


@pytest.mark.parametrize("command", [("run",), ("run", "--once"), ("check",)])
def test_a_log_of_one_s_own_is_refused(
    tmp_path: Path, config: dict[str, Any], command: tuple[str, ...]
) -> None:
    ended = daybreak(tmp_path, config | {"leaderElection": {"leaseSeconds": 3}}, *command)
    assert ended.returncode == 2
    assert "leaderElection: expected a log that all daemons share" in ended.stdout + ended.stderr
    assert "got sqlite" in ended.stdout + ended.stderr
    assert not (tmp_path / "daybreak.db").exists()


def test_a_lease_too_short_for_a_write_is_refused(tmp_path: Path, shared: dict[str, Any]) -> None:
    shared["kubernetes"]["timeoutSeconds"] = 1.5
    ended = daybreak(tmp_path, shared, "check")
    assert ended.returncode == 2
    assert "leaderElection.leaseSeconds must not lie below three times" in ended.stderr
