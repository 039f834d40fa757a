"""Who is cheapest at a bad ratio: wins, ties, losses, and nobody."""

from __future__ import annotations

from simulator.sweep.results import Point
from simulator.sweep.standings import standings, undominated, verdict


def point(policy: str, hours: float, bad_ratio: float) -> Point:
    return Point(policy, "targetQps", 1.0, hours, hours / 1000 - 1, bad_ratio, 0)


CLEAR = [
    point("predictive", 1500, 1e-4),
    point("predictive", 1400, 9e-4),
    point("hpa", 1600, 0),
    point("hpa", 1450, 1e-3),
    point("static", 3000, 0),
]


def test_the_cheapest_setting_that_keeps_the_level_counts() -> None:
    found = [(each.policy, each.point and each.point.pod_hours) for each in standings(CLEAR, 1e-3)]
    assert found == [("predictive", 1400), ("hpa", 1450), ("static", 3000)]


def test_a_win_is_told_in_gpu_hours() -> None:
    assert verdict(CLEAR, "1e-4") == (
        "At a bad ratio of 1e-4 predictive is cheapest: 1,500 GPU-hours, 100 fewer than hpa "
        "(-6.2%) and 1,500 fewer than static (-50.0%)."
    )


def test_a_loss_is_told_alike() -> None:
    lost = [point("predictive", 1500, 0), point("hpa", 1200, 0)]
    assert verdict(lost, "1e-4") == (
        "At a bad ratio of 1e-4 hpa is cheapest: 1,200 GPU-hours, 300 fewer than predictive "
        "(-20.0%)."
    )


def test_less_than_a_percent_is_a_tie() -> None:
    tied = [point("predictive", 1500, 0), point("hpa", 1495, 0), point("static", 1600, 0)]
    assert verdict(tied, "1e-3") == (
        "At a bad ratio of 1e-3 hpa and predictive tie at 1,495 and 1,500 GPU-hours, 105 fewer "
        "than static (-6.6%)."
    )


def test_who_does_not_arrive_is_named() -> None:
    some = [point("predictive", 1500, 0), point("hpa", 1200, 1e-2), point("static", 1, 0.5)]
    assert verdict(some, "1e-4") == (
        "At a bad ratio of 1e-4 predictive is cheapest: 1,500 GPU-hours. No setting of hpa or "
        "static keeps it."
    )
    assert verdict(some[1:], "1e-4") == ("No setting of hpa or static keeps a bad ratio of 1e-4.")
    assert [each.policy for each in standings(some, 1e-4)] == ["predictive", "hpa", "static"]


def test_the_frontier_is_what_nobody_beats_in_both() -> None:
    assert [each.pod_hours for each in undominated(CLEAR)] == [1400, 1500, 1600]
    same = [point("a", 10, 0), point("b", 10, 0)]
    assert [each.policy for each in undominated(same)] == ["a"]
