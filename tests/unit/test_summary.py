"""How the report says things to people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage.reports.report import FleetRow
from storage.reports.summary import fleet_headline, stretch


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
