"""Outside forecasting tools as members: measured beside ours, never run in the daemon.

Knows which there are and what each needs. The tools come with the extra `compare`; importing this
package imports none of them. What their `fit` returns holds objects of the tools: it lives as long
as an evaluation, and is never stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from forecaster.member import Member


class MissingToolError(Exception):
    """An outside tool is not installed; the message says how it can be."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Where an adapter stands, and the library that it adapts."""

    module: str
    maker: str
    library: str


OUTSIDE: Mapping[str, Outside] = {
    "prophet": Outside("prophet_models", "Prophet", "prophet"),
    "dynamo_prophet": Outside("prophet_models", "DynamoProphet", "prophet"),
    "dynamo_arima": Outside("pmdarima_models", "DynamoArima", "pmdarima"),
    "statsforecast_mstl": Outside("statsforecast_models", "Mstl", "statsforecast"),
    "statsforecast_autoets": Outside("statsforecast_models", "AutoEts", "statsforecast"),
    "statsforecast_autoarima": Outside("statsforecast_models", "AutoArima", "statsforecast"),
}


def outside_member(name: str) -> Member:
    """Raises KeyError for an unknown name, MissingToolError where its library is not installed."""
    found = OUTSIDE[name]
    try:
        module = import_module(f"forecaster.outside.{found.module}")
    except ImportError as error:
        raise MissingToolError(
            f"{name} needs {found.library}, which is not installed ({error}); make compare in "
            f"daybreak's folder makes .venv-bench, whose daybreak has it"
        ) from error
    member: Member = getattr(module, found.maker)()
    return member
