"""`python -m bench.forecast --traces DIR`: the leaderboard of forecasts, and docs/forecasts.md.

Every model is asked from the same origins of every trace. What is found is kept a file for each
trace and model under bench/results/forecasts, so that a run can be broken off and taken up again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bench.run import machine
from forecaster.calendar import Calendar
from forecaster.contenders import contender, known_models
from forecaster.evaluation import Judged, RollingOrigin, judge, rolling_origin, target_window
from forecaster.history import TrafficHistory
from forecaster.outside import MissingToolError
from simulator.traces.gaps_file import emptied, read_gaps
from simulator.traces.trace_file import read_trace

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "forecasts.md"
RESULTS = ROOT / "bench" / "results" / "forecasts"
TRACES_VARIABLE = "DAYBREAK_TRACES"
LEADS = {"1m": 60, "3m": 180, "5m": 300, "10m": 600, "1h": 3600, "1d": 86_400}
LEVELS = (0.95, 0.99)
OURS = "combined"
SCORED_DAYS = 28
HEADINGS = (
    *("model", "WAPE", "pinball 0.95", "0.99", "covered 0.95", "steepest", "covered 0.99"),
    *("steepest", "fit", "forecast", "points", "no answer"),
)
SLOW = ("dynamo_prophet",)
SLOW_POINTS = 300
"""Asked for; at least 200 origins a week stay, where the steps allow it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one trace at one lead; quantities by level in the order of LEVELS."""

    trace: str
    lead: str
    model: str
    wape: float | None
    pinball: list[float | None]
    coverage: list[float | None]
    coverage_steepest: list[float | None]
    fit_seconds: float | None
    predict_seconds: float | None
    points: int
    failures: int
    stride: int
    scored_from: str
    scored_until: str
    errors: list[str] = field(default_factory=list)


def traffic(path: Path) -> TrafficHistory:
    """A trace with its filled stretches as gaps, where the folder says which they are."""
    trace, gaps = read_trace(path), path.with_name("gaps.csv")
    return emptied(trace, read_gaps(gaps).get(trace.series, [])) if gaps.exists() else trace


def plan_for(history: TrafficHistory, model: str, days: float, points: int) -> RollingOrigin:
    """Leads of at least half a step; a decision lasts one step."""
    step = history.step_seconds
    windows = [
        target_window(name, seconds, step, step)
        for name, seconds in LEADS.items()
        if seconds >= step / 2
    ]
    wanted = min(points, SLOW_POINTS) if model in SLOW else points
    return rolling_origin(history, windows, LEVELS, max_days=days, max_points=wanted)


def rows_of(history: TrafficHistory, model: str, plan: RollingOrigin) -> list[Row]:
    """Raises MissingToolError where the model's library is not installed."""
    judged = judge(contender(model, Calendar()), plan, time.perf_counter)
    return [_row(history.series, plan, one) for one in judged]


def _row(trace: str, plan: RollingOrigin, judged: Judged) -> Row:
    levels = judged.score.levels
    return Row(
        trace=trace,
        lead=judged.window.name,
        model=judged.model,
        wape=_or_none(judged.score.wape),
        pinball=[_or_none(level.pinball) for level in levels],
        coverage=[_or_none(level.coverage) for level in levels],
        coverage_steepest=[_or_none(level.coverage_steepest) for level in levels],
        fit_seconds=_or_none(judged.fit_seconds),
        predict_seconds=_or_none(judged.predict_seconds),
        points=judged.score.points,
        failures=judged.score.failures,
        stride=plan.stride,
        scored_from=plan.scored_from.date().isoformat(),
        scored_until=plan.scored_until.date().isoformat(),
        errors=list(judged.errors),
    )


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def measured(paths: Sequence[Path], options: argparse.Namespace) -> Iterator[Row]:
    """Rows of every trace and model: kept ones, and new ones where none are kept."""
    again = set(options.again.split(",")) if options.again else set()
    missing: set[str] = set()
    for path in paths:
        history = traffic(path)
        for model in options.models.split(","):
            kept = RESULTS / f"{path.stem}.{model}.json"
            if kept.exists() and model not in again:
                yield from (Row(**row) for row in json.loads(kept.read_text()))
                continue
            if model in missing:
                continue
            began = time.perf_counter()
            try:
                plan = plan_for(history, model, options.days, options.points)
                rows = rows_of(history, model, plan)
            except MissingToolError as error:
                missing.add(model)
                print(f"left out: {error}")
                continue
            kept.write_text(json.dumps([asdict(row) for row in rows], indent=1))
            print(f"{path.stem}: {model}, {time.perf_counter() - began:.0f} s", flush=True)
            yield from rows


def page(rows: Sequence[Row]) -> str:
    """The leaderboard as Markdown."""
    models = list(dict.fromkeys(row.model for row in rows))
    absent = [name for name in known_models() if name not in models]
    left_out = f"\nLeft out of this run: {', '.join(absent)}.\n" if absent else ""
    by_trace = groupby(rows, lambda row: row.trace)
    sections = "".join(_trace_section(name, list(part)) for name, part in by_trace)
    return f"""# Forecasts

Written by `make bench-forecast` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.
Seconds belong to that machine; errors do not.

{NOTES}
{left_out}
## At a glance

Pinball loss at 0.95 over that of `{OURS}`: the geometric mean over the traces that have the lead.
Above 1 is worse than ours. In brackets, on how many of them the model beats ours.

{_overview(rows, models, lambda row: row.pinball[0])}

The same of WAPE, the error of the median:

{_overview(rows, models, lambda row: row.wape)}

Where another model has a loss at 0.95 more than 2 % below that of `{OURS}`, the lowest of them:

{_losses(rows)}

{sections}"""


NOTES = f"""\
**Protocol.** Rolling origin. Half of a trace, at most 28 days, is history; the days after it, at
most {SCORED_DAYS}, are scored at every k-th step (k shares no factor with the day, so that no
minute of it is left out). Each model is fitted anew each day on at most the 28 days before, and
asked from each origin with what was known by then. The target is the highest rate within
[t + lead, t + lead + one step]. Steps that were filled in a trace are gaps, and targets that touch
one do not count.

**Scores.** WAPE: sum of |target - median| over the sum of targets. Pinball: mean pinball loss of
the quantile over the mean target. Covered: share of targets at or below the quantile. Steepest: the
same among the tenth of targets that rise most over the last known value; these are chosen by what
came, so that a well calibrated forecast covers fewer of them than it promises.

**Quantiles.** `combined` answers for its own. Every other model is given the quantiles of its own
log errors over the last seven days of targets that had ended (split conformal), which most of them
do not have as they are run; for these errors each is also asked during the week before the scored
time.

**Peers** are run as they are shipped: those that forecast a next interval, or the highest of the
next minutes, say the same whatever the lead.

**Outside tools** are fitted once a day on logs of the rate, unless they take rates as they are run.
`prophet`: means of a quarter of an hour where steps are finer, a stiff trend, a daily season for
working days and one for days off with a level of their own, a weekly season of order 10 from two
weeks on; it is a curve over time and learns nothing between fits.
`statsforecast_mstl`: day and week by STL with jumps on steps of at least five minutes, AutoETS on
the rest, applied to the newest steps at each origin. `statsforecast_autoets` and
`statsforecast_autoarima`: with a daily season on hourly steps, which they can carry; on finer steps
without one, on the last 7 and 4 days. `dynamo_prophet`: a new Prophet with its defaults at each
forecast on the last 50 intervals of 180 s; since that takes long, it is asked from fewer origins.
`dynamo_arima`: pmdarima's search once a day on that day's intervals of 180 s, its parameters
applied to the newest ones at each origin."""


def _overview(rows: Sequence[Row], models: Sequence[str], figure: Any) -> str:
    found = {(row.trace, row.lead, row.model): figure(row) for row in rows}
    leads = [lead for lead in LEADS if any(row.lead == lead for row in rows)]
    lines = [f"| model | {' | '.join(leads)} |", "|---|" + "---|" * len(leads)]
    for model in models:
        cells = []
        for lead in leads:
            ratios = [
                found[trace, lead, model] / ours
                for (trace, its_lead, name), ours in found.items()
                if name == OURS and its_lead == lead and ours and found.get((trace, lead, model))
            ]
            better = sum(ratio < 1 for ratio in ratios)
            mean = float(np.exp(np.mean(np.log(ratios)))) if ratios else math.nan
            cells.append(f"{_times(mean)} ({better} of {len(ratios)})" if ratios else "")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _losses(rows: Sequence[Row]) -> str:
    """Trace and lead by trace and lead; the members of ours count as others."""
    lines = ["| trace | lead | lowest | below ours by |", "|---|---|---|---|"]
    for (trace, lead), part in groupby(rows_by_target(rows), lambda row: (row.trace, row.lead)):
        found = {row.model: row.pinball[0] for row in part if row.pinball[0]}
        ours, best = found.get(OURS), min(found, key=lambda model: found[model] or math.inf)
        lowest = found[best]
        if ours and lowest and lowest < 0.98 * ours:
            lines.append(f"| {trace} | {lead} | {best} | {1 - lowest / ours:.0%} |")
    return "\n".join(lines) if len(lines) > 2 else "Nowhere."


def rows_by_target(rows: Sequence[Row]) -> list[Row]:
    leads = list(LEADS)
    return sorted(rows, key=lambda row: (row.trace, leads.index(row.lead)))


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else "> 10"


def _trace_section(trace: str, rows: list[Row]) -> str:
    first = rows[0]
    parts = [f"## {trace}\n\nScored {first.scored_from} to {first.scored_until}.\n\n"]
    for lead in LEADS:
        alike = [row for row in rows if row.lead == lead]
        if alike:
            ranked = sorted(alike, key=lambda row: row.pinball[0] or math.inf)
            parts.append(f"### {trace}, {lead} ahead\n\n{_table(ranked)}\n\n")
    return "".join(parts)


def _table(rows: Sequence[Row]) -> str:
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
    ]
    for row in rows:
        name = f"**{row.model}**" if row.model == OURS else row.model
        cells = [
            name,
            _share(row.wape, 2),
            *(_share(loss, 2) for loss in row.pinball),
            *(
                _share(share, 1)
                for both in zip(row.coverage, row.coverage_steepest, strict=True)
                for share in both
            ),
            _seconds(row.fit_seconds),
            _seconds(row.predict_seconds),
            f"{row.points:,}",
            f"{row.failures:,}" if row.failures else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(value: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}%}" if value < 10 else "> 1000%"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.2g} ms"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--traces",
        type=Path,
        default=os.environ.get(TRACES_VARIABLE),
        help=f"folder of trace CSVs; {TRACES_VARIABLE} where not given",
    )
    parser.add_argument("--only", default="", help="traces by name, separated by commas")
    parser.add_argument("--models", default=",".join(known_models()))
    parser.add_argument("--again", default="", help="models to measure again, by name")
    parser.add_argument("--days", type=float, default=SCORED_DAYS, help="scored at most")
    parser.add_argument("--points", type=int, default=1500, help="about so many origins")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    if options.traces is None or not Path(options.traces).is_dir():
        parser.error(f"--traces or {TRACES_VARIABLE}: expected a folder, got {options.traces}")
    return options


def main() -> None:
    options = _options()
    only = set(filter(None, options.only.split(",")))
    paths = [
        path
        for path in sorted(Path(options.traces).glob("*.csv"))
        if path.stem != "gaps" and (not only or path.stem in only)
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = list(measured(paths, options))
    options.page.write_text(page(rows).rstrip() + "\n")
    print(f"{options.page}: {len(rows)} rows")


if __name__ == "__main__":
    main()
