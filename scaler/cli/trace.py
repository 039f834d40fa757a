"""`daybreak trace`: real formats in, synthetic days, what-if edits, and what a trace is like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from forecaster.history import TrafficHistory
from scaler.cli.command import careful
from scaler.cli.output import (
    BadInputError,
    JsonOption,
    iso_time,
    moment,
    output_option,
    progress_bar,
    seed_option,
    trace_from,
    write_json,
)
from simulator.traces import edit
from simulator.traces.generate import Diurnal, generate
from simulator.traces.importers import IMPORTERS
from simulator.traces.trace_file import write_trace

trace = typer.Typer(help="Traces: import, generate, edit, describe.", no_args_is_help=True)

MOST = 1e6
"""Of what one number of an edit may be: minutes, hours, or times the rate."""
BEYOND_THE_CALENDAR = "beyond the year 9999"
OutOption = Annotated[Path, output_option("--out", help_text="Trace CSV to write.")]
TraceArgument = Annotated[Path, typer.Argument(help="Trace CSV.")]


@trace.command("import")
@careful
def import_trace(
    source: Annotated[Path, typer.Argument(help="File in another format.")],
    kind: Annotated[str, typer.Option(help=f"{', '.join(IMPORTERS)}.")],
    out: OutOption,
    step_seconds: Annotated[int, typer.Option(help="Step of the trace.", min=1, max=86_400)] = 60,
) -> None:
    """Turn a request log or a Prometheus range into a trace; a log may be larger than memory.

    Example: daybreak trace import requests.csv --kind burstgpt --out trace.csv
    """
    if kind not in IMPORTERS:
        raise BadInputError(f"--kind: expected one of {', '.join(IMPORTERS)}, got {kind!r}")
    with progress_bar(f"reading {source.name}", transient=True) as on_progress:
        found = IMPORTERS[kind](source, step_seconds, on_progress)
    write_trace(found, out)


@trace.command("generate")
@careful
def generate_trace(
    out: OutOption,
    days: Annotated[int, typer.Option(help="How many.", min=1, max=1000)] = 15,
    start: Annotated[
        str, typer.Option(help="First moment, UTC; the curve is by the clock.")
    ] = "2026-03-02",
    peak_qps: Annotated[
        float,
        typer.Option(help="Top of a weekday's curve; noise comes on top.", min=0.001, max=1e12),
    ] = 200_000.0,
    night_ratio: Annotated[
        float, typer.Option(help="The lowest rate of a day, as a share of it.", min=0, max=1)
    ] = 0.18,
    weekend_ratio: Annotated[
        float, typer.Option(help="A day off, as a share of a weekday.", min=0, max=10)
    ] = 0.75,
    noise: Annotated[
        float, typer.Option(help="Of each minute, in log rate (standard deviation).", min=0, max=2)
    ] = 0.02,
    seed: Annotated[int, seed_option("Of the noise.")] = 0,
) -> None:
    """Make the days of a diurnal service by the minute; the same options give the same file.

    Example: daybreak trace generate --days 15 --peak-qps 200000 --out day.csv
    """
    shape = Diurnal(peak_qps, night_ratio, weekend_ratio, noise)
    try:
        made = generate(shape, moment("--start", start), days, seed)
    except OverflowError as error:
        told = f"--start: {days} days from {start!r} on would go on {BEYOND_THE_CALENDAR}"
        raise BadInputError(told) from error
    write_trace(made, out)


@trace.command("edit")
@careful
def edit_trace(
    source: TraceArgument,
    out: OutOption,
    peak_qps: Annotated[float | None, typer.Option(help="Scale to this peak.", min=0.001)] = None,
    stretch: Annotated[float | None, typer.Option(help="Times the duration.")] = None,
    append: Annotated[Path | None, typer.Option(help="Trace to put behind it.")] = None,
    start: Annotated[str | None, typer.Option(help="Keep from here.")] = None,
    end: Annotated[str | None, typer.Option(help="Keep until here.")] = None,
    surge: Annotated[
        list[str] | None, typer.Option(help="TIME,RATIO,RISE_MINUTES,FADE_MINUTES")
    ] = None,
    outage: Annotated[list[str] | None, typer.Option(help="TIME,MINUTES,REMAINING_RATIO")] = None,
    launch: Annotated[list[str] | None, typer.Option(help="TIME,RATIO,RAMP_MINUTES")] = None,
    holiday: Annotated[list[str] | None, typer.Option(help="DAY,RATIO")] = None,
    clock_change: Annotated[list[str] | None, typer.Option(help="TIME,HOURS")] = None,
) -> None:
    """Change a trace: cut, stretch, append, add surges, outages, launches, holidays; scaled last.

    Example: daybreak trace edit day.csv --surge 2026-03-16T15:00Z,1.5,10,30 --out surge.csv
    """
    try:
        edited = edit.cut(trace_from(source), iso_time("--start", start), iso_time("--end", end))
        edited = edited if stretch is None else edit.stretched(edited, stretch)
        edited = edited if append is None else edit.spliced(edited, trace_from(append))
        edited = _changed(edited, "surge", surge, _Change(3, _with_surge))
        edited = _changed(edited, "outage", outage, _Change(2, edit.with_outage))
        edited = _changed(edited, "launch", launch, _Change(2, edit.with_launch))
        edited = _changed(edited, "holiday", holiday, _Change(1, edit.with_holiday))
        clocks = _Change(1, edit.with_clock_change, low=-24.0, high=24.0)
        edited = _changed(edited, "clock-change", clock_change, clocks)
        edited = edited if peak_qps is None else edit.scaled_to_peak(edited, peak_qps)
    except ValueError as error:
        raise BadInputError(str(error)) from error
    except OverflowError as error:
        raise BadInputError(f"{source}: as edited it would go on {BEYOND_THE_CALENDAR}") from error
    write_trace(replace(edited, series=out.stem), out)


@trace.command("describe")
@careful
def describe_trace(source: TraceArgument, json_out: JsonOption = None) -> None:
    """Say what a trace is like: span, peak, gaps, daily and weekly likeness.

    Example: daybreak trace describe day.csv
    """
    facts = describe(trace_from(source))
    if json_out is not None:
        write_json(facts, json_out)
        return
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):<28}{value}")


def describe(found: TrafficHistory) -> dict[str, str | float | int | None]:
    """Likeness is the correlation with the same clock time a day or a week before."""
    known = found.values[np.isfinite(found.values)]
    if not len(known):
        raise BadInputError(f"trace {found.series}: holds no known step")
    return {
        "name": found.series,
        "start": found.start.isoformat(),
        "end": found.end.isoformat(),
        "step_seconds": found.step_seconds,
        "steps": len(found),
        "gaps": len(found) - len(known),
        "mean_qps": round(float(known.mean()), 3),
        "peak_qps": round(float(known.max()), 3),
        "lowest_qps": round(float(known.min()), 3),
        "likeness_day": _likeness(found, timedelta(days=1)),
        "likeness_week": _likeness(found, timedelta(days=7)),
    }


def _likeness(found: TrafficHistory, back: timedelta) -> float | None:
    steps = int(back.total_seconds()) // found.step_seconds
    if steps == 0 or len(found) < 2 * steps:
        return None
    now, before = found.values[steps:], found.values[:-steps]
    both = np.isfinite(now) & np.isfinite(before)
    if both.sum() < 3 or np.ptp(now[both]) == 0 or np.ptp(before[both]) == 0:
        return None
    return round(float(np.corrcoef(now[both], before[both])[0, 1]), 3)


@dataclass(frozen=True, slots=True)
class _Change:
    """An edit at a time with so many numbers, each within bounds."""

    count: int
    make: Callable[..., TrafficHistory]
    low: float = 0.0
    high: float = MOST


def _changed(
    found: TrafficHistory, option: str, texts: list[str] | None, change: _Change
) -> TrafficHistory:
    """The trace with a change as often as its option was given; raises BadInputError."""
    for text in texts or []:
        at, numbers = _parts(option, text, change)
        try:
            found = change.make(found, at, *numbers)
        except ValueError as error:
            raise BadInputError(f"--{option} {text}: {error}") from error
    return found


def _with_surge(
    found: TrafficHistory, at: datetime, ratio: float, rise_minutes: float, fade_minutes: float
) -> TrafficHistory:
    """In the order in which the option has them."""
    return edit.with_surge(found, at, rise_minutes, fade_minutes, ratio)


def _parts(option: str, text: str, change: _Change) -> tuple[datetime, list[float]]:
    """A time and the numbers of a change, as one option carries them."""
    count, low, high = change.count, change.low, change.high
    time, *numbers = text.split(",")
    try:
        found = [float(number) for number in numbers]
    except ValueError:
        found = []
    if len(found) != count or not all(low <= number <= high for number in found):
        numbers_words = f"{count} number{'s' * (count > 1)} from {low:g} to {high:g}"
        raise BadInputError(
            f"--{option}: expected a time and {numbers_words}, separated by commas, got {text!r}"
        )
    return moment(f"--{option}", time), found
