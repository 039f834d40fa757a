"""Ports that write down every answer, and ports that give the answers back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from forecaster.history import TrafficHistory
from policies.context import LeadTime, Observation, Replicas
from policies.decision import Outcome
from scaler.ports import MetricsSource, Reading, ScaleTarget

Call = tuple[str, Any]


@dataclass
class Tape:
    """Calls in their order with their answers."""

    calls: list[tuple[Call, Any]] = field(default_factory=list)
    position: int = 0

    def record(self, call: Call, answer: Any) -> Any:
        self.calls.append((call, answer))
        return answer

    def play(self, call: Call) -> Any:
        """The recorded answer; a call that was not made then, or not now, is a difference."""
        recorded, answer = self.calls[self.position]
        assert recorded == call, f"call {self.position}: recorded {recorded}, now {call}"
        self.position += 1
        return answer


@dataclass
class Recorder:
    """Stands between a loop and its metrics source and target."""

    metrics: MetricsSource
    target: ScaleTarget
    tape: Tape

    def observe(self, now: datetime) -> Reading[Observation]:
        answer: Reading[Observation] = self.tape.record(("observe", now), self.metrics.observe(now))
        return answer

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        answer: Reading[TrafficHistory] = self.tape.record(
            ("history", (start, end, step_seconds)),
            self.metrics.demand_history(start, end, step_seconds),
        )
        return answer

    def read(self, now: datetime) -> Replicas:
        answer: Replicas = self.tape.record(("read", now), self.target.read(now))
        return answer

    def lead_time(self, now: datetime) -> LeadTime | None:
        answer: LeadTime | None = self.tape.record(("lead", now), self.target.lead_time(now))
        return answer

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:
        answer: Outcome = self.tape.record(
            ("apply", (desired, seen, epoch)), self.target.apply(desired, seen, epoch)
        )
        return answer


@dataclass
class Player:
    """A metrics source and target that only repeat what a tape holds."""

    tape: Tape

    def observe(self, now: datetime) -> Reading[Observation]:
        answer: Reading[Observation] = self.tape.play(("observe", now))
        return answer

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        answer: Reading[TrafficHistory] = self.tape.play(("history", (start, end, step_seconds)))
        return answer

    def read(self, now: datetime) -> Replicas:
        answer: Replicas = self.tape.play(("read", now))
        return answer

    def lead_time(self, now: datetime) -> LeadTime | None:
        answer: LeadTime | None = self.tape.play(("lead", now))
        return answer

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:
        answer: Outcome = self.tape.play(("apply", (desired, seen, epoch)))
        return answer
