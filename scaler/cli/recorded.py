"""A workload's own history, as Prometheus has it now."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from forecaster.history import TrafficHistory
from scaler.cli.output import BadInputError
from scaler.clock import SystemClock
from scaler.ports import MetricsError, Reading
from scaler.settings import Settings
from scaler.telemetry.source import PrometheusSource


def recorded_history(path: Path, settings: Settings) -> Reading[TrafficHistory]:
    """The last days of the first workload of a settings file, as far back as its `history` says,
    with what there is to doubt; raises BadInputError where there is none."""
    workload = settings.workloads[0]
    kept = workload.history
    now = SystemClock().now()
    start = now - timedelta(seconds=kept.steps * kept.step_seconds)
    try:
        with PrometheusSource(settings.prometheus, workload) as source:
            return source.demand_history(start, now, kept.step_seconds)
    except MetricsError as error:
        raise BadInputError(f"{path}: {workload.name}: {error}") from error
