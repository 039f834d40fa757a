"""What the demo shows in a terminal while it runs."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from scaler.band import forecast_band
from scaler.loop import TickResult
from scaler.rounds import Failure

BLOCKS = " ▁▂▃▄▅▆▇█"
SPARK_MINUTES = 20
SPARK_COLUMNS = 72


class DemoScreen:
    """A live panel on a terminal; silent in a pipe."""

    def __init__(self, console: Console, starts_at: datetime, until: datetime, note: str) -> None:
        self._starts_at = starts_at
        self._note = note
        self._last: TickResult | None = None
        self._demand: deque[float] = deque(maxlen=SPARK_COLUMNS)
        self._next_mark = starts_at
        self._progress = Progress(
            TextColumn("{task.fields[virtual]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
        )
        total = (until - starts_at).total_seconds()
        self._task = self._progress.add_task("day", total=total, virtual="")
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=8)
        self._shown = console.is_terminal

    def __enter__(self) -> DemoScreen:
        if self._shown:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._live.stop()

    def after_tick(self, result: TickResult | Failure) -> None:
        if isinstance(result, Failure):
            return
        self._last = result
        now = result.context.now
        if now >= self._next_mark and result.context.demand_qps is not None:
            self._demand.append(result.context.demand_qps)
            self._next_mark += timedelta(minutes=SPARK_MINUTES)
        self._progress.update(
            self._task,
            completed=(now - self._starts_at).total_seconds(),
            virtual=f"{now:%a %H:%M} UTC",
        )

    def _draw(self) -> Group:
        figures = _figures(self._last) if self._last else Text("fitting the forecast ...")
        spark = Text(_spark(list(self._demand)), style="cyan")
        panel = Panel(Group(figures, Text("demand"), spark), title="daybreak demo")
        return Group(panel, self._progress, Text(self._note, style="dim"))


def _figures(result: TickResult) -> Table:
    context, decision = result.context, result.decision
    table = Table.grid(padding=(0, 2))
    table.add_row("demand", _rate(context.demand_qps))
    table.add_row("forecast one cold start ahead", _band(result))
    replicas = context.replicas
    table.add_row(
        "replicas",
        f"{replicas.ready} ready, {len(replicas.starting)} starting, {replicas.draining} draining"
        f" -> {decision.desired} desired",
    )
    p99 = context.observation.latency_p99_seconds
    table.add_row("P99", "not known" if p99 is None else f"{p99 * 1000:,.0f} ms")
    table.add_row("why", f"{decision.reason.value}: {decision.steps[-1].message}")
    return table


def _band(result: TickResult) -> str:
    forecast, band = result.context.forecast, forecast_band(result.context)
    if forecast is None or band is None:
        return "none yet: reactive"
    trust = "" if forecast.trusted else " (not trusted)"
    between = f"between {_rate(band.low_qps)} and {_rate(band.high_qps)}"
    return f"{_rate(band.median_qps)} ({between}){trust}"


def _rate(qps: float | None) -> str:
    return "not known" if qps is None else f"{qps:,.0f} requests/s"


def _spark(values: list[float]) -> str:
    top = max(values, default=0.0) or 1.0
    return "".join(BLOCKS[round(value / top * (len(BLOCKS) - 1))] for value in values)
