"""Charts as SVG, drawn by altair and vl-convert.

Knows how each question is best shown, and one palette (Okabe and Ito's, told apart by colour-blind
eyes). Text and axes take the colour of the page (`currentColor`), so that one picture reads on a
light and on a dark one. Times are UTC. Knows no database; reads timelines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from altair.utils import schemapi

from forecaster.history import Floats
from storage.reports import words
from storage.reports.timeline import Timeline

BLUE, ORANGE, GREEN, SKY = "#0072B2", "#E69F00", "#009E73", "#56B4E9"
RED, PURPLE, GREY, TEXT = "#D55E00", "#CC79A7", "#8A8F98", "currentColor"
BAND, SERVING = "rgba(230,159,0,0.35)", "rgba(0,158,115,0.35)"
RUN_COLOURS = (BLUE, ORANGE, GREY, PURPLE, GREEN, SKY)
FAMILY_COLOURS = dict(zip(words.FAMILIES, (BLUE, ORANGE, GREEN, RED, GREY, PURPLE), strict=True))
FONT = "Helvetica, Arial, sans-serif"
SECONDS_SHOWN_DAYS = 0.25 / 24
"""A span up to this long has more ticks than minutes."""
COARSE_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
FINE_TICKS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7, 10)
QUICKEST_SECONDS, SLOWEST_SECONDS = 0.01, 60.0
"""P99 is drawn on a logarithmic scale between these, so that a bad minute does not flatten the
rest; what lies outside is drawn at the edge."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Layout:
    """Pixels of the plot, and how many points are worth drawing."""

    name: str
    width: int
    height: int
    points: int

    @property
    def narrow(self) -> bool:
        return self.width < 500


WIDE = Layout("wide", 860, 240, 800)
NARROW = Layout("narrow", 266, 190, 240)
LAYOUTS = {layout.name: layout for layout in (WIDE, NARROW)}


@dataclass(frozen=True, slots=True, eq=False)
class LatencyPath:
    """P99 in seconds at times (seconds since 1970), both equally long."""

    label: str
    time: Floats
    p99_seconds: Floats


@dataclass(frozen=True, slots=True)
class Bar:
    """What one policy cost in GPU-hours."""

    label: str
    pod_hours: float


def traffic(
    line: Timeline,
    qps_per_replica: float,
    layout: Layout = WIDE,
    close_up: bool = False,
) -> str:
    """Demand against the forecast for the same moment and the capacity that was ready; close up
    the scale does not begin at zero."""
    drawn = line.thinned(layout.points)
    legend = colour_legend(
        {
            "observed demand": BLUE,
            "forecast median": ORANGE,
            "forecast range": BAND,
            "ready capacity": GREEN,
        },
        layout,
    )
    seen = as_rows(t=drawn.time, demand=drawn.demand_qps, capacity=drawn.ready * qps_per_replica)
    foretold = as_rows(
        t=drawn.forecast_at,
        low=drawn.forecast_low_qps,
        median=drawn.forecast_median_qps,
        high=drawn.forecast_high_qps,
    )
    x = time_axis(_span(line), layout)
    band, median = over_table("foretold", x), over_table("foretold", x)
    demand, capacity = over_table("seen", x), over_table("seen", x)
    chart = alt.layer(
        legend,
        band.mark_area(opacity=1).encode(
            y=amount_axis("low", "requests/s", zero=not close_up),
            y2="high:Q",
            color=alt.ColorDatum("forecast range"),
        ),
        capacity.mark_line(interpolate="step-after", strokeWidth=1.5).encode(
            y="capacity:Q", color=alt.ColorDatum("ready capacity")
        ),
        median.mark_line(strokeDash=[5, 3], strokeWidth=1.5).encode(
            y="median:Q", color=alt.ColorDatum("forecast median")
        ),
        demand.mark_line(strokeWidth=1.75).encode(
            y="demand:Q", color=alt.ColorDatum("observed demand")
        ),
    )
    title = "Demand and capacity, close up" if close_up else "Demand, forecast, capacity"
    foretold = [row for row in foretold if row["t"] is not None]
    return picture(chart, {"seen": seen, "foretold": foretold}, layout, title)


def replicas(line: Timeline, qps_per_replica: float, layout: Layout = WIDE) -> str:
    """Replicas that served, that were on their way, and that the demand needed."""
    drawn = line.thinned(layout.points)
    legend = colour_legend(
        {"ready": SERVING, "ready + starting": SKY, "needed by demand": TEXT}, layout
    )
    rows = as_rows(
        t=drawn.time,
        ready=drawn.ready,
        coming=drawn.ready + drawn.starting,
        needed=np.ceil(drawn.demand_qps / qps_per_replica - 1e-9),
    )
    x = time_axis(_span(line), layout)
    serving, coming, needed = over_table("seen", x), over_table("seen", x), over_table("seen", x)
    chart = alt.layer(
        legend,
        serving.mark_area(interpolate="step-after", opacity=1).encode(
            y=amount_axis("ready", "replicas"), color=alt.ColorDatum("ready")
        ),
        coming.mark_line(interpolate="step-after", strokeWidth=1.5).encode(
            y="coming:Q", color=alt.ColorDatum("ready + starting")
        ),
        needed.mark_line(interpolate="step-after", strokeWidth=1.25).encode(
            y="needed:Q", color=alt.ColorDatum("needed by demand")
        ),
    )
    return picture(chart, {"seen": rows}, layout, "Replicas ready, starting, needed")


def latency(paths: Sequence[LatencyPath], slo_seconds: float | None, layout: Layout = WIDE) -> str:
    """P99 of one or several runs, the first on top, with the objective as a line."""
    objective = "" if slo_seconds is None else f"objective {slo_seconds:g} s"
    colours = {path.label: run_colour(index) for index, path in enumerate(paths)}
    legend = colour_legend(colours | ({objective: RED} if objective else {}), layout)
    tables = {f"path{index}": _latency_rows(path, layout) for index, path in enumerate(paths)}
    values = [row["p99"] for rows in tables.values() for row in rows if row["p99"] is not None]
    times = np.concatenate([path.time for path in paths])
    x = time_axis((float(times.min()) - 30.0, float(times.max()) + 30.0), layout)
    domain = _decades([*values, slo_seconds or 1.0])
    ticks = FINE_TICKS if domain[1] < 6 * domain[0] else COARSE_TICKS
    y = alt.Y(
        "p99:Q",
        title="P99, seconds",
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(values=list(ticks), format="~g", labelOverlap=False),
    )
    layers: list[Any] = [
        over_table(f"path{index}", x)
        .mark_line(strokeWidth=2 if index == 0 else 1.25)
        .encode(y=y, color=alt.ColorDatum(path.label))
        for index, path in reversed(list(enumerate(paths)))
    ]
    if slo_seconds is not None:
        rule = alt.Chart(alt.NamedData("objective")).mark_rule(strokeDash=[6, 3], strokeWidth=1.5)
        layers.append(rule.encode(y="p99:Q", color=alt.ColorDatum(objective)))
        tables["objective"] = [{"p99": slo_seconds}]
    return picture(alt.layer(legend, *layers), tables, layout, "P99 latency by minute")


def reasons(line: Timeline, layout: Layout = WIDE) -> str:
    """Which rule had the last word when: a row a reason, darker where it bound more often."""
    counts = {name: line.reason.count(name) for name in set(line.reason)}
    order = sorted(counts, key=lambda name: (-counts[name], name))
    limit = 135 if layout.narrow else 200
    present = {words.family(name) for name in counts}
    families = {name: FAMILY_COLOURS[name] for name in words.FAMILIES if name in present}
    span = _span(line)
    chart = (
        over_table("bins", time_axis(span, layout))
        .mark_rect()
        .encode(
            x2="end:T",
            y=alt.Y(
                "reason:N",
                sort=order,
                title=None,
                axis=alt.Axis(
                    labelLimit=limit,
                    # Browsers' own fonts are wider than the one that the layout measures.
                    minExtent=min(limit, 7 * max(map(len, order))),
                    grid=False,
                ),
            ),
            color=alt.Color(
                "family:N",
                scale=alt.Scale(domain=list(families), range=list(families.values())),
                legend=legend_style(layout),
            ),
            opacity=alt.Opacity("share:Q", scale=alt.Scale(range=[0.15, 1]), legend=None),
        )
    )
    rows = _reason_bins(line, span, 60 if layout.narrow else 160)
    height = max(60, 24 * len(order))
    tall = replace(layout, height=height)
    return picture(chart, {"bins": rows}, tall, "Binding reasons over time")


def cost(bars: Sequence[Bar], clairvoyant_pod_hours: float | None, layout: Layout = WIDE) -> str:
    """GPU-hours of each policy, with the least that a planner who knows the future would pay."""
    longest = max(bar.pod_hours for bar in bars)
    scale = alt.Scale(domain=[0, longest * (1.25 if layout.narrow else 1.12)], nice=False)
    x = alt.X(
        "hours:Q",
        title="GPU-hours",
        scale=scale,
        axis=alt.Axis(format=",d", tickCount=4 if layout.narrow else 8),
    )
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.6, paddingOuter=0.5))
    named = alt.Chart(alt.NamedData("bars")).encode(y=y)
    layers: list[Any] = [
        named.mark_bar(cornerRadiusEnd=2).encode(
            x=x, color=alt.Color("colour:N", scale=None, legend=None)
        ),
        named.mark_text(align="left", dy=-21, color=TEXT, fontSize=12).encode(
            x=alt.datum(0), text="label:N"
        ),
        named.mark_text(align="left", dx=6, color=TEXT, fontSize=12, fontWeight="bold").encode(
            x=x, text=alt.Text("hours:Q", format=",.0f")
        ),
    ]
    tables: dict[str, Rows] = {
        "bars": [
            {"row": index, "label": bar.label, "hours": bar.pod_hours, "colour": run_colour(index)}
            for index, bar in enumerate(bars)
        ]
    }
    if clairvoyant_pod_hours is not None:
        tables["optimum"] = [
            {"hours": clairvoyant_pod_hours, "label": f"optimum {clairvoyant_pod_hours:,.0f}"}
        ]
        best = alt.Chart(alt.NamedData("optimum")).encode(x=x)
        # Across the bars alone, so that it strikes through no label.
        across = named.mark_tick(color=RED, thickness=2.5, size=30, orient="vertical")
        layers.append(across.encode(x=alt.datum(clairvoyant_pod_hours)))
        layers.append(
            best.mark_text(color=TEXT, fontSize=12, dy=-8).encode(y=alt.value(0), text="label:N")
        )
    tall = replace(layout, height=52 * len(bars) + 10)
    return picture(alt.layer(*layers), tables, tall, "GPU-hours by policy")


def standalone(svg: str) -> str:
    """The picture for a page that shows it as an image, with its own light and dark text."""
    style = (
        "<style>svg{color:#333a44}@media (prefers-color-scheme:dark){svg{color:#d3d8e0}"
        '[stroke="#0072B2"]{stroke:#4FA8E0}[fill="#0072B2"]{fill:#4FA8E0}}</style>'
    )
    head, body = svg.split(">", 1)
    return f"{head}>{style}{body}"


def _latency_rows(path: LatencyPath, layout: Layout) -> Rows:
    """The highest P99 of each stretch, within what the scale shows."""
    starts = np.arange(0, len(path.time), max(1, -(-len(path.time) // layout.points)))
    highest = np.fmax.reduceat(path.p99_seconds, starts)
    return as_rows(t=path.time[starts], p99=np.clip(highest, QUICKEST_SECONDS, SLOWEST_SECONDS))


def _decades(values: Sequence[float]) -> list[float]:
    """From a little below the quickest to a little above the slowest."""
    return [
        max(QUICKEST_SECONDS, min(values) / 1.4),
        min(SLOWEST_SECONDS, max(values)) * 1.25,
    ]


def _reason_bins(line: Timeline, span: tuple[float, float], count: int) -> Rows:
    """The share that each reason has of each bin of time."""
    edges = np.linspace(*span, count + 1)
    bins = np.clip(np.searchsorted(edges, line.time, side="right") - 1, 0, count - 1)
    totals = np.bincount(bins, minlength=count)
    rows: Rows = []
    for reason in sorted(set(line.reason)):
        mine = np.array([name == reason for name in line.reason])
        shares = np.bincount(bins[mine], minlength=count) / np.maximum(totals, 1)
        rows += [
            {
                "t": edges[index] * 1000,
                "end": edges[index + 1] * 1000,
                "reason": reason,
                "family": words.family(reason),
                "share": float(shares[index]),
            }
            for index in np.flatnonzero(shares)
        ]
    return rows


def as_rows(t: Floats, **columns: Floats) -> Rows:
    """Columns as rows for a chart: times in milliseconds, what is not known as None."""
    times = [None if np.isnan(at) else float(at) * 1000 for at in t]
    values = [[None if np.isnan(v) else float(v) for v in column] for column in columns.values()]
    return [
        {"t": at, **dict(zip(columns, row, strict=True))}
        for at, *row in zip(times, *values, strict=True)
    ]


def _span(line: Timeline) -> tuple[float, float]:
    """From the first decision to the last moment that was decided or forecast."""
    last = np.nanmax(np.concatenate([line.time, line.forecast_at]))
    first = float(line.time[0]) // 60.0 * 60.0
    return first, max(float(last), first + 60.0)


def time_axis(span: tuple[float, float], layout: Layout) -> alt.X:
    """UTC from and to, in seconds since 1970; days are named at midnight."""
    days = (span[1] - span[0]) / 86_400
    form = "%d %b" if days > 3 else "%H:%M" if days > SECONDS_SHOWN_DAYS else "%H:%M:%S"
    expression = (
        (
            f"hours(toDate(datum.value)) + minutes(toDate(datum.value)) == 0 "
            f"? utcFormat(datum.value, '%d %b') : utcFormat(datum.value, '{form}')"
        )
        .replace("hours(", "utchours(")
        .replace("minutes(", "utcminutes(")
    )
    return alt.X(
        "t:T",
        title="time (UTC)",
        scale=alt.Scale(type="utc", domain=[span[0] * 1000, span[1] * 1000], nice=False),
        axis=alt.Axis(labelExpr=expression, tickCount=_ticks(days, layout), grid=False),
    )


def _ticks(days: float, layout: Layout) -> Any:
    """About so many; over days they fall on midnights, or one day would be named twice."""
    most = 4 if layout.narrow else 10
    if days <= SECONDS_SHOWN_DAYS:
        return most // 2  # their names are longer
    return most if days <= 3 else {"interval": "day", "step": max(1, round(days / most))}


def amount_axis(field: str, title: str, zero: bool = True) -> alt.Y:
    """Amounts with k and M."""
    # By an expression: an axis' own format would write 0 as 0k.
    axis = alt.Axis(labelExpr="format(datum.value, '~s')", tickMinStep=1, tickCount=5)
    return alt.Y(f"{field}:Q", title=title, axis=axis, scale=alt.Scale(zero=zero))


def over_table(table: str, x: alt.X) -> alt.Chart:
    """A chart yet without a mark, over a named table."""
    chart: alt.Chart = alt.Chart(alt.NamedData(table)).encode(x=x)
    return chart


def colour_legend(colours: Mapping[str, str], layout: Layout) -> alt.Chart:
    """An invisible layer that names the colours: the other layers ask for theirs by name."""
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    names = alt.InlineData([{"name": name} for name in colours])
    chart: alt.Chart = (
        alt.Chart(names)
        .mark_square(size=0, opacity=0)
        .encode(color=alt.Color("name:N", scale=scale, legend=legend_style(layout)))
    )
    return chart


def legend_style(layout: Layout) -> alt.Legend:
    """Above the plot: in a line where there is room for it."""
    return alt.Legend(
        title=None,
        orient="top",
        direction="vertical" if layout.narrow else "horizontal",
        columns=1 if layout.narrow else 0,
        symbolType="square",
        symbolOpacity=1,
        labelLimit=220,
    )


def unchecked() -> AbstractContextManager[None]:
    """Meanwhile charts are not checked against the schema each time that they are drawn."""
    return schemapi.debug_mode(False)


def warm_up() -> None:
    """Start what draws, which takes most of a second once and may be waited for in a thread."""
    vl_convert.vegalite_to_svg({"mark": "point", "data": {"values": []}, "encoding": {}})


def run_colour(index: int) -> str:
    """Of the n-th run or model."""
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def picture(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart,
    tables: Mapping[str, Rows],
    layout: Layout,
    title: str,
) -> str:
    """A chart over named tables as SVG in the look that all pictures share."""
    text = {"labelColor": TEXT, "titleColor": TEXT, "labelFontSize": 11, "titleFontSize": 11}
    finished = (
        chart.properties(width=layout.width, height=layout.height)
        .configure(aria=False, background="transparent", font=FONT, padding=4)
        .configure_view(stroke=None)
        .configure_axis(
            **text,
            titleFontWeight="normal",
            gridColor=TEXT,
            gridOpacity=0.13,
            domainColor=TEXT,
            domainOpacity=0.4,
            tickColor=TEXT,
            tickOpacity=0.4,
        )
        .configure_axisY(minExtent=34, domain=False, ticks=False)
        .configure_legend(labelColor=TEXT, labelFontSize=11, columnPadding=34, offset=8)
    )
    specification = finished.to_dict(validate=schemapi.DEBUG_MODE)
    specification["datasets"] = dict(tables)
    return _finished(vl_convert.vegalite_to_svg(specification), f"{title}-{layout.name}", title)


def _finished(svg: str, key: str, title: str) -> str:
    """Named for screen readers, with ids of its own, and without digits nobody sees.

    A mark with a description shows it where the pointer rests.
    """
    # The drawing engine numbers through all pictures of a process, whichever those are.
    numbers: dict[str, int] = {}
    svg = re.sub(
        r'((?:id="|url\(#)[a-z]+)(\d+)',
        lambda found: f"{found[1]}{numbers.setdefault(found[2], len(numbers))}",
        svg,
    )
    prefix = re.sub(r"\W+", "-", key.lower())
    svg = re.sub(r'id="', f'id="{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r"(\d\.\d)\d+(?=[,\sLMHVhvlmZA\"])", r"\1", svg)
    svg = re.sub(r'<path (aria-label="([^"]*)"[^>]*)/>', r"<path \1><title>\2</title></path>", svg)
    name = escape(title)
    svg = svg.replace('class="marks"', f'class="chart" role="img" aria-label="{name}"', 1)
    head, body = svg.split(">", 1)
    return f"{head}><title>{name}</title>{body}"
