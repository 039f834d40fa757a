"""`daybreak simulate --sweep` and `daybreak tune` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scaler.settings import load_settings
from tests.integration.commands import run
from tests.integration.test_cli import whatif_settings


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "days.csv"
    ended = run("trace", "generate", "--days", "4", "--peak-qps", "20000", "--out", str(path))
    assert ended.returncode == 0, ended.stderr
    return path


def swept(trace: Path, *arguments: str) -> dict[str, Any]:
    policies = ("--policy", "predictive,asymmetric_concurrency", "--engine", "fluid", "--sweep")
    ended = run("simulate", "--trace", str(trace), *policies, "--json", "-", *arguments)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def figures(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What does not depend on the clock on the wall."""
    return [
        (entry["policy"], entry["knob"]["value"], entry["pod_hours"], entry["bad_ratio"])
        for entry in document["policies"]
    ]


def test_every_policy_is_run_over_its_own_knob(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "frontier.html"
    found = swept(trace, "--html", str(page))
    knobs = {entry["policy"]: entry["knob"]["name"] for entry in found["policies"]}
    assert knobs == {
        "predictive": "targetBadRatio",
        "asymmetric_concurrency": "targetConcurrency",
    }
    paces = {
        (entry["policy"], entry["interval_seconds"], entry["metric_lag_seconds"])
        for entry in found["policies"]
    }
    assert paces == {("predictive", 15, 15), ("asymmetric_concurrency", 5, 2)}
    ours, peer = found["frontier"]
    assert (ours["policy"], peer["policy"]) == ("predictive", "asymmetric_concurrency")
    assert set(ours["excess_at_bad_ratio"]) == {"1e-3", "1e-4", "1e-5"}
    assert ours["excess_at_bad_ratio"]["1e-3"] is not None
    assert ours["points"] == sum(entry["policy"] == "predictive" for entry in found["policies"])
    assert "<svg" in page.read_text()
    assert "<script" not in page.read_text()


def test_a_policy_without_a_setting_that_keeps_the_objective_fails_a_pipeline(
    trace: Path, tmp_path: Path
) -> None:
    too_few = whatif_settings(tmp_path / "too_few.yaml", {}, maxReplicas=5)
    sweep = ("--trace", str(trace), "--engine", "fluid", "--sweep", "--policy", "hpa")
    assert run("simulate", *sweep, "--fail-on-slo").returncode == 0
    hopeless = (*sweep, "--config", str(too_few))
    assert run("simulate", *hopeless).returncode == 0
    assert run("simulate", *hopeless, "--fail-on-slo").returncode == 1


def test_the_number_of_workers_changes_nothing(trace: Path) -> None:
    one, two = (swept(trace, "--workers", workers) for workers in ("1", "2"))
    assert figures(one) == figures(two)


def test_peers_are_calibrated_for_our_targets_on_request(trace: Path) -> None:
    found = swept(trace, "--calibrate-peers")
    names = {entry["knob"]["name"] for entry in found["policies"]}
    values = [
        {entry["knob"]["value"] for entry in found["policies"] if entry["policy"] == policy}
        for policy in ("predictive", "asymmetric_concurrency")
    ]
    assert names == {"targetBadRatio"}
    assert values[0] == values[1]


def test_tuning_writes_settings_that_load(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned.yaml"
    arguments = ("--policy", "hpa", "--target", "0.01", "--out", str(out), "--json", "-")
    ended = run("tune", "--trace", str(trace), *arguments)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)
    assert load_settings(out).workloads[0].policy.name == "hpa"


def test_tuning_an_unknown_policy_is_refused(trace: Path) -> None:
    ended = run("tune", "--trace", str(trace), "--policy", "magic")
    assert ended.returncode == 2
    assert "magic" in ended.stderr
