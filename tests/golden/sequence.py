"""A policy decided upon again and again, its only memory what a decision log hands back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from policies.context import ReplicaChange, ScalingContext
from policies.decision import Decision
from policies.engine import decide
from storage.memory import MemoryDecisionStore


def decided(contexts: Iterable[ScalingContext]) -> list[Decision]:
    """Each context is given the log of those before it; nothing is kept anywhere else."""
    store = MemoryDecisionStore()
    decisions: list[Decision] = []
    for context in contexts:
        past = tuple(store.recent(context.workload, context.now - timedelta(seconds=900)))
        changes: tuple[ReplicaChange, ...] = ()
        if past and past[-1].current != context.replicas.spec:
            before, after = past[-1].current, context.replicas.spec
            changes = (ReplicaChange(context.now, before, after),)
        told = replace(context, recent=past, changes=changes)
        decision = decide(told)
        store.record(told, decision)
        decisions.append(decision)
    return decisions


def later(context: ScalingContext, seconds: float) -> ScalingContext:
    return replace(context, now=context.now + timedelta(seconds=seconds))
