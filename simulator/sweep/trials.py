"""Trials: the settings of a policy that tuning chooses among, each played once and told by day.

Knows what is tried and by which loop. Since a policy sees only the past, the days of one play can
be split afterwards into those that are chosen on and those that are checked on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product

import numpy as np

from forecaster.history import Floats
from scaler.workers import process_pool
from simulator.replay import Scenario
from simulator.sweep import loop
from simulator.sweep.frontier import (
    DAY_SECONDS,
    LEAD_IN_SECONDS,
    MARGIN_KNOB,
    MARGINS,
    PEERS,
    TARGET_KNOB,
    Peer,
    World,
    can_play,
    foretold,
    led_in,
    plan_of,
)
from simulator.sweep.knobs import knob_at_full_use, knob_settings, turned
from simulator.sweep.plan import NO_OPTIONS, FluidPod, Options, Rows, SweepRun
from simulator.whatif import Run, run_one

DOWN_WINDOWS = {
    "asymmetric_concurrency": "downWindowSeconds",
    "hpa": "scaleDownWindowSeconds",
    "keda_prometheus": "scaleDownWindowSeconds",
    "crane_dsp": "scaleDownWindowSeconds",
    "phpa": "scaleDownWindowSeconds",
    "knative_kpa": "stableWindowSeconds",
    "aibrix_apa_intended": "scaleDownWindowSeconds",
    "aibrix_kpa": "stableWindowSeconds",
    "aws_predictive": "scaleInWindowSeconds",
    "gcp_predictive": "scaleInWindowSeconds",
}
"""The parameter with which a policy delays its way down."""
USES = tuple(float(use) for use in np.geomspace(1.05, 0.2, 35))
"""Of what a replica carries within the SLO; neighbours lie 5 % apart."""
WINDOWS_SECONDS = (60.0, 120.0, 300.0, 600.0)
FEW_USES, FEW_WINDOWS_SECONDS = USES[1:24:3], (60.0, 300.0)
"""In the full loop, where a day takes seconds instead of milliseconds."""
FIXED_SHARES = tuple(float(share) for share in np.linspace(0.7, 1.1, 17))
"""Of the peak, for a fixed number of replicas."""
Knobs = tuple[tuple[str, float], ...]
Tell = Callable[[], None]


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What a setting came to on each day."""

    knobs: Knobs
    pod_hours: Floats
    bad: Floats
    requests: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What is tried where: whole days of a scenario, a policy, and the pods as it sees them."""

    scenario: Scenario
    run: Run
    pod: FluidPod

    @property
    def policy(self) -> str:
        return self.run.workload.policy.name

    @property
    def days(self) -> int:
        scored = self.scenario.until - self.scenario.starts_at
        return int(scored.total_seconds()) // DAY_SECONDS

    @property
    def compiled(self) -> bool:
        window = DOWN_WINDOWS.get(self.policy)
        varied = () if window is None else (window,)
        return can_play(self.run.workload, self.scenario, varied)

    @property
    def parts(self) -> int:
        """How often `play_all` tells that it got on."""
        forecasts = self.days + 1 if self.policy == "predictive" else 0
        return forecasts + len(candidates(self))


def candidates(trial: Trial) -> list[Knobs]:
    """Ours: targets that the margin is calibrated for each day, and margins that stay. Others: the
    knob, and the down window where there is one. Raises ValueError where there is no knob."""
    if trial.policy == "predictive":
        targets = knob_settings(trial.run.workload, trial.scenario)
        return [*((each,) for each in targets), *(((MARGIN_KNOB, m),) for m in MARGINS)]
    knob, full = knob_at_full_use(trial.run.workload, trial.scenario)
    if knob in ("", MARGIN_KNOB):
        raise ValueError(f"{trial.policy} has no setting that could be tuned")
    if knob == "replicas":
        counts = {max(1, round(full * share)) for share in FIXED_SHARES}
        return [((knob, float(count)),) for count in sorted(counts)]
    uses, windows = (USES, WINDOWS_SECONDS) if trial.compiled else (FEW_USES, FEW_WINDOWS_SECONDS)
    values = [(knob, float(f"{full * use:.4g}")) for use in uses]
    window = DOWN_WINDOWS.get(trial.policy)
    if window is None:
        return [(each,) for each in values]
    return [(each, (window, seconds)) for each, seconds in product(values, windows)]


def play_all(trial: Trial, workers: int, tell: Tell) -> list[Played]:
    """Every candidate, in the compiled loop where it can play the policy, else in the full one
    with `workers` processes. `tell` is called `trial.parts` times."""
    if not trial.compiled:
        return _in_full(trial, workers, tell)
    played = []
    for each in _ours(trial, tell) if trial.policy == "predictive" else _peers(trial):
        played.append(each)
        tell()
    return played


def _ours(trial: Trial, tell: Tell) -> Iterator[Played]:
    workload = trial.run.workload
    plan = replace(plan_of(trial.scenario, workload, trial.run.interval_seconds), pod=trial.pod)
    world = World.of(trial.scenario, workload.history.step_seconds)
    said, run = foretold(world, workload, plan, tell), world.run(plan)
    for knobs in candidates(trial):
        ((name, value),) = knobs
        if name == TARGET_KNOB:
            margins, rows = said.at_target(value)
        else:
            margins, rows = np.full(run.ticks, value), said.at_margin()
        yield _by_day(run, Turn(loop.PREDICTIVE, margins, rows=rows), knobs)


def _peers(trial: Trial) -> Iterator[Played]:
    plan = plan_of(trial.scenario, trial.run.workload, trial.run.interval_seconds)
    run = World.of(trial.scenario, 1).run(replace(plan, pod=trial.pod))
    peer = PEERS[trial.policy]
    for knobs in candidates(trial):
        (_, value), (_, seconds) = knobs
        turn = Turn(peer.kind, np.full(run.ticks, value), _with_window(peer, seconds))
        yield _by_day(run, turn, knobs)


def _with_window(peer: Peer, seconds: float) -> Options:
    by_concurrency, extremes, up, _ = peer.options
    return by_concurrency, extremes, up, seconds


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A setting as the compiled loop takes it; `knobs` and `rows` by decision."""

    kind: int
    knobs: Floats
    options: Options = NO_OPTIONS
    rows: Rows | None = None

    def play(self, run: SweepRun, first: int, last: int) -> Floats:
        """The tally of the decisions first .. last - 1; a run that begins later than the first
        finds what its first minute takes."""
        slices = int(run.plan.tick_seconds // run.slice_seconds)
        part = replace(run, arrivals=run.arrivals[first * slices : last * slices])
        if first:
            part = replace(part, first_replicas=0, qps_before=None)
        knobs = self.knobs[first:last]
        if self.rows is None:
            return part.play(self.kind, knobs, self.options)
        order, hold, trusted = self.rows
        rows = (order[first:last], hold[first:last], trusted[first:last])
        return part.play(self.kind, knobs, self.options, rows)


def _by_day(run: SweepRun, turn: Turn, knobs: Knobs) -> Played:
    """Each day with an hour before it."""
    tick = run.plan.tick_seconds
    slices = int(tick // run.slice_seconds)
    length = int(len(run.arrivals) * run.slice_seconds)
    edges = [round(second / tick) for second in range(0, length + 1, DAY_SECONDS)]
    lead = round(LEAD_IN_SECONDS / tick)
    tallies, requests = [], []
    for first, last in pairwise(edges):
        tallies.append(led_in(partial(turn.play, run), first, last, lead))
        requests.append(run.arrivals[first * slices : last * slices].sum())
    by_day = np.array(tallies)
    hours, bad = by_day[:, loop.POD_SECONDS] / 3600, by_day[:, loop.BAD]
    return Played(knobs, hours, bad, np.array(requests))


def _in_full(trial: Trial, workers: int, tell: Tell) -> list[Played]:
    tried = candidates(trial)
    if workers == 1:
        return [_one_in_full(trial, knobs, tell) for knobs in tried]
    with process_pool(workers) as pool:
        futures = [pool.submit(_one_in_full, trial, knobs) for knobs in tried]
        for future in as_completed(futures):
            future.result()
            tell()
        return [future.result() for future in futures]


def _one_in_full(trial: Trial, knobs: Knobs, tell: Tell = lambda: None) -> Played:
    workload = turned(trial.run.workload, dict(knobs))
    card = run_one(trial.scenario, Run(workload, trial.run.interval_seconds)).card
    tell()
    by_minute = (card.billed_by_minute / 60, card.bad_by_minute, 60 * card.demand_by_minute)
    return Played(knobs, *(_days(each) for each in by_minute))


def _days(by_minute: Floats) -> Floats:
    days = len(by_minute) // 1440
    return np.asarray(by_minute[: days * 1440].reshape(days, 1440).sum(axis=1), dtype=np.float64)
