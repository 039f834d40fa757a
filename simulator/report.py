"""The what-if as one HTML file with pictures: no network, no script."""

from __future__ import annotations

from datetime import timedelta

import altair as alt
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forecaster.history import Floats
from simulator.replay import Scenario
from simulator.scorecard import Scorecard
from simulator.seed import Row
from simulator.whatif import Finished
from storage.reports import charts
from storage.reports.report import stylesheet
from storage.reports.timeline import Timeline

_pages = Environment(
    loader=PackageLoader("simulator"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_comparison(scenario: Scenario, finished: list[Finished], slo_seconds: float) -> str:
    """The whole comparison as one HTML document."""
    cards = [run.card for run in finished]
    paths = [
        charts.LatencyPath(card.policy, _times(scenario, card), card.p99_by_minute)
        for card in cards
    ]
    bars = [charts.Bar(card.policy, card.pod_hours) for card in cards]
    pictures = {
        "latency": charts.latency(paths, slo_seconds),
        "cost": charts.cost(bars, cards[0].clairvoyant_pod_hours),
        "histogram": _histogram(cards),
    }
    return _pages.get_template("comparison.html.j2").render(
        scenario=scenario,
        finished=finished,
        slo_seconds=slo_seconds,
        style=Markup(stylesheet()),  # noqa: S704  # our own file
        pictures={name: Markup(svg) for name, svg in pictures.items()},  # noqa: S704  # our charts
        fleets=[(card, _fleet(scenario, card)) for card in cards],
        worst=[scenario.starts_at + timedelta(minutes=card.worst_minute) for card in cards],
    )


def _fleet(scenario: Scenario, card: Scorecard) -> list[Markup]:
    """One policy's days: what was needed and had, and the starts and deletions behind it."""
    line = _timeline(scenario, card)
    drawn = (charts.replicas(line, card.qps_per_replica), _starts(scenario, card))
    return [Markup(svg) for svg in drawn]  # noqa: S704  # drawn from numbers


def _times(scenario: Scenario, card: Scorecard) -> Floats:
    """The middle of each minute, in seconds since 1970."""
    first = scenario.starts_at.timestamp() + 30.0
    return np.asarray(first + 60.0 * np.arange(card.minutes), dtype=np.float64)


def _timeline(scenario: Scenario, card: Scorecard) -> Timeline:
    unknown = np.full(card.minutes, np.nan)
    return Timeline(
        workload=card.policy,
        time=_times(scenario, card),
        demand_qps=card.demand_by_minute,
        ready=card.ready_by_minute,
        starting=card.billed_by_minute - card.ready_by_minute,
        draining=np.zeros(card.minutes),
        desired=card.billed_by_minute,
        forecast_at=unknown,
        forecast_low_qps=unknown,
        forecast_median_qps=unknown,
        forecast_high_qps=unknown,
        latency_p99_seconds=card.p99_by_minute,
        reason=("",) * card.minutes,
        problems=("",) * card.minutes,
    )


def _starts(scenario: Scenario, card: Scorecard) -> str:
    """Pods started (up) and deleted (down), in at most two hundred bars."""
    width = max(1, card.minutes // 200)
    rows = []
    for first in range(0, card.minutes - width + 1, width):
        at = (scenario.starts_at + timedelta(minutes=first)).timestamp() * 1000
        part = slice(first, first + width)
        for what, pods, sign in (
            ("started", card.started_by_minute, 1),
            ("deleted", card.deleted_by_minute, -1),
        ):
            rows.append({"t": at, "pods": sign * float(pods[part].sum()), "what": what})
    chart = (
        alt.Chart(alt.NamedData("moves"))
        .mark_bar(size=3)
        .encode(
            x=alt.X("t:T", title="time (UTC)", scale=alt.Scale(type="utc")),
            y=alt.Y("pods:Q", title=f"pods in {width} min"),
            color=alt.Color("what:N", title=None, legend=alt.Legend(orient="top")),
        )
    )
    name = f"Pods started and deleted: {card.policy}"
    return charts.picture(chart, {"moves": rows}, charts.WIDE, name)


def _histogram(cards: list[Scorecard]) -> str:
    """Share of requests by latency, on a logarithmic scale."""
    rows = []
    for card in cards:
        centres = np.sqrt(card.latency_seconds[1:] * card.latency_seconds[:-1])
        rows += [
            {"seconds": float(at), "share": float(share), "policy": card.policy}
            for at, share in zip(centres, -np.diff(card.slower_shares), strict=True)
        ]
    chart = (
        alt.Chart(alt.NamedData("latencies"))
        .mark_line(interpolate="step")
        .encode(
            x=alt.X("seconds:Q", title="latency, seconds", scale=alt.Scale(type="log")),
            y=alt.Y("share:Q", title="share of requests", axis=alt.Axis(format=".0%")),
            color=alt.Color("policy:N", title=None, legend=alt.Legend(orient="top")),
        )
    )
    return charts.picture(chart, {"latencies": rows}, charts.WIDE, "Latency of all requests")


def render_rows(title: str, rows: list[Row]) -> str:
    """A table of reproduced claims as one HTML document."""
    return _pages.get_template("rows.html.j2").render(
        title=title,
        rows=rows,
        style=Markup(stylesheet()),  # noqa: S704  # our own file
    )
