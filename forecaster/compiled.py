"""compiled, inlined, allocating, as_python: the ways a function becomes machine code.

No fast-math, because results must repeat bit for bit; the GIL is released, so that two engines
can run on two cores; the code is cached on disk. What is only `compiled` allocates nothing, so
arrays need no reference counts there: counting them atomically cost a third of an engine's run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "_nrt": False}


# Whatever holds compiled code, or what is compiled into it.
SOURCES = (
    "forecaster/**/*.py",
    "simulator/engines/*.py",
    "simulator/sweep/*.py",
    "policies/capacity.py",
    "policies/predictive.py",
    "policies/peers/*.py",
)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function compiled at its first call; callable from Python and from compiled code."""
    return cast(Callable[P, R], _made(function, {}))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, and always merged into its caller: a call would copy every array's header."""
    return cast(Callable[P, R], _made(function, {"forceinline": True}))


def allocating(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, for code that makes arrays of its own."""
    return cast(Callable[P, R], _made(function, {"_nrt": True}))


def as_python(function: Callable[P, R]) -> Callable[P, R]:
    """As `allocating`; what raises in Python, as a division by zero, raises here."""
    return cast(Callable[P, R], _made(function, {"_nrt": True, "error_model": "python"}))


def _made(function: Callable[P, R], options: dict[str, Any]) -> object:
    config: Any = numba.config
    usual = config.CACHE_DIR
    config.CACHE_DIR = str(_cache_folder(usual))
    try:
        return numba.njit(  # noqa: TID251  # here alone
            **{**_OPTIONS, **options}
        )(function)
    finally:
        config.CACHE_DIR = usual


@cache
def _cache_folder(usual: str) -> Path:
    """A folder for these very sources: a cached caller does not see that a callee has changed, nor
    a process what another one is just replacing."""
    root = Path(__file__).parents[1]
    files = [path for pattern in SOURCES for path in sorted(root.glob(pattern))]
    sources = b"".join(path.read_bytes() for path in files)
    base = Path(usual) if usual else Path(__file__).parent / "__pycache__"
    return base / f"compiled-{hashlib.sha256(sources).hexdigest()[:16]}"
