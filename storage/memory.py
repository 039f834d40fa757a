"""MemoryDecisionStore: the decision log of a simulation, gone when it ends."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

from forecaster.forecast import FittedModel
from policies.context import Override, PastDecision, ScalingContext
from policies.decision import MAY_HAVE_WRITTEN, Decision, Outcome


class MemoryDecisionStore:
    """Implements DecisionStore."""

    def __init__(self) -> None:
        self.decisions: dict[str, list[Decision]] = defaultdict(list)
        self.outcomes: dict[int, Outcome] = {}
        self.overrides: dict[str, Override] = {}
        self._past: dict[str, list[PastDecision]] = defaultdict(list)
        self._models: dict[str, FittedModel] = {}
        self._epochs: dict[int, tuple[str, int]] = {}
        self._last_id = 0

    def recent(self, workload: str, since: datetime) -> Sequence[PastDecision]:
        past = self._past[workload]
        return past[bisect_left(past, since, key=attrgetter("at")) :]

    def last_epoch(self, workload: str) -> int:
        decisions = self.decisions[workload]
        return decisions[-1].epoch if decisions else 0

    def wrote(self, workload: str, epoch: int, since: datetime) -> bool:  # noqa: ARG002
        ids = (number for number, issued in self._epochs.items() if issued == (workload, epoch))
        found = (self.outcomes.get(number) for number in ids)
        return any(outcome is None or outcome.kind in MAY_HAVE_WRITTEN for outcome in found)

    def override(self, workload: str, now: datetime) -> Override | None:
        found = self.overrides.get(workload)
        return found if found is not None and found.expires_at > now else None

    def record(self, context: ScalingContext, decision: Decision) -> int:
        self._last_id += 1
        self._epochs[self._last_id] = (context.workload, decision.epoch)
        self.decisions[context.workload].append(decision)
        self._past[context.workload].append(
            PastDecision(
                context.now,
                decision.current,
                decision.recommended,
                decision.desired,
                context.demand_qps,
                context.observation.concurrency,
                decision.notes,
            )
        )
        return self._last_id

    def record_outcome(self, decision_id: int, at: datetime, outcome: Outcome) -> None:  # noqa: ARG002
        self.outcomes[decision_id] = outcome

    def save_model(self, workload: str, fitted: FittedModel) -> None:
        self._models[workload] = fitted

    def latest_model(self, workload: str) -> FittedModel | None:
        return self._models.get(workload)
