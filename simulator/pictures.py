"""Pictures of what-ifs: the frontier of sweeps, what pods came and went, how long requests took.

Shares its look with the reports' charts. Reads points and scorecards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import altair as alt
import numpy as np

from simulator.scorecard import Scorecard
from simulator.sweep.results import Point, by_policy
from simulator.sweep.standings import LEVELS, least, undominated
from storage.reports import charts
from storage.reports.charts import BLUE, ORANGE, TEXT, Layout, Rows

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
CLEAN, WORST = 1e-6, 0.1
"""Bad ratios are drawn between these; what is cleaner is drawn where the scale begins."""
ROOM = 1.12
"""Of the excess of the static peak: what is dearer is left out of the picture."""
BOTTOM, OPTIMUM_AT, PEAK_AT = 0.16e-6, 0.5e-6, 0.24e-6
"""Below the cleanest there is room for the names of the yardsticks, where no line runs."""


def frontier(points: Sequence[Point], static_excess: float, layout: Layout) -> str:
    """Bad ratio on a logarithmic scale against excess over the clairvoyant optimum, a line a
    policy through its settings in the order of their knob; what a setting is, it tells on hover."""
    domain = _shown_excess(points, static_excess)
    x = alt.X(
        "excess:Q",
        title="GPU-hours over the clairvoyant optimum",
        scale=alt.Scale(domain=domain, nice=False, zero=False),
        axis=alt.Axis(format="+.0%", tickCount=4 if layout.narrow else 10, grid=False),
    )
    y = alt.Y(
        "bad:Q",
        title="bad requests, share of all",
        scale=alt.Scale(type="log", domain=[BOTTOM, WORST], nice=False),
        axis=alt.Axis(
            values=[10.0**power for power in range(-6, 0)],
            labelExpr=f"datum.value < {2 * CLEAN} ? 'none' : format(datum.value, '.0e')",
        ),
    )
    on_plane = {"x": x, "y": y}
    lines = alt.Chart(alt.NamedData("settings")).mark_line(strokeWidth=1.5, clip=True)
    marks = alt.Chart(alt.NamedData("shown")).mark_point(filled=True, size=46, opacity=1, aria=True)
    best = alt.Chart(alt.NamedData("best"))
    colour, shape = _policy_legend(list(by_policy(points)), layout)
    chart = alt.layer(
        *_yardsticks(x, y, static_excess > sum(domain) / 2),
        best.mark_line(strokeWidth=11, opacity=0.16, color=TEXT, strokeJoin="round", clip=True)
        .encode(**on_plane, order="excess:Q"),
        lines.encode(**on_plane, color=colour, order="place:Q"),
        marks.encode(**on_plane, color=colour, shape=shape, description="said:N"),
    )  # fmt: skip
    rows = [_row(place, point) for place, point in enumerate(points)]
    tables: dict[str, Rows] = {
        "settings": rows,
        "shown": [row for row in rows if row["bad"] <= WORST and row["excess"] <= domain[1]],
        "best": [_row(place, point) for place, point in enumerate(undominated(points))],
        "levels": [{"bad": level} for level in LEVELS.values()],
        "optimum": [{"excess": 0.0, "bad": OPTIMUM_AT, "label": "clairvoyant optimum"}],
        "peak": [{"excess": static_excess, "bad": PEAK_AT, "label": "static peak"}],
    }
    tall = replace(layout, height=300 if layout.narrow else 380)
    return charts.picture(chart, tables, tall, "Bad requests against GPU-hours")


def _row(place: int, point: Point) -> dict[str, Any]:
    return {
        "place": place,
        "policy": point.policy,
        "excess": point.excess,
        "bad": max(point.bad_ratio, CLEAN),
        "said": f"{point.policy}{_knob(point)}: {point.pod_hours:,.0f} GPU-hours "
        f"({point.excess:+.1%}), bad requests {point.bad_ratio:.2g}",
    }


def _knob(point: Point) -> str:
    return f", {point.knob} {point.value:.4g}" if point.knob else ""


def _shown_excess(points: Sequence[Point], static_excess: float) -> list[float]:
    """From the optimum, or what is cheaper than it at a bad ratio that is drawn, to the static
    peak, or to what it takes each policy to keep a level."""
    there = [point.excess for point in points if point.bad_ratio <= WORST]
    kept = [
        found.excess
        for mine in by_policy(points).values()
        for level in LEVELS.values()
        if (found := least(mine, level)) is not None
    ]
    highest = max([static_excess * ROOM, 0.05, *(excess * 1.03 for excess in kept)])
    return [min([0.0, *there]) - 0.04 * highest, highest]


def _yardsticks(x: alt.X, y: alt.Y, peak_is_right: bool) -> list[alt.Chart]:
    """The levels across; the optimum and the static peak, each with its name beside it, where
    there is room."""
    across = alt.Chart(alt.NamedData("levels")).mark_rule(
        color=TEXT, opacity=0.5, strokeDash=[2, 3]
    )
    layers = [across.encode(y=y)]
    after: dict[str, Any] = {"align": "left", "dx": 5}
    before: dict[str, Any] = {"align": "right", "dx": -5}
    beside = {"optimum": after, "peak": before if peak_is_right else after}
    for table, text in beside.items():
        named = alt.Chart(alt.NamedData(table))
        layers += [
            named.mark_rule(color=TEXT, opacity=0.6, strokeDash=[6, 3]).encode(x=x),
            named.mark_text(color=TEXT, fontSize=11, **text).encode(x=x, y=y, text="label:N"),
        ]
    return layers


def _policy_legend(names: Sequence[str], layout: Layout) -> tuple[alt.Color, alt.Shape]:
    """One legend for both; colours come again with another shape."""
    colours = [charts.run_colour(index) for index in range(len(names))]
    shapes = [SHAPES[(index + index // len(SHAPES)) % len(SHAPES)] for index in range(len(names))]
    legend = alt.Legend(
        title=None, orient="top", columns=1 if layout.narrow else 4, labelLimit=220, symbolSize=70
    )
    return (
        alt.Color("policy:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
        alt.Shape("policy:N", scale=alt.Scale(domain=names, range=shapes), legend=legend),
    )


def moves(starts_at: datetime, card: Scorecard, layout: Layout) -> str:
    """Pods ordered (up) and deleted (down), in as many bars as the layout has room for."""
    width = max(1, -(-card.minutes // (layout.points // 4)))
    rows: Rows = []
    for first in range(0, card.minutes, width):
        at = (starts_at + timedelta(minutes=first)).timestamp() * 1000
        part = slice(first, first + width)
        ordered, deleted = card.started_by_minute[part], card.deleted_by_minute[part]
        rows.append({"t": at, "pods": float(ordered.sum()), "what": "ordered"})
        rows.append({"t": at, "pods": -float(deleted.sum()), "what": "deleted"})
    first_second = starts_at.timestamp()
    x = charts.time_axis((first_second, first_second + 60.0 * card.minutes), layout)
    colours = {"ordered": BLUE, "deleted": ORANGE}
    bars = charts.over_table("moves", x).mark_bar(size=max(1, layout.width // (len(rows) or 1)))
    chart = alt.layer(
        charts.colour_legend(colours, layout),
        bars.encode(
            y=alt.Y("pods:Q", title=f"pods in {width} min", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color("what:N"),
        ),
    )
    low = replace(layout, height=round(0.7 * layout.height))
    return charts.picture(chart, {"moves": rows}, low, "Pods ordered and deleted")


def latencies(cards: Sequence[Scorecard], layout: Layout) -> str:
    """Share of requests by latency, on a logarithmic scale."""
    colours = {card.policy: charts.run_colour(index) for index, card in enumerate(cards)}
    rows: Rows = []
    for card in cards:
        centres = np.sqrt(card.latency_seconds[1:] * card.latency_seconds[:-1])
        rows += [
            {"seconds": float(at), "share": float(share), "policy": card.policy}
            for at, share in zip(centres, -np.diff(card.slower_shares), strict=True)
        ]
    seconds = alt.X(
        "seconds:Q",
        title="latency, seconds",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(values=[0.01, 0.03, 0.1, 0.3, 1, 3, 10], format="~g"),
    )
    curves = alt.Chart(alt.NamedData("latencies")).mark_line(interpolate="step", strokeWidth=1.5)
    chart = alt.layer(
        charts.colour_legend(colours, layout),
        curves.encode(
            x=seconds,
            y=alt.Y("share:Q", title="share of requests", axis=alt.Axis(format=".0%")),
            color=alt.Color("policy:N"),
        ),
    )
    return charts.picture(chart, {"latencies": rows}, layout, "Latency of all requests")
