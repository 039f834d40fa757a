"""The Role that settings need, as manifests: what each mode asks of the cluster and nothing more.

Knows how permissions become rules. Which permissions there are is the check's to know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes.client import V1ResourceAttributes

from scaler.cluster.check import needed
from scaler.settings import Target

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Account:
    """The service account that daybreak runs as."""

    namespace: str
    name: str


def manifests(targets: Sequence[Target], account: Account) -> list[Manifest]:
    """A ServiceAccount, and a Role and RoleBinding in each namespace that holds a target."""
    found = [_service_account(account)]
    for namespace in sorted({target.namespace for target in targets}):
        needs = [
            need for target in targets if target.namespace == namespace for need in needed(target)
        ]
        found += [_role(account.name, namespace, rules(needs)), _binding(account, namespace)]
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
