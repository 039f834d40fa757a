"""Write the README's table and pictures from a run of the demo (`make docs`)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import vl_convert as vlc

from docs.browser import find_browser, photograph
from scaler.cli.output import configure_logs
from scaler.demo.report import LABELS, audit_report
from scaler.demo.service import WORKLOAD, demo_settings, run_demo, scenario
from scaler.status_server import StatusServer, build_app
from scaler.wiring import Watch, open_log
from simulator.clock import VirtualClock
from simulator.scorecard import Scorecard
from storage.reports import charts
from storage.reports.report import AuditReport, render_html

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"


PHONE, DESK = 360, 1280
SHOWN_AFTER = timedelta(hours=15, minutes=17)
"""When the live page is photographed: within the surge that nobody could foresee."""


def main() -> None:
    configure_logs("warning")
    find_browser()
    with tempfile.TemporaryDirectory() as folder:
        settings = demo_settings(f"sqlite:///{folder}/demo.db", days=1)
        engine = open_log(settings.database.resolved_url())
        plan = scenario(days=1)
        clock = VirtualClock(plan.starts_at)
        watch = Watch(settings, clock)
        app = build_app(engine, watch.registry, watch.unready, now=clock.now)
        server = StatusServer(app, "127.0.0.1", 0)
        server.start()
        shown_at = plan.starts_at + SHOWN_AFTER
        run = run_demo(settings, plan, engine, watch, clock, live_pictures(server.url, shown_at))
        server.stop()
        report = audit_report(run, engine)
        (DOCS / "demo.png").write_bytes(picture(report))
        page = Path(folder) / "report.html"
        page.write_text(render_html(report), encoding="utf-8")
        photograph(page.as_uri(), DOCS / "report.png", DESK, 1330)
        photograph(page.as_uri(), DOCS / "report-phone.png", PHONE, 1330)
    text = README.read_text()
    block = f"<!-- demo:begin (make docs) -->\n{table(run.scorecards)}<!-- demo:end -->"
    README.write_text(re.sub(r"<!-- demo:begin.*demo:end -->", block, text, flags=re.DOTALL))


def live_pictures(url: str, shown_at: datetime) -> Callable[[datetime], None]:
    """What is called before each moment of the demo: at one of them the live page is
    photographed."""
    page = f"{url.rstrip('/')}/workloads/{WORKLOAD}?window=1h"
    left = [("live.png", DESK, 1330), ("live-phone.png", PHONE, 1330)]

    def pace(at: datetime) -> None:
        while left and at >= shown_at:
            name, width, height = left.pop()
            photograph(page, DOCS / name, width, height)

    return pace


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
