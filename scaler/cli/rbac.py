"""`daybreak rbac`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from scaler.cli.output import BadInputError, ConfigOption
from scaler.cluster.rbac import Account, as_yaml, manifests
from scaler.setting_values import LABEL
from scaler.settings import load_settings


def rbac(
    config: ConfigOption,
    namespace: Annotated[
        str, typer.Option(help="Namespace that daybreak itself runs in.")
    ] = "daybreak",
    service_account: Annotated[
        str, typer.Option(help="Service account that it runs as; the Roles are named like it.")
    ] = "daybreak",
) -> None:
    """Print the least privileges that these settings need, as manifests for kubectl.

    A ServiceAccount, and a Role with its RoleBinding in each namespace that holds a target or the
    Lease. Print them anew after a change of a target, of its mode or of leaderElection.

    Example: daybreak rbac --config daybreak.yaml | kubectl apply -f -
    """
    for option, name in (("--namespace", namespace), ("--service-account", service_account)):
        if not re.fullmatch(LABEL, name):
            raise BadInputError(f"{option}: expected a name that Kubernetes takes, got {name!r}")
    account = Account(namespace, service_account)
    typer.echo(as_yaml(manifests(load_settings(config), account)), nl=False)
