"""Write the README's table and picture from a run of the demo (`make docs`)."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import vl_convert as vlc

from scaler.cli.output import configure_logs
from scaler.demo.report import LABELS, audit_report
from scaler.demo.service import demo_settings, run_demo, scenario
from scaler.wiring import Watch, open_log
from simulator.clock import VirtualClock
from simulator.scorecard import Scorecard
from storage.reports import charts
from storage.reports.report import AuditReport

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"


def main() -> None:
    configure_logs("warning")
    with tempfile.TemporaryDirectory() as folder:
        settings = demo_settings(f"sqlite:///{folder}/demo.db", days=1)
        engine = open_log(settings.database.resolved_url())
        plan = scenario(days=1)
        clock = VirtualClock(plan.starts_at)
        run = run_demo(settings, plan, engine, Watch(settings, clock), clock, lambda _: None)
        (DOCS / "demo.png").write_bytes(picture(audit_report(run, engine)))
    text = README.read_text()
    block = f"<!-- demo:begin (make docs) -->\n{table(run.scorecards)}<!-- demo:end -->"
    README.write_text(re.sub(r"<!-- demo:begin.*demo:end -->", block, text, flags=re.DOTALL))


def table(scorecards: tuple[Scorecard, ...]) -> str:
    lines = [
        "| one day, the same arrivals | GPU-hours | over the optimum | bad requests | P99 |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {LABELS[card.policy]} | {card.pod_hours:,.0f} | {card.excess:+.1%} | "
        f"{card.bad_ratio:.4%} | {card.p99_seconds * 1000:,.0f} ms |"
        for card in scorecards
    ]
    return "\n".join(lines) + "\n"


def picture(report: AuditReport) -> bytes:
    svg = charts.traffic(report.line, report.objective.qps_per_replica, charts.LAYOUTS["wide"])
    # The chart itself is transparent; on a dark page its text would not be read.
    opening, rest = svg.split(">", 1)
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return vlc.svg_to_png(f"{opening}>{ground}{rest}", scale=2)


if __name__ == "__main__":
    main()
