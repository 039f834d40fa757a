"""The daemon and the simulator decide alike, and a restart changes nothing.

A run of the simulator is recorded at its ports; the answers are played to the daemon's wiring with
a database behind it, and every decision must come out equal, reason for reason.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from policies.decision import Decision
from scaler.demo.service import demo_settings, scenario
from scaler.loop import ControlLoop, Ports
from scaler.rounds import Rounds
from scaler.settings import Workload
from scaler.wiring import Watch, build_rounds, open_log
from simulator.clock import VirtualClock, run_jobs
from simulator.forecasters import forecaster_for
from simulator.replay import Scenario
from storage.decisions import SqlDecisionStore
from storage.memory import MemoryDecisionStore
from tests.recording import Player, Recorder, Tape

HOURS = 2
REFIT_SECONDS = 3600.0


@pytest.fixture(scope="module")
def plan() -> Scenario:
    """The morning ramp of the demo's day, from before dawn."""
    whole = scenario(days=1)
    starts_at = whole.starts_at + timedelta(hours=6)
    fleet = replace(whole.fleet, initial_replicas=60)
    return replace(
        whole, starts_at=starts_at, until=starts_at + timedelta(hours=HOURS), fleet=fleet
    )


@pytest.fixture(scope="module")
def recorded(plan: Scenario) -> tuple[Tape, list[Decision]]:
    """A simulated run: what its ports answered, and what it decided."""
    settings = demo_settings("sqlite:///unused.db", 1)
    tape, store = Tape(), MemoryDecisionStore()
    fleet = plan.new_fleet()
    recorder = Recorder(fleet, fleet, tape)
    loop = ControlLoop(
        settings.workloads[0].loop_settings(settings.interval_seconds),
        Ports(recorder, recorder, store),
        forecaster_for(settings.workloads[0], settings.interval_seconds),
    )
    jobs = Rounds({"grammar": loop}).jobs(15.0, REFIT_SECONDS)
    run_jobs(jobs, VirtualClock(plan.starts_at), plan.until, fleet.advance)
    return tape, store.decisions["grammar"]


def test_the_simulated_run_scales(recorded: tuple[Tape, list[Decision]]) -> None:
    """Guards the tests below against an empty recording."""
    _, decisions = recorded
    assert len(decisions) == HOURS * 240
    assert len({decision.desired for decision in decisions}) > 50
    assert len({decision.reason for decision in decisions}) >= 3


def test_the_daemons_wiring_repeats_a_simulated_run_reason_for_reason(
    plan: Scenario, recorded: tuple[Tape, list[Decision]], database_url: str
) -> None:
    tape, decisions = recorded
    settings = demo_settings(database_url, 1)
    engine = open_log(settings.database.resolved_url())
    player = Player(Tape(tape.calls))
    clock = VirtualClock(plan.starts_at)
    watch = Watch(settings, clock)
    store = SqlDecisionStore(engine)
    rounds = build_rounds(settings, lambda _: Ports(player, player, store), watch)
    jobs = rounds.jobs(settings.interval_seconds, REFIT_SECONDS)
    run_jobs(jobs, clock, plan.until, lambda _: None)
    repeated = [row.decision for row in store.stored("grammar", plan.starts_at, plan.until)]
    assert repeated == decisions
    assert player.tape.position == len(tape.calls)
    engine.dispose()


def _same_ports(ports: Ports, _workload: Workload) -> Ports:
    return ports


def with_restarts(plan: Scenario, folder: Path, restarts: int, keep_log: bool) -> list[Decision]:
    """The same morning with the process thrown away at so many random ticks."""
    rng = random.Random(5)
    ticks = sorted(rng.sample(range(1, HOURS * 240), restarts))
    fleet = plan.new_fleet()
    decisions: list[Decision] = []
    start = plan.starts_at
    for number, tick in enumerate([*ticks, HOURS * 240]):
        until = plan.starts_at + tick * timedelta(seconds=15)
        name = "kept" if keep_log else f"lost-{number}"
        settings = demo_settings(f"sqlite:///{folder / name}.db", 1)
        engine = open_log(settings.database.resolved_url())
        store = SqlDecisionStore(engine)
        watch = Watch(settings, clock := VirtualClock(start))
        ports = Ports(fleet, fleet, store)
        rounds = build_rounds(settings, partial(_same_ports, ports), watch)
        run_jobs(rounds.jobs(15.0, REFIT_SECONDS), clock, until, fleet.advance)
        decisions += [row.decision for row in store.stored("grammar", start, until)]
        engine.dispose()
        start = until
    return decisions


def test_a_hundred_restarts_change_no_decision(
    plan: Scenario, recorded: tuple[Tape, list[Decision]], tmp_path: Path
) -> None:
    assert with_restarts(plan, tmp_path, 100, keep_log=True) == recorded[1]


def test_without_the_log_restarts_do_change_decisions(
    plan: Scenario, recorded: tuple[Tape, list[Decision]], tmp_path: Path
) -> None:
    """The control: it is the log that carries a decision over a restart."""
    lost = [decision.desired for decision in with_restarts(plan, tmp_path, 1, keep_log=False)]
    assert lost != [decision.desired for decision in recorded[1]]
