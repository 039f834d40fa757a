"""Worker processes of this machine: they only compute, and never outlive who started them."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from concurrent.futures import ProcessPoolExecutor  # noqa: TID251  # here alone
from multiprocessing import get_context, parent_process
from multiprocessing.managers import SyncManager
from threading import Thread

import structlog


def process_pool(workers: int) -> ProcessPoolExecutor:
    """So many processes; nothing of this one's state is copied into them."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)


def manager() -> SyncManager:
    """For queues that are shared with the processes of a pool."""
    started = SyncManager(ctx=get_context("spawn"))
    started.start(_begin)
    return started


def quiet_logs() -> None:
    """For processes that only compute: what their loops decide is nobody's news, and what ends a
    replay is told by its error."""
    level = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(
        wrapper_class=level, logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )


def _begin() -> None:
    quiet_logs()
    # What it has imported need not be taken apart: half a second that its parent would wait for.
    atexit.register(os._exit, 0)
    Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """A process that was killed cannot end its pool, whose workers would wait for it for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
