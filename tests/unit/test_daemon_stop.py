"""What a stop waits for: decisions in hand, but no fit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from scaler import daemon
from scaler.clock import SystemClock
from scaler.daemon import Daemon
from scaler.rounds import Job, Rounds


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize(("repeatable", "clean"), [(True, True), (False, False)])
def test_a_stop_waits_for_what_cannot_be_repeated(
    repeatable: bool, clean: bool, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "GRACE_SECONDS", 0.5)
    began = threading.Event()

    def work(_: object) -> None:
        began.set()
        release.wait(30)

    running = Daemon(Rounds({}), [Job("work", 60.0, work, repeatable)], SystemClock())

    def stop_once_begun() -> None:
        began.wait(30)
        running.stop()

    threading.Thread(target=stop_once_begun).start()
    assert running.run() is clean


def test_a_hang_up_is_told_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "WATCH_SECONDS", 0.05)
    running = Daemon(Rounds({}), [], SystemClock())
    ended = threading.Event()
    ended_by_it: list[bool] = []

    def hang_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        ended_by_it.append(ended.wait(0.3))
        os.kill(os.getpid(), signal.SIGTERM)

    later = threading.Timer(0.2, hang_up)
    with capture_logs() as logged:
        later.start()
        assert running.run()
        ended.set()
        later.join()
    assert ended_by_it == [False]
    assert [(line["event"], line["signal"]) for line in logged] == [
        ("settings are not reloaded; restart daybreak", "SIGHUP"),
        ("stopping", "SIGTERM"),
    ]
