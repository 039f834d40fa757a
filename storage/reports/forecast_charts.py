"""Pictures of forecasts against what came: bands, misses, errors by hour, coverage by regime.

Knows how each is best shown; shares its look with the other charts. Reads judged forecasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import altair as alt
import numpy as np

from forecaster.evaluation import Judged, RollingOrigin
from forecaster.history import Floats
from forecaster.regimes import RegimeScore
from storage.reports import charts
from storage.reports.charts import BAND, BLUE, ORANGE, RED, TEXT, Layout, Rows

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
BAND_DAYS = 2.0
TOO_HIGH = "above it"


def miss(plan: RollingOrigin, judged: Judged, index: int, around: int, layout: Layout) -> str:
    """The steps around a target, close up: its scale does not begin at zero."""
    at = int(_targeted(judged)[index])
    return _band(plan, judged, (max(0, at - around), at + around), layout, missed=index)


def _band(
    plan: RollingOrigin,
    judged: Judged,
    steps_drawn: tuple[int, int],
    layout: Layout,
    missed: int | None = None,
) -> str:
    """Forecast and traffic between two steps of the history, drawn at the times forecast for."""
    first, last = steps_drawn
    history = plan.history
    start = history.start.timestamp()
    steps = np.arange(max(0, first), min(last, len(history)))
    times = np.asarray(start + history.step_seconds * (steps + 0.5), dtype=np.float64)
    said = np.flatnonzero((_targeted(judged) >= first) & (_targeted(judged) < last))
    shade = f"median to {_percentile(plan.levels[0])}"
    colours = {"traffic": BLUE, "forecast median": ORANGE, shade: BAND}
    foretold = charts.as_rows(
        **_thinned(
            start + history.step_seconds * (_targeted(judged)[said] + 0.5),
            layout.points,
            median=judged.median_qps[said],
            upper=judged.upper_qps[said, 0],
        )
    )
    actual = charts.as_rows(**_thinned(times, layout.points, qps=history.values[steps]))
    marked: Rows = []
    if missed is not None:
        colours[TOO_HIGH] = RED
        at = start + history.step_seconds * (_targeted(judged)[missed] + 0.5)
        marked = [{"t": at * 1000, "qps": float(judged.target_qps[missed])}]
    span = (start + history.step_seconds * first, start + history.step_seconds * last)
    x = charts.time_axis(span, layout)
    area, median = charts.over_table("foretold", x), charts.over_table("foretold", x)
    chart = alt.layer(
        charts.colour_legend(colours, layout),
        area.mark_area(opacity=1).encode(
            y=charts.amount_axis("median", "requests/s", zero=missed is None),
            y2="upper:Q",
            color=alt.ColorDatum(shade),
        ),
        median.mark_line(strokeDash=[5, 3], strokeWidth=1.5).encode(
            y="median:Q", color=alt.ColorDatum("forecast median")
        ),
        charts.over_table("actual", x)
        .mark_line(strokeWidth=1.5)
        .encode(y="qps:Q", color=alt.ColorDatum("traffic")),
        charts.over_table("missed", x)
        .mark_point(size=90, strokeWidth=2)
        .encode(y="qps:Q", color=alt.ColorDatum(TOO_HIGH)),
    )
    tables = {"actual": actual, "foretold": foretold, "missed": marked}
    return charts.picture(chart, tables, layout, f"Forecast against traffic from step {first}")


def newest_band(plan: RollingOrigin, judged: Judged, layout: Layout) -> str:
    """The last two scored days; one where the picture is narrow."""
    days = BAND_DAYS / 2 if layout.narrow else BAND_DAYS
    last = int(_targeted(judged)[-1]) + 1
    length = round(days * 86_400 / plan.history.step_seconds)
    return _band(plan, judged, (max(plan.cut, last - length), last), layout)


def whole_band(plan: RollingOrigin, judged: Judged, layout: Layout) -> str | None:
    """All that was scored, where that is more than the last days: holidays and outliers are seen
    there, the highest of each stretch."""
    last = int(_targeted(judged)[-1]) + 1
    if (last - plan.cut) * plan.history.step_seconds <= 2 * BAND_DAYS * 86_400:
        return None
    return _band(plan, judged, (plan.cut, last), layout)


def hours(errors: Floats, layout: Layout) -> str:
    """The week as a calendar: the darker an hour, the greater its error."""
    rows: Rows = [
        {"day": DAYS[hour // 24], "hour": hour % 24, "error": float(error)}
        for hour, error in enumerate(errors)
        if np.isfinite(error)
    ]
    highest = max((row["error"] for row in rows), default=1.0)
    chart = (
        alt.Chart(alt.NamedData("hours"))
        .mark_rect(color=RED)
        .encode(
            x=alt.X(
                "hour:O",
                title="hour of the day",
                scale=alt.Scale(domain=list(range(24)), paddingInner=0.06),
                axis=alt.Axis(labelAngle=0, values=list(range(0, 24, 3)), ticks=False),
            ),
            y=alt.Y(
                "day:N", title=None, sort=None, scale=alt.Scale(domain=DAYS, paddingInner=0.06)
            ),
            opacity=alt.Opacity(
                "error:Q",
                scale=alt.Scale(domain=[0, highest], range=[0.1, 1]),
                legend=alt.Legend(
                    title=None, orient="top", format=".1~%", symbolType="square", symbolSize=150
                ),
            ),
        )
    )
    low = replace(layout, height=24 * len(DAYS))
    return charts.picture(chart, {"hours": rows}, low, "Error by hour of the week")


def coverage(scores: Sequence[tuple[str, list[RegimeScore]]], level: float, layout: Layout) -> str:
    """A row a regime, with the targets of the first model in it, and a dot a model; the rule is
    what the quantile promises."""
    named = {one.regime: f"{one.regime} ({one.points:,})" for one in scores[0][1]}
    rows: Rows = [
        {
            "regime": named[one.regime],
            "model": model,
            "coverage": one.coverage,
            "size": 110 if index == 0 else 55,
        }
        for index, (model, found) in enumerate(scores)
        for one in found
        if one.points
    ]
    names = [model for model, _ in scores]
    lowest = min([row["coverage"] for row in rows], default=level)
    scale = alt.Scale(domain=[max(0.0, min(lowest, level) - 0.03), 1.0], nice=False)
    # Ticks of half a percent would be told as the next whole one.
    axis = alt.Axis(format=".0%", tickMinStep=0.01)
    x = alt.X("coverage:Q", title="targets covered", scale=scale, axis=axis)
    order = list(named.values())
    # Browsers' own fonts are wider than the one that the layout measures.
    extent = 7 * max(map(len, order), default=0)
    names_axis = alt.Axis(grid=True, labelLimit=170, minExtent=extent)
    dots = (
        alt.Chart(alt.NamedData("regimes"))
        .mark_point(filled=True, opacity=0.9)
        .encode(
            x=x,
            y=alt.Y("regime:N", title=None, sort=order, axis=names_axis),
            color=_model_colours(names, layout),
            size=alt.Size("size:Q", scale=None, legend=None),
        )
    )
    promise = (
        alt.Chart(alt.NamedData("promise"))
        .mark_rule(strokeDash=[6, 3], strokeWidth=1.5, color=TEXT)
        .encode(x=x)
    )
    tables: dict[str, Rows] = {"regimes": rows, "promise": [{"coverage": level}]}
    tall = replace(layout, height=34 * max(1, len(order)))
    return charts.picture(alt.layer(promise, dots), tables, tall, "Coverage by regime")


def losses(judged: Sequence[Judged], level: float, layout: Layout) -> str:
    """Pinball loss of each model, the least on top; on a logarithmic scale where one is far off."""
    ranked = sorted(
        (one for one in judged if np.isfinite(one.score.levels[0].pinball)),
        key=lambda one: one.score.levels[0].pinball,
    )
    rows: Rows = [
        {
            "row": place,
            "label": one.model,
            "loss": one.score.levels[0].pinball,
            "shown": _shown(one.score.levels[0].pinball),
            "colour": BLUE if one is judged[0] else charts.GREY,
        }
        for place, one in enumerate(ranked)
    ]
    limit = 6.0 * ranked[len(ranked) // 2].score.levels[0].pinball if ranked else 1.0
    for row in rows:
        row["loss"] = min(row["loss"], limit)
    longest = max((row["loss"] for row in rows), default=1.0)
    x = alt.X(
        "loss:Q",
        title=f"pinball loss at {_percentile(level)}, of the mean traffic",
        scale=alt.Scale(domain=[0, longest * (1.3 if layout.narrow else 1.12)], nice=False),
        axis=alt.Axis(format=".2~%", tickCount=3 if layout.narrow else 8),
    )
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.6, paddingOuter=0.5))
    named = alt.Chart(alt.NamedData("losses")).encode(y=y)
    chart = alt.layer(
        named.mark_bar(cornerRadiusEnd=2).encode(
            x=x, color=alt.Color("colour:N", scale=None, legend=None)
        ),
        named.mark_text(align="left", dy=-17, color=TEXT, fontSize=11).encode(
            x=alt.datum(0), text="label:N"
        ),
        named.mark_text(align="left", dx=6, color=TEXT, fontSize=11, fontWeight="bold").encode(
            x=x, text="shown:N"
        ),
    )
    tall = replace(layout, height=40 * max(1, len(rows)) + 8)
    return charts.picture(chart, {"losses": rows}, tall, "Pinball loss by model")


def _model_colours(names: Sequence[str], layout: Layout) -> alt.Color:
    return alt.Color(
        "model:N",
        sort=list(names),
        scale=alt.Scale(
            domain=list(names), range=[charts.run_colour(index) for index in range(len(names))]
        ),
        legend=alt.Legend(
            title=None,
            orient="top",
            columns=2 if layout.narrow else 5,
            symbolOpacity=1,
            labelLimit=160,
        ),
    )


def _targeted(judged: Judged) -> Floats:
    """The first step of each target."""
    return np.asarray(judged.origins + judged.window.first, dtype=np.float64)


def _thinned(times: Floats, points: int, **columns: Floats) -> dict[str, Floats]:
    """The highest of each stretch, so that there are at most so many."""
    stride = max(1, -(-len(times) // points))
    starts = np.arange(0, len(times), stride)
    highest = {name: np.fmax.reduceat(values, starts) for name, values in columns.items()}
    return {"t": times[starts], **highest}


def _percentile(level: float) -> str:
    return f"P{100 * level:g}"


def _shown(loss: float) -> str:
    return f"{loss:.2%}" if loss < 10 else "> 1000%"
