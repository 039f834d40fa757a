"""The seed case's claims, as `daybreak reproduce seed` finds them."""

from __future__ import annotations

import pytest

from simulator.seed import balancers, fleets, saturation


@pytest.mark.parametrize(("row", "claimed"), [(0, 1200), (1, 750)])
def test_a_pod_saturates_within_two_percent_of_the_claim(row: int, claimed: int) -> None:
    note = saturation()[row].note
    served = float(note.split()[2].replace(",", ""))
    assert served == pytest.approx(claimed, rel=0.02)


def test_the_pods_that_are_counted_keep_the_objective_at_the_peak() -> None:
    rows = fleets()
    assert [row.pods for row in rows] == [186, 387, 871]
    for row in rows:
        assert row.p99_seconds is not None
        assert 0.95 < row.p99_seconds < 1.0
        assert row.bad_ratio == 0


def test_balancing_matters_where_pods_differ_or_connections_are_pinned() -> None:
    p99 = {row.setting: row.p99_seconds or 0.0 for row in balancers()}
    assert p99["p2c, equal pods"] == pytest.approx(p99["round_robin, equal pods"], rel=0.01)
    assert p99["pinned, equal pods"] > 1.1 * p99["p2c, equal pods"]
    slow = "10 % of pods 1.5 times slower"
    assert p99[f"p2c, {slow}"] < 1.0
    assert p99[f"round_robin, {slow}"] > 1.5
    assert p99[f"pinned, {slow}"] > 1.5
