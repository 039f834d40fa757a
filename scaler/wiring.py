"""The composition root: settings and ports in, loops out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from forecaster.forecast import FittedModel
from scaler.clock import SystemClock
from scaler.exposition import Exposition
from scaler.loop import ControlLoop, Ports, TickResult
from scaler.obstacles import Writes
from scaler.ports import Clock, DecisionStore, StoreError
from scaler.rounds import OVERDUE_INTERVALS, Failure, Rounds, alone
from scaler.settings import Settings, Workload
from simulator.forecasters import forecaster_for
from storage.database import open_engine, prepare

PortsFor = Callable[[Workload], Ports]
STUCK_SECONDS = 120.0
STANDS = timedelta(hours=1)
"""How long a decision of another process is shown for want of a newer one. Whoever scales by it and
finds none may take it for zero; but one of another time of day would undo what was done since."""

_log = structlog.get_logger("daybreak")


def open_log(url: str) -> Engine:
    """The database of the decision log, its tables ready; raises StoreError."""
    engine = open_engine(url, limited=True)
    prepare(engine)
    return engine


@dataclass(slots=True)
class Watch:
    """What the outside may know of the rounds: metrics, and whether they keep up."""

    settings: Settings
    clock: Clock
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    exposition: Exposition = field(init=False)
    listeners: list[Callable[[TickResult | Failure], None]] = field(default_factory=list)
    writes: Writes = field(default_factory=Writes)
    _decided_at: dict[str, datetime] = field(default_factory=dict)
    _failures: dict[str, str] = field(default_factory=dict)
    _rivals: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        modes = {workload.name: workload.target.mode for workload in self.settings.workloads}
        self.exposition = Exposition(self.registry, modes)

    def recall(self, store: DecisionStore) -> None:
        """Show what each workload's newest logged decision asks for, within today's bounds; one
        from far ahead is none, since the clock was set back."""
        now = self.clock.now()
        try:
            for workload in self.settings.workloads:
                recent = store.recent(workload.name, now - STANDS)
                for past in [past for past in recent if past.at <= now + STANDS][-1:]:
                    desired = min(max(past.desired, workload.min_replicas), workload.max_replicas)
                    self.exposition.recall(workload.name, past.at, desired)
        except StoreError as error:
            _log.warning("last decisions unread", error=str(error))

    def after_tick(self, result: TickResult | Failure, seconds: float) -> None:
        self.exposition.observe(result, tick_seconds=seconds)
        self.writes.after_tick(result)
        self._note(result)
        for listener in self.listeners:
            listener(result)

    def _note(self, result: TickResult | Failure) -> None:
        if isinstance(result, Failure):
            self._failures[result.workload] = result.message
            return
        self._decided_at[result.context.workload] = result.context.now
        self._failures.pop(result.context.workload, None)
        self._rivals[result.context.workload] = result.rival

    def after_refit(self, workload: str, result: FittedModel | Failure) -> None:
        self.exposition.observe_refit(workload, result)

    def unready(self) -> list[str]:
        """Why the daemon is not ready: workloads without a decision in three intervals, with
        another writer, or that grow in vain for as long. A decision from further ahead is none: the
        clock was set back since."""
        now = self.clock.now()
        recent = timedelta(seconds=OVERDUE_INTERVALS * self.settings.interval_seconds)
        names = [workload.name for workload in self.settings.workloads]
        reasons = ((name, self._unready(name, now, recent)) for name in names)
        known = [f"{name}: {reason}" for name, reason in reasons if reason]
        return [*known, *self.writes.starving(now, recent)]

    def _unready(self, name: str, now: datetime, recent: timedelta) -> str:
        decided_at = self._decided_at.get(name)
        if decided_at is None or abs(now - decided_at) > recent:
            return self._failures.get(name, "no recent decision")
        return self._rivals.get(name, "")


def build_rounds(
    settings: Settings, ports_for: PortsFor, watch: Watch, leads: Callable[[], bool] = alone
) -> Rounds:
    """One loop a workload, as the daemon, the demo and the tests run them."""
    loops = {
        workload.name: ControlLoop(
            workload.loop_settings(settings.interval_seconds),
            ports_for(workload),
            forecaster_for(workload, settings.interval_seconds),
        )
        for workload in settings.workloads
    }
    return Rounds(
        loops,
        watch.after_tick,
        watch.after_refit,
        settings.workers,
        SystemClock().monotonic,
        watch.exposition.observe_skip,
        leads=leads,
    )


def stuck_after_seconds(settings: Settings) -> float:
    """A decision that takes longer will not end: ten times the longest of what one may wait for,
    and two minutes at least."""
    waits = (settings.prometheus.timeout_seconds, settings.kubernetes.timeout_seconds)
    return max(10 * max(settings.interval_seconds, *waits), STUCK_SECONDS)
