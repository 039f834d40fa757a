"""`daybreak simulate --cluster` on a real Dask cluster: the same results, and clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from simulator.sweep.frontier import UTILIZATIONS
from tests.integration.commands import DAYBREAK, run

SHORT = ("--warmup-days", "0.5", "--end", "2026-03-02T12:20Z")


@contextmanager
def dask(*arguments: str, path: str = "") -> Iterator[None]:
    """A scheduler or worker in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error",
    }
    command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
    with subprocess.Popen(
        command, env=environment, cwd=path or None, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def scheduler(folder: Path) -> Iterator[Path]:
    file = folder / "scheduler.json"
    with dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)):
        within(30, lambda: address(file) is not None)
        yield file


@contextmanager
def worker(file: Path, path: str = "") -> Iterator[None]:
    name = ("--nthreads", "1", "--local-directory", str(file.parent))
    with dask("worker", "--scheduler-file", str(file), *name, path=path):
        yield


def address(file: Path) -> str | None:
    try:
        found: str = json.loads(file.read_text())["address"]
    except (OSError, ValueError):
        return None  # not yet, or not whole yet
    return found


def within(seconds: float, done: Callable[[], bool]) -> None:
    for _ in range(round(seconds * 10)):
        if done():
            return
        sleep(0.1)
    pytest.fail(f"not within {seconds} s")


def has_worker(file: Path) -> bool:
    from distributed import Client  # noqa: PLC0415  # takes a second

    with Client(address(file), set_as_default=False) as client:
        return bool(client.scheduler_info()["workers"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with scheduler(tmp_path_factory.mktemp("dask")) as file, worker(file), worker(file):
        within(30, lambda: has_worker(file))
        yield str(address(file))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "day.csv"
    ended = run("trace", "generate", "--days", "1", "--peak-qps", "5000", "--out", str(path))
    assert ended.returncode == 0, ended.stderr
    return path


def results(trace: Path, *arguments: str) -> dict[str, Any]:
    ended = run("simulate", "--trace", str(trace), *arguments, "--json", "-")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    for policy in found["policies"]:
        del policy["seconds"]
        policy.pop("requests_per_wall_second", None)
    return found


@pytest.mark.parametrize(
    ("arguments", "entries"),
    [
        (("--engine", "exact", "--peak-qps", "500"), 2),
        (("--engine", "fluid", "--sweep"), 2 * len(UTILIZATIONS)),
    ],
    ids=["exact", "sweep"],
)
def test_a_cluster_gives_the_same_results(
    trace: Path, cluster: str, arguments: tuple[str, ...], entries: int
) -> None:
    given = ("--policy", "gcp_predictive,hpa", *SHORT, *arguments)
    here = results(trace, *given, "--workers", "1")
    assert results(trace, *given, "--cluster", cluster) == here
    assert len(here["policies"]) == entries


def refused(trace: Path, *arguments: str, path: str = "") -> str:
    ended = subprocess.run(
        [DAYBREAK, "simulate", "--trace", str(trace), "--engine", "fluid", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("daybreak: --")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_a_replay_that_fails_on_a_worker_is_told_as_here(trace: Path, cluster: str) -> None:
    ended = run(
        "simulate", "--trace", str(trace), *SHORT, "--policy", "wva_v1", "--cluster", cluster
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("daybreak: policy wva_v1 never decided: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "tcp://"])
def test_an_address_where_no_scheduler_answers(trace: Path, address: str) -> None:
    told = refused(trace, "--cluster", address)
    assert "expected the address of a Dask scheduler that answers within 10 s" in told
    assert repr(address) in told


def test_workers_of_this_machine_do_not_go_with_a_cluster(trace: Path) -> None:
    assert "--workers" in refused(trace, "--cluster", "127.0.0.1:1", "--workers", "2")


def test_without_dask_its_extra_is_named(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('not here')\n")
    told = refused(trace, "--cluster", "127.0.0.1:1", path=str(tmp_path))
    assert "--cluster: needs Dask: run make cluster" in told


def test_workers_that_are_missing_or_unlike(trace: Path, tmp_path: Path) -> None:
    older = tmp_path / "older" / "daybreak_autoscaler-0.0.9.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Name: daybreak-autoscaler\nVersion: 0.0.9\n")
    with scheduler(tmp_path) as file:
        there = str(address(file))
        assert f"{there} has no worker" in refused(trace, "--cluster", there)
        with worker(file, path=str(older.parent)):
            within(30, lambda: has_worker(file))
            told = refused(trace, "--cluster", there)
    assert "has daybreak-autoscaler 0.0.9, expected 0.1.0 as here" in told
