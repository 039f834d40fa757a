"""The pages of `daybreak simulate`: their figures, and nothing that runs or fetches."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from simulator.sweep.frontier import UTILIZATIONS
from simulator.sweep.results import Point
from simulator.sweep.standings import verdict
from simulator.traces.generate import Diurnal, generate
from simulator.traces.trace_file import write_trace
from tests.integration.commands import run
from tests.integration.test_browser import Browser, addresses, browser, size
from tests.integration.test_report import Page, assert_inert
from tests.traffic import MONDAY

__all__ = ["browser"]  # a fixture

HOSTILE = "<b onclick='x'>&"
POLICIES = "hpa,asymmetric_concurrency"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of a small service; a day and a half is scored."""
    path = tmp_path_factory.mktemp("traces") / f"{HOSTILE}.csv"
    write_trace(generate(Diurnal(peak_qps=9000, noise=0.05), MONDAY, 3, seed=5), path)
    return path


def simulated(trace: Path, folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The results and the page of the same call."""
    page = folder / "page.html"
    fluid = ("--engine", "fluid", "--workers", "1", "--html", str(page), "--json", "-")
    ended = run("simulate", "--trace", str(trace), *fluid, *arguments)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def frontier(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("frontier")
    return simulated(trace, folder, "--policy", POLICIES, "--sweep")


@pytest.fixture(scope="module")
def comparison(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("comparison")
    return simulated(trace, folder, "--policy", "hpa,static")


def points(document: dict[str, Any]) -> list[Point]:
    return [
        Point(
            entry["policy"],
            entry["knob"]["name"],
            entry["knob"]["value"],
            entry["pod_hours"],
            entry["excess"],
            entry["bad_ratio"],
            entry["minutes_p99_over_slo"],
        )
        for entry in document["policies"]
    ]


def test_the_frontier_page_shows_the_figures_of_the_json(
    frontier: tuple[dict[str, Any], str],
) -> None:
    document, html = frontier
    assert_inert(html)
    text = Page(html).text
    assert f"Frontier: {HOSTILE}" in text
    found = points(document)
    assert len(found) == len(POLICIES.split(",")) * len(UTILIZATIONS)
    for level in ("1e-3", "1e-4"):
        assert verdict(found, level) in text
    for point in found:
        assert f"{point.pod_hours:,.0f}" in text
        assert f"{point.excess:+.1%}" in text
    for bound in ("clairvoyant", "static_peak"):
        assert f"{document[bound]['pod_hours']:,.0f}" in text
    for row in document["frontier"]:
        for level in ("1e-3", "1e-4"):
            excess = row["excess_at_bad_ratio"][level]
            assert "not reached" in text if excess is None else f"{excess:+.1%}" in text


def test_each_mark_tells_its_setting(frontier: tuple[dict[str, Any], str]) -> None:
    """In both forms of the picture: policy, knob, cost and quality, where the pointer rests."""
    document, html = frontier
    told = re.findall(r"<path aria-label=[^>]*><title>([^<]*)</title></path>", html)
    assert len(told) == 2 * len(set(told))
    for point in points(document):
        if point.bad_ratio <= 0.1 and point.excess < document_static_excess(document):
            said = f"{point.policy}, {point.knob} {point.value:.4g}: {point.pod_hours:,.0f} GPU-h"
            assert any(one.startswith(said) for one in told), said
    assert html.count(">clairvoyant optimum</text>") == 2
    assert html.count(">static peak</text>") == 2


def document_static_excess(document: dict[str, Any]) -> float:
    optimum: float = document["clairvoyant"]["pod_hours"]
    return float(document["static_peak"]["pod_hours"]) / optimum - 1


def test_the_comparison_shows_need_and_p99_of_every_policy(
    comparison: tuple[dict[str, Any], str],
) -> None:
    document, html = comparison
    assert_inert(html)
    text = Page(html).text
    assert f"What-if: {HOSTILE}" in text
    assert "fluid, balancer p2c" in text
    assert "Balancer(" not in text
    assert html.count("needed by demand</text>") == 2 * 2
    assert html.count("objective 1 s</text>") == 2 * 3  # of all, and of each
    for policy in document["policies"]:
        assert f"{policy['pod_hours']:,.0f}" in text
        assert f"{policy['latency_seconds']['p99']:.3f} s" in text
        assert f"{policy['scale_ups']:,} times up" in text
    every_15 = "It decides every 15 s on metrics that are scraped every 15 s and read 15 s later."
    assert text.count(every_15) == 2


@pytest.mark.parametrize("kind", ["frontier", "comparison"])
def test_every_id_is_there_once(kind: str, request: pytest.FixtureRequest) -> None:
    _, html = request.getfixturevalue(kind)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", html))
    assert used <= set(ids)


@pytest.mark.parametrize("kind", ["frontier", "comparison"])
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
@pytest.mark.parametrize("width", [500, 1280])
def test_the_pages_are_drawn_without_a_sound(
    browser: Browser,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
    scheme: int,
    width: int,
) -> None:
    _, html = request.getfixturevalue(kind)
    page = tmp_path / "page.html"
    page.write_text(html, encoding="utf-8")
    flag = f"--blink-settings=preferredColorScheme={scheme}"
    png = browser.picture(page.as_uri(), width, 1200, flag)
    assert size(png) == (width, 1200)
    assert len(png) > 30_000
    assert addresses(browser.dom(page.as_uri())) == set()
