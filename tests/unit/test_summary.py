"""How the report says things to people."""

from __future__ import annotations

from datetime import UTC, datetime

from storage.reports.summary import stretch


def test_a_stretch_over_new_year_names_both_years() -> None:
    """Else December would come after the January that it ends in."""
    december, january = datetime(2004, 12, 17, 9, 30, tzinfo=UTC), datetime(2005, 1, 27, tzinfo=UTC)
    assert stretch(december, january) == "17 Dec 2004 09:30 to 27 Jan 2005 00:00 UTC"
    assert stretch(january, january) == "27 Jan 00:00 to 27 Jan 2005 00:00 UTC"
