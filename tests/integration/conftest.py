"""Servers that integration tests share, each started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.prometheus_server import (
    PrometheusServer,
    running_prometheus,
    whole_minute_now,
)


@pytest.fixture(scope="session")
def prometheus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A real Prometheus with 28 days of history that ends at the last whole minute."""
    folder = tmp_path_factory.mktemp("prometheus")
    with running_prometheus(folder, whole_minute_now()) as server:
        yield server
