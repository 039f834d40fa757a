"""`daybreak simulate` and `daybreak trace` as a user meets them."""

from __future__ import annotations

import json
import math
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.traces.trace_file import read_trace
from tests.integration.commands import run
from tests.integration.test_cli import whatif_settings

ROOT = Path(__file__).parents[2]
MORNING = ("--warmup-days", "2.25", "--end", "2026-03-04T12:00")
"""Scores the rise of the third day alone."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of a small service; the third is scored."""
    path = tmp_path_factory.mktemp("traces") / "days.csv"
    ended = run("trace", "generate", "--days", "3", "--peak-qps", "20000", "--out", str(path))
    assert ended.returncode == 0, ended.stderr
    return path


def simulate(trace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("simulate", "--trace", str(trace), "--engine", "fluid", *arguments)


def results(trace: Path, *arguments: str) -> dict[str, Any]:
    ended = simulate(trace, "--json", "-", *arguments)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    for policy in document["policies"]:
        del policy["seconds"], policy["requests_per_wall_second"]
    return document


def test_a_policy_that_has_nothing_to_go_by_is_refused(trace: Path) -> None:
    ended = simulate(trace, "--policy", "wva_v1")
    assert ended.returncode == 2
    assert ended.stderr.startswith("daybreak: policy wva_v1 ")
    assert "KV" in ended.stderr
    assert ended.stderr.count("\n") == 1


def odd_trace(path: Path, start: datetime, step_seconds: int, gap: slice = slice(0, 0)) -> Path:
    """Fourteen hours of a day."""
    times = np.arange(0, 50_400, step_seconds)
    rates = [f"{6000 + 4000 * math.sin(at / 86_400 * math.tau):.1f}" for at in times]
    rates[gap] = [""] * len(rates[gap])
    rows = zip([start + timedelta(seconds=int(at)) for at in times], rates, strict=True)
    lines = [f"{at:%Y-%m-%dT%H:%M:%SZ},{rate}\n" for at, rate in rows]
    path.write_text("".join(["timestamp,qps\n", *lines]))
    return path


@pytest.mark.parametrize(
    ("second", "step", "warmup_days", "scored_from"),
    [
        (5, 5, "0.5", "12:00:15"),  # as an export from Prometheus may begin
        (3, 7, "0.5", "12:00:15"),
        (0, 3600, "0.505", "13:00:00"),  # the warm-up ends within a step
    ],
)
def test_odd_steps_are_played_where_they_are(
    tmp_path: Path, second: int, step: int, warmup_days: str, scored_from: str
) -> None:
    path = odd_trace(tmp_path / "odd.csv", datetime(2026, 3, 2, 0, 0, second, tzinfo=UTC), step)
    found = results(path, "--policy", "predictive", "--warmup-days", warmup_days)
    assert f"T{scored_from}" in found["trace"]["scored_from"]
    scored = datetime.fromisoformat(found["trace"]["end"]) - datetime.fromisoformat(
        found["trace"]["scored_from"]
    )
    assert found["policies"][0]["minutes"] == scored // timedelta(minutes=1)
    swept = results(path, "--policy", "hpa", "--sweep", "--warmup-days", warmup_days)
    assert swept["trace"] == found["trace"]
    assert {entry["minutes"] for entry in swept["policies"]} == {found["policies"][0]["minutes"]}


def test_a_step_that_the_settings_history_cannot_tell_is_refused(tmp_path: Path) -> None:
    path = odd_trace(tmp_path / "odd.csv", datetime(2026, 3, 2, tzinfo=UTC), 100)
    config = whatif_settings(
        tmp_path / "settings.yaml", {}, maxReplicas=40, history={"stepSeconds": 60}
    )
    ended = simulate(path, "--config", str(config))
    assert ended.returncode == 2
    assert "steps of 100 s make no history of history.stepSeconds 60" in ended.stderr


def test_days_are_those_of_the_time_zone(tmp_path: Path) -> None:
    """An edge at nine by the clock of Berlin, scored on the day after the clocks went forward."""
    start = datetime(2026, 3, 16, tzinfo=UTC)
    changed = datetime(2026, 3, 29, 1, tzinfo=UTC)
    lines, noise = ["timestamp,qps\n"], np.random.default_rng(1)
    for minute in range(14 * 1440 + 720):
        at = start + timedelta(minutes=minute)
        clock = at + timedelta(hours=2 if at >= changed else 1)
        usual = 40_000 + 20_000 * math.sin((clock.hour + clock.minute / 60) / 24 * math.tau)
        rate = usual * (2 if clock.hour == 9 else 1) * math.exp(0.02 * noise.normal())
        lines.append(f"{at:%Y-%m-%dT%H:%M:%SZ},{rate:.1f}\n")
    (tmp_path / "berlin.csv").write_text("".join(lines))
    asked = (tmp_path / "berlin.csv", "--policy", "predictive", "--warmup-days", "14")
    utc, berlin = (
        results(*asked, *zone)["policies"][0] for zone in ((), ("--time-zone", "Europe/Berlin"))
    )
    # Without it the edge is one that nobody could know, and is paid for all day.
    assert berlin["excess"] < 0.4 * utc["excess"]
    assert berlin["bad_ratio"] <= utc["bad_ratio"]
    refused = simulate(*asked, "--time-zone", "Mars/Olympus")
    assert refused.returncode == 2
    assert "--time-zone: 'Mars/Olympus' is not an IANA time zone" in refused.stderr


def test_a_gap_in_the_scored_part_is_bridged(tmp_path: Path) -> None:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    path = odd_trace(tmp_path / "gap.csv", start, 60, gap=slice(780, 790))
    (found,) = results(path, "--policy", "hpa", "--warmup-days", "0.5")["policies"]
    assert found["minutes"] == 120


def test_requests_that_fail_are_no_latency_within_the_objective(tmp_path: Path) -> None:
    """One pod that crashes: what it serves it serves in time."""
    path = odd_trace(tmp_path / "day.csv", datetime(2026, 3, 2, tzinfo=UTC), 60)
    for engine in ("fluid", "exact"):
        ended = run(
            *("simulate", "--trace", str(path), "--policy", "static", "--engine", engine),
            *("--peak-qps", "500", "--warmup-days", "0.5", "--end", "2026-03-02T13:00Z"),
            *("--crashes-per-pod-hour", "30", "--cold-start", "eager-image"),
            *("--fail-on-slo", "--json", "-"),
        )
        (found,) = json.loads(ended.stdout)["policies"]
        assert found["failed_ratio"] > 0.05
        assert found["worst_minute_p99"] < 1.0
        assert found["minutes_p99_over_slo"] > 10
        assert ended.returncode == 1


def test_hardly_any_traffic_is_no_ground_for_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    times = [datetime(2026, 3, 2, tzinfo=UTC) + timedelta(minutes=at) for at in range(600)]
    path.write_text("timestamp,qps\n" + "".join(f"{at:%Y-%m-%dT%H:%M:%SZ},1e-6\n" for at in times))
    ended = simulate(path, "--policy", "hpa")
    assert ended.returncode == 2
    assert "hardly any traffic" in ended.stderr


def test_no_figure_is_cut_in_a_pipe(trace: Path) -> None:
    ended = simulate(trace, "--policy", "asymmetric_concurrency,static", *MORNING)
    assert "asymmetric_concurrency" in ended.stdout
    assert "\N{HORIZONTAL ELLIPSIS}" not in ended.stdout


def test_policies_are_compared_in_the_contract_s_form(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = results(trace, "--policy", "predictive,static", "--html", str(page))
    ours, static = found["policies"]
    assert [ours["policy"], static["policy"]] == ["predictive", "static"]
    assert ours["requests"] == static["requests"] > 1e8  # common random numbers
    assert ours["excess"] == pytest.approx(
        ours["pod_hours"] / found["clairvoyant"]["pod_hours"] - 1
    )
    assert found["clairvoyant"]["pod_hours"] < ours["pod_hours"] < static["pod_hours"]
    assert static["bad_ratio"] == 0
    assert 0.1 < ours["latency_seconds"]["p50"] < ours["latency_seconds"]["p99"] < 1.0
    assert ours["minutes"] == 2160  # half of three days is history
    assert set(ours) >= {"knob", "late_ratio", "failed_ratio", "worst_minute_p99", "decisions"}
    text = page.read_text()
    assert text.count("<svg") >= 7
    assert "<script" not in text


def test_a_file_says_how_often_it_is_scraped_and_decided(trace: Path, tmp_path: Path) -> None:
    """Policies that ask the pods themselves keep their own pace."""
    config = whatif_settings(
        tmp_path / "daybreak.yaml",
        {"intervalSeconds": 5},
        leadTime={"metricLagSeconds": 4},
        maxReplicas=60,
    )
    policies = ("--policy", "hpa,knative_kpa", "--config", str(config))
    found = results(trace, *policies, *MORNING)["policies"]
    paces = [
        (each["interval_seconds"], each["scrape_seconds"], each["metric_lag_seconds"])
        for each in found
    ]
    assert paces == [(5, 4, 4), (2, 1, 2)]
    assert [each["decisions"] for each in found] == [21_600 / 5, 21_600 / 2]


@pytest.mark.parametrize(
    ("policy", "knob", "value"),
    [
        ("asymmetric_concurrency", "targetQps", 900),
        ("seasonal_naive", "targetConcurrency", 300),
    ],
)
def test_a_file_chooses_a_policy_s_other_knob(
    trace: Path, tmp_path: Path, policy: str, knob: str, value: float
) -> None:
    chosen = {"name": policy, "parameters": {knob: value}}
    config = whatif_settings(tmp_path / "daybreak.yaml", {}, policy=chosen, maxReplicas=60)
    (found,) = results(trace, "--policy", policy, "--config", str(config), *MORNING)["policies"]
    assert found["scale_ups"] > 0


def test_policies_by_the_clock_get_a_schedule_from_the_history(trace: Path) -> None:
    document = results(trace, "--policy", "cron,cron_floor", *MORNING)
    assert [entry["scale_ups"] > 0 for entry in document["policies"]] == [True, True]
    refused = simulate(trace, "--policy", "cron", "--warmup-days", "0")
    assert refused.returncode == 2
    assert "--warmup-days" in refused.stderr


def test_results_do_not_depend_on_the_number_of_workers(trace: Path) -> None:
    both = ("--policy", "predictive,asymmetric_concurrency", "--seed", "3", *MORNING)
    one = results(trace, *both, "--workers", "1")
    two = results(trace, *both, "--workers", "2")
    assert without_times(one) == without_times(two)


def test_what_goes_wrong_is_asked_for_and_told(trace: Path) -> None:
    calm = results(trace, "--policy", "static")
    asked = ("--slow-pods", "0.2", "--crashes-per-pod-hour", "0.5", "--dispersion", "4")
    clients = ("--timeout", "2", "--max-waiting", "50", "--retry-ratio", "0.5")
    rough = results(trace, "--policy", "static", *asked, *clients)
    assert calm["policies"][0]["failed_ratio"] == 0
    assert rough["policies"][0]["failed_ratio"] > 0
    assert rough["policies"][0]["latency_seconds"]["p99"] > (
        1.02 * calm["policies"][0]["latency_seconds"]["p99"]
    )
    assert (
        rough["settings"].items()
        >= {
            "slow_pods": 0.2,
            "crashes_per_pod_hour": 0.5,
            "dispersion": 4,
            "timeout_seconds": 2,
            "max_waiting": 50,
            "retry_ratio": 0.5,
            "retry_delay_seconds": 1,
        }.items()
    )


def test_nodes_and_first_seconds_are_asked_for_and_told(trace: Path) -> None:
    ours = ("--policy", "predictive", *MORNING)
    cold = (*ours, "--cold-start", "lazy-image-cold-nodes")
    nodes = ("--warm-nodes", "8", "--missing-nodes", "0.3")
    slow = ("--slow-start", "600", "--slow-start-factor", "3")
    calm = results(trace, *ours, "--cold-start", "lazy-image")
    rough = results(trace, *cold, *nodes)
    warm = results(trace, *cold, "--warm-nodes", "1000", "--missing-nodes", "0.3")
    # Where every pod finds its node, none is missing.
    assert warm["policies"][0]["bad_ratio"] == calm["policies"][0]["bad_ratio"]
    assert rough["policies"][0]["bad_ratio"] > 2 * calm["policies"][0]["bad_ratio"]
    young = results(trace, *ours, *slow)
    assert (
        young["policies"][0]["late_ratio"]
        > 1.05 * (results(trace, *ours)["policies"][0]["late_ratio"])
    )
    assert rough["settings"].items() >= {"warm_nodes": 8, "missing_nodes": 0.3}.items()
    expected = {"slow_start_seconds": 600, "slow_start_factor": 3}
    assert young["settings"].items() >= expected.items()


def test_senders_and_queues_are_asked_for_and_told(trace: Path) -> None:
    hour = ("--start", "2026-03-02T08:00", "--end", "2026-03-02T09:00", "--policy", "static")

    def settings(*arguments: str) -> dict[str, Any]:
        ended = run("simulate", "--trace", str(trace), *hour, *arguments, "--json", "-")
        assert ended.returncode == 0, ended.stderr
        document = json.loads(ended.stdout)
        assert document["policies"][0]["failed_ratio"] == 0
        told: dict[str, Any] = document["settings"]
        return told

    found = settings("--balancer", "p2c_local", "--clients", "8")
    assert found.items() >= {"balancer": "p2c_local", "clients": 8, "queue": "pod"}.items()
    found = settings("--balancer", "pinned", "--connections", "5000", "--connection-churn", "0.01")
    assert found.items() >= {"connections": 5000, "connection_churn": 0.01}.items()
    found = settings("--queue", "gateway", "--max-waiting", "90000")
    expected = {"queue": "gateway", "gateway_cap": 512, "max_waiting": 90_000}
    assert found.items() >= expected.items()
    assert settings("--queue", "gateway", "--gateway-cap", "400")["gateway_cap"] == 400


def test_a_profile_of_one_s_own_serves_in_both_engines(tmp_path: Path) -> None:
    """Answers of up to seconds: what the fluid engine says, the exact one confirms."""
    trace = tmp_path / "chat.csv"
    ended = run("trace", "generate", "--days", "1", "--peak-qps", "20", "--out", str(trace))
    assert ended.returncode == 0, ended.stderr
    arguments = ("--pod-profile", str(ROOT / "examples/pods/chat.yaml"), "--slo", "30")
    part = ("--trace", str(trace), "--warmup-days", "0.5", "--end", "2026-03-02T15:00")
    day = ("--policy", "static", "--drain", "120", "--json", "-", *part)
    found = []
    for engine in ("fluid", "exact"):
        ended = run("simulate", "--engine", engine, *arguments, *day)
        assert ended.returncode == 0, ended.stderr
        found.append(json.loads(ended.stdout))
    assert found[0]["settings"]["pod_profile"] == "chat"
    assert found[0]["settings"]["slo_p99_seconds"] == 30
    fluid, exact = (document["policies"][0] for document in found)
    assert exact["failed_ratio"] == fluid["failed_ratio"] == 0
    assert 5 < exact["latency_seconds"]["p99"] < 30
    assert fluid["latency_seconds"]["p99"] == pytest.approx(
        exact["latency_seconds"]["p99"], rel=0.05
    )


def test_what_the_exact_engine_cannot_hold_is_told(trace: Path) -> None:
    big = ("--peak-qps", "200000", "--policy", "static")
    ended = run("simulate", "--trace", str(trace), *big, "--timeout", "3600")
    assert ended.returncode == 2
    assert "--engine exact: has room for 64 pods" in ended.stderr


def test_one_pod_in_ten_is_simulated_and_a_fleet_too_small_for_it_is_told(trace: Path) -> None:
    hours = ("--start", "2026-03-02T06:00", "--end", "2026-03-02T10:00")
    part = (*hours, "--policy", "static", "--json", "-")
    ended = run("simulate", "--trace", str(trace), *part, "--scale", "10")
    assert ended.returncode == 0
    found = json.loads(ended.stdout)
    assert found["settings"]["scale"] == 10
    fluid = results(trace, *part[:-2])["policies"][0]
    scaled = found["policies"][0]
    assert scaled["pod_hours"] == fluid["pod_hours"]
    assert scaled["requests"] == pytest.approx(fluid["requests"], rel=1e-3)
    assert scaled["latency_seconds"]["p99"] == pytest.approx(
        fluid["latency_seconds"]["p99"], rel=0.05
    )
    assert "daybreak: --scale 10: the fleet fell to " in ended.stderr
    assert "below 10 the result is too rough" in ended.stderr
    ended = run("simulate", "--trace", str(trace), *part, "--peak-qps", "200000", "--scale", "10")
    assert ended.returncode == 0
    assert ended.stderr == ""


def test_a_missed_objective_fails_a_pipeline_when_asked(trace: Path) -> None:
    slow = ("--cold-start", "3600", "--policy", "asymmetric_concurrency", *MORNING)
    assert simulate(trace, *slow).returncode == 0
    assert simulate(trace, *slow, "--fail-on-slo").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--policy", "magic"), "'magic' is not a policy; there are "),
        (("--queue", "cloud"), "--queue: expected one of pod, gateway, got 'cloud'"),
        (("--queue", "gateway"), "--queue: the fluid engine knows no single pods"),
        (("--gateway-cap", "9"), "--gateway-cap: expected with --queue gateway, got 9 without it"),
        (
            ("--engine", "exact", "--queue", "gateway", "--balancer", "pinned"),
            "--queue gateway: pinned has many senders and no queue that they share; got --balancer",
        ),
        (
            ("--clients", "5"),
            "--clients: expected with --balancer round_robin or p2c_local, got p2c",
        ),
        (("--connections", "5"), "--connections: expected with --balancer pinned, got p2c"),
        (("--connection-churn", "0.1"), "--connection-churn: expected with --balancer pinned"),
        (
            ("--warm-nodes", "5"),
            "--warm-nodes: expected with a cold start that waits for nodes, one",
        ),
        (
            ("--missing-nodes", "0.1"),
            "of eager-image-cold-nodes, lazy-image-cold-nodes; got --cold-",
        ),
        (("--missing-nodes", "2"), "Invalid value for '--missing-nodes'"),
        (("--slow-start", "nan"), "Invalid value for '--slow-start'"),
        (("--slow-start-factor", "99"), "Invalid value for '--slow-start-factor'"),
        (
            ("--crashes-per-pod-hour", "inf"),
            "--crashes-per-pod-hour: expected a finite number, got",
        ),
        (("--scale", "10"), "--scale: the fluid engine needs no scale; got 10"),
        (("--scale", "0"), "Invalid value for '--scale'"),
        (("--engine", "warp"), "--engine: expected one of"),
        (("--pod-profile", "tpu"), "--pod-profile: expected one of h100-1200"),
        (("--pod-profile", "tpu.yaml"), "tpu.yaml: cannot be read"),
        (("--slo", "0.1"), "is above 0.1 s even when idle: its P99 is 0.37 s; --slo sets"),
        (("--slo", "nan"), "--slo: expected a finite number, got nan"),
        (("--timeout", "0"), "--timeout: expected seconds from above 0 to 3600, got 0"),
        (("--slow-pods", "1.5"), "Invalid value for '--slow-pods'"),
        (("--dispersion", "0.5"), "Invalid value for '--dispersion'"),
        (("--retry-ratio", "-1"), "Invalid value for '--retry-ratio'"),
        (("--cold-start", "soon"), "--cold-start: expected seconds or one of eager-image"),
        (("--balancer", "random"), "the fluid engine knows no single pods"),
        (("--start", "2031-01-01"), "nothing between"),
        (("--warmup-days", "9"), "leaves nothing of a trace of 3.00 days"),
        (("--config", "/nowhere.yaml"), "cannot be read"),
        (("--policy", "hpa, hpa"), "--policy: a policy stands twice: hpa, hpa"),
        (("--seed", "-1"), "Invalid value for '--seed'"),
        (("--seed", str(2**64)), "Invalid value for '--seed'"),
    ],
)
def test_bad_options_are_told(trace: Path, arguments: tuple[str, ...], expected: str) -> None:
    ended = simulate(trace, *arguments)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (b"2026-03-02T00:01:00Z,-1\n", "line 3: expected a rate >= 0 or an empty field, got '-1'"),
        (b"\xff\xd8\xff" + bytes(1 << 20), "line 3: expected two fields, got 1"),
    ],
)
def test_a_broken_trace_is_told_and_nothing_is_written(
    tmp_path: Path, rows: bytes, expected: str
) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"timestamp,qps\n2026-03-02T00:00:00Z,1\n" + rows)
    outputs = ("--json", str(tmp_path / "out.json"), "--html", str(tmp_path / "out.html"))
    ended = simulate(path, *outputs)
    assert ended.returncode == 2
    assert f"trace.csv, {expected}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_edits_are_applied_and_described(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "edited.csv"
    surge = "2026-03-04T12:00Z,2,5,30"
    ended = run("trace", "edit", str(trace), "--surge", surge, "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    assert read_trace(out).values.max() > 1.5 * read_trace(trace).values.max()
    facts = json.loads(run("trace", "describe", str(out), "--json", "-").stdout)
    assert facts["steps"] == 3 * 1440
    assert facts["likeness_day"] > 0.8


@pytest.mark.parametrize(
    ("option", "text"), [("--surge", "soon,2,5,30"), ("--start", "soon"), ("--end", "soon")]
)
def test_a_time_that_is_none_is_told_with_its_option(
    trace: Path, tmp_path: Path, option: str, text: str
) -> None:
    out = tmp_path / "edited.csv"
    ended = run("trace", "edit", str(trace), option, text, "--out", str(out))
    assert ended.returncode == 2
    assert ended.stderr == f"daybreak: {option}: expected an ISO-8601 time, got 'soon'\n"
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("--surge", "2026-03-02T10:00Z,2,-10,30", "expected a time and 3 numbers from 0 to 1e+06"),
        ("--surge", "2026-03-02T10:00Z,nan,10,30", "expected a time and 3 numbers"),
        ("--outage", "2026-03-02T10:00Z,inf,0", "expected a time and 2 numbers"),
        ("--clock-change", "2026-03-02T10:00Z,90", "expected a time and 1 number from -24 to 24"),
        ("--clock-change", "2026-03-02T10:00Z,0", "of 60 s, at least 1, got 0 minutes"),
        ("--outage", "2026-03-02T10:00Z,0,0", "--outage 2026-03-02T10:00Z,0,0: expected a whole"),
        ("--launch", "2026-03-02T10:00Z,2,0.5", "steps of 60 s, at least 0, got 0.5 minutes"),
        ("--end", "2026-03-02T00:01Z", "edited.csv: expected at least two steps to write, got 1"),
        ("--peak-qps", "nan", "Invalid value for '--peak-qps'"),
        ("--stretch", "1e9", "a trace has at most 20,000,000 steps"),
    ],
)
def test_numbers_that_make_no_trace_are_told(
    trace: Path, tmp_path: Path, option: str, text: str, expected: str
) -> None:
    out = tmp_path / "edited.csv"
    ended = run("trace", "edit", str(trace), f"{option}={text}", "--out", str(out))
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not out.exists()


def test_a_trace_ends_before_the_calendar_does(tmp_path: Path) -> None:
    out = tmp_path / "late.csv"
    made = run("trace", "generate", "--days", "2", "--start", "9999-12-30", "--out", str(out))
    assert (made.returncode, out.exists()) == (2, False)
    assert "--start: 2 days from '9999-12-30' on would go on beyond the year 9999" in made.stderr
    out.write_text("timestamp,qps\n9999-12-30T00:00:00Z,1\n9999-12-31T00:00:00Z,2\n")
    assert "the trace goes on beyond 9900" in run("trace", "describe", str(out)).stderr


def test_a_request_log_becomes_a_trace(tmp_path: Path) -> None:
    log, out = tmp_path / "burst.csv", tmp_path / "trace.csv"
    rows = "".join(f"{second},ChatGPT,10,20,30,Conversation log\n" for second in range(0, 600, 2))
    log.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + rows)
    ended = run("trace", "import", str(log), "--kind", "burstgpt", "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    assert read_trace(out).values.tolist() == [0.5] * 10
    assert run("trace", "import", str(log), "--kind", "wc98", "--out", str(out)).returncode == 2
