"""Choosing on some days, checking on others, and what the days allow to be said."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scaler.cli.tuned_file import changed_settings, example_settings
from scaler.settings import Settings, Workload, load_settings
from simulator.fleet import FleetSettings
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pod import PROFILES, profile_like
from simulator.replay import Scenario
from simulator.sweep import loop
from simulator.sweep.frontier import PEERS, TARGETS, World, plan_of
from simulator.sweep.knobs import turned
from simulator.sweep.plan import fluid_pod
from simulator.sweep.trials import DOWN_WINDOWS, Knobs, Played, Trial, candidates, play_all
from simulator.sweep.tune import Span, cheapest, tune, upper_bad_ratio, walking_forward
from simulator.traces.generate import Diurnal, generate
from simulator.whatif import Run, run_one
from tests.traffic import MONDAY

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
PROFILE = PROFILES["h100-1200"]
REQUESTS = 1e6


def played(cost: float, *bad_ratios: float, knob: float = 1.0) -> Played:
    """A setting at so many GPU-hours a day, with a bad ratio for each day."""
    days = len(bad_ratios)
    requests = np.full(days, REQUESTS)
    return Played(
        (("targetQps", knob),), np.full(days, cost), REQUESTS * np.array(bad_ratios), requests
    )


CHEAP = played(10, 0, 0, 0, 1e-2, knob=3)
MIDDLE = played(20, 1e-2, 0, 0, 0, knob=2)
DEAR = played(30, 0, 0, 0, 0, knob=1)


def test_the_cheapest_that_kept_the_target_is_chosen() -> None:
    first, whole = Span(0, 3), Span(0, 4)
    assert cheapest([DEAR, MIDDLE, CHEAP], first, 1e-3) is CHEAP
    assert cheapest([DEAR, MIDDLE, CHEAP], whole, 1e-3) is DEAR
    assert cheapest([DEAR, MIDDLE, CHEAP], whole, 2.5e-3) is CHEAP
    assert cheapest([MIDDLE, CHEAP], whole, 1e-3) is None


@given(st.integers(2, 400))
def test_folds_walk_forward_over_the_later_half(days: int) -> None:
    folds = walking_forward(days)
    assert 1 <= len(folds) <= 4
    assert len(folds) >= 2 or days == 2
    assert folds[0][0].last == days // 2
    assert folds[-1][1].last == days
    for choosing, checking in folds:
        assert choosing.first == 0
        assert choosing.last == checking.first < checking.last
    checks = [checking for _, checking in folds]
    assert [span.first for span in checks[1:]] == [span.last for span in checks[:-1]]


def test_a_day_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="1 whole days to play cannot be split"):
        walking_forward(1)


@given(st.data())
def test_a_choice_does_not_depend_on_the_days_that_it_is_checked_on(data: st.DataObject) -> None:
    days = 9
    ratios = st.lists(st.floats(0, 0.01), min_size=days, max_size=days)
    one = [played(cost, *data.draw(ratios), knob=cost) for cost in range(5, 0, -1)]
    first = walking_forward(days)[-1][1].first
    other = [_with_another_end(each, first, data.draw(ratios)) for each in one]
    before, after = tune(one, 1e-3).folds[-1].chosen, tune(other, 1e-3).folds[-1].chosen
    assert (before and before.knobs) == (after and after.knobs)


def _with_another_end(each: Played, first: int, ratios: list[float]) -> Played:
    bad, hours = each.bad.copy(), each.pod_hours.copy()
    bad[first:] = REQUESTS * np.array(ratios[first:])
    hours[first:] *= 7
    return replace(each, bad=bad, pod_hours=hours)


def test_what_kept_the_target_on_unseen_days_is_checked() -> None:
    found = tune([DEAR, MIDDLE], 1e-3)
    assert found.chosen is DEAR
    assert found.checked
    assert [fold.kept for fold in found.folds] == [True, True]


def test_a_choice_that_missed_later_gives_way_to_one_that_kept_both_parts() -> None:
    found = tune([DEAR, CHEAP], 1e-3)
    assert found.folds[-1].chosen is CHEAP
    assert not found.folds[-1].kept
    assert found.chosen is DEAR
    assert not found.checked


def test_where_nothing_keeps_the_target_the_nearest_is_named() -> None:
    worse = played(1, 0.5, 0.5, 0.5, 0.5)
    found = tune([worse, CHEAP, MIDDLE], 1e-6)
    assert found.chosen is None
    assert not found.checked
    assert not found.certified
    assert found.nearest is MIDDLE  # its bad day is one of three, the other's is the last part


def test_what_never_happened_is_bounded_by_the_minutes() -> None:
    clean = played(1, *[0.0] * 21)
    found = tune([clean], 1e-4)
    assert found.days_to_certify == 21  # 3 / 1e-4 minutes
    assert found.upper_bad_ratio == pytest.approx(3 / (21 * 1440))
    assert found.certified
    short = tune([played(1, *[0.0] * 20)], 1e-4)
    assert short.chosen is not None
    assert not short.certified


def test_bad_minutes_of_one_day_are_less_certain_than_as_many_of_all_days() -> None:
    even = played(1, *[1e-3] * 10)
    once = played(1, 1e-2, *[0.0] * 9)
    assert even.bad.sum() == pytest.approx(once.bad.sum())
    assert upper_bad_ratio(even, 0) == pytest.approx(1e-3)
    assert 2e-3 < upper_bad_ratio(once, 0) < 5e-3
    assert upper_bad_ratio(once, 0) == upper_bad_ratio(once, 0)


def workload(policy: str, **parameters: float) -> Workload:
    daily = {"start": "0 8 * * *", "end": "0 18 * * *", "replicas": 9}
    schedules = [daily] if policy == "cron" else []
    return Workload.model_validate(
        {
            "name": "example",
            "target": {"name": "example", "mode": "shadow"},
            "demand": {"query": "x"},
            "capacity": {"qpsPerReplica": 1000, "saturationQps": 1190},
            "leadTime": {"p50Seconds": 180, "p95Seconds": 180},
            "maxReplicas": 100,
            "policy": {"name": policy, "parameters": parameters, "schedules": schedules},
        }
    )


def trial(policy: str, interval_seconds: float = 15.0, days: int = 2, **parameters: float) -> Trial:
    """Days that begin in the steepest part of the morning, and two of history before them."""
    whole = generate(Diurnal(peak_qps=9000, noise=0.05), MONDAY, 5, seed=5)
    starts_at = MONDAY + timedelta(days=2, hours=8, minutes=20)
    until = starts_at + timedelta(days=days)
    scenario = Scenario(
        traffic=whole.between(whole.start, until),
        starts_at=starts_at,
        until=until,
        fleet=FleetSettings(Lifecycle(constant_cold_start(180)), 180.0, 8),
        profile=PROFILE,
    )
    return Trial(
        scenario, Run(workload(policy, **parameters), interval_seconds), fluid_pod(PROFILE)
    )


def test_reactive_policies_are_tried_over_their_target_and_their_way_down() -> None:
    tried = candidates(trial("hpa"))
    assert {tuple(name for name, _ in knobs) for knobs in tried} == {
        ("targetQps", "scaleDownWindowSeconds")
    }
    assert {dict(knobs)["scaleDownWindowSeconds"] for knobs in tried} == {60, 120, 300, 600}
    uses = [dict(knobs)["targetQps"] for knobs in tried]
    assert (max(uses), min(uses)) == (1050, 200)


def test_the_target_that_was_chosen_is_the_one_that_is_tried() -> None:
    tried = candidates(trial("hpa", targetConcurrency=80.0))
    assert {knobs[0][0] for knobs in tried} == {"targetConcurrency"}


def test_what_a_peer_is_told_is_heeded_whichever_loop_that_takes() -> None:
    assert trial("hpa", targetQps=900.0, scaleDownWindowSeconds=3600.0).compiled
    assert not trial("hpa", tolerance=0.5).compiled
    assert not trial("hpa", targetConcurrency=80.0).compiled


def test_ours_is_tried_over_targets_and_margins() -> None:
    names = [name for ((name, _),) in candidates(trial("predictive"))]
    assert names.count("targetBadRatio") == len(TARGETS)
    assert names.count("margin") == 12


def test_a_fixed_fleet_is_tried_in_whole_replicas() -> None:
    found = [dict(knobs)["replicas"] for knobs in candidates(trial("static", replicas=10))]
    assert found == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("policy", ["cron", "perfect_forecast"])
def test_a_policy_without_a_knob_cannot_be_tuned(policy: str) -> None:
    with pytest.raises(ValueError, match=f"{policy} has no setting that could be tuned"):
        candidates(trial(policy))


def played_alone(tried: Trial, knobs: Knobs, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setattr("simulator.sweep.trials.candidates", lambda _: [knobs])
    (found,) = play_all(tried, 1, lambda: None)
    return found


@pytest.mark.parametrize(
    ("policy", "interval", "days", "place"),
    [("hpa", 15.0, 2, 11), ("asymmetric_concurrency", 5.0, 1, 19), ("knative_kpa", 2.0, 1, 19)],
)
def test_the_compiled_loop_plays_a_setting_as_the_full_one_does(
    policy: str, interval: float, days: int, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = trial(policy, interval, days)
    knobs = candidates(tried)[place]
    assert knobs[1][1] == 600  # not the window that it has by itself
    compiled = played_alone(tried, knobs, monkeypatch)
    card = run_one(tried.scenario, Run(turned(tried.run.workload, dict(knobs)), interval)).card
    hours = card.billed_by_minute.reshape(days, 1440).sum(axis=1) / 60
    bad = card.bad_by_minute.reshape(days, 1440).sum(axis=1)
    assert compiled.bad.sum() > 0
    assert compiled.pod_hours == pytest.approx(hours, rel=1e-3)
    assert compiled.bad == pytest.approx(bad, rel=1e-3)


@pytest.mark.parametrize("policy", ["hpa", "asymmetric_concurrency"])
def test_days_told_one_by_one_are_those_of_the_whole_run(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that began anew on a steep morning would be spared what it was late for."""
    tried = trial(policy)
    knobs = candidates(tried)[19]
    compiled = played_alone(tried, knobs, monkeypatch)
    scenario, workload = tried.scenario, tried.run.workload
    plan = plan_of(scenario, workload, tried.run.interval_seconds)
    kind, (by_concurrency, extremes, up, _) = PEERS[policy].kind, PEERS[policy].options
    options = (by_concurrency, extremes, up, dict(knobs)[DOWN_WINDOWS[policy]])
    tally = World.of(scenario, 1).run(plan).play(kind, knobs[0][1], options)
    assert compiled.pod_hours.sum() == pytest.approx(tally[loop.POD_SECONDS] / 3600, rel=1e-5)
    assert compiled.bad.sum() == pytest.approx(tally[loop.BAD], rel=1e-5)


def test_ours_is_played_with_what_was_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = trial("predictive")
    knobs = (("margin", 0.0), ("margin", 8.0), ("targetBadRatio", 3e-2), ("targetBadRatio", 1e-5))
    some: list[Knobs] = [(each,) for each in knobs]
    monkeypatch.setattr("simulator.sweep.trials.candidates", lambda _: some)
    told: list[None] = []
    bare, wide, loose, strict = play_all(tried, 1, lambda: told.append(None))
    assert 0 < len(told) <= tried.parts
    for cheap, dear in ((bare, wide), (loose, strict)):
        assert cheap.pod_hours.sum() < dear.pod_hours.sum()
        assert cheap.bad.sum() > dear.bad.sum()


def test_every_down_window_is_one_that_its_policy_knows() -> None:
    folder = Path(__file__).parents[2] / "policies" / "peers"
    rules = (folder / "hpa_rules.py").read_text()
    for policy, window in DOWN_WINDOWS.items():
        module = "aibrix_apa" if policy.startswith("aibrix_apa") else policy
        assert window in (folder / f"{module}.py").read_text() + rules


@pytest.mark.parametrize(("qps", "slo"), [(20.0, 1.0), (1080.0, 1.0), (300.0, 4.0)])
def test_pods_of_which_only_the_rate_is_known_carry_it(qps: float, slo: float) -> None:
    alike = profile_like(PROFILE, qps, slo)
    assert alike.capacity_within(slo) == pytest.approx(qps, rel=0.03)


COMMENTED = """\
# how we scale
prometheus: {url: http://prometheus:9090}   # ours
workloads:
- name: grammar   # the first
  target: {name: grammar, mode: shadow}
  policy:         # was too dear
    name: hpa
    parameters:
      targetQps: 500   # a guess
  # the pods
  capacity: {qpsPerReplica: 1000}
  demand:
    query: >
      sum(rate(x[1m]))
  maxReplicas: 20

# and another
- name: other
  target: {name: other, mode: shadow}
  demand: {query: y}
  capacity: {qpsPerReplica: 10}
  policy: {name: static}
  maxReplicas: 3
"""
LAST_IS_FOLDED = COMMENTED.replace("  maxReplicas: 20\n\n# and", "# and").replace(
    "  capacity: {q", "  maxReplicas: 20\n  capacity: {q", 1
)
POLICY_FIRST = """\
prometheus: {url: http://prometheus:9090}
workloads:
  - policy:
      name: hpa
      parameters: {targetQps: 500}
    name: grammar   # the first
    target: {name: grammar, mode: shadow}
    capacity: {qpsPerReplica: 1000}
    demand: {query: x}
    maxReplicas: 20"""
WITHOUT_POLICY = POLICY_FIRST.replace(
    "  - policy:\n      name: hpa\n      parameters: {targetQps: 500}\n    name", "  - name"
)
IN_ONE_LINE = """\
prometheus: {url: http://prometheus:9090}
workloads: [{name: grammar, target: {name: grammar, mode: shadow}, demand: {query: x},
  capacity: {qpsPerReplica: 1000}, maxReplicas: 20, calendar: {country: "NO"}}]
"""


def tuned(path: Path) -> tuple[Settings, Workload]:
    settings = load_settings(path)
    first = settings.workloads[0]
    ours = {"margin": 4.5, "lookBackSeconds": 240.0}
    return settings, turned(
        first, ours if first.policy.name == "predictive" else {"targetQps": 8.2}
    )


@pytest.mark.parametrize(
    "text", [COMMENTED, LAST_IS_FOLDED, POLICY_FIRST, WITHOUT_POLICY, IN_ONE_LINE]
)
def test_a_settings_file_is_changed_in_its_policy_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "daybreak.yaml"
    path.write_text(text)
    settings, found = tuned(path)
    changed = changed_settings(path, settings, found)
    assert path.read_text() == text
    path.write_text(changed)
    after = load_settings(path)
    assert after.workloads[0] == found
    assert after.workloads[1:] == settings.workloads[1:]
    assert after.model_copy(update={"workloads": settings.workloads}) == settings


@pytest.mark.parametrize("text", [COMMENTED, LAST_IS_FOLDED, POLICY_FIRST, WITHOUT_POLICY])
def test_comments_and_layout_stay(tmp_path: Path, text: str) -> None:
    path = tmp_path / "daybreak.yaml"
    path.write_text(text)
    changed = changed_settings(path, *tuned(path))
    kept = [line for line in text.splitlines() if "#" in line]
    dropped = [line for line in kept if line not in changed.splitlines()]
    assert len(dropped) == (2 if "a guess" in text else 0)  # those of the old policy
    assert changed.splitlines()[-1] == text.splitlines()[-1] or text == WITHOUT_POLICY


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_can_be_changed(path: Path, tmp_path: Path) -> None:
    settings, found = tuned(path)
    changed = changed_settings(path, settings, found)
    copy = tmp_path / path.name
    copy.write_text(changed)
    assert load_settings(copy).workloads[0] == found
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert [line for line in changed.splitlines() if line.startswith("#")] == comments


def test_an_example_is_settings_with_the_policy_in_them(tmp_path: Path) -> None:
    found = turned(workload("hpa"), {"targetQps": 888.2, "scaleDownWindowSeconds": 60.0})
    text = example_settings(found, "evil\nworkloads: []\N{LINE SEPARATOR}prometheus: 1")
    path = tmp_path / "example.yaml"
    path.write_text(text)
    (only,) = load_settings(path).workloads
    assert only.policy == found.policy
    assert only.capacity == found.capacity
    assert only.max_replicas == found.max_replicas
    assert list(yaml.safe_load(text)) == ["prometheus", "workloads"]
