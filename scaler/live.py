"""What stands around the loops of a live system: Prometheus, the cluster and the log."""

from __future__ import annotations

import socket
from collections.abc import Callable
from uuid import uuid4

from scaler.clock import SystemClock
from scaler.cluster.connection import connect, open_target
from scaler.cluster.lease import Leadership
from scaler.loop import Ports
from scaler.ports import Clock, DecisionStore
from scaler.rounds import alone
from scaler.settings import Settings, Workload
from scaler.telemetry.source import PrometheusLines, PrometheusSource
from scaler.wiring import PortsFor


def live_ports(
    settings: Settings, store: DecisionStore, clock: Clock, leads: Callable[[], bool] = alone
) -> PortsFor:
    """Prometheus, the cluster and the log for each workload; raises SettingsError."""
    api = connect(settings.kubernetes, leads=leads)
    lines = PrometheusLines(settings.prometheus, settings.workers)

    def ports_for(workload: Workload) -> Ports:
        lead_time = workload.loop_settings(settings.interval_seconds).lead_time
        target = open_target(api, workload.target, lead_time, clock.now)
        return Ports(PrometheusSource(settings.prometheus, workload, lines), target, store)

    return ports_for


def leadership_of(settings: Settings, clock: SystemClock) -> Leadership | None:
    """None where this daemon shares its workloads with no other; raises SettingsError."""
    election = settings.leader_election
    if election is None:
        return None
    identity = f"{socket.gethostname()}_{uuid4().hex[:8]}"
    return Leadership(connect(settings.kubernetes), election, identity, clock)
