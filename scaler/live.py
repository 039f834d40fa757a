"""What stands around the loops of a live system: Prometheus, the cluster and the log."""

from __future__ import annotations

from scaler.cluster.connection import connect, open_target
from scaler.loop import Ports
from scaler.ports import Clock, DecisionStore
from scaler.settings import Settings, Workload
from scaler.telemetry.source import PrometheusLines, PrometheusSource
from scaler.wiring import PortsFor


def live_ports(settings: Settings, store: DecisionStore, clock: Clock) -> PortsFor:
    """Prometheus, the cluster and the log for each workload; raises SettingsError."""
    api = connect(settings.kubernetes)
    lines = PrometheusLines(settings.prometheus, settings.workers)

    def ports_for(workload: Workload) -> Ports:
        lead_time = workload.loop_settings(settings.interval_seconds).lead_time
        target = open_target(api, workload.target, lead_time, clock.now)
        return Ports(PrometheusSource(settings.prometheus, workload, lines), target, store)

    return ports_for
