"""What a stop waits for: decisions in hand, but no fit."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

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
