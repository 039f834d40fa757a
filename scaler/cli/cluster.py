"""`--cluster ADDRESS`: runs as tasks of a Dask cluster that is there already.

Knows how to reach it and whether its workers would give the results that this machine gives. Dask
is an extra, so it is imported only here and only when asked for.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from scaler.cli.output import BadInputError
from scaler.workers import quiet_logs
from simulator.replay import Scenario
from simulator.whatif import Finished, Moment, Run, run_told

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
ALIKE = ("daybreak-autoscaler", "numba", "numpy", "scipy", "distributed")
"""What must be of one version everywhere for results, or for the cluster itself."""


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of the cluster; raises BadInputError where it cannot do the work, or dies of it."""
    try:
        from distributed import Client, KilledWorker  # noqa: PLC0415
    except ImportError:
        raise BadInputError(
            "--cluster: needs Dask: run make cluster in daybreak's folder"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that differ, which are refused below
        try:
            _require_host_and_port(address)
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"--cluster: expected the address of a Dask scheduler that answers within "
                f"{CONNECT_SECONDS} s, such as tcp://10.0.0.1:8786, got {address!r}: {error}"
            ) from error
    with client:
        _require_alike(client, address)
        client.run(quiet_logs)
        try:
            yield client
        except (KilledWorker, asyncio.CancelledError) as error:
            raise BadInputError(f"--cluster: {address} lost its workers: {error}") from error


def run_on(
    client: Client, scenario: Scenario, runs: Sequence[Run], on_moment: Callable[[Moment], None]
) -> list[Finished]:
    """Every run in the order given, a task each; the same results as on this machine."""
    topic = f"daybreak-{uuid4().hex}"

    def tell(event: tuple[float, Any]) -> None:
        run, at, requests = event[1]
        on_moment(Moment(run, datetime.fromisoformat(at), requests))

    client.subscribe_topic(topic, tell)
    futures = [
        client.submit(_run, scenario, run, index, topic, pure=False)
        for index, run in enumerate(runs)
    ]
    finished: list[Finished] = client.gather(futures)
    client.unsubscribe_topic(topic)
    return finished


def pool_on(client: Client) -> Executor:
    """The cluster as whatever takes tasks; it ends with the client."""
    pool: Executor = client.get_executor(pure=False)
    return pool


def _run(scenario: Scenario, run: Run, index: int, topic: str) -> Finished:
    """On a worker of the cluster."""
    from distributed import get_worker  # noqa: PLC0415

    worker = get_worker()

    def on_progress(at: datetime, requests: float) -> None:
        worker.log_event(topic, (index, at.isoformat(), requests))

    return run_told(scenario, run, on_progress)


def _require_host_and_port(address: str) -> None:
    """Looked at here, since Dask's client takes its time to fail; raises ValueError."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if not parts.hostname or not parts.port:
        raise ValueError("it names no host and port")


def _require_alike(client: Client, address: str) -> None:
    found: Any = client.get_versions(packages=ALIKE)
    here = found["client"]["packages"]
    if not found["workers"]:
        raise BadInputError(f"--cluster: {address} has no worker")
    for worker, there in found["workers"].items():
        for package in ("python", *ALIKE):
            wanted, has = (_version(versions, package) for versions in (here, there["packages"]))
            if has != wanted:
                raise BadInputError(
                    f"--cluster: worker {worker} has {package} {has}, expected {wanted} as here; "
                    f"its results would not be the same"
                )


def _version(versions: dict[str, str | None], package: str) -> str:
    found = versions.get(package)
    if found is None:
        return "not installed"
    return ".".join(found.split(".")[:2]) if package == "python" else found
