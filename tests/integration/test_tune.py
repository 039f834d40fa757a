"""`daybreak tune` as a user meets it, on files and on a real Prometheus."""

from __future__ import annotations

import json
import math
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaler.cli.output import BadInputError
from scaler.cli.tune import tune as command
from scaler.settings import load_settings
from simulator.traces.edit import with_surge
from simulator.traces.generate import Diurnal, generate
from simulator.traces.trace_file import TraceError, write_trace
from tests.integration.commands import run
from tests.integration.prometheus_server import GATEWAY, PrometheusServer
from tests.integration.test_daemon import workload
from tests.traffic import MONDAY

DAYS = 6


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six days of a small service, the newest minutes not known yet: four are played."""
    path = tmp_path_factory.mktemp("traces") / "days.csv"
    whole = generate(Diurnal(peak_qps=9000, noise=0.05), MONDAY, DAYS, seed=5)
    write_trace(whole.between(MONDAY, whole.end - timedelta(minutes=20)), path)
    return path


@pytest.fixture(scope="module")
def surged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a crowd on the last day that no reactive policy can be ready for."""
    path = tmp_path_factory.mktemp("traces") / "surge.csv"
    quiet = generate(Diurnal(peak_qps=9000, noise=0.05), MONDAY, DAYS, seed=5)
    at = MONDAY + timedelta(days=DAYS - 1, hours=3)
    write_trace(with_surge(quiet, at, 1, 30, 30), path)
    return path


def tuned(trace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("tune", "--trace", str(trace), "--policy", "hpa", *arguments)


@pytest.fixture(scope="module")
def found(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What was found for a target of 1e-3, and the settings file of it."""
    out = tmp_path_factory.mktemp("tuned") / "tuned.yaml"
    ended = tuned(trace, "--target", "1e-3", "--json", "-", "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document, out


def test_what_was_tried_is_told_on_both_parts(found: tuple[dict[str, Any], Path]) -> None:
    document, _ = found
    assert document["policy"] == "hpa"
    assert document["target_bad_ratio"] == 1e-3
    assert document["days"] == 4
    assert len(document["candidates"]) == 35 * 4
    for each in document["candidates"]:
        assert set(each) == {"knobs", "choosing", "checking"}
        assert set(each["knobs"]) == {"targetQps", "scaleDownWindowSeconds"}
        for part in ("choosing", "checking"):
            assert each[part]["pod_hours"] > 0
            assert 0 <= each[part]["bad_ratio"] < 1


def test_the_choice_is_the_cheapest_of_the_first_part_and_keeps_the_later(
    found: tuple[dict[str, Any], Path],
) -> None:
    document, _ = found
    choice = document["choice"]
    kept = [each for each in document["candidates"] if each["choosing"]["bad_ratio"] <= 1e-3]
    assert choice["choosing"]["pod_hours"] == min(each["choosing"]["pod_hours"] for each in kept)
    assert document["checked"]
    assert choice["checking"]["bad_ratio"] <= 1e-3
    dearer = max(each["choosing"]["pod_hours"] for each in kept)
    assert dearer > 2 * choice["choosing"]["pod_hours"]


def test_folds_walk_forward(found: tuple[dict[str, Any], Path]) -> None:
    document, _ = found
    one, two = document["folds"]
    assert one["choosing"]["until"] == one["checking"]["from"]
    assert one["checking"]["until"] == two["checking"]["from"] == two["choosing"]["until"]
    assert two["checking"]["until"] == document["trace"]["end"]
    assert one["choosing"]["from"] == two["choosing"]["from"] == document["trace"]["scored_from"]
    assert two["knobs"] == document["choice"]["knobs"]


def test_how_sure_it_is_is_told(found: tuple[dict[str, Any], Path]) -> None:
    document, _ = found
    assert document["bad_ratio"] <= 1e-3
    assert document["bad_ratio_upper_95"] >= max(document["bad_ratio"], 3 / (4 * 1440))
    assert document["days_to_certify"] == 3
    assert document["certified"] == (document["bad_ratio_upper_95"] <= 1e-3)


def test_the_settings_file_holds_what_was_found(found: tuple[dict[str, Any], Path]) -> None:
    document, out = found
    (only,) = load_settings(out).workloads
    assert only.policy.name == "hpa"
    assert only.policy.parameters == document["choice"]["knobs"]
    assert only.policy.target_bad_ratio == 1e-3


def test_the_answer_fits_eighty_columns_and_says_how_sure_it_is(trace: Path) -> None:
    ended = tuned(trace)
    assert ended.returncode == 0, ended.stderr
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert ended.stderr == ""  # no bar in a pipe
    text = " ".join(ended.stdout.split())
    assert "Cheapest: targetQps " in text
    assert "which were not used to choose it" in text
    assert "Walking forward, " in text
    assert " of 2 choices kept the target on days that they had not seen." in text
    assert "4 days of history cannot certify 0.0001: it takes 21." in text


def test_where_no_setting_keeps_the_target_the_nearest_is_named(
    surged: Path, tmp_path: Path
) -> None:
    out, results = tmp_path / "tuned.yaml", tmp_path / "found.json"
    ended = tuned(surged, "--out", str(out), "--json", str(results))
    assert ended.returncode == 1
    assert ended.stderr == ""
    text = " ".join(ended.stdout.split())
    assert re.search(r"No setting keeps 0.0001 on both parts. targetQps .* came nearest", text)
    assert not out.exists()
    document = json.loads(results.read_text())
    assert document["choice"] is None
    assert not document["kept"]
    assert not document["certified"]
    worst = [
        max(each["choosing"]["bad_ratio"], each["checking"]["bad_ratio"])
        for each in document["candidates"]
    ]
    assert max(document["nearest"][part]["bad_ratio"] for part in ("choosing", "checking")) == min(
        worst
    )


def test_ours_is_tuned_over_targets_and_margins(trace: Path) -> None:
    ended = run("tune", "--trace", str(trace), "--target", "1e-2", "--json", "-")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["policy"] == "predictive"
    assert document["settings"]["loop"] == "compiled"
    assert {name for each in document["candidates"] for name in each["knobs"]} == {
        "margin",
        "targetBadRatio",
    }


def test_other_policies_are_tuned_in_the_full_loop(tmp_path: Path) -> None:
    path, out = tmp_path / "days.csv", tmp_path / "tuned.yaml"
    write_trace(generate(Diurnal(peak_qps=3000), MONDAY, 4, seed=5), path)
    asked = ("--policy", "static", "--target", "1e-3", "--json", "-", "--out", str(out))
    ended = run("tune", "--trace", str(path), *asked)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["settings"]["loop"] == "full"
    assert document["choice"]["knobs"] == load_settings(out).workloads[0].policy.parameters
    hours = [each["choosing"]["pod_hours"] for each in document["candidates"]]
    assert hours == [24 * each["knobs"]["replicas"] for each in document["candidates"]]


def test_traffic_that_fits_the_least_is_told(tmp_path: Path) -> None:
    path = tmp_path / "days.csv"
    write_trace(generate(Diurnal(peak_qps=100), MONDAY, 4, seed=5), path)
    ended = tuned(path)
    assert ended.returncode == 2
    assert "its settings make no difference on this history" in ended.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"policy": "magic"}, "--policy: 'magic' is not a policy; there are "),
        ({"policy": "cron"}, "--policy: cron has no setting that could be tuned"),
        ({"target": 0.0}, "--target: expected a number above 0 and up to 0.5, got 0"),
        ({"target": math.nan}, "--target: expected a number above 0 and up to 0.5, got nan"),
        ({"config": Path("/nowhere.yaml")}, "give exactly one of --trace and --config"),
        ({"pod_profile": "tpu"}, "--pod-profile: expected one of h100-1200"),
        ({"trace": Path("/nowhere.csv")}, "/nowhere.csv: cannot be read"),
    ],
)
def test_bad_options_are_told(trace: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises((BadInputError, TraceError), match=re.escape(expected)):
        command(**{"trace": trace, **options})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-02T00:00:00Z,1\n2026-03-02T00:01:00Z,-1\n", "line 3: expected a rate >= 0"),
        ("2026-03-02T00:00:00Z,\n2026-03-02T00:01:00Z,\n", "trace: holds no traffic"),
        ("2026-03-02T00:00:00Z,1\n2026-03-03T00:00:00Z,1\n", "trace: 2.0 days of history are too"),
    ],
)
def test_a_trace_that_will_not_do_ends_with_status_2(
    tmp_path: Path, text: str, expected: str
) -> None:
    path, out = tmp_path / "trace.csv", tmp_path / "tuned.yaml"
    path.write_text("timestamp,qps\n" + text)
    ended = tuned(path, "--out", str(out))
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not out.exists()


def test_settings_are_written_whole_or_not_at_all(trace: Path, tmp_path: Path) -> None:
    ended = tuned(trace, "--out", str(tmp_path / "missing" / "tuned.yaml"))
    assert ended.returncode == 2
    assert "cannot write" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_workload_is_tuned_on_its_own_history_from_prometheus(
    tmp_path: Path, prometheus_server: PrometheusServer
) -> None:
    path, out = tmp_path / "daybreak.yaml", tmp_path / "tuned.yaml"
    asked_for = {
        "demand": {"query": f'sum(rate({GATEWAY}{{trace="daily"}}[1m]))'},
        "capacity": {"qpsPerReplica": 10},
        "history": {"days": 6, "stepSeconds": 60},
    }
    document = {
        "prometheus": {"url": prometheus_server.url},
        "workloads": [workload("grammar", **asked_for), workload("other")],
    }
    path.write_text("# ours\n" + yaml.safe_dump(document, sort_keys=False))
    asked = ("--policy", "hpa", "--target", "1e-2", "--json", "-", "--out", str(out))
    ended = run("tune", "--config", str(path), *asked)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["days"] == 4
    assert found["settings"]["qps_per_replica"] == 10
    assert found["choice"]["choosing"]["pod_hours"] > 3 * 24
    before, after = load_settings(path), load_settings(out)
    assert after.workloads[0].policy.parameters == found["choice"]["knobs"]
    assert after.workloads[1:] == before.workloads[1:]
    assert after.prometheus == before.prometheus
    assert out.read_text().startswith("# ours\n")


def test_a_prometheus_that_does_not_answer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "daybreak.yaml"
    document = {"prometheus": {"url": "http://127.0.0.1:1"}, "workloads": [workload("grammar")]}
    path.write_text(yaml.safe_dump(document))
    ended = run("tune", "--config", str(path))
    assert ended.returncode == 2
    assert f"{path}: grammar: 127.0.0.1:1: history" in ended.stderr
    assert "Traceback" not in ended.stderr
