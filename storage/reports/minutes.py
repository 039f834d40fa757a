"""Minutes: a stretch of the log as columns, one value for each minute in which it was decided.

Knows how summed-up minutes are read and how a figure is spread over time. Raises StoreError where
the log cannot be read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby, pairwise
from math import inf
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, select

from forecaster.history import Floats
from policies.context import ScalingContext
from storage import codec, rollups, schema
from storage.database import reading

MINUTE = 60.0
UNKNOWN_GAP_SECONDS = 900.0
"""After so long without a decision, nobody knows what ran: it is not counted as GPU-hours."""
PAGE = 1000
"""Decisions read at once."""

_decision = schema.decision.c

FIGURES = (
    "decisions",
    "current",
    "desired",
    "ready",
    "starting",
    "draining",
    "demand_qps",
    "demand_peak_qps",
    "concurrency",
    "latency_p99_seconds",
    "errors_qps",
    "forecast_low_qps",
    "forecast_median_qps",
    "forecast_high_qps",
    "trusted",
    "qps_per_replica",
    "lead_seconds",
)
TIMES = ("forecast_at", "forecast_until")


@dataclass(frozen=True, slots=True, eq=False)
class Minutes:
    """Equally long columns, oldest first; NaN where a figure was not known.

    `time` is when each minute begins and `forecast_at`, `forecast_until` the span that its last
    forecast was made for, in seconds since 1970. Rates are in requests a second, replica counts
    means of the minute, `latency_p99_seconds` its highest. `reasons` and `outcomes` count its
    decisions. `contexts` are its last decision's, with the digest of their settings. `bad_requests`
    are there only where somebody measured single requests, which the log does not.
    """

    workload: str
    time: Floats
    decisions: Floats
    current: Floats
    desired: Floats
    ready: Floats
    starting: Floats
    draining: Floats
    demand_qps: Floats
    demand_peak_qps: Floats
    concurrency: Floats
    latency_p99_seconds: Floats
    errors_qps: Floats
    forecast_at: Floats
    forecast_until: Floats
    forecast_low_qps: Floats
    forecast_median_qps: Floats
    forecast_high_qps: Floats
    trusted: Floats
    qps_per_replica: Floats
    lead_seconds: Floats
    policy: tuple[str, ...]
    reasons: tuple[dict[str, int], ...]
    outcomes: tuple[dict[str, int], ...]
    problems: tuple[str, ...]
    contexts: tuple[tuple[bytes | None, str], ...]
    bad_requests: Floats | None = None

    def __len__(self) -> int:
        return len(self.time)

    def at(self, index: int) -> datetime:
        """When a minute begins."""
        return datetime.fromtimestamp(float(self.time[index]), UTC)

    @property
    def provisioned(self) -> Floats:
        """Replicas that cost money: starting, ready and draining ones."""
        return self.ready + self.starting + self.draining

    @property
    def held_seconds(self) -> Floats:
        """How long each minute's figures stood: until the next one, unless that came too late."""
        held = np.diff(self.time, append=self.time[-1:] + MINUTE)
        held[held > UNKNOWN_GAP_SECONDS] = MINUTE
        return np.asarray(held, dtype=np.float64)

    @property
    def counted_seconds(self) -> Floats:
        """How long each minute's rates count for: its own seconds, or the usual time to the next
        decision where that is longer. After that nobody knows what came."""
        held = self.held_seconds
        return np.minimum(held, max(MINUTE, float(np.median(held))))

    @property
    def need(self) -> Floats:
        """Replicas that carry each minute's mean demand within the objective."""
        return np.asarray(np.ceil(self.demand_qps / self.qps_per_replica - 1e-9))

    @property
    def carried_need(self) -> Floats:
        """The need, and where demand was not known the last one that was; 0 if it never was."""
        return np.nan_to_num(_carried(self.need))

    @property
    def carried_demand_qps(self) -> Floats:
        """The mean demand, and where it was not known the last one that was, before the first the
        first; NaN if it never was."""
        return _carried(self.demand_qps)

    def hours(self, replicas: Floats) -> float:
        """Replica-hours of a count over the minutes."""
        return float((replicas * self.held_seconds).sum()) / 3600

    def newest(self, count: int) -> Minutes:
        """The last so many of them."""
        if count >= len(self):
            return self
        columns = {
            one.name: getattr(self, one.name)[len(self) - count :]
            for one in fields(self)
            if one.name != "workload" and getattr(self, one.name) is not None
        }
        return replace(self, **columns)

    @property
    def reason_counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for counts in self.reasons:
            total.update(counts)
        return total


def read_minutes(
    engine: Engine, workload: str, since: datetime, until: datetime, contexts: bool = True
) -> Minutes:
    """The minutes that begin in [since, until); contexts take most of the time and the memory."""
    with reading(engine) as connection:
        rows = rollups.minutes(connection, workload, since, until, contexts)
    return as_minutes(workload, rows)


def contexts_of(engine: Engine, minutes: Minutes) -> Iterator[ScalingContext | None]:
    """The context of each minute's last decision in turn, without its past; None where one is not
    there or cannot be read. All of a month at once would fill the memory."""
    with reading(engine) as connection:
        settings = _settings(connection, {digest for _, digest in minutes.contexts})
    for stored, digest in minutes.contexts:
        yield _context(stored, settings.get(digest))


def order_quantiles(
    engine: Engine, minutes: Minutes, every: int = 1
) -> Iterator[tuple[tuple[float, float], ...]]:
    """Level and requests a second of the last forecast for the order in every so many minutes;
    none where it is not there or cannot be read."""
    with reading(engine) as connection:
        settings = _settings(connection, {digest for _, digest in minutes.contexts})
    for stored, digest in minutes.contexts[::every]:
        try:
            text = "" if stored is None else codec.unpack(stored)
            yield codec.window_quantiles(text, settings.get(digest, ""), "order") if text else ()
        except (ValueError, KeyError, TypeError):
            yield ()


def still_whole(engine: Engine, minutes: Minutes, most: int) -> Minutes:
    """The newest of the minutes, of which the log still holds every decision, `most` at most."""
    begins, ends = _span(minutes)
    query = (
        select(_decision.at)
        .where(_decision.workload == minutes.workload, _decision.at >= begins, _decision.at < ends)
        .order_by(_decision.at)
        .limit(1)
    )
    with reading(engine) as connection:
        first: datetime | None = connection.execute(query).scalar()
    if first is None:
        return minutes.newest(0)
    held = len(minutes) - int(np.searchsorted(minutes.time, rollups.minute_of(first).timestamp()))
    newest_first = np.cumsum(minutes.decisions[::-1])
    return minutes.newest(min(held, int(np.searchsorted(newest_first, most, side="right"))))


def decisions_of(engine: Engine, minutes: Minutes) -> Iterator[list[ScalingContext]]:
    """What each minute's decisions were made from, minute by minute; those that cannot be read are
    left out. Only the first one of all has its past: whoever decides again makes a new one."""
    begins, ends = _span(minutes)
    query = (
        select(_decision.at, _decision.context, schema.policy_settings.c.payload)
        .join(schema.policy_settings)
        .where(_decision.workload == minutes.workload, _decision.at >= begins, _decision.at < ends)
        .order_by(_decision.at, _decision.id)
        .execution_options(yield_per=PAGE)
    )
    past = True
    with reading(engine) as connection:
        rows = connection.execute(query)
        by_minute = groupby(rows, lambda row: rollups.minute_of(row.at).timestamp())
        minute, group = next(by_minute, (inf, iter(())))
        for begin in minutes.time.tolist():
            while minute < begin:
                minute, group = next(by_minute, (inf, iter(())))
            found: list[ScalingContext] = []
            for row in group if minute == begin else ():
                context = _context(row.context, row.payload, past)
                if context is not None:
                    past = False
                    found.append(context)
            yield found


def _carried(column: Floats) -> Floats:
    """With the last known value, before the first the first, where one is not known."""
    known = np.isfinite(column)
    places = np.where(known, np.arange(len(column)), int(np.argmax(known)))
    return np.asarray(column[np.maximum.accumulate(places)], dtype=np.float64)


def beside_the_decisions(engine: Engine, minutes: Minutes) -> Floats:
    """In each minute, how many replicas more ran at its decisions than each one's predecessor had
    asked for, on average; the first of all has none."""
    begins, ends = _span(minutes)
    query = (
        select(_decision.at, _decision.current, _decision.desired)
        .where(_decision.workload == minutes.workload, _decision.at >= begins, _decision.at < ends)
        .order_by(_decision.at, _decision.id)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    found = np.zeros(len(minutes))
    for before, row in pairwise(rows):
        index = int(np.searchsorted(minutes.time, rollups.minute_of(row.at).timestamp()))
        found[index] += (row.current - before.desired) / minutes.decisions[index]
    return found


def _span(minutes: Minutes) -> tuple[datetime, datetime]:
    return minutes.at(0), minutes.at(len(minutes) - 1) + rollups.MINUTE


def _settings(connection: Connection, digests: set[str]) -> dict[str, str]:
    table = schema.policy_settings.c
    query = select(table.digest, table.payload).where(table.digest.in_(digests))
    return {row.digest: row.payload for row in connection.execute(query)}


def _context(
    stored: bytes | None, settings: str | None, past: bool = False
) -> ScalingContext | None:
    if stored is None or settings is None:
        return None
    try:
        return codec.decode_context(codec.unpack(stored), settings, past)
    except ValueError:
        return None


def as_minutes(workload: str, rows: Sequence[Sequence[Any]]) -> Minutes:
    """From rows with `rollups.MINUTE_COLUMNS`."""
    columns: dict[str, Any] = dict.fromkeys(rollups.MINUTE_COLUMNS, ())
    columns |= zip(rollups.MINUTE_COLUMNS, zip(*rows, strict=True), strict=False)
    figures: dict[str, Any] = {
        name: np.array(columns[name], dtype=np.float64) for name in FIGURES
    } | {name: _seconds(columns[name]) for name in TIMES}
    return Minutes(
        workload=workload,
        time=_seconds(columns["at"]),
        policy=columns["policy"],
        reasons=tuple(map(_counts, columns["reasons"])),
        outcomes=tuple(map(_counts, columns["outcomes"])),
        problems=columns["problems"],
        contexts=tuple(zip(columns["context"], columns["settings_digest"], strict=True)),
        **figures,
    )


@lru_cache(maxsize=4096)
def _counts(text: str) -> dict[str, int]:
    """Most minutes are like another one."""
    found: dict[str, int] = json.loads(text)
    return found


def _seconds(times: Sequence[datetime | None]) -> Floats:
    return np.array([np.nan if at is None else at.timestamp() for at in times], dtype=np.float64)
