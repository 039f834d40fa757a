"""What `bench.audit` measured, as a part of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from bench.parts import set_part
from bench.run import machine

Found = dict[str, Any]
TARGETS = {"month": "under 10 s and 1 GiB", "day": ""}


def write_part(found: Found) -> None:
    """Each thing that was measured is a part of its own; what was not keeps what stands of it."""
    databases = {"SQLite": found.get("sqlite"), "PostgreSQL": found.get("postgresql")}
    measured = {name: one for name, one in databases.items() if one}
    if measured:
        set_part("audit", HEAD.format(**_when()) + "\n".join(_large(measured)))
    if "tampering" in found:
        set_part("audit-tampering", "\n".join(_tampering(found["tampering"])))
    if "fleet" in found:
        set_part("audit-fleet", "\n".join(_fleet(found["fleet"])))
    if "fleet-week" in found:
        set_part("fleet-week", _fleet_week(found["fleet-week"]))


HEAD = """## The audit of a large log

Written by `python -m bench.audit --write` on {day}: {machine}. One workload, a decision every 5
seconds; a week of real decisions told again for every week, each with its outcome, chained and
summed up. Times are those of a clock, of a report the median of five and the span; memory is a
command's own with that of the largest process that it starts.

"""


def _when() -> dict[str, str]:
    return {"day": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}


def _large(databases: dict[str, Found]) -> Iterator[str]:
    each = list(databases.values())
    yield _row("", *databases, "target")
    yield "|" + "---|" * (len(each) + 2)
    yield _row("decisions in the log", *(f"{one['decisions']:,}" for one in each), "12.6 million")
    yield _row("size of the log", *(f"{one['gib']:.1f} GiB" for one in each), "")
    verified = max(one["verified"] for one in each)
    seconds = (f"{one['verify_seconds']:.0f} s, all equal" for one in each)
    yield _row(f"`verify` of {verified:,} decisions", *seconds, "all equal")
    for period in ("day", "month"):
        told = (_told(one[period]) for one in each)
        yield _row(f"`report` of a {period}", *told, TARGETS[period])
    for name in each[0]["live_ms"]:
        told = (f"{one['live_ms'][name]} ms" for one in each)
        yield _row(f"live page: {name}", *told, "under 50 ms")
    yield ""
    pruned = each[0].get("pruned")
    if pruned:
        yield (
            f"Pruning {pruned:,} decisions of the {next(iter(databases))} log took "
            f"{each[0]['prune_seconds']:,.0f} s; the slowest query of the live page took "
            f"{each[0]['live_after_pruning_ms']['slowest run']} ms afterwards.\n"
        )


def _told(report: Found) -> str:
    every = report["every"]
    span = f" ({min(every)} to {max(every)})" if len(every) > 1 else ""
    return f"{report['seconds']} s{span}, {report['peak_gib']} GiB"


def _tampering(found: Found) -> Iterator[str]:
    yield "### Tampering with a log of 100,000 decisions\n"
    yield "On {day}: {machine}.\n".format(**_when())
    yield _row("what was done to decision 61,803", "what `verify` says", "took")
    yield "|---|---|---|"
    for name, one in found.items():
        yield _row(name, one["found"], f"{one['seconds']:.0f} s")
    yield ""


def _fleet(found: Found) -> Iterator[str]:
    each = found["decisions"] / found["sum_up_seconds"]
    report = found["report"]
    yield "### A thousand workloads\n"
    yield (
        f"On {datetime.now(UTC):%Y-%m-%d}: "
        f"1,000 workloads for two hours at 5 seconds ({found['decisions']:,} decisions, a "
        f"84th of a week) on SQLite: summing up from nothing took {found['sum_up_seconds']:.0f} s "
        f"({each:,.0f} decisions a second; the daemon sums up each minute as it goes), the "
        f"slowest query of a workload's live page {found['live_ms']['slowest run']} ms, the report "
        f"of all {report['seconds']} s and {report['peak_gib']} GiB, pruning "
        f"{found['pruned']:,} decisions {found['prune_seconds']:.0f} s "
        f"({found['pruned'] / found['prune_seconds']:,.0f} a second)."
    )


def _fleet_week(found: Found) -> str:
    report, each = found["report"], found["report"]["seconds"] / found["workloads"]
    return (
        f"### A week of a thousand workloads\n\n"
        f"Written by `python -m bench.audit --parts fleet-week --write` on "
        f"{datetime.now(UTC):%Y-%m-%d}: {machine()}, with other work on the machine. "
        f"{found['workloads']:,} workloads with a week of minutes each ({found['minutes']:,} rows, "
        f"{found['gib']:.0f} GiB of SQLite), each the same week under a name of its own; their "
        f"decisions are pruned but for the newest, so that no decision is taken again. "
        f"`report --period week --html` over all of them: {report['seconds']:.0f} s "
        f"({each:.2f} s a workload), {report['peak_gib']} GiB with the largest process that it "
        f"starts, a page of {report['html_mib']} MiB with ten workloads told whole."
    )


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
