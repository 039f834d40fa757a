"""The Role that settings need, as manifests: what each mode asks of the cluster and nothing more.

Knows how permissions become rules. Which permissions there are is the check's to know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes.client import V1ResourceAttributes

from scaler.cluster.check import needed, needed_of_lease
from scaler.settings import Settings

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Account:
    """The service account that daybreak runs as."""

    namespace: str
    name: str


def manifests(settings: Settings, account: Account) -> list[Manifest]:
    """A ServiceAccount, and a Role and RoleBinding in each namespace in which anything is asked
    for."""
    found = [_service_account(account)]
    needs = [need for workload in settings.workloads for need in needed(workload.target)]
    if settings.leader_election is not None:
        needs += needed_of_lease(settings.leader_election)
    for namespace in sorted({need.namespace or "" for need in needs}):
        there = rules(need for need in needs if need.namespace == namespace)
        found += [_role(account.name, namespace, there), _binding(account, namespace)]
    return found


def as_yaml(documents: Iterable[Manifest]) -> str:
    """As kubectl reads them."""
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)


def rules(needs: Iterable[V1ResourceAttributes]) -> list[Manifest]:
    """The fewest rules that allow what is needed of named objects, and nothing of others."""
    verbs: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for need in needs:
        verbs[need.group or "", need.resource or "", need.name or ""].add(need.verb or "")
    names: dict[tuple[str, str, tuple[str, ...], bool], list[str]] = defaultdict(list)
    for group, resource, name in sorted(verbs):
        allowed = tuple(sorted(verbs[group, resource, name]))
        names[group, resource, allowed, bool(name)].append(name)
    return [
        {"apiGroups": [group], "resources": [resource]}
        | ({"resourceNames": listed} if named else {})
        | {"verbs": list(allowed)}
        for (group, resource, allowed, named), listed in sorted(names.items())
    ]


def _service_account(account: Account) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": account.name, "namespace": account.namespace},
        # Only the pod that asks for the token gets it.
        "automountServiceAccountToken": False,
    }


def _role(name: str, namespace: str, allowed: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": allowed,
    }


def _binding(account: Account, namespace: str) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": account.name, "namespace": namespace},
        "subjects": [
            {"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace}
        ],
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": account.name,
        },
    }
