"""`daybreak reproduce`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from scaler.cli.command import careful
from scaler.cli.output import (
    JsonOption,
    configure_logs,
    output_option,
    write_json,
    write_text,
)
from simulator.seed import Row
from simulator.seed import reproduce as reproduce_seed

reproduce = typer.Typer(help="Published claims, reproduced.", no_args_is_help=True)


@reproduce.callback()
def _group() -> None:
    """Published claims, reproduced."""


@reproduce.command()
@careful
def seed(
    json_out: JsonOption = None,
    html: Annotated[Path | None, output_option(help_text="Write a page here.")] = None,
) -> None:
    """The seed case: 200,000 requests a second on H100 pods, in one table.

    Example: daybreak reproduce seed --html seed.html
    """
    configure_logs("warning")
    console = Console(stderr=True)
    with console.status("simulating") as status:
        rows = reproduce_seed(lambda step: status.update(f"simulating: {step}"))
    if json_out is not None:
        write_json({"rows": [asdict(row) for row in rows]}, json_out)
    if html is not None:
        from simulator.report import render_rows  # noqa: PLC0415  # brings the charts

        write_text(html, render_rows("The seed case, reproduced", rows))
    if json_out != "-":
        Console(width=130).print(_table(rows))


def _table(rows: list[Row]) -> Table:
    table = Table(title="The seed case, reproduced")
    for heading in ("claim", "with", "pods", "GPU-h", "P99", "late", "bad", "note"):
        table.add_column(
            heading, justify="left" if heading in ("claim", "with", "note") else "right"
        )
    for row in rows:
        table.add_row(
            row.claim,
            row.setting,
            _shown(row.pods, "{:,}"),
            _shown(row.pod_hours, "{:,.0f}"),
            _shown(row.p99_seconds, "{:.3f} s"),
            _shown(row.late_ratio, "{:.2%}"),
            _shown(row.bad_ratio, "{:.4%}"),
            row.note,
        )
    return table


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
