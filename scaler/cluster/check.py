"""What is wrong with a target before the first decision is made for it.

Knows what each mode needs of the cluster: the objects, their bounds and the permissions. Nothing is
written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from kubernetes.client import (
    AuthorizationV1Api,
    V1ResourceAttributes,
    V1SelfSubjectAccessReview,
    V1SelfSubjectAccessReviewSpec,
)

from scaler.cluster.api import (
    Autoscaler,
    Autoscalers,
    ClusterClient,
    ClusterError,
    Deployment,
    FaultKind,
    ask,
    read_deployment,
    scaled_objects,
)
from scaler.cluster.targets import (
    FLOOR,
    keda_message,
    original_min_replicas,
    rival_message,
    scaled_message,
)
from scaler.finding import Finding, Severity
from scaler.settings import LeaderElection, Mode, Target, Workload

HPA_RESOURCE = ("autoscaling", "horizontalpodautoscalers")


def check_target(api: ClusterClient, workload: Workload) -> list[Finding]:
    """Everything that would keep the workload's mode from working; an error is never raised."""
    target = workload.target
    subject = f"Deployment {target.namespace}/{target.name}"
    permissions = _permissions(api, needed(target), f"mode {target.mode}")
    try:
        found = read_deployment(api, target.namespace, target.name)
    except ClusterError as error:
        first = Finding(Severity.ERROR, subject, str(error) + _way_out(error))
        if error.unreachable or error.kind is FaultKind.UNAUTHENTICATED:
            return [first]
        return [first, *_autoscaling(api, workload), *permissions]
    return [
        _deployment(subject, found, workload),
        *_autoscaling(api, workload),
        *permissions,
    ]


def _way_out(error: ClusterError) -> str:
    if error.kind is FaultKind.MISSING:
        return "; check the target's namespace and name, daybreak never creates one"
    return ""


def _deployment(subject: str, found: Deployment, workload: Workload) -> Finding:
    mode = workload.target.mode
    if found.paused and mode is Mode.SCALE:
        return Finding(Severity.WARNING, subject, "is paused; nothing is written until it resumes")
    above = _above_maximum(subject, found, workload)
    return above or Finding(Severity.OK, subject, f"found with {found.replicas} replicas")


def _above_maximum(subject: str, found: Deployment, workload: Workload) -> Finding | None:
    """Above a floor the HPA may grow the fleet as far as its own maxReplicas."""
    if found.replicas <= workload.max_replicas or workload.target.mode is Mode.FLOOR:
        return None
    return Finding(
        Severity.WARNING,
        subject,
        f"has {found.replicas} replicas, more than maxReplicas ({workload.max_replicas}), down "
        "to which it would be scaled; raise maxReplicas unless that is meant",
    )


def standing_warnings(api: ClusterClient, workloads: Sequence[Workload]) -> Iterator[Finding]:
    """What the daemon says once when it starts, as far as the cluster answers: fleets above their
    maximum, and floors that were left behind."""
    for workload in workloads:
        target = workload.target
        with suppress(ClusterError):
            found = read_deployment(api, target.namespace, target.name)
            subject = f"Deployment {target.namespace}/{target.name}"
            above = _above_maximum(subject, found, workload)
            if above is not None:
                yield above
    yield from leftover_floors(api, workloads)


def leftover_floors(api: ClusterClient, workloads: Sequence[Workload]) -> Iterator[Finding]:
    """Floors of ours that none of the workloads keeps any longer: nothing else takes them back.

    Nothing is found where HPAs cannot be listed, or in a namespace without a workload.
    """
    targets = [workload.target for workload in workloads]
    kept = {(one.namespace, one.hpa) for one in targets if one.mode is Mode.FLOOR}
    for namespace in sorted({target.namespace for target in targets}):
        with suppress(ClusterError):
            for hpa in Autoscalers(api, namespace).listed():
                if (namespace, hpa.name) not in kept:
                    yield from _leftover(namespace, hpa)


def _leftover(namespace: str, hpa: Autoscaler) -> Iterator[Finding]:
    original = original_min_replicas(hpa)
    if original < hpa.min_replicas:
        body = {"metadata": {"annotations": {FLOOR: None}}, "spec": {"minReplicas": original}}
        yield Finding(
            Severity.WARNING,
            f"HPA {namespace}/{hpa.name}",
            f"still has minReplicas {hpa.min_replicas}, a floor that daybreak set and no workload "
            f"here keeps; unless another daybreak does, take it back: kubectl -n {namespace} patch "
            f"hpa {hpa.name} --type merge -p '{json.dumps(body)}'",
        )


def _autoscaling(api: ClusterClient, workload: Workload) -> Iterator[Finding]:
    target = workload.target
    try:
        if target.mode is Mode.FLOOR and target.hpa:
            hpa = Autoscalers(api, target.namespace).read(target.hpa)
            yield from _floor(hpa, workload)
        if target.mode is Mode.SCALE:
            yield from _rivals(api, target)
    except ClusterError as error:
        yield Finding(Severity.ERROR, "autoscaling", str(error) + _hpa_way_out(error, target))


def _hpa_way_out(error: ClusterError, target: Target) -> str:
    if error.kind is FaultKind.MISSING:
        return f"; create the HPA for Deployment {target.name}, or name another in target.hpa"
    return ""


def _floor(hpa: Autoscaler, workload: Workload) -> Iterator[Finding]:
    target = workload.target
    subject = f"HPA {target.namespace}/{hpa.name}"
    wrong = list(_floor_errors(hpa, workload))
    yield from (Finding(Severity.ERROR, subject, message) for message in wrong)
    if workload.max_replicas > hpa.max_replicas >= workload.min_replicas:
        yield Finding(
            Severity.WARNING,
            subject,
            f"workload maxReplicas {workload.max_replicas} exceeds the HPA's {hpa.max_replicas}, "
            "where every floor is held; raise the HPA's or lower the workload's",
        )
    elif not wrong:
        yield Finding(
            Severity.OK, subject, f"minReplicas {hpa.min_replicas}, maxReplicas {hpa.max_replicas}"
        )


def _floor_errors(hpa: Autoscaler, workload: Workload) -> Iterator[str]:
    target = workload.target
    if hpa.target != ("Deployment", target.name):
        yield (
            f"scales {' '.join(hpa.target)}, not Deployment {target.name}; name the right HPA in "
            "target.hpa"
        )
    if hpa.keda:
        yield keda_message(f"HPA {target.namespace}/{hpa.name}")
    if workload.min_replicas > hpa.max_replicas:
        yield (
            f"workload minReplicas {workload.min_replicas} exceeds the HPA's maxReplicas "
            f"{hpa.max_replicas}; lower the one or raise the other"
        )


def _rivals(api: ClusterClient, target: Target) -> Iterator[Finding]:
    label = f"Deployment {target.namespace}/{target.name}"
    rivals = Autoscalers(api, target.namespace).on_deployment(target.name)
    if rivals:
        yield Finding(Severity.ERROR, "autoscaling", rival_message(label, rivals))
        return
    scaled = scaled_objects(api, target.namespace, target.name)
    if scaled:
        yield Finding(Severity.ERROR, "autoscaling", scaled_message(label, scaled))
        return
    yield Finding(Severity.OK, "autoscaling", f"nothing else scales {label}")


def needed(target: Target) -> Iterator[V1ResourceAttributes]:
    """What the daemon asks of the API server for a target in its mode."""

    def need(verb: str, group: str, resource: str, name: str | None = None) -> V1ResourceAttributes:
        return V1ResourceAttributes(
            verb=verb, group=group, resource=resource, name=name, namespace=target.namespace
        )

    yield need("list", "", "pods")
    yield need("get", "apps", "deployments", target.name)
    if target.mode is Mode.FLOOR:
        yield need("get", *HPA_RESOURCE, target.hpa)
        yield need("patch", *HPA_RESOURCE, target.hpa)
    if target.mode is Mode.SCALE:
        yield need("patch", "apps", "deployments", target.name)
        yield need("list", *HPA_RESOURCE)
        yield need("list", "keda.sh", "scaledobjects")


def needed_of_lease(election: LeaderElection) -> Iterator[V1ResourceAttributes]:
    """What it asks of the API server to lead or to stand by; to create has no name in a Role."""
    for verb, name in (("create", None), ("get", election.lease), ("update", election.lease)):
        yield V1ResourceAttributes(
            verb=verb,
            group="coordination.k8s.io",
            resource="leases",
            name=name,
            namespace=election.namespace,
        )


def check_lease(api: ClusterClient, election: LeaderElection) -> Iterator[Finding]:
    """Whether the Lease may be taken; an error is never raised."""
    return _permissions(api, needed_of_lease(election), "leader election")


def _permissions(
    api: ClusterClient, needs: Iterable[V1ResourceAttributes], purpose: str
) -> Iterator[Finding]:
    try:
        missing = [need for need in needs if not _allowed(api, need)]
    except ClusterError as error:
        yield Finding(Severity.WARNING, "permissions", f"could not be asked for: {error}")
        return
    if missing:
        message = (
            f"missing in namespace {missing[0].namespace}: {'; '.join(map(_spelt, missing))}; "
            "daybreak rbac prints the Role that grants it"
        )
        yield Finding(Severity.ERROR, "permissions", message)
    else:
        yield Finding(Severity.OK, "permissions", f"sufficient for {purpose}")


def _spelt(need: V1ResourceAttributes) -> str:
    resource = f"{need.resource}.{need.group}" if need.group else need.resource
    return f"{need.verb} {resource}" + (f" {need.name}" if need.name else "")


def _allowed(api: ClusterClient, need: V1ResourceAttributes) -> bool:
    review = V1SelfSubjectAccessReview(spec=V1SelfSubjectAccessReviewSpec(resource_attributes=need))
    access = AuthorizationV1Api(api)
    answer = ask(
        api,
        "create",
        "selfsubjectaccessreviews.authorization.k8s.io",
        lambda: access.create_self_subject_access_review(review),
    )
    return answer.status is not None and answer.status.allowed
