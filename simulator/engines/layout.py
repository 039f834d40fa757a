"""layout: the arrays of the exact engine, and the constants that say how they are packed.

About 4 KB of hot memory a pod, so that 200 pods fit a second-level cache: the speed depends on
it. It knows no behaviour. Times are integer ns, or ticks of 1.024 microseconds (ns >> 10) where
said; integers are 64 bits, unsigned where an index must not pay for Python's negative ones.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
# What compiled code takes as an integer of 64 bits.
Whole: TypeAlias = int | np.int64

# Every finish and every boundary time of the last steps is in a ring, which is longer than the
# longest output: a power of two, and this one wherever it is long enough.
SHORTEST_RING = 256
IDLE = 1 << 62
TICK_SHIFT = 10
TICKS_A_MINUTE = 58_593_750
TICK_MASK = 0xFFFFFFFF

# Outstanding requests are packed as count << 17 | flag << 16 | position.
MAX_POSITIONS = 1 << 16
FLAG = 1 << 16
ONE_REQUEST = 1 << 17
COUNT_SHIFT = 17

# A pod's line of state: 64 bytes, one cache line. SPEED is 16.16 fixed point.
STEP, RUNNING, BASE, BEFORE, HEAD, TAIL, WAITING, SPEED = range(8)
LINE = 8
SPEED_SHIFT = 16

# A cohort is written out to whole groups of so many requests, so that no loop has a length that
# the processor cannot predict; work is done in blocks of so many pods, so that the scratch arrays
# stay in the first-level cache.
LANES = 16
BLOCK = 64
MAX_ARRIVALS = 1 << 16
TABLE = 4096

# Words of `control`; LOST and CREDIT (thousandths) are what retries are made from, HELD are the
# requests at the gateway, in the cohorts from GATE_HEAD to GATE_TAIL.
SECOND, ACTIVE, ALIVE, LOST, CREDIT, ARRIVED, RETRIED, HELD, GATE_HEAD, GATE_TAIL = range(10)
CONTROL = 10

# Balancers as numbers; the names are in `simulator.balancers`.
P2C, P2C_LOCAL, ROUND_ROBIN, RANDOM, LEAST_LOADED, PINNED = range(6)


class Model(NamedTuple):
    """What all pods share. `lanes` is LANES, unknown to the compiler, which vectorises only so.

    `ring` is the length of a pod's rings in steps. `input` is every request's, and `spare` the
    token budget that admission may take without looking at single requests: none where their
    inputs differ. `pod_limit` is the gateway's, 0 without one. `arrival_sums` says whether those
    of the pods are kept.
    """

    t0: int
    t1: int
    tp: int
    batch: int
    budget: int
    slot: int
    slots_a_second: int
    timeout: int
    front_end: int
    objective: int
    max_waiting: int
    retry_permille: int
    retry_delay: int
    balancer: int
    pod_limit: int
    gateway_waiting: int
    arrival_sums: bool
    seed: np.uint64
    lanes: np.uint64
    ring: np.uint64
    input: int
    spare: int
    same_input: bool
    lengths: U8 | U16
    inputs: I64


class Pods(NamedTuple):
    """By row. `finishing` (requests that finish), `boundary` (ticks) and `cohort` are rings.

    A cohort is first arrival << 32 | spacing << 16 | count, the arrival in ticks and earlier by
    the front-end term. The waiting ring holds cohorts not yet admitted. `admitted` counts the
    requests that have left the queue, where inputs differ. `arrival_sum` adds up the arrivals since
    the last boundary, as times after it, where they are not evenly spread.
    """

    line: I64
    key: U64
    finishing: U16
    boundary: U32
    cohort: U64
    waiting_count: I64
    waiting_since: I64
    admitted: I64
    arrival_sum: I64
    place: I64


class Places(NamedTuple):
    """By position: those below ACTIVE can be picked, those below ALIVE are stepped."""

    outstanding: I64
    due: I64
    row: I64


class Minutes(NamedTuple):
    """By minute of arrival; `histogram` has `histogram.WIDTH` counters a minute."""

    histogram: I32
    timed_out: I64
    shed: I64
    failed: I64


class Seconds(NamedTuple):
    """By second: the rate at its two ends, and what was seen; pods as they were at its end."""

    rate_from: F64
    rate_to: F64
    arrivals: I64
    retried: I64
    running: I64
    waiting: I64
    ready: I64


class Scratch(NamedTuple):
    """Flat lists of requests, filled and emptied within a block of pods, and of positions."""

    word: U64
    place: U64
    record_word: U64
    record_place: U64
    ticks: U32
    listed: I64
    picks: U64


class Clients(NamedTuple):
    """Who sent what. `pointer` is round robin's, `connection` holds rows, the rest is local counts.

    Each request outstanding is a node: queued in its pod until it is admitted, then listed at the
    step where it finishes. `tally` is by (client, row); `node_free` heads the list of free nodes.
    """

    number: int
    pointer: I64
    connection: I64
    tally: I64
    node_client: I64
    node_next: I64
    queue_head: I64
    queue_tail: I64
    finish_head: I64
    node_free: I64


class Gate(NamedTuple):
    """The gateway's queue, a ring of cohorts: requests, and the time at which they arrived."""

    requests: I64
    since: I64


class State(NamedTuple):
    """All of it. `returning` holds the requests that are sent again, by second, as a ring."""

    model: Model
    pods: Pods
    places: Places
    minutes: Minutes
    seconds: Seconds
    scratch: Scratch
    clients: Clients
    gate: Gate
    returning: I64
    control: I64
