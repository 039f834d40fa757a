"""Charts of an audit beside the lines over time: the waterfall, the hours of the week, the budget.

Knows how each question is best shown, in the look of `charts`. Times are UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from storage.reports import words
from storage.reports.charts import (
    BLUE,
    FAMILY_COLOURS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    TEXT,
    WIDE,
    Layout,
    Rows,
    as_rows,
    colour_legend,
    legend_style,
    over_table,
    picture,
    time_axis,
)
from storage.reports.findings import Objective, bad_requests, requests
from storage.reports.minutes import Minutes
from storage.reports.waterfall import Slice

HOURS_A_WEEK = 168
MONDAY = 4 * 86_400
"""1970-01-05, a Monday, in seconds since 1970."""
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MOST_REASONS = 10


def waterfall(slices: Sequence[Slice], layout: Layout = WIDE) -> str:
    """What was paid beyond the optimum, cause by cause, each bar from where the last one ended."""
    rows = _steps(slices)
    longest = max(row["high"] for row in rows)
    x = alt.X(
        "low:Q",
        title="GPU-hours",
        scale=alt.Scale(domain=[0, longest * (1.3 if layout.narrow else 1.14)], nice=False),
        # By an expression: an axis' own format would write 0 as 0k.
        axis=alt.Axis(labelExpr="format(datum.value, '~s')", tickCount=4 if layout.narrow else 8),
    )
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.6, paddingOuter=0.5))
    bars = alt.Chart(alt.NamedData("bars")).encode(y=y)
    chart = alt.layer(
        bars.mark_bar().encode(
            x=x, x2="high:Q", color=alt.Color("colour:N", scale=None, legend=None)
        ),
        bars.mark_text(align="left", dy=-19, color=TEXT, fontSize=12).encode(
            x=alt.datum(0), text="label:N"
        ),
        bars.mark_text(align="left", dx=6, color=TEXT, fontSize=12, fontWeight="bold").encode(
            x="high:Q", text="amount:N"
        ),
    )
    tall = replace(layout, height=48 * len(rows) + 10)
    return picture(chart, {"bars": rows}, tall, "GPU-hours from the optimum to what was used")


def hours_of_week(minutes: Minutes, layout: Layout = WIDE) -> str:
    """Which rule had the last word at which hour of the week; darker where it bound more often."""
    each = 6 if layout.narrow else 1
    rows, order = _hour_shares(minutes, each)
    present = {row["family"] for row in rows}
    families = {name: FAMILY_COLOURS[name] for name in words.FAMILIES if name in present}
    names = "[" + ", ".join(f"'{name}'" for name in WEEKDAYS) + "]"
    x = alt.X(
        "hour:Q",
        title="hour of the week (UTC)",
        scale=alt.Scale(domain=[0, HOURS_A_WEEK], nice=False),
        axis=alt.Axis(
            values=list(range(0, HOURS_A_WEEK, 24)),
            labelExpr=f"{names}[datum.value / 24]",
            labelAlign="left",
            grid=True,
        ),
    )
    limit = 135 if layout.narrow else 200
    chart = (
        alt.Chart(alt.NamedData("hours"))
        .mark_rect()
        .encode(
            x=x,
            x2="end:Q",
            y=alt.Y(
                "reason:N",
                sort=order,
                title=None,
                axis=alt.Axis(
                    labelLimit=limit, minExtent=min(limit, 7 * max(map(len, order))), grid=False
                ),
            ),
            color=alt.Color(
                "family:N",
                scale=alt.Scale(domain=list(families), range=list(families.values())),
                legend=legend_style(layout),
            ),
            opacity=alt.Opacity("share:Q", scale=alt.Scale(range=[0.1, 1]), legend=None),
        )
    )
    tall = replace(layout, height=max(60, 24 * len(order)))
    return picture(chart, {"hours": rows}, tall, "Binding reasons by hour of the week")


def budget(minutes: Minutes, objective: Objective, layout: Layout = WIDE) -> str:
    """How much of the period's error budget was used up by when."""
    bad = np.cumsum(bad_requests(minutes, objective))
    allowed = (1 - objective.good_ratio) * float(requests(minutes, objective).sum())
    used = bad / allowed
    step = max(1, -(-len(used) // layout.points))
    rows = as_rows(t=minutes.time[::step], used=used[::step])
    names = {"used up": BLUE, "the whole budget": RED}
    x = time_axis((float(minutes.time[0]), float(minutes.time[-1]) + 60.0), layout)
    times = used[-1] > 10
    y = alt.Y(
        "used:Q",
        title="times the budget" if times else "of the budget",
        scale=alt.Scale(domain=[0, max(1.1, float(used[-1]) * 1.05)], nice=False),
        axis=alt.Axis(format="~s" if times else "~%", tickCount=5),
    )
    rule = alt.Chart(alt.NamedData("whole")).mark_rule(strokeDash=[6, 3], strokeWidth=1.5)
    chart = alt.layer(
        colour_legend(names, layout),
        over_table("used", x)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(y=y, color=alt.ColorDatum("used up")),
        rule.encode(y="used:Q", color=alt.ColorDatum("the whole budget")),
    )
    low = replace(layout, height=150)
    return picture(chart, {"used": rows, "whole": [{"used": 1.0}]}, low, "Error budget used up")


def _steps(slices: Sequence[Slice]) -> Rows:
    rows: Rows = []
    reached = 0.0
    for index, one in enumerate(slices):
        start = 0.0 if one.total else reached
        reached = start + one.pod_hours
        colour = BLUE if one.total else ORANGE if one.pod_hours > 0 else GREEN
        amount = f"{one.pod_hours:,.0f}" if one.total else f"{one.pod_hours:+,.1f}"
        rows.append(
            {
                "row": index,
                "label": one.label,
                "low": min(start, reached),
                "high": max(start, reached),
                "colour": GREY if index == 0 else colour,
                "amount": amount.replace("-", "\N{MINUS SIGN}"),
            }
        )
    return rows


def _hour_shares(minutes: Minutes, each: int) -> tuple[Rows, list[str]]:
    """The share of each reason in each stretch of `each` hours, and the reasons by how often."""
    counts = minutes.reason_counts
    order = [name for name, _ in counts.most_common(MOST_REASONS)]
    hours = (((minutes.time - MONDAY) // 3600) % HOURS_A_WEEK // each).astype(int)
    cells: dict[tuple[int, str], int] = Counter()
    totals: dict[int, int] = Counter()
    for hour, reasons in zip(hours.tolist(), minutes.reasons, strict=True):
        for reason, count in reasons.items():
            cells[hour, reason] += count
            totals[hour] += count
    rows: list[dict[str, Any]] = [
        {
            "hour": hour * each,
            "end": (hour + 1) * each,
            "reason": reason,
            "family": words.family(reason),
            "share": count / totals[hour],
        }
        for (hour, reason), count in sorted(cells.items())
        if reason in order
    ]
    return rows, order
