"""The backtest as one HTML file with pictures: no network, no script.

Knows the page. Reads judged forecasts; the first model named is the one that is looked into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forecaster.calendar import Calendar
from forecaster.evaluation import Judged, RollingOrigin
from forecaster.regimes import by_regime, error_by_hour, regimes, worst_misses
from storage.reports import charts, forecast_charts, summary

SHOWN_MODELS = 6
SHOWN_ERRORS = 3
SHOWN_MISSES = 8
DRAWN_MISSES = 3
CLOSE_UP_SECONDS = 4 * 3600
CLOSE_UP_STEPS = 8

_pages = Environment(
    loader=PackageLoader("storage.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Miss:
    """A target above its quantile."""

    at: datetime
    target_qps: float
    latest_qps: float
    median_qps: float
    upper_qps: float

    @property
    def short_ratio(self) -> float:
        return self.target_qps / self.upper_qps - 1.0 if self.upper_qps > 0 else math.inf


def _share(value: float) -> str:
    if math.isnan(value):
        return summary.UNKNOWN
    return f"{value:.1%}" if value < 10 else "> 1000%"


def _loss(value: float) -> str:
    return summary.UNKNOWN if math.isnan(value) else f"{value:.2%}" if value < 10 else "> 1000%"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return summary.UNKNOWN
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"


_pages.filters.update(
    share=_share,
    loss=_loss,
    duration=_duration,
    count=summary.count,
    clock=summary.clock,
    stretch=summary.stretch,
)


def render_backtest(
    plan: RollingOrigin, calendar: Calendar, judged: Sequence[Sequence[Judged]]
) -> str:
    """The whole evaluation as one HTML document; `judged` has a row a model, an entry a window."""
    first = [windows[0] for windows in judged]
    ours = first[0]
    misses = worst_misses(plan, ours, SHOWN_MISSES)
    return _pages.get_template("backtest.html.j2").render(
        plan=plan,
        level=plan.levels[0],
        zone=calendar.time_zone,
        windows=list(enumerate(plan.windows)),
        judged=judged,
        ours=ours,
        headline=_headline(plan, first),
        pictures=_pictures(plan, calendar, first, misses),
        misses=[_miss(plan, ours, index) for index in misses],
        drawn=min(DRAWN_MISSES, len(misses)),
        errors=[(one.model, "; ".join(one.errors[:SHOWN_ERRORS])) for one in first if one.errors],
    )


def _headline(plan: RollingOrigin, first: Sequence[Judged]) -> str:
    ours = first[0]
    level = ours.score.levels[0]
    if not ours.score.points:
        return f"{ours.model} gave no forecast that could be scored."
    text = (
        f"{ours.window.name} ahead, {ours.model} was off by {_loss(ours.score.wape)} of the "
        f"traffic; {_share(level.coverage)} of {ours.score.points:,} targets lay at or below its "
        f"{plan.levels[0]:g} quantile, and {_share(level.coverage_steepest)} of the steepest tenth."
    )
    others = [one for one in first[1:] if one.score.points]
    if others:
        best = min(others, key=lambda one: one.score.levels[0].pinball)
        text += (
            f" The best of the others, {best.model}, was off by {_loss(best.score.wape)} and "
            f"covered {_share(best.score.levels[0].coverage)}."
        )
    return text


def _best(first: Sequence[Judged]) -> list[Judged]:
    """The model looked into and the best of the others, as many as can be told apart by colour."""
    others = [one for one in first[1:] if one.score.points]
    others.sort(key=lambda one: one.score.levels[0].pinball)
    return [first[0], *others[: SHOWN_MODELS - 1]]


def _miss(plan: RollingOrigin, judged: Judged, index: int) -> Miss:
    return Miss(
        at=plan.at(int(judged.origins[index]) + judged.window.first),
        target_qps=float(judged.target_qps[index]),
        latest_qps=float(judged.latest_qps[index]),
        median_qps=float(judged.median_qps[index]),
        upper_qps=float(judged.upper_qps[index, 0]),
    )


def _pictures(
    plan: RollingOrigin, calendar: Calendar, first: Sequence[Judged], misses: Sequence[int]
) -> dict[str, Markup]:
    """Each chart in a wide and a narrow form, of which the page shows the one that fits."""
    found: dict[str, Markup] = {}
    if not first[0].score.points:
        return found
    for layout in charts.LAYOUTS.values():
        for name, svg in _drawn(plan, calendar, first, misses, layout).items():
            box = Markup('<div class="{}">').format(layout.name) + Markup(svg) + Markup("</div>")  # noqa: S704
            found[name] = found.get(name, Markup("")) + box
    return found


def _drawn(
    plan: RollingOrigin,
    calendar: Calendar,
    first: Sequence[Judged],
    misses: Sequence[int],
    layout: charts.Layout,
) -> dict[str, str]:
    ours, level = first[0], plan.levels[0]
    named = regimes(plan, ours, calendar)
    found = {
        "band": forecast_charts.newest_band(plan, ours, layout),
        "hours": forecast_charts.hours(error_by_hour(plan, ours, calendar), layout),
        "regimes": forecast_charts.coverage(
            [(one.model, by_regime(one, named)) for one in _best(first)], level, layout
        ),
    }
    whole = forecast_charts.whole_band(plan, ours, layout)
    if whole is not None:
        found["whole"] = whole
    if len(first) > 1:
        found["losses"] = forecast_charts.losses(first, level, layout)
    around = max(CLOSE_UP_STEPS, CLOSE_UP_SECONDS // plan.history.step_seconds)
    for place, index in enumerate(misses[:DRAWN_MISSES]):
        found[f"miss{place}"] = forecast_charts.miss(plan, ours, index, around, layout)
    return found
