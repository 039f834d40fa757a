"""`daybreak backtest`: how good forecasts would have been, ours and others'."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from forecaster.calendar import Calendar
from forecaster.contenders import contender, known_models
from forecaster.evaluation import (
    Contender,
    Judged,
    RollingOrigin,
    judge,
    rolling_origin,
    target_window,
)
from forecaster.forecast import ForecastError
from forecaster.history import TrafficHistory
from forecaster.outside import MissingToolError
from scaler.cli.output import (
    BadInputError,
    JsonOption,
    TimeZoneOption,
    configure_logs,
    listed,
    output_option,
    trace_from,
    write_json,
    write_text,
)
from scaler.cli.recorded import recorded_history
from scaler.clock import SystemClock
from scaler.settings import load_settings
from simulator.traces.gaps_file import emptied, gaps_of
from storage.reports.backtest import render_backtest

SHOWN_ERRORS = 3
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is forecast, and the clock of the people behind it."""

    history: TrafficHistory
    calendar: Calendar


def backtest(
    trace: Annotated[Path | None, typer.Option(help="Trace CSV: timestamp,qps.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file: its first workload's own history.")
    ] = None,
    model: Annotated[str, typer.Option(help="Models, separated by commas.")] = "combined",
    lead: Annotated[str, typer.Option(help="How far ahead: 90s, 5m, 1h, 1d; or several.")] = "5m",
    quantile: Annotated[float, typer.Option(help="Level of the upper quantile.")] = 0.95,
    train_days: Annotated[
        float | None, typer.Option(help="History before scoring starts; half, at most 28.")
    ] = None,
    commitment: Annotated[
        str | None, typer.Option(help="How long a decision must last; one step of the trace.")
    ] = None,
    gaps: Annotated[
        Path | None, typer.Option(help="CSV of filled stretches (trace,start,end): not scored.")
    ] = None,
    time_zone: TimeZoneOption = None,
    json_out: JsonOption = None,
    html: Annotated[
        Path | None, output_option(help_text="Write a page with pictures here.")
    ] = None,
) -> None:
    """Forecast a trace, or your own history, as it went by, and score each model.

    The target is the highest rate from t + lead until t + lead + commitment. Models are fitted anew
    each day on the 28 days before it, and scored on what came after.

    Example: daybreak backtest --trace week.csv --model combined,last_value --lead 5m,1h
    """
    configure_logs("warning")
    leads = {text: _seconds("lead", text) for text in listed("lead", lead)}
    lasts = None if commitment is None else _seconds("commitment", commitment)
    if not 0 < quantile < 1:
        raise BadInputError(f"--quantile: expected a number between 0 and 1, got {quantile:g}")
    if train_days is not None and not train_days > 0:
        raise BadInputError(f"--train-days: expected a positive number, got {train_days:g}")
    names = listed("model", model)
    _check_known(names)
    traffic = _traffic(trace, config, gaps)
    if time_zone is not None:
        traffic = replace(traffic, calendar=replace(traffic.calendar, time_zone=time_zone))
    plan = _plan(traffic.history, leads, lasts, quantile, train_days)
    contenders = [_contender(name, traffic.calendar) for name in names]
    judged = _judge_all(contenders, plan)
    if json_out is not None:
        write_json(document(plan, leads, judged), json_out)
    if html is not None:
        write_text(html, render_backtest(plan, traffic.calendar, judged))
    if json_out != "-":
        _print(plan, judged)


def document(
    plan: RollingOrigin, leads: dict[str, float], judged: list[list[Judged]]
) -> dict[str, Any]:
    """As the contract lays it down for one lead; with several, all of them stand in `leads` too.

    Figures that are not known are null.
    """
    scored = [
        {
            "lead_seconds": seconds,
            "quantile": plan.levels[0],
            "models": [_row(windows[column]) for windows in judged],
        }
        for column, seconds in enumerate(leads.values())
    ]
    trace = {
        "name": plan.history.series,
        "start": plan.history.start.isoformat(),
        "scored_from": plan.scored_from.isoformat(),
        "end": plan.scored_until.isoformat(),
        "step_seconds": plan.history.step_seconds,
    }
    return {"trace": trace, **scored[0], **({"leads": scored} if len(scored) > 1 else {})}


def _row(judged: Judged) -> dict[str, Any]:
    found, level = judged.score, judged.score.levels[0]
    return {
        "model": judged.model,
        "wape": _or_null(found.wape),
        "pinball": _or_null(level.pinball),
        "coverage": _or_null(level.coverage),
        "fit_seconds": _or_null(judged.fit_seconds),
        "predict_seconds": _or_null(judged.predict_seconds),
        "points": found.points,
        "failures": found.failures,
    }


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _seconds(option: str, text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None:
        raise BadInputError(f"--{option}: expected a time such as 90s, 5m, 1h or 1d, got {text!r}")
    return float(found[1]) * UNITS[found[2] or "s"]


def _check_known(names: list[str]) -> None:
    for name in names:
        if name not in known_models():
            there = ", ".join(known_models())
            raise BadInputError(f"--model: {name!r} is not a model; there are {there}")


def _contender(name: str, calendar: Calendar) -> Contender:
    try:
        return contender(name, calendar)
    except MissingToolError as error:
        raise BadInputError(f"--model: {error}") from error


def _traffic(trace: Path | None, config: Path | None, gaps: Path | None) -> Traffic:
    if (trace is None) == (config is None):
        raise BadInputError("give exactly one of --trace and --config")
    found = Traffic(trace_from(trace), Calendar()) if trace else _recorded(config)
    if gaps is None:
        return found
    stretches = gaps_of(gaps, found.history.series)
    return Traffic(emptied(found.history, stretches), found.calendar)


def _recorded(config: Path | None) -> Traffic:
    assert config is not None
    settings = load_settings(config)
    history = recorded_history(config, settings).value
    return Traffic(history, settings.workloads[0].traffic_calendar())


def _plan(
    history: TrafficHistory,
    leads: dict[str, float],
    lasts: float | None,
    quantile: float,
    train_days: float | None,
) -> RollingOrigin:
    step = history.step_seconds
    windows = [
        target_window(name, seconds, step if lasts is None else lasts, step)
        for name, seconds in leads.items()
    ]
    try:
        return rolling_origin(history, windows, (quantile,), train_days)
    except (ValueError, ForecastError) as error:
        raise BadInputError(f"{history.series}: {error}") from error


def _judge_all(contenders: list[Contender], plan: RollingOrigin) -> list[list[Judged]]:
    stopwatch = SystemClock().monotonic
    with _progress(contenders, plan) as told:
        return [judge(each, plan, stopwatch, told(index)) for index, each in enumerate(contenders)]


@contextmanager
def _progress(
    contenders: list[Contender], plan: RollingOrigin
) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """A bar for each model; nothing in a pipe."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = [
            progress.add_task(
                each.name, total=len(plan.origins) * (len(plan.windows) if each.one_window else 1)
            )
            for each in contenders
        ]
        yield lambda index: lambda answered: progress.advance(tasks[index], answered)


def _print(plan: RollingOrigin, judged: list[list[Judged]]) -> None:
    console = Console(highlight=False)
    until = f"{plan.scored_until:%d %b %Y}"
    console.print(f"{plan.history.series}, {plan.scored_from:%d %b %Y} to {until}", markup=False)
    for column, window in enumerate(plan.windows):
        alike = [windows[column] for windows in judged]
        console.print(_table(f"{window.name} ahead", plan.levels[0], alike))
        for one in alike:
            if one.score.failures:
                total = one.score.points + one.score.failures
                console.print(f"{one.model}: no answer to {one.score.failures:,} of {total:,}")
    for windows in judged:
        if errors := windows[0].errors:
            shown = "; ".join(errors[:SHOWN_ERRORS])
            console.print(f"{windows[0].model}: {shown}", markup=False)


def _table(title: str, level: float, judged: list[Judged]) -> Table:
    """Narrow enough for eighty columns."""
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    headings = ("model", "WAPE", f"loss {level:g}", "covered", "steepest", "fit", "forecast")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for one in judged:
        scored = one.score.levels[0]
        table.add_row(
            one.model,
            _share(one.score.wape),
            _share(scored.pinball, 2),
            _share(scored.coverage),
            _share(scored.coverage_steepest),
            _duration(one.fit_seconds),
            _duration(one.predict_seconds),
        )
    return table


def _share(value: float, digits: int = 1) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}%}" if value < 10 else "> 1000%"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"
