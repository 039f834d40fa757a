"""What-ifs as HTML files with pictures: no network, no script."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forecaster.history import Floats
from simulator import pictures
from simulator.replay import Scenario
from simulator.scorecard import Scorecard
from simulator.seed import Row
from simulator.sweep.results import Point
from simulator.sweep.standings import LEVELS, TIE_RATIO, standings, undominated, verdict
from simulator.whatif import Finished
from storage.reports import charts, summary
from storage.reports.report import stylesheet
from storage.reports.timeline import Timeline

_pages = Environment(
    loader=PackageLoader("simulator"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _ratio(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _knob_value(point: Point) -> str:
    return f"{point.value:.4g}" if point.knob else ""


_pages.filters.update(ratio=_ratio, knob_value=_knob_value, share=summary.share)


def render_comparison(scenario: Scenario, finished: list[Finished], slo_seconds: float) -> str:
    """The whole comparison as one HTML document."""
    cards = [run.card for run in finished]
    paths = [_path(scenario, card) for card in cards]
    bars = [charts.Bar(card.policy, card.pod_hours) for card in cards]
    optimum = cards[0].clairvoyant_pod_hours
    drawn = {
        "latency": _both(lambda layout: charts.latency(paths, slo_seconds, layout)),
        "cost": _both(lambda layout: charts.cost(bars, optimum, layout)),
        "histogram": _both(lambda layout: pictures.latencies(cards, layout)),
    }
    fleets = [
        (card, _fleet(scenario, card, slo_seconds if len(cards) > 1 else None, f"fleet{place}"))
        for place, card in enumerate(cards)
    ]
    return _page(
        "comparison.html.j2",
        scenario,
        title="What-if",
        finished=finished,
        pictures=drawn,
        fleets=fleets,
        worst=[scenario.starts_at + timedelta(minutes=card.worst_minute) for card in cards],
    )


def render_frontier(
    scenario: Scenario, points: Sequence[Point], optimum_hours: float, static_hours: float
) -> str:
    """Every policy over its knob, and who is cheapest at which bad ratio, as one HTML document."""
    static_excess = static_hours / optimum_hours - 1
    return _page(
        "frontier.html.j2",
        scenario,
        title="Frontier",
        verdicts=[verdict(points, level) for level in LEVELS],
        picture=_both(lambda layout: pictures.frontier(points, static_excess, layout)),
        optimum_hours=optimum_hours,
        static_hours=static_hours,
        tie_ratio=TIE_RATIO,
        levels=[(name, standings(points, level)) for name, level in LEVELS.items()],
        points=points,
        best=undominated(points),
    )


def render_rows(title: str, rows: list[Row]) -> str:
    """A table of reproduced claims as one HTML document."""
    return _pages.get_template("rows.html.j2").render(title=title, rows=rows, style=_style())


def _page(template: str, scenario: Scenario, **shown: object) -> str:
    cold_start = scenario.fleet.lifecycle.cold_start
    return _pages.get_template(template).render(
        scenario=scenario,
        cold_start_seconds=cold_start.quantile(0.5),
        style=_style(),
        **shown,
    )


def _style() -> Markup:
    return Markup(stylesheet())  # noqa: S704  # our own file


def _both(draw: Callable[[charts.Layout], str], anchor: str = "") -> Markup:
    """A chart in a wide and a narrow form, of which the page shows the one that fits; `anchor`
    keeps the ids of charts of the same kind apart."""
    boxes = Markup()
    for layout in charts.LAYOUTS.values():
        svg = draw(layout)
        own = re.sub(r'(id="|url\(#)', rf"\1{anchor}-", svg) if anchor else svg
        boxes += Markup('<div class="{}">{}</div>').format(layout.name, Markup(own))  # noqa: S704
    return boxes


def _fleet(
    scenario: Scenario, card: Scorecard, slo_seconds: float | None, anchor: str
) -> dict[str, Markup]:
    """One policy's days: what was needed and had, P99 where others are drawn too, and what pods
    came and went."""
    line = _timeline(scenario, card)
    found = {
        "replicas": _both(
            lambda layout: charts.replicas(line, card.qps_per_replica, layout), anchor
        ),
        "moves": _both(lambda layout: pictures.moves(scenario.starts_at, card, layout), anchor),
    }
    if slo_seconds is not None:
        path = _path(scenario, card)
        found["latency"] = _both(lambda layout: charts.latency([path], slo_seconds, layout), anchor)
    return found


def _path(scenario: Scenario, card: Scorecard) -> charts.LatencyPath:
    return charts.LatencyPath(card.policy, _times(scenario, card), card.p99_by_minute)


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
