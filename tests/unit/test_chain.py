"""The hash chain: each way in which a log can be changed shows, and names the place."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from storage.chain import (
    DECISION,
    GENESIS,
    OUTCOME,
    OVERRIDE,
    ChainWalk,
    Entry,
    FaultKind,
    Link,
    content_digest,
    linked,
)

AT = datetime(2026, 3, 16, 12, tzinfo=UTC)


def chain(decisions: int, overrides: tuple[int, ...] = ()) -> list[Entry]:
    """Decisions with ids from 1 on, each followed by its outcome, and overrides after some."""
    entries: list[Entry] = []
    previous = GENESIS.digest

    def add(kind: str, row_id: int) -> None:
        nonlocal previous
        sequence = len(entries) + 1
        content = content_digest(kind, {"at": AT, "sequence": sequence, "n": row_id})
        previous = linked(previous, content)
        entries.append(Entry(kind, row_id, sequence, previous, content))

    for number in range(1, decisions + 1):
        add(DECISION, number)
        add(OUTCOME, number)
        if number in overrides:
            add(OVERRIDE, number)
    return entries


def walked(entries: list[Entry], end: Link | None = None) -> list[tuple[FaultKind, int | None]]:
    rows = [entry for entry in entries if entry.kind != OVERRIDE]
    walk = ChainWalk("w", GENESIS, [entry for entry in entries if entry.kind == OVERRIDE])
    for entry in rows:
        walk.follow(entry)
    walk.finish(end)
    return [(fault.kind, fault.decision_id) for fault in walk.faults]


def end_of(entries: list[Entry]) -> Link:
    return Link(entries[-1].sequence, entries[-1].digest)


def test_a_chain_as_it_was_written_has_no_fault() -> None:
    entries = chain(200, overrides=(3, 4, 120))
    assert walked(entries, end_of(entries)) == []


@pytest.mark.parametrize("place", [0, 1, 60, 61, 199, 299])
def test_an_altered_row_is_found_and_no_other(place: int) -> None:
    entries = chain(150)
    entries[place] = replace(entries[place], content="0" * 64)
    assert walked(entries, end_of(entries)) == [(FaultKind.ALTERED, entries[place].id)]


@pytest.mark.parametrize("place", [0, 1, 60, 298])
def test_an_altered_digest_is_found_and_no_other(place: int) -> None:
    entries = chain(150)
    end = end_of(entries)
    entries[place] = replace(entries[place], digest="0" * 64)
    assert walked(entries, end) == [(FaultKind.ALTERED, entries[place].id)]


@pytest.mark.parametrize("place", [0, 1, 60, 61, 298])
def test_a_removed_row_is_named_by_the_next_one(place: int) -> None:
    entries = chain(150)
    end = end_of(entries)
    del entries[place]
    assert walked(entries, end) == [(FaultKind.MISSING, entries[place].id)]


def test_removed_rows_at_the_end_are_missing() -> None:
    entries = chain(150)
    assert walked(entries[:-3], end_of(entries)) == [(FaultKind.MISSING, 149)]


@pytest.mark.parametrize("distance", [1, 2, 40, 140])
def test_two_rows_that_changed_places_are_named(distance: int) -> None:
    entries = chain(150)
    first, second = 2 * 5, 2 * (5 + distance)
    entries[first : first + 2], entries[second : second + 2] = (
        entries[second : second + 2],
        entries[first : first + 2],
    )
    # Their ids are those of the places where they stand now.
    for place in (first, second):
        for index in (place, place + 1):
            entries[index] = replace(entries[index], id=place // 2 + 1)
    found = walked(entries, end_of(chain(150)))
    assert any(
        kind is FaultKind.OUT_OF_ORDER and decision_id in (6, 7, 6 + distance)
        for kind, decision_id in found
    )
    assert all(decision_id in range(5, 8 + distance) for _, decision_id in found)


def test_rows_that_exchanged_their_contents_are_both_altered() -> None:
    entries = chain(150)
    one, two = entries[20], entries[40]
    entries[20] = replace(one, content=two.content)
    entries[40] = replace(two, content=one.content)
    assert walked(entries) == [(FaultKind.ALTERED, one.id), (FaultKind.ALTERED, two.id)]


def test_an_outcome_may_come_after_the_next_decision() -> None:
    """Two daemons on one log: decide, decide, record, record."""
    entries = chain(1)
    late = entries[1]
    second = content_digest(DECISION, {"sequence": 2})
    first_outcome = content_digest(OUTCOME, {"sequence": 3})
    digest = linked(entries[0].digest, second)
    entries = [
        entries[0],
        replace(late, sequence=3, content=first_outcome, digest=linked(digest, first_outcome)),
        Entry(DECISION, 2, 2, digest, second),
    ]
    assert walked(entries) == []


def test_a_removed_override_is_missing() -> None:
    entries = chain(5, overrides=(2,))
    end = end_of(entries)
    entries = [entry for entry in entries if entry.kind != OVERRIDE]
    assert walked(entries, end) == [(FaultKind.MISSING, 3)]


def test_a_chain_that_was_pruned_begins_where_it_was_cut() -> None:
    entries = chain(10)
    cut = Link(entries[7].sequence, entries[7].digest)
    walk = ChainWalk("w", cut)
    for entry in entries[8:]:
        walk.follow(entry)
    walk.finish(end_of(entries))
    assert walk.faults == []
    walk = ChainWalk("w", cut)
    for entry in entries[10:]:
        walk.follow(entry)
    walk.finish(end_of(entries))
    assert [fault.kind for fault in walk.faults] == [FaultKind.MISSING]


def test_what_a_digest_covers_never_changes() -> None:
    """Logs of earlier versions hold these digests."""
    row = {
        "id": 7,
        "at": AT.astimezone(timezone(timedelta(hours=2))),
        "ready": 4,
        "demand_qps": 9_000.1,
        "trusted": True,
        "context": b"\x00\xff",
        "text": "<é\u202e\n",
        "later_column": None,
        "digest": "ff",
    }
    assert content_digest(DECISION, row) == (
        "9b28434a94829ab108313af389cea24c25058190a1ee02ef887473028c93729e"
    )
    assert linked("0" * 64, "1" * 64) == (
        "2c5a757af655400d3c30ba6f2aec54334006e4b784e2bcc79b99452abfc66ec9"
    )
