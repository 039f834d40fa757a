"""`daybreak backtest` as a user meets it, on files and on a real Prometheus."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from forecaster.history import TrafficHistory
from forecaster.outside import OUTSIDE
from scaler.cli import backtest as module
from scaler.cli.backtest import backtest as command
from scaler.cli.output import BadInputError
from scaler.ports import Reading
from scaler.settings import load_settings
from simulator.traces.generate import Diurnal, generate
from simulator.traces.trace_file import TraceError, write_trace
from tests.integration.commands import run
from tests.integration.prometheus_server import PrometheusServer
from tests.integration.test_browser import Browser, addresses, browser
from tests.integration.test_daemon import workload
from tests.integration.test_report import Page, assert_inert
from tests.traffic import MONDAY, weeks

__all__ = ["browser"]  # a fixture

CONTRACT = {
    *("model", "wape", "pinball", "coverage", "fit_seconds", "predict_seconds"),
    *("points", "failures"),
}
MODELS = "last_value,seasonal_naive_day"
HOSTILE = "<b>x"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days in steps of five minutes."""
    path = tmp_path_factory.mktemp("traces") / f"{HOSTILE}.csv"
    write_trace(generate(Diurnal(peak_qps=20_000), MONDAY, 10, seed=3).resampled(300), path)
    return path


def backtest(trace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("backtest", "--trace", str(trace), "--model", MODELS, *arguments)


def results(trace: Path, *arguments: str) -> dict[str, Any]:
    ended = backtest(trace, "--json", "-", *arguments)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_results_have_the_contract_s_form(trace: Path) -> None:
    found = results(trace)
    assert set(found) == {"trace", "lead_seconds", "quantile", "models"}
    assert found["trace"] == {
        "name": HOSTILE,
        "start": "2026-03-02T00:00:00+00:00",
        "scored_from": "2026-03-07T00:00:00+00:00",
        "end": "2026-03-12T00:00:00+00:00",
        "step_seconds": 300,
    }
    assert (found["lead_seconds"], found["quantile"]) == (300, 0.95)
    last, naive = found["models"]
    assert [last["model"], naive["model"]] == MODELS.split(",")
    for model in (last, naive):
        assert set(model) == CONTRACT
        assert model["points"] == 5 * 288 - 1
        assert model["failures"] == 0
        assert 0.8 < model["coverage"] < 1
        assert 0 < model["predict_seconds"] < 1
    assert 0 < last["pinball"] < last["wape"] < 0.1


def test_each_lead_asked_for_is_scored(trace: Path) -> None:
    found = results(trace, "--lead", "5m,1h", "--commitment", "15m", "--quantile", "0.9")
    first, second = found["leads"]
    assert [first["lead_seconds"], second["lead_seconds"]] == [300, 3600]
    assert found["models"] == first["models"]
    near, far = first["models"][0], second["models"][0]
    assert near["wape"] < far["wape"]
    assert 0.85 < far["coverage"] < 0.95


def test_our_forecaster_is_judged_by_its_own_quantiles(trace: Path) -> None:
    found = results(trace, "--model", "combined,last_value", "--lead", "1h", "--train-days", "7")
    ours, last = found["models"]
    assert ours["points"] == last["points"]
    assert ours["failures"] == 0
    assert ours["pinball"] < last["pinball"]
    assert 0.85 < ours["coverage"] < 0.999


def test_filled_stretches_are_not_scored(trace: Path, tmp_path: Path) -> None:
    gaps = tmp_path / "gaps.csv"
    gaps.write_text(
        "trace,start,end,steps,fill\n"
        f"{HOSTILE},2026-03-09T12:00:00Z,2026-03-09T13:00:00Z,12,linear\n"
        "another,2026-03-08T12:00:00Z,2026-03-08T13:00:00Z,12,linear\n"
        f"{HOSTILE},2020-01-01T00:00:00Z,2020-01-02T00:00:00Z,288,linear\n"
    )
    last, _ = results(trace, "--gaps", str(gaps))["models"]
    assert last["points"] == 5 * 288 - 1 - 12


def test_the_page_is_one_inert_file_with_its_numbers(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ended = backtest(trace, "--lead", "5m,1h", "--html", str(page))
    assert ended.returncode == 0, ended.stderr
    html = page.read_text()
    assert_inert(html)
    text = Page(html).text
    assert f"Backtest: {HOSTILE}" in text
    for wanted in ("Error by hour of the week", "Coverage by regime", "ramp up (", "1h ahead"):
        assert wanted in text
    found = results(trace, "--lead", "5m,1h")
    for lead in found["leads"]:
        for model in lead["models"]:
            assert f"{model['wape']:.2%}" in text
            assert f"{model['coverage']:.1%}" in text
    assert html.count('role="img"') == 2 * 8


def test_a_browser_draws_the_page_and_asks_for_nothing(
    trace: Path, tmp_path: Path, browser: Browser
) -> None:
    page = tmp_path / "page.html"
    assert backtest(trace, "--lead", "1h", "--html", str(page)).returncode == 0
    dom = browser.dom(page.as_uri())
    assert dom.count('role="img"') == 2 * 8
    assert not addresses(dom)


def test_the_table_fits_eighty_columns(trace: Path) -> None:
    ended = backtest(trace, "--lead", "5m,1h")
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert "5m ahead" in ended.stdout
    assert "seasonal_naive_day" in ended.stdout
    assert ended.stderr == ""  # no bar in a pipe


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    """A day of history carries no seasonal model; the last value does without."""
    path = tmp_path / "short.csv"
    values = 100 + 10 * np.sin(np.arange(72))
    write_trace(TrafficHistory("short", datetime(2026, 3, 2, tzinfo=UTC), 1200, values), path)
    last, naive = results(path, "--lead", "20m")["models"]
    assert last["points"] > 0
    assert naive["points"] == 0
    assert naive["wape"] is None
    assert naive["coverage"] is None
    ended = backtest(path, "--lead", "20m", "--html", str(tmp_path / "page.html"))
    assert "seasonal_naive_day: needs 1 d, has 0.2 d; needs 1 d, has 0.5 d" in ended.stdout
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "magic"}, "--model: 'magic' is not a model; there are combined, "),
        ({"model": "trend,trend"}, "--model: a model stands twice"),
        ({"lead": "soon"}, "--lead: expected a time such as 90s, 5m, 1h or 1d, got 'soon'"),
        ({"lead": "5m, 5m"}, "--lead: a lead stands twice"),
        ({"commitment": "-5m"}, "--commitment: expected a time such as"),
        ({"quantile": 95}, "--quantile: expected a number between 0 and 1, got 95"),
        ({"quantile": math.nan}, "--quantile: expected a number between 0 and 1, got nan"),
        ({"train_days": 30}, "leave nothing to score of a trace of 10.00 days"),
        ({"train_days": math.nan}, "--train-days: expected a positive number, got nan"),
        ({"gaps": Path("/nowhere.csv")}, "/nowhere.csv: cannot be read: No such file"),
        ({"config": Path("/nowhere.yaml")}, "give exactly one of --trace and --config"),
    ],
)
def test_bad_options_are_told(trace: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises((BadInputError, TraceError), match=re.escape(expected)):
        command(**{"trace": trace, "model": "last_value", **options})


def test_bad_input_ends_with_status_2_and_writes_nothing(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    ended = backtest(trace, "--json", str(out), "--lead", "soon")
    assert ended.returncode == 2
    assert ended.stderr.startswith("daybreak: --lead: expected a time")
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trace,begin,end\n", "line 1: expected the columns trace, start, end"),
        (f"trace,start,end\n{HOSTILE},2026-03-02,2026-03-03\n", "line 2: expected an ISO-8601 UTC"),
        (
            f"trace,start,end\n{HOSTILE},2026-03-02T00:00:00Z,2026-03-01T00:00:00Z\n",
            "line 2: expected an end after 2026-03-02T00:00:00Z",
        ),
        (f"trace,start,end\n{HOSTILE}\n", "line 2: expected an ISO-8601 UTC time, got None"),
    ],
)
def test_a_broken_gaps_file_is_told(trace: Path, tmp_path: Path, text: str, expected: str) -> None:
    gaps = tmp_path / "gaps.csv"
    gaps.write_text(text)
    with pytest.raises(TraceError, match=re.escape(f"{gaps}, {expected}")):
        command(trace=trace, model="last_value", gaps=gaps)


@pytest.mark.parametrize(("rows", "names"), [("", "none"), ("b,{0}\na,{0}\na,{0}\n", "a, b")])
def test_gaps_of_other_traces_alone_are_told(
    trace: Path, tmp_path: Path, rows: str, names: str
) -> None:
    gaps = tmp_path / "gaps.csv"
    night = "2026-03-02T00:00:00Z,2026-03-03T00:00:00Z"
    gaps.write_text("trace,start,end\n" + rows.format(night))
    expected = f"{gaps}: expected gaps of the trace {HOSTILE}, got those of: {names}"
    with pytest.raises(TraceError, match=re.escape(expected)):
        command(trace=trace, model="last_value", gaps=gaps)


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_a_tool_that_is_not_installed_is_told(trace: Path, name: str) -> None:
    library = OUTSIDE[name].library
    if importlib.util.find_spec(library) is not None:
        pytest.skip(f"{library} is installed")
    expected = f"{name} needs {library}, which is not installed .*make compare"
    with pytest.raises(BadInputError, match=expected):
        command(trace=trace, model=name)


def test_a_workload_s_own_history_is_read_from_prometheus(
    tmp_path: Path, prometheus_server: PrometheusServer
) -> None:
    path = tmp_path / "daybreak.yaml"
    document = {
        "prometheus": {"url": prometheus_server.url},
        "workloads": [workload("grammar", history={"days": 6, "timeZone": "Europe/Berlin"})],
    }
    path.write_text(yaml.safe_dump(document))
    ended = run(
        *("backtest", "--config", str(path), "--model", "last_value", "--lead", "3m"),
        *("--json", "-"),
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    start = datetime.fromisoformat(found["trace"]["start"])
    assert abs(prometheus_server.end - timedelta(days=6) - start) < timedelta(minutes=10)
    (model,) = found["models"]
    assert model["points"] > 500
    assert 0 < model["wape"] < 0.5
    assert math.isfinite(model["pinball"])


def test_a_prometheus_that_does_not_answer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "daybreak.yaml"
    document = {"prometheus": {"url": "http://127.0.0.1:1"}, "workloads": [workload("grammar")]}
    path.write_text(yaml.safe_dump(document))
    ended = run("backtest", "--config", str(path))
    assert ended.returncode == 2
    assert f"{path}: grammar: 127.0.0.1:1: history" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_recorded_history_comes_with_the_days_off_and_the_events_of_its_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is scored is the forecast that would run; reading Prometheus is tested elsewhere."""
    monkeypatch.setattr(module, "recorded_history", lambda *_: Reading(weeks()))
    path = Path(__file__).parents[2] / "examples" / "floor.yaml"
    calendar = load_settings(path).workloads[0].traffic_calendar()
    assert calendar.country is not None
    assert calendar.events
    assert module._recorded(path).calendar == calendar
