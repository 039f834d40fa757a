"""A fleet of fixed size."""

from __future__ import annotations

import pytest

from policies.engine import decide
from tests.situations import settings, situation


@pytest.mark.parametrize("name", ["static", "peak_static"])
def test_it_never_moves(name: str) -> None:
    policy = settings(name, parameters={"replicas": 42.0})
    assert decide(situation(current=3, demand=90_000.0, policy=policy)).desired == 42
