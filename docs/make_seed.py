"""Write docs/seed.md, the table of `daybreak reproduce seed` (`make docs`)."""

from __future__ import annotations

from pathlib import Path

from bench.run import machine
from scaler.cli.output import configure_logs
from simulator.seed import Row, reproduce

PAGE = Path(__file__).parent / "seed.md"
READING = (
    "With equal pods round robin does as well as power of two choices: a batch of hundreds",
    "evens everything out. The difference comes with slow pods, and with connections that are",
    "pinned to pods, which is what Kubernetes does by default. What prediction is worth stands in",
    "the last rows, against a reactive policy whose utilization was chosen in hindsight, in steps",
    "of five points.",
)


def main() -> None:
    configure_logs("warning")
    lines = [
        "# The seed case, reproduced",
        "",
        f"Written by `make docs`, which runs `daybreak reproduce seed`, on: {machine()}. The pod",
        "profiles are fits to published figures, not measurements of a real vLLM.",
        "",
        "| claim | with | pods | GPU-hours | P99 | late | bad | note |",
        "|---|---|---|---|---|---|---|---|",
        *map(line, reproduce()),
        "",
        *READING,
        "",
    ]
    PAGE.write_text("\n".join(lines))


def line(row: Row) -> str:
    cells = (
        row.claim,
        row.setting,
        shown(row.pods, "{:,}"),
        shown(row.pod_hours, "{:,.0f}"),
        shown(row.p99_seconds, "{:.3f} s"),
        shown(row.late_ratio, "{:.2%}"),
        shown(row.bad_ratio, "{:.4%}"),
        row.note,
    )
    return f"| {' | '.join(cells)} |"


def shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


if __name__ == "__main__":
    main()
