"""How the report says things to people."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from storage.reports.report import FleetRow
from storage.reports.summary import fleet_headline, seconds, stretch


def test_a_stretch_over_new_year_names_both_years() -> None:
    """Else December would come after the January that it ends in."""
    december, january = datetime(2004, 12, 17, 9, 30, tzinfo=UTC), datetime(2005, 1, 27, tzinfo=UTC)
    assert stretch(december, january) == "17 Dec 2004 09:30 to 27 Jan 2005 00:00 UTC"
    assert stretch(january, january) == "27 Jan 00:00 to 27 Jan 2005 00:00 UTC"


def row(name: str, optimum: float | None, burn: float | None, met: bool | None) -> FleetRow:
    since = datetime(2026, 3, 16, tzinfo=UTC)
    return FleetRow(
        workload=name,
        since=since,
        until=since + timedelta(days=1),
        pod_hours=120.0,
        clairvoyant_pod_hours=optimum,
        cost=None,
        excess=None,
        burn=burn,
        met=met,
        minutes_over=0,
        changes=0,
        covered=timedelta(days=1),
    )


def test_a_fleet_keeps_its_objective_only_where_each_is_known_to() -> None:
    """A workload without a known demand has no optimum and no verdict: it adds to neither."""
    good, blind = row("a", 100.0, 0.5, True), row("b", None, None, None)
    both = fleet_headline([good, blind])
    assert "used 240 GPU-hours; where demand is known, +20" in both
    assert "Of 1 of them nothing certain can be said." in both
    alone = fleet_headline([good, good])
    assert "used 240 GPU-hours, +20" in alone
    assert alone.endswith("All kept their objective.")
    bad, unsure = row("c", 100.0, 9.0, False), row("d", 100.0, 9.0, None)
    told = fleet_headline([good, bad, unsure, blind])
    assert "1 of them overspent their error budget, 1 may have overspent it and of 1 of" in told
    assert fleet_headline([blind]).count("optimum") == 0


@pytest.mark.parametrize(
    ("hours", "covered", "told"),
    [
        (24, (24, 24), "Over 24 hours 2 workloads"),
        (24, (4, 4), "Over the 4 of 24 hours that the log covers 2 workloads"),
        (24, (1 / 30, 1 / 30), "Over the 2 min of 24 hours that the log covers 2 workloads"),
        (
            24,
            (0.5, 2),
            "Over 24 hours, of which the log covers 30 min to 2 h for each, 2 workloads",
        ),
        (240, (7.5, 7.5), "Over the 7 h 30 min of 10 days that the log covers 2 workloads"),
        (1 / 6, (1 / 6, 1 / 6), "Over 10 minutes 2 workloads"),
        (1 / 6, (1 / 12, 1 / 12), "Over the 5 of 10 minutes that the log covers 2 workloads"),
        (24, (24, 4), "Over 24 hours, of which the log covers 4 to 24 for each, 2 workloads"),
        (240, (48, 48), "Over the 2 of 10 days that the log covers 2 workloads"),
        (1, (1, 1), "Over 1 hour 2 workloads"),
    ],
)
def test_the_headline_names_the_time_that_the_log_covers(
    hours: float, covered: tuple[float, float], told: str
) -> None:
    one = row("a", 100.0, 0.5, True)
    rows = [
        replace(one, until=one.since + timedelta(hours=hours), covered=timedelta(hours=span))
        for span in covered
    ]
    assert fleet_headline(rows).startswith(told)


@pytest.mark.parametrize(
    ("value", "told"), [(1.0006, "1.001"), (0.9999, "1"), (1.0, "1"), (1.2345, "1.23")]
)
def test_a_latency_is_told_on_its_side_of_the_objective(value: float, told: str) -> None:
    """Else a minute over 1 s would be shown as one of 1 s."""
    assert seconds(value, 1.0) == f"{told}\N{NARROW NO-BREAK SPACE}s"
    assert seconds(None, 1.0) == "\N{EM DASH}"
