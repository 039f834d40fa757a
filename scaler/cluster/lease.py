"""Leadership: of several daemons the one that holds a Lease acts, the others stand by.

Knows the Lease of coordination.k8s.io and how long it can be relied on. A leader gives up before
its Lease can pass to another, and times are measured on one's own monotonic clock: no other
machine's clock is trusted. What a leader still writes too late is refused by the guard of the write
itself (decision epoch and precondition); a Lease alone fences nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog
from kubernetes.client import CoordinationV1Api, V1Lease, V1LeaseSpec, V1ObjectMeta

from scaler.clock import SystemClock
from scaler.cluster.api import ClusterClient, ClusterError, FaultKind, ask
from scaler.settings import LeaderElection

_log = structlog.get_logger("daybreak")


@dataclass(frozen=True, slots=True)
class Held:
    """What matters of a Lease; `holder` is empty where nobody holds it."""

    version: str
    holder: str
    seconds: float
    acquired_at: datetime | None
    transitions: int


NEW = Held(version="", holder="", seconds=0.0, acquired_at=None, transitions=0)


class Leadership:
    """Whether this process may act. One thread at a time attends to the Lease, any may ask.

    `on_led` is called when leadership begins, `on_lost` when the Lease that was held is another's:
    what this process knows is old by then, and it must begin anew, as after a restart.
    """

    def __init__(
        self, api: ClusterClient, settings: LeaderElection, identity: str, clock: SystemClock
    ) -> None:
        self.on_led: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.holder = ""
        self.obstacle = ""
        self._api, self._settings, self._identity, self._clock = api, settings, identity, clock
        self._leases = CoordinationV1Api(api)
        self._leads_until: float | None = None
        self._seen: tuple[str, float] | None = None
        self._ended = False
        self._attending = threading.Lock()

    @property
    def retry_seconds(self) -> float:
        return self._settings.retry_seconds

    def leads(self) -> bool:
        """Whether nobody else can hold the Lease now, nor before a request that begins now ends."""
        until = self._leads_until
        return until is not None and not self._ended and self._clock.monotonic() < until

    def led_by(self) -> str | None:
        """Who else leads, as last seen: empty where nobody is known to, None where this one
        does."""
        if self.leads():
            return None
        return "" if self.holder == self._identity else self.holder

    def attend(self) -> None:
        """Take the Lease where it is free, or renew it; no fault is raised. Due every
        `retry_seconds`."""
        with self._attending:
            if not self._ended:
                self._attend()

    def release(self) -> None:
        """Let the Lease go, so that another need not wait for its end. Nothing may be written after
        that."""
        led, self._ended = self.leads(), True
        if not self._attending.acquire(timeout=self._api.timeout_seconds):
            return  # It ends by itself.
        try:
            with suppress(ClusterError):
                held = self._read() if led else None
                if held is not None and held.holder == self._identity:
                    self._write(held, holder="")
        finally:
            self._attending.release()

    def _attend(self) -> None:
        began = self._clock.monotonic()
        try:
            held = self._read()
            if self._leads_until is None:
                self._stand_by(held, began)
            else:
                self._renew(held, began)
        except ClusterError as error:
            if str(error) != self.obstacle:
                _log.warning("the lease cannot be attended to", error=str(error))
            self.obstacle = str(error)
        else:
            self.obstacle = ""

    def _stand_by(self, held: Held | None, began: float) -> None:
        """Take it where nobody holds it, or whoever did has been silent for too long."""
        if held and held.holder not in ("", self._identity) and not self._silent(held):
            if held.holder != self.holder:
                _log.info("standing by", lease=self._what, holder=held.holder)
            self.holder = held.holder
            return
        self._write(held, self._identity)
        _log.info("leading", lease=self._what, identity=self._identity)
        self.holder = self._identity
        self._leads_until = began + self._settings.renew_seconds
        self.on_led()

    def _renew(self, held: Held | None, began: float) -> None:
        if held is None or held.holder != self._identity:
            self._ended = True
            _log.error("leadership lost", lease=self._what, holder=held.holder if held else "")
            self.on_lost()
            return
        self._write(held, self._identity)
        self._leads_until = began + self._settings.renew_seconds

    def _silent(self, held: Held) -> bool:
        """Whether its holder has not renewed it for as long as he said that it holds."""
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != held.version:
            self._seen = (held.version, now)
        return now - self._seen[1] > held.seconds

    @property
    def _what(self) -> str:
        return f"leases.coordination.k8s.io {self._settings.namespace}/{self._settings.lease}"

    def _read(self) -> Held | None:
        """None where there is none yet. Raises ClusterError."""
        name, namespace = self._settings.lease, self._settings.namespace
        read = partial(self._leases.read_namespaced_lease, name, namespace)
        try:
            found = ask(self._api, "get", self._what, read)
        except ClusterError as error:
            if error.kind is FaultKind.MISSING:
                return None
            raise
        if found.metadata is None or not found.metadata.resource_version:
            raise ClusterError(FaultKind.REJECTED, "get", f"{self._what} came without its version")
        spec = found.spec or V1LeaseSpec()
        return Held(
            version=found.metadata.resource_version,
            holder=spec.holder_identity or "",
            seconds=float(spec.lease_duration_seconds or self._settings.lease_seconds),
            acquired_at=spec.acquire_time,
            transitions=spec.lease_transitions or 0,
        )

    def _write(self, held: Held | None, holder: str) -> None:
        """Conflicts where anybody has written the Lease, or made it, since it was read. Raises
        ClusterError."""
        name, namespace = self._settings.lease, self._settings.namespace
        lease = self._lease(held or NEW, holder)
        if held is None:
            verb, write = "create", partial(self._leases.create_namespaced_lease, namespace, lease)
        else:
            replace = self._leases.replace_namespaced_lease
            verb, write = "update", partial(replace, name, namespace, lease)
        ask(self._api, verb, self._what, write)

    def _lease(self, held: Held, holder: str) -> V1Lease:
        now = self._clock.now()
        now = now.replace(microsecond=now.microsecond or 1)  # API servers refuse times without.
        passes = holder != held.holder
        return V1Lease(
            api_version="coordination.k8s.io/v1",
            kind="Lease",
            metadata=V1ObjectMeta(
                name=self._settings.lease,
                namespace=self._settings.namespace,
                resource_version=held.version or None,
            ),
            spec=V1LeaseSpec(
                holder_identity=holder,
                lease_duration_seconds=self._settings.lease_seconds,
                acquire_time=now if passes else held.acquired_at,
                renew_time=now,
                lease_transitions=held.transitions + (passes and bool(holder)),
            ),
        )
