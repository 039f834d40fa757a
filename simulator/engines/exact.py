"""The exact engine: every request of a fleet is simulated, and its latency counted.

Time runs in slots of 1 ms; within them pods advance by engine steps at exact integer times. See
`kernel` for what is exact and what is approximated. Pods are activated, drained, crashed and
slowed between calls; results are counted by the minute in which a request arrived and by second.
It knows no cold start, no policy and no trace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from forecaster.history import Floats
from simulator.balancers import Balancer, Balancing, balancer
from simulator.engines.histogram import TICK_SECONDS, WIDTH, Counts, late_count, quantile, ticks_of
from simulator.engines.kernel import advance, forget_clients, scratch_size, settle
from simulator.engines.layout import (
    ACTIVE,
    ALIVE,
    ARRIVED,
    CONTROL,
    COUNT_SHIFT,
    HELD,
    I64,
    IDLE,
    LANES,
    LINE,
    LOST,
    MAX_ARRIVALS,
    MAX_POSITIONS,
    RETRIED,
    SECOND,
    SHORTEST_RING,
    SPEED,
    SPEED_SHIFT,
    TABLE,
    Clients,
    Gate,
    Minutes,
    Model,
    Places,
    Pods,
    Scratch,
    Seconds,
    State,
)
from simulator.engines.random_streams import LENGTHS, stream_key
from simulator.engines.routing import NUMBERS
from simulator.pod import MAX_INPUT, MAX_LENGTH, PodProfile

Number = TypeVar("Number", bound=np.generic)
NANOSECOND = 1e-9
# Half of what 32 bits of ticks hold: a step with many prompt tokens lasts longer than a full one.
LONGEST_RING_SECONDS = 2**31 * TICK_SECONDS
# Of 16 and 14 bytes, of which only those that are used take memory.
QUEUE_CELLS, RING_CELLS = 1 << 28, 1 << 26
SLOTS_SECONDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3, 5e-3, 8e-3, 1e-2, 2e-2, 4e-2, 5e-2, 1e-1)


@dataclass(frozen=True, slots=True)
class ExactSettings:
    """What an exact run needs beside its pods.

    `max_waiting` is the number of requests that may wait in a pod after a boundary, the rest is
    shed (None: any number). Of the requests that time out, are shed or fail, a share `retry_ratio`
    is sent again `retry_delay_seconds` after the end of that second, each as one more request. The
    two tables hold a length in tokens for each of 4,096 equally
    likely quantiles; without them the profile's lengths apply. `slot_seconds` must divide a
    second and be no longer than the shortest step.
    """

    slo_seconds: float = 1.0
    slot_seconds: float = 1e-3
    max_waiting: int | None = None
    retry_ratio: float = 0.0
    retry_delay_seconds: int = 1
    drain_grace_seconds: float = 30.0
    output_lengths: I64 | None = None
    input_lengths: I64 | None = None


def slot_within(t0_seconds: float) -> float:
    """The slot whose share of the shortest step is at most that of 1 ms in 2.5 ms.

    Raises ValueError where steps are shorter than a quarter of a millisecond.
    """
    fitting = [slot for slot in SLOTS_SECONDS if slot <= 0.4 * t0_seconds * (1 + 1e-9)]
    if not fitting:
        raise ValueError(f"a step of {t0_seconds:g} s is too short to be simulated")
    return fitting[-1]


def most_pods(profile: PodProfile, slot_seconds: float) -> int:
    """How many pods fit the memory that rings and waiting rooms may take."""
    queue = _queue_length(profile.timeout_seconds / slot_seconds)
    return min(MAX_POSITIONS - 1, QUEUE_CELLS // queue, RING_CELLS // _ring_length(profile.outputs))


@dataclass(slots=True)
class _Pod:
    row: int
    leaves_at: int | None = None


class ExactEngine:
    """A fleet of pods behind one balancer, from second 0 on."""

    def __init__(
        self,
        profile: PodProfile,
        routed_by: Balancer | str = "p2c",
        seed: int = 0,
        max_pods: int = 400,
        settings: ExactSettings | None = None,
    ) -> None:
        """Build an empty fleet; raises ValueError where a condition of the engine is not met."""
        self.profile = profile
        self.settings = settings or ExactSettings()
        self.balancer = balancer(routed_by) if isinstance(routed_by, str) else routed_by
        self._seed = np.uint64(seed)
        self._model = _model(profile, self.settings, self.balancer, self._seed)
        if not 0 < max_pods < MAX_POSITIONS:
            raise ValueError(f"max_pods must lie in 1 ... {MAX_POSITIONS - 1}, not {max_pods}")
        self._state = _state(self._model, self.balancer, max_pods)
        self._free = list(range(max_pods - 1, -1, -1))
        self._pods: dict[int, _Pod] = {}
        self._draining: list[int] = []
        self._activated = 0
        self._homeless = self.balancer.balancing is Balancing.PINNED
        self._last_rate: float | None = None
        self._in_flight: int | None = None
        self._churn_debt = 0.0

    def activate(self, count: int = 1, speed_factor: float = 1.0) -> list[int]:
        """New pods that take requests at once, by number; their steps last `speed_factor` as long.

        Raises ValueError where max_pods is exceeded or a step would be shorter than a slot.
        """
        speed = self._speed(speed_factor)
        if count > len(self._free):
            raise ValueError(f"no room for {count} more pods: {len(self._free)} of max_pods free")
        return [self._activate_one(speed) for _ in range(count)]

    def set_speed(self, pod: int, speed_factor: float) -> None:
        """Change how long a pod's steps last from its next boundary on; 1 is the profile's time."""
        self._state.pods.line[self._pods[pod].row * LINE + SPEED] = self._speed(speed_factor)

    def drain(self, pod: int, grace_seconds: float | None = None) -> None:
        """The pod leaves the balancer at once and the fleet when it is empty or its grace ends.

        What is unfinished when the grace, in whole seconds, ends has failed.
        """
        self._withdraw(pod)
        grace = self.settings.drain_grace_seconds if grace_seconds is None else grace_seconds
        self._pods[pod].leaves_at = self.clock + math.ceil(grace)
        self._draining.append(pod)

    def crash(self, pod: int) -> None:
        """The pod is gone and all its requests have failed."""
        if pod in self._draining:
            self._draining.remove(pod)
        else:
            self._withdraw(pod)
        self._remove(pod, fail=True)

    @property
    def active(self) -> list[int]:
        """Pods that take requests, oldest first."""
        return [pod for pod, held in self._pods.items() if held.leaves_at is None]

    @property
    def draining(self) -> list[int]:
        """Pods that only finish what they have."""
        return list(self._draining)

    def outstanding(self, pod: int) -> int:
        """Requests running or waiting in a pod."""
        place = self._state.pods.place[self._pods[pod].row]
        return int(self._state.places.outstanding[place] >> COUNT_SHIFT)

    @property
    def held(self) -> int:
        """Requests that wait at the gateway."""
        return int(self._state.control[HELD])

    @property
    def clock(self) -> int:
        """Seconds simulated."""
        return int(self._state.control[SECOND])

    def advance(self, rates: Floats) -> None:
        """Simulate one second for each mean rate, in requests a second.

        Within a second the rate is linear, sloped as the way from the second before it, and its
        mean is the one given. Raises ValueError on rates that are not finite or not simulable.
        """
        if self._in_flight is not None:
            raise ValueError("the run has been flushed")
        rates = np.asarray(rates, dtype=np.float64)
        self._check(rates)
        self._extend(rates)
        if self._homeless:
            self._homeless = False
            self._connect(np.arange(len(self._state.clients.connection)))
        target = self.clock + len(rates)
        while self.clock < target:
            stepwise = bool(self._draining) or self.balancer.churn_per_second > 0
            if self.balancer.balancing is Balancing.P2C_LOCAL:
                stepwise = True
                self._make_room_for_nodes(float(rates[len(rates) - (target - self.clock)]))
            advance(self._state, 1 if stepwise else target - self.clock)
            self._let_leave()
            self._churn()

    def flush(self) -> None:
        """End the run: record what has finished but not been recorded yet, and prove conservation.

        Raises AssertionError where a request has been lost or invented.
        """
        alive = int(self._state.control[ALIVE])
        in_flight = sum(int(settle(self._state, place, False)) for place in range(alive))
        in_flight += self.held
        self._in_flight = in_flight
        ended = int(self.requests.sum())
        born = self.total_arrivals + self.total_retries
        assert born == ended + in_flight, (
            f"{born} requests came, {ended} are counted and {in_flight} are in flight"
        )

    @property
    def in_flight(self) -> int:
        """Requests neither finished nor lost; raises ValueError before flush."""
        if self._in_flight is None:
            raise ValueError("in flight is known after flush")
        return self._in_flight

    @property
    def total_arrivals(self) -> int:
        """Fresh requests since second 0."""
        return int(self._state.control[ARRIVED])

    @property
    def total_retries(self) -> int:
        """Lost requests that were sent again; each counts as one more request."""
        return int(self._state.control[RETRIED])

    @property
    def arrivals(self) -> I64:
        """Fresh requests of each second."""
        return self._state.seconds.arrivals[: self.clock]

    @property
    def retried(self) -> I64:
        """Requests of each second that had been lost before."""
        return self._state.seconds.retried[: self.clock]

    @property
    def running(self) -> I64:
        """Requests in the batches at the end of each second."""
        return self._state.seconds.running[: self.clock]

    @property
    def waiting(self) -> I64:
        """Requests not yet admitted at the end of each second, those within a step included."""
        return self._state.seconds.waiting[: self.clock]

    @property
    def ready(self) -> I64:
        """Pods that took requests in each second."""
        return self._state.seconds.ready[: self.clock]

    @property
    def minutes(self) -> int:
        """Minutes begun."""
        return -(-self.clock // 60)

    @property
    def histograms(self) -> npt.NDArray[np.int32]:
        """Completed requests by minute of arrival (rows) and latency bucket (columns)."""
        return self._state.minutes.histogram.reshape(-1, WIDTH)[: self.minutes]

    @property
    def completed(self) -> Counts:
        """Completed requests by minute of arrival."""
        return np.asarray(self.histograms.sum(axis=1, dtype=np.int64))

    @property
    def requests(self) -> Counts:
        """All that ended, by minute of arrival: completed, timed out, shed and failed."""
        return self.completed + self.timed_out + self.shed + self.failed

    @property
    def late(self) -> Counts:
        """Completed requests slower than the objective, exactly, by minute of arrival."""
        objective = self._model.objective
        return np.array([late_count(row, objective) for row in self.histograms], dtype=np.int64)

    @property
    def timed_out(self) -> Counts:
        """Requests that waited longer than the timeout, by minute of arrival."""
        return self._state.minutes.timed_out[: self.minutes]

    @property
    def shed(self) -> Counts:
        """Requests turned away by a full waiting room, by minute of arrival."""
        return self._state.minutes.shed[: self.minutes]

    @property
    def failed(self) -> Counts:
        """Requests lost with their pod, or that found no pod, by minute of arrival."""
        return self._state.minutes.failed[: self.minutes]

    @property
    def beyond_histogram(self) -> int:
        """Requests slower than the last edge of the histogram, about 18 minutes."""
        return int(self.histograms[:, -1].sum(dtype=np.int64))

    def quantile(self, level: float, minute: int | None = None) -> float:
        """Latency in seconds of one minute's requests, or of all; NaN where none completed."""
        rows = self.histograms if minute is None else self.histograms[minute : minute + 1]
        return quantile(rows.sum(axis=0, dtype=np.int64), level, self._model.objective)

    def _speed(self, factor: float) -> int:
        model, speed = self._model, round(factor * (1 << SPEED_SHIFT))
        if (model.t0 * speed) >> SPEED_SHIFT < model.slot:
            raise ValueError(f"speed factor {factor:g} makes a step shorter than a slot")
        longest = int(model.ring) * self.profile.full_step_seconds * factor
        if longest > LONGEST_RING_SECONDS:
            raise ValueError(
                f"profile {self.profile.name}: its longest output would take {longest:,.0f} s, "
                f"more than the engine's clock of {LONGEST_RING_SECONDS:,.0f} s can tell"
            )
        return speed

    def _activate_one(self, speed: int) -> int:
        state, control = self._state, self._state.control
        pod, row = self._activated, self._free.pop()
        self._activated += 1
        place = int(control[ALIVE])
        state.places.outstanding[place] = place
        state.places.due[place] = IDLE
        state.places.row[place] = row
        state.pods.place[row] = place
        state.pods.line[row * LINE : (row + 1) * LINE] = 0
        state.pods.line[row * LINE + SPEED] = speed
        state.pods.arrival_sum[row] = 0
        state.pods.admitted[row] = 0
        state.pods.key[row] = stream_key(self._seed, LENGTHS, np.uint64(pod))
        control[ALIVE] += 1
        self._swap(place, int(control[ACTIVE]))
        control[ACTIVE] += 1
        self._pods[pod] = _Pod(row)
        return pod

    def _withdraw(self, pod: int) -> None:
        held = self._pods[pod]
        if held.leaves_at is not None:
            raise ValueError(f"pod {pod} is draining already")
        control = self._state.control
        control[ACTIVE] -= 1
        self._swap(int(self._state.pods.place[held.row]), int(control[ACTIVE]))
        if self.balancer.balancing is Balancing.PINNED:
            self._connect(np.flatnonzero(self._state.clients.connection == held.row))

    def _swap(self, one: int, other: int) -> None:
        """Exchange two positions; the position within a packed word stays where it is."""
        places = self._state.places
        for values in (places.due, places.row):
            values[[one, other]] = values[[other, one]]
        counts = places.outstanding[[other, one]] >> COUNT_SHIFT
        places.outstanding[[one, other]] = (counts << COUNT_SHIFT) | np.array([one, other])
        for place in (one, other):
            self._state.pods.place[places.row[place]] = place

    def _remove(self, pod: int, fail: bool) -> None:
        """Record the rest of a pod that takes no requests any more and free its row."""
        state, row = self._state, self._pods.pop(pod).row
        place = int(state.pods.place[row])
        lost = settle(state, place, fail)
        state.control[LOST] += lost if fail else 0
        state.control[ALIVE] -= 1
        self._swap(place, int(state.control[ALIVE]))
        if self.balancer.balancing is Balancing.P2C_LOCAL:
            forget_clients(state, row)
        steps = int(self._model.ring)
        ring = slice(row * steps, (row + 1) * steps)
        state.pods.finishing[ring] = 0
        state.pods.cohort[ring] = 0
        self._free.append(row)

    def _let_leave(self) -> None:
        for pod in list(self._draining):
            over = self._pods[pod].leaves_at
            if self.outstanding(pod) == 0 or (over is not None and over <= self.clock):
                self._draining.remove(pod)
                self._remove(pod, fail=True)

    def _churn(self) -> None:
        """Some connections close and open again, each to a random pod."""
        if self.balancer.balancing is not Balancing.PINNED or not self._state.control[ACTIVE]:
            return
        connections = len(self._state.clients.connection)
        self._churn_debt += connections * self.balancer.churn_per_second
        count = int(self._churn_debt)
        self._churn_debt -= count
        if count:
            rng = np.random.Generator(np.random.Philox(key=[int(self._seed), self.clock]))
            self._connect(rng.choice(connections, count, replace=False))

    def _connect(self, connections: npt.NDArray[np.int64]) -> None:
        active = int(self._state.control[ACTIVE])
        if active == 0:
            self._homeless = True
            return
        cell = (self._activated << 32) + self.clock
        rng = np.random.Generator(np.random.Philox(key=[int(self._seed) + 1, cell]))
        rows = self._state.places.row[rng.integers(0, active, len(connections))]
        self._state.clients.connection[connections] = rows

    def _check(self, rates: Floats) -> None:
        if not np.all(np.isfinite(rates)) or np.any(rates < 0):
            raise ValueError("rates must be finite and not negative")
        peak = 1.5 * float(rates.max(initial=0.0)) * self.settings.slot_seconds
        most = MAX_ARRIVALS // 2 if self.settings.retry_ratio else MAX_ARRIVALS
        if peak + 12 * math.sqrt(peak) + 100 > most:
            raise ValueError(f"more than {most} arrivals in a slot cannot be simulated")

    def _extend(self, rates: Floats) -> None:
        """Make room for the seconds to come and set their rates."""
        wanted = self.clock + len(rates)
        known = self._state.seconds
        seconds = Seconds(
            _grown(known.rate_from, wanted),
            _grown(known.rate_to, wanted),
            _grown(known.arrivals, wanted),
            _grown(known.retried, wanted),
            _grown(known.running, wanted),
            _grown(known.waiting, wanted),
            _grown(known.ready, wanted),
        )
        rows = 1 + wanted // 60
        old = self._state.minutes
        minutes = Minutes(
            _grown(old.histogram, rows * WIDTH),
            _grown(old.timed_out, rows),
            _grown(old.shed, rows),
            _grown(old.failed, rows),
        )
        self._state = self._state._replace(seconds=seconds, minutes=minutes)
        if not len(rates):
            return
        first = rates[0] if self._last_rate is None else self._last_rate
        previous = np.concatenate([[first], rates[:-1]])
        # The start is bounded so that neither end falls below zero.
        start = np.minimum((previous + rates) / 2, 2 * rates)
        ahead = slice(self.clock, wanted)
        seconds.rate_from[ahead] = start
        seconds.rate_to[ahead] = 2 * rates - start
        self._last_rate = float(rates[-1])

    def _make_room_for_nodes(self, rate: float) -> None:
        """Local counts keep a node a request: there must be enough for all that may be alive."""
        state = self._state
        control = state.control
        alive = int((state.places.outstanding[: control[ALIVE]] >> COUNT_SHIFT).sum())
        coming = 1.5 * rate + int(state.returning[self.clock % len(state.returning)])
        wanted = alive + int(coming + 12 * math.sqrt(coming)) + 1000
        held = len(state.clients.node_client)
        if wanted <= held:
            return
        client = _grown(state.clients.node_client, wanted)
        following = _grown(state.clients.node_next, wanted)
        following[held:] = np.append(
            np.arange(held + 1, len(following)), state.clients.node_free[0]
        )
        state.clients.node_free[0] = held
        clients = state.clients._replace(node_client=client, node_next=following)
        self._state = state._replace(clients=clients)


def _model(
    profile: PodProfile, settings: ExactSettings, routed: Balancer, seed: np.uint64
) -> Model:
    outputs = _outputs(profile, settings)
    inputs = profile.inputs if settings.input_lengths is None else settings.input_lengths
    _check_table("input_lengths", inputs, MAX_INPUT)
    batch = profile.batch
    slot = round(settings.slot_seconds / NANOSECOND)
    t0 = round(profile.t0_seconds / NANOSECOND)
    if batch < 1 or batch >= 1 << 16:
        raise ValueError(f"profile {profile.name}: a batch of {batch} cannot be simulated")
    if profile.token_budget < batch + inputs.max():
        raise ValueError(f"profile {profile.name}: the token budget can admit no request")
    if slot <= 0 or 1_000_000_000 % slot or slot > t0:
        raise ValueError("a slot must divide a second and be no longer than t0")
    if not 0 <= settings.retry_ratio <= 1 or settings.retry_delay_seconds < 1:
        raise ValueError("retries need a ratio from 0 to 1 and a delay of at least a second")
    ring = _ring_length(outputs)
    same_input = bool(inputs.min() == inputs.max())
    waiting, gateway = settings.max_waiting, routed.gateway
    held = None if gateway is None else gateway.max_waiting
    return Model(
        t0=t0,
        t1=round(profile.t1_seconds / NANOSECOND),
        tp=round(profile.tp_seconds / NANOSECOND),
        batch=batch,
        budget=profile.token_budget,
        slot=slot,
        slots_a_second=1_000_000_000 // slot,
        timeout=round(profile.timeout_seconds / NANOSECOND),
        front_end=ticks_of(profile.front_end_seconds),
        objective=math.floor(settings.slo_seconds / TICK_SECONDS),
        max_waiting=IDLE if waiting is None else waiting,
        retry_permille=round(1000 * settings.retry_ratio),
        retry_delay=settings.retry_delay_seconds,
        balancer=NUMBERS[routed.balancing],
        pod_limit=0 if gateway is None else gateway.pod_limit or batch,
        gateway_waiting=IDLE if held is None else held,
        arrival_sums=gateway is not None or routed.balancing is Balancing.LEAST_LOADED,
        seed=seed,
        lanes=np.uint64(LANES),
        ring=np.uint64(ring),
        input=int(inputs[0]),
        spare=profile.token_budget if same_input else -1,
        same_input=same_input,
        lengths=outputs.astype(np.uint8) if ring == SHORTEST_RING else outputs.astype(np.uint16),
        inputs=np.asarray(inputs, dtype=np.int64),
    )


def _outputs(profile: PodProfile, settings: ExactSettings) -> I64:
    table = profile.outputs if settings.output_lengths is None else settings.output_lengths
    _check_table("output_lengths", table, MAX_LENGTH)
    return table


def _check_table(name: str, table: I64, longest: int) -> None:
    if len(table) != TABLE or table.min() < 1 or table.max() > longest:
        raise ValueError(f"{name} must hold {TABLE} lengths from 1 to {longest} tokens")


def _state(model: Model, routed: Balancer, rows: int) -> State:
    queue = _queue_length(model.timeout / model.slot)
    steps = int(model.ring)
    size = scratch_size(model.batch)
    local = routed.balancing is Balancing.P2C_LOCAL
    connections = routed.connections if routed.balancing is Balancing.PINNED else 1
    return State(
        model=model,
        pods=Pods(
            line=_zeros(rows * LINE),
            key=np.zeros(rows, dtype=np.uint64),
            finishing=np.zeros(rows * steps, dtype=np.uint16),
            boundary=np.zeros(rows * steps, dtype=np.uint32),
            cohort=np.zeros(rows * steps, dtype=np.uint64),
            waiting_count=_zeros(rows * queue),
            waiting_since=_zeros(rows * queue),
            admitted=_zeros(rows),
            arrival_sum=_zeros(rows),
            place=_zeros(rows),
        ),
        places=Places(_zeros(rows + 1), np.full(rows + 1, IDLE), _zeros(rows + 1)),
        minutes=Minutes(np.zeros(0, dtype=np.int32), _zeros(0), _zeros(0), _zeros(0)),
        seconds=Seconds(np.zeros(0), np.zeros(0), *(_zeros(0) for _ in range(5))),
        scratch=Scratch(
            word=np.zeros(size, dtype=np.uint64),
            place=np.zeros(size, dtype=np.uint64),
            record_word=np.zeros(size, dtype=np.uint64),
            record_place=np.zeros(size, dtype=np.uint64),
            ticks=np.zeros(size, dtype=np.uint32),
            listed=_zeros(rows + 1),
            picks=np.zeros(MAX_ARRIVALS, dtype=np.uint64),
        ),
        clients=Clients(
            number=routed.clients,
            pointer=_zeros(routed.clients),
            connection=_zeros(connections),
            tally=_zeros(routed.clients * rows if local else 1),
            node_client=_zeros(1),
            node_next=np.full(1, -1, dtype=np.int64),
            queue_head=np.full(rows, -1, dtype=np.int64),
            queue_tail=np.full(rows, -1, dtype=np.int64),
            finish_head=np.full(rows * steps if local else 1, -1, dtype=np.int64),
            node_free=_zeros(1),
        ),
        gate=Gate(*(_zeros(queue if model.pod_limit else 1) for _ in range(2))),
        returning=_zeros(model.retry_delay + 1),
        control=_zeros(CONTROL),
    )


def _ring_length(outputs: I64) -> int:
    return max(SHORTEST_RING, 1 << int(outputs.max()).bit_length())


def _queue_length(slots: float) -> int:
    """A cohort a step can wait as long as the timeout, and no step is shorter than a slot."""
    return 1 << math.ceil(math.log2(slots + 4))


def _zeros(size: int) -> I64:
    return np.zeros(size, dtype=np.int64)


def _grown(values: npt.NDArray[Number], size: int) -> npt.NDArray[Number]:
    """The array, or a copy at least twice as long whose new part is zero."""
    if size <= len(values):
        return values
    longer = np.zeros(max(size, 2 * len(values)), dtype=values.dtype)
    longer[: len(values)] = values
    return longer
