"""The way to the cluster: a client from the settings, and a target from the client.

Knows where credentials are found. Reading, writing and checking are next door.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml
from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME, InClusterConfigLoader

from policies.context import LeadTime
from scaler.cluster.api import ClusterClient
from scaler.cluster.pods import DeploymentReader
from scaler.cluster.targets import DeploymentTarget, FloorTarget, Now, ReadOnlyTarget
from scaler.ports import ScaleTarget
from scaler.settings import Kubernetes, Mode, Target
from scaler.settings_file import SettingsError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def connect(
    kubernetes: Kubernetes,
    service_account: Path = SERVICE_ACCOUNT,
    environ: Mapping[str, str] = os.environ,
    leads: Callable[[], bool] = lambda: True,
) -> ClusterClient:
    """A client from the service account where one is mounted, else from the kubeconfig.

    A kubeconfig or context in the settings goes before the service account. No request is made.
    Nothing is patched while another process `leads`.
    Raises SettingsError where the credentials are missing or cannot be read.
    """
    configuration = Configuration()
    if kubernetes.kubeconfig or kubernetes.context or SERVICE_HOST_ENV_NAME not in environ:
        _load_kubeconfig(kubernetes, configuration)
    else:
        _load_service_account(service_account, environ, configuration)
    return ClusterClient(configuration, kubernetes.timeout_seconds, leads)


def _load_service_account(
    folder: Path, environ: Mapping[str, str], configuration: Configuration
) -> None:
    loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
        token_filename=str(folder / "token"),
        cert_filename=str(folder / "ca.crt"),
        environ=environ,
    )
    try:
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise SettingsError(
            f"kubernetes: the service account in {folder} cannot be used: {error}"
        ) from error


def _load_kubeconfig(kubernetes: Kubernetes, configuration: Configuration) -> None:
    named = kubernetes.kubeconfig
    where = f"kubernetes.kubeconfig: {named}" if named else "kubernetes: the default kubeconfig"
    if named and not named.expanduser().is_file():
        raise SettingsError(f"{where}: is not a file")
    try:
        load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(named.expanduser()) if named else None,
            context=kubernetes.context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (ConfigException, OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{where}: {' '.join(str(error).split())}") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # What the loader stumbles over where the file is YAML but no kubeconfig.
        raise SettingsError(f"{where}: is not a kubeconfig ({error})") from error


def open_target(api: ClusterClient, target: Target, lead_time: LeadTime, now: Now) -> ScaleTarget:
    """The target as its mode may treat it; `now` tells when a floor is to expire, and for how long
    it is known who else scales the target."""
    reader = DeploymentReader(api, target, lead_time)
    if target.mode is Mode.FLOOR and target.hpa:
        return FloorTarget(reader, target.hpa, target.floor_ttl_seconds, now)
    if target.mode is Mode.SCALE:
        return DeploymentTarget(reader, now)
    return ReadOnlyTarget(reader, f"mode {target.mode} writes nothing")
