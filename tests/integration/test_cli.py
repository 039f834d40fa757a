"""The command line as a user meets it: messages, exit statuses, files."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaler.clock import SystemClock
from scaler.finding import Severity
from scaler.preflight import check_settings
from scaler.settings import load_settings
from storage.database import head
from tests.integration.commands import DAYBREAK, run
from tests.integration.kubernetes_server import KubernetesServer
from tests.integration.prometheus_server import GATEWAY, PrometheusServer
from tests.integration.test_daemon import cluster, config, daybreak, decisions

__all__ = ["cluster", "config"]  # fixtures


def whatif_settings(path: Path, settings: dict[str, Any], **workload: Any) -> Path:
    """A settings file for `simulate`: one workload that is never written to, and what is given."""
    own = {
        "name": "grammar",
        "target": {"name": "grammar", "mode": "shadow"},
        "demand": {"query": "trace"},
        "capacity": {"qpsPerReplica": 1080},
    }
    document = {"prometheus": {"url": "http://localhost:9090"}, "workloads": [own | workload]}
    path.write_text(yaml.safe_dump(settings | document))
    return path


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["check"],
        ["demo"],
        ["tune"],
        ["explain"],
        ["verify"],
        ["db"],
        ["db", "upgrade"],
    ],
)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    """A process that begins from nothing, since the others begin with all modules there."""
    shown = subprocess.run(
        [DAYBREAK, *command, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert shown.returncode == 0
    if command not in ([], ["db"]):
        assert "Example: daybreak" in shown.stdout


def test_the_version_is_told() -> None:
    assert run("--version").stdout.strip() == "0.1.0"


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_missing_settings_file_is_bad_input(command: str) -> None:
    ended = run(command, "--config", "/nowhere.yaml")
    assert ended.returncode == 2
    assert "/nowhere.yaml: cannot be read: No such file or directory" in ended.stderr
    assert "Traceback" not in ended.stderr


def findings(tmp_path: Path, config: dict[str, Any]) -> tuple[int, str]:
    ended = daybreak(tmp_path, config, "check", "--json", "-")
    assert "Traceback" not in ended.stderr
    rows = json.loads(ended.stdout)["findings"]
    errors = [f"{row['subject']}: {row['message']}" for row in rows if row["severity"] == "error"]
    return ended.returncode, "\n".join(errors)


def test_check_of_sound_settings_says_ok(tmp_path: Path, config: dict[str, Any]) -> None:
    ended = daybreak(tmp_path, config, "check")
    assert ended.returncode == 0, ended.stdout
    assert "ok" in ended.stdout
    assert "error" not in ended.stdout


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sum(rate(", "parse error"),
        ("no_such_metric_total", "no"),
        (f"rate({GATEWAY}[1d])", "series where one is expected"),
    ],
)
def test_check_tells_what_is_wrong_with_a_query(
    tmp_path: Path, config: dict[str, Any], query: str, expected: str
) -> None:
    config["workloads"][0]["demand"] = {"query": query}
    status, errors = findings(tmp_path, config)
    assert status == 2
    assert expected in errors


def test_each_broken_setting_has_a_message_of_its_own(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    messages = set()
    for change in (
        {"prometheus": {"url": "http://127.0.0.1:1"}},
        {"workloads": [{**config["workloads"][0], "demand": {"query": "sum(rate("}}]},
        {"workloads": [{**config["workloads"][0], "demand": {"query": "no_such_total"}}]},
        {"workloads": [{**config["workloads"][0], "demand": {"query": GATEWAY}}]},
        {"workloads": [{**config["workloads"][0], "target": {"name": "gone", "mode": "scale"}}]},
        {"kubernetes": {"kubeconfig": "/nowhere"}},
        {"database": {"url": "sqlite:////nowhere/at/all.db"}},
    ):
        path = tmp_path / "daybreak.yaml"
        path.write_text(yaml.safe_dump({**config, **change}))
        found = check_settings(load_settings(path), SystemClock())
        errors = [f"{f.subject}: {f.message}" for f in found if f.severity is Severity.ERROR]
        assert errors
        messages.add("\n".join(errors))
    assert len(messages) == 7


def test_check_writes_nothing(
    tmp_path: Path,
    config: dict[str, Any],
    cluster: KubernetesServer,
) -> None:
    findings(tmp_path, config)
    assert not (tmp_path / "daybreak.db").exists()
    assert {request.verb for request in cluster.log} <= {"get", "list", "create"}
    created = {request.resource for request in cluster.log if request.verb == "create"}
    assert created <= {"selfsubjectaccessreviews"}


def test_secrets_never_reach_what_is_printed(
    tmp_path: Path, config: dict[str, Any], prometheus_server: PrometheusServer
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t-token")
    config["prometheus"] = {"url": prometheus_server.url, "bearerTokenFile": str(token)}
    config["workloads"][0]["demand"] = {"query": "sum(rate("}
    ended = daybreak(tmp_path, config, "check")
    assert "s3cr3t-token" not in ended.stdout + ended.stderr


def test_db_upgrade_is_told_and_repeatable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    assert f"empty -> {head()}" in run("db", "upgrade", "--database", url).stdout
    assert f"already {head()}" in run("db", "upgrade", "--database", url).stdout


def test_the_demo_ends_with_the_comparison_and_a_report(tmp_path: Path) -> None:
    ended = run("demo", "--headless", "--report", "report.html", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    for word in ("daybreak", "reactive", "static peak", "GPU-hours", "report: report.html"):
        assert word in ended.stdout
    assert "decided" not in ended.stdout
    report = (tmp_path / "report.html").read_text()
    assert "<svg" in report
    assert (tmp_path / "daybreak-demo.db").stat().st_size > 1_000_000
    # What a manager asks, told once and the same everywhere.
    for told in (
        "which cost",
        "HPA",
        "0 of 1,440 measured",
        "It was kept.",
        "was taken again from what it had seen",
    ):
        assert told in report
    url = f"sqlite:///{tmp_path / 'daybreak-demo.db'}"
    audit = json.loads(run("report", "--database", url, "--json", "-").stdout)["workloads"][0]
    # The daemon's own loop ran: what is computed from its log must come to what it did.
    assert abs(audit["reproduction"]["difference_ratio"]) < 0.01


def test_a_second_demo_leaves_the_first_ones_log_alone(tmp_path: Path) -> None:
    begun = subprocess.Popen([DAYBREAK, "demo", "--headless"], cwd=tmp_path)
    log = tmp_path / "daybreak-demo.db"
    try:
        deadline = SystemClock().monotonic() + 60
        while not log.exists() or log.stat().st_size == 0:
            assert SystemClock().monotonic() < deadline
        second = run("demo", "--headless", cwd=tmp_path)
        assert second.returncode == 2
        assert "another demo is at work" in second.stderr
        assert log.stat().st_size > 0
    finally:
        begun.kill()
        begun.wait()


def test_an_address_that_is_taken_is_told_before_anything_is_decided(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config["server"] = {"port": taken.getsockname()[1]}
        ended = daybreak(tmp_path, config, "run")
        assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
        assert f"server: cannot listen on 127.0.0.1, port {taken.getsockname()[1]}" in ended.stderr
        assert "is the daemon running?" in daybreak(tmp_path, config, "check").stdout
    config["server"] = {"host": "999.1.1.1"}
    told = daybreak(tmp_path, config, "check")
    assert told.returncode == 2
    assert "server: cannot listen on 999.1.1.1" in told.stdout
    assert decisions(config) == []


def test_a_what_if_keeps_the_target_and_the_history_of_the_settings(tmp_path: Path) -> None:
    run("trace", "generate", "--days", "5", "--out", "week.csv", cwd=tmp_path)
    found = {}
    for target, days in ((0.05, 3), (0.001, 3), (0.001, 2)):
        path = whatif_settings(
            tmp_path / "settings.yaml",
            {},
            maxReplicas=400,
            policy={"targetBadRatio": target},
            history={"days": days},
        )
        asked = ("--trace", "week.csv", "--config", str(path), "--engine", "fluid", "--json", "-")
        ended = run("simulate", *asked, "--warmup-days", "4", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        found[target, days] = json.loads(ended.stdout)["policies"][0]["pod_hours"]
    assert found[0.05, 3] < 0.99 * found[0.001, 3]
    assert found[0.001, 2] != found[0.001, 3]


@pytest.mark.parametrize("rate", ["0", ""])
def test_a_trace_without_traffic_to_score_is_refused(tmp_path: Path, rate: str) -> None:
    steps = [
        (f"2026-03-0{day + 1}T{hour:02}:00:00Z", day) for day in range(3) for hour in range(24)
    ]
    lines = [f"{at},{1000 if day < 2 else rate}" for at, day in steps]
    (tmp_path / "calm.csv").write_text("\n".join(["timestamp,qps", *lines]) + "\n")
    asked = ("--trace", "calm.csv", "--policy", "static", "--engine", "fluid")
    ended = run("simulate", *asked, "--warmup-days", "2", cwd=tmp_path)
    assert ended.returncode == 2
    assert "hardly any traffic from 2026-03-03 00:00:00+00:00 on" in ended.stderr


def test_the_demo_refuses_a_database_that_holds_decisions(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    assert daybreak(tmp_path, config, "run", "--once").returncode == 0
    ended = run("demo", "--headless", "--database", config["database"]["url"], cwd=tmp_path)
    assert ended.returncode == 2
    assert "already holds decisions of grammar" in ended.stderr
