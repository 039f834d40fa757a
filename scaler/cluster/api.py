"""What is asked of the API server, and what its refusals mean.

Knows the requests, their deadline and every family of faults, each told as one ClusterError. What
is done about a fault, and what the numbers are for, is decided elsewhere.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from math import inf
from typing import Any, TypeVar

from kubernetes.client import (
    ApiClient,
    ApiException,
    AppsV1Api,
    AutoscalingV1Api,
    AutoscalingV2Api,
    Configuration,
    CoreV1Api,
    CustomObjectsApi,
    V1Deployment,
    V1HorizontalPodAutoscaler,
    V1LabelSelector,
    V1LabelSelectorRequirement,
    V1Pod,
    V2HorizontalPodAutoscaler,
)
from kubernetes.client.rest import RESTResponse, is_socks_proxy_url
from kubernetes.config import ConfigException
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    ReadTimeoutError,
)

from scaler.clock import SystemClock
from scaler.watchdog import WATCHED_POOLS, Watchdog

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
PODS_PER_PAGE = 500
MOST_PAGES = 100
"""A list of pods that goes on beyond them has no end."""
READ_TIMEOUTS = 3
"""A read asks for the Deployment, its pods and perhaps an HPA; all of it may take this many times
what one request may."""
SHORT_WAIT_SECONDS = 0.2

Answer = TypeVar("Answer")


class TooLateError(HTTPError):
    """The exchange had its time before its answer was complete."""


class NotLeadingError(HTTPError):
    """Another daemon may act by now."""


class ClusterClient(ApiClient):
    """An API client that gives every request a deadline and sends none twice.

    The deadline is for the whole exchange, answer included. Whether this process `leads` is asked
    before each patch. May be used by several threads.
    """

    def __init__(
        self,
        configuration: Configuration,
        timeout_seconds: float,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        configuration.retries = False
        super().__init__(configuration)
        if not is_socks_proxy_url(configuration.proxy):  # type: ignore[no-untyped-call]
            self.rest_client.pool_manager.pool_classes_by_scheme = WATCHED_POOLS
        self.timeout_seconds = timeout_seconds
        self._leads = leads
        self._own = threading.local()

    @contextmanager
    def one_read(self) -> Iterator[None]:
        """All that this thread asks for within has one deadline, however many requests it takes."""
        before = self._ends_at()
        own = SystemClock().monotonic() + READ_TIMEOUTS * self.timeout_seconds
        self._own.ends_at = min(before, own)
        try:
            yield
        finally:
            self._own.ends_at = before

    def call_api(  # type: ignore[no-untyped-def]  # the parent leaves its arguments untyped
        self,
        method,
        url,
        header_params=None,
        body=None,
        post_params=None,
        _request_timeout=None,
    ) -> RESTResponse:
        """The answer, read to its end; raises TooLateError and NotLeadingError."""
        if method == "PATCH" and not self._leads():
            raise NotLeadingError("nothing was sent, since another daemon may lead by now")
        seconds = min(self.timeout_seconds, self._ends_at() - SystemClock().monotonic())
        if seconds <= 0:
            raise TooLateError("nothing more was asked for, the time of the read is over")
        late = TooLateError(f"no complete answer within {seconds:.3g} s")
        limits = _request_timeout or (seconds, seconds)
        with Watchdog(seconds) as watchdog:
            try:
                response = super().call_api(method, url, header_params, body, post_params, limits)
                response.read()  # type: ignore[no-untyped-call]
            except ReadTimeoutError as error:
                raise late from error
            except (NewConnectionError, ConnectTimeoutError):
                raise
            except (HTTPError, ApiException, OSError) as error:
                if watchdog.barked:
                    raise late from error
                raise
            # A connection that was cut can look like an answer that ended.
            if watchdog.barked:
                raise late
        return response

    def _ends_at(self) -> float:
        ends_at: float = getattr(self._own, "ends_at", inf)
        return ends_at


class FaultKind(StrEnum):
    """What a fault says about the request that met it."""

    NOT_SENT = "not sent"
    UNSURE = "no answer"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    MISSING = "missing"
    CHANGED = "changed meanwhile"
    BUSY = "too many requests"
    BROKEN = "server error"
    REJECTED = "rejected"


class ClusterError(Exception):
    """A request came to nothing; `wait_seconds` is set where sending it again may help."""

    def __init__(
        self, kind: FaultKind, verb: str, message: str, wait_seconds: float | None = None
    ) -> None:
        super().__init__(_one_line(message))
        self.kind = kind
        self.verb = verb
        self.wait_seconds = wait_seconds

    @property
    def unreachable(self) -> bool:
        return self.kind in (FaultKind.NOT_SENT, FaultKind.UNSURE)

    @property
    def may_have_written(self) -> bool:
        return self.verb == "patch" and self.kind in (FaultKind.UNSURE, FaultKind.BROKEN)


def ask(api: ClusterClient, verb: str, what: str, call: Callable[[], Answer]) -> Answer:
    """Make one request; every fault of it becomes a ClusterError that names `verb` and `what`."""
    try:
        answer = call()
    except ApiException as error:
        raise _refusal(api, verb, what, error) from error
    except (
        NewConnectionError,
        ConnectTimeoutError,
        LocationValueError,
        ConfigException,
        NotLeadingError,
    ) as error:
        raise _silence(api, FaultKind.NOT_SENT, verb, what, error) from error
    except (HTTPError, ValueError, TypeError, AttributeError) as error:
        # The last three are the client's own checks, and what an answer of the wrong shape does.
        raise _silence(api, FaultKind.UNSURE, verb, what, error) from error
    except OSError as error:
        # The token file is read anew before a request; sockets fail as HTTPError.
        raise _silence(api, FaultKind.NOT_SENT, verb, what, error) from error
    if answer is None:
        raise ClusterError(FaultKind.UNSURE, verb, f"cannot {verb} {what}: the answer is null")
    return answer


KINDS: Mapping[int, FaultKind] = {
    0: FaultKind.UNSURE,
    401: FaultKind.UNAUTHENTICATED,
    403: FaultKind.DENIED,
    404: FaultKind.MISSING,
    409: FaultKind.CHANGED,
    422: FaultKind.CHANGED,
    429: FaultKind.BUSY,
    504: FaultKind.UNSURE,
}


def _refusal(api: ClusterClient, verb: str, what: str, error: ApiException) -> ClusterError:
    status = error.status or 0
    kind = KINDS.get(status, FaultKind.BROKEN if status >= 500 else FaultKind.REJECTED)
    if kind is FaultKind.MISSING:
        return ClusterError(kind, verb, f"{what} does not exist")
    message = f"cannot {verb} {what}: {status or 'no answer'}: {_said(error)}"
    if kind is FaultKind.UNAUTHENTICATED:
        message += f"; {api.configuration.host} does not accept the credentials"
    if kind is FaultKind.DENIED:
        message += f"; grant {verb} on {what}"
    return ClusterError(kind, verb, message, _wait(api, kind, error))


def _wait(api: ClusterClient, kind: FaultKind, error: ApiException) -> float | None:
    if kind is FaultKind.CHANGED:
        return 0.0
    if kind not in (FaultKind.BUSY, FaultKind.BROKEN):
        return None
    asked = (error.headers or {}).get("Retry-After") or str(SHORT_WAIT_SECONDS)
    try:
        seconds = float(asked)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= api.timeout_seconds else None


def _silence(
    api: ClusterClient, kind: FaultKind, verb: str, what: str, error: Exception
) -> ClusterError:
    cause = str(error)
    if isinstance(error, ConnectTimeoutError):
        cause = f"no answer within {api.timeout_seconds:g} s"
    host = api.configuration.host
    return ClusterError(kind, verb, f"cannot {verb} {what}: {host}: {cause}")


def _said(error: ApiException) -> str:
    body: str = error.body or ""
    try:
        status = json.loads(body)
    except ValueError:
        return str(error.reason)
    said = status.get("message") if isinstance(status, dict) else None
    return str(said or error.reason)


def _one_line(message: str) -> str:
    shown = " ".join(message.split())
    return "".join(letter for letter in shown if letter.isprintable())[:600]


@dataclass(frozen=True, slots=True)
class Deployment:
    """What matters of a Deployment; `old_pods` are those that a roll-out has yet to replace."""

    uid: str
    resource_version: str
    replicas: int
    paused: bool
    old_pods: int
    annotations: Mapping[str, str]
    selector: str


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """What matters of an HPA, in whichever version of the API it was read."""

    name: str
    resource_version: str
    min_replicas: int
    max_replicas: int
    target: tuple[str, str]
    keda: bool
    annotations: Mapping[str, str]


def read_deployment(api: ClusterClient, namespace: str, name: str) -> Deployment:
    """Raises ClusterError."""
    what = f"deployments.apps {namespace}/{name}"
    apps = AppsV1Api(api)
    found = ask(api, "get", what, lambda: apps.read_namespaced_deployment(name, namespace))
    return _deployment(what, found)


def _deployment(what: str, found: V1Deployment) -> Deployment:
    meta, spec, status = found.metadata, found.spec, found.status
    if meta is None or spec is None or meta.uid is None:
        raise ClusterError(FaultKind.REJECTED, "get", f"{what} came without uid or spec")
    pods = (status.replicas or 0, status.updated_replicas or 0) if status else (0, 0)
    return Deployment(
        uid=meta.uid,
        resource_version=meta.resource_version or "",
        replicas=1 if spec.replicas is None else spec.replicas,
        paused=bool(spec.paused),
        old_pods=max(pods[0] - pods[1], 0),
        annotations=meta.annotations or {},
        selector=selector_text(spec.selector),
    )


def patch_deployment(
    api: ClusterClient, namespace: str, name: str, operations: list[dict[str, Any]]
) -> None:
    """Apply a JSON patch; raises ClusterError."""
    apps = AppsV1Api(api)
    ask(
        api,
        "patch",
        f"deployments.apps {namespace}/{name}",
        lambda: apps.patch_namespaced_deployment(
            name, namespace, operations, _content_type=JSON_PATCH
        ),
    )


def selector_text(selector: V1LabelSelector) -> str:
    """The selector as the pod list takes it; empty where it would select every pod."""
    labels = [f"{key}={value}" for key, value in (selector.match_labels or {}).items()]
    return ",".join([*labels, *map(_requirement, selector.match_expressions or [])])


def _requirement(requirement: V1LabelSelectorRequirement) -> str:
    key, values = requirement.key, ",".join(requirement.values or [])
    texts = {"Exists": key, "DoesNotExist": f"!{key}", "NotIn": f"{key} notin ({values})"}
    return texts.get(requirement.operator, f"{key} in ({values})")


def list_pods(api: ClusterClient, namespace: str, selector: str) -> Iterator[V1Pod]:
    """The pods in one list, read in pages; raises ClusterError, also for an empty selector."""
    what = f"pods in {namespace}"
    if not selector:
        message = f"cannot list {what}: the Deployment's selector is empty"
        raise ClusterError(FaultKind.REJECTED, "list", message)
    page: str | None = None
    first_page = partial(
        CoreV1Api(api).list_namespaced_pod,
        namespace,
        label_selector=selector,
        limit=PODS_PER_PAGE,
    )
    for _ in range(MOST_PAGES):
        pods = ask(api, "list", what, partial(first_page, _continue=page))
        yield from pods.items
        page = pods.metadata.var_continue if pods.metadata else None
        if not page:
            return
    message = f"cannot list {what}: there is still more after {MOST_PAGES} pages"
    raise ClusterError(FaultKind.REJECTED, "list", message)


class Autoscalers:
    """The HPAs of a namespace, in autoscaling/v2 or, where the server lacks it, in v1."""

    def __init__(self, api: ClusterClient, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._group: AutoscalingV2Api | AutoscalingV1Api = AutoscalingV2Api(api)

    def read(self, name: str) -> Autoscaler:
        """Raises ClusterError."""
        return _autoscaler(
            self._ask(
                "get",
                f" {self._namespace}/{name}",
                lambda group: group.read_namespaced_horizontal_pod_autoscaler(
                    name, self._namespace
                ),
            )
        )

    def on_deployment(self, name: str) -> list[Autoscaler]:
        """The HPAs that scale this Deployment, from one list; raises ClusterError."""
        return [one for one in self.listed() if one.target == ("Deployment", name)]

    def listed(self) -> list[Autoscaler]:
        """All of the namespace; raises ClusterError."""
        found = self._ask(
            "list",
            f" in {self._namespace}",
            lambda group: group.list_namespaced_horizontal_pod_autoscaler(self._namespace),
        )
        return [_autoscaler(item) for item in found.items]

    def patch(self, name: str, body: dict[str, Any]) -> None:
        """Apply a merge patch; raises ClusterError."""
        self._ask(
            "patch",
            f" {self._namespace}/{name}",
            lambda group: group.patch_namespaced_horizontal_pod_autoscaler(
                name, self._namespace, body, _content_type=MERGE_PATCH
            ),
        )

    def _ask(
        self,
        verb: str,
        where: str,
        call: Callable[[AutoscalingV2Api | AutoscalingV1Api], Answer],
    ) -> Answer:
        what = f"horizontalpodautoscalers.autoscaling{where}"
        try:
            return ask(self._api, verb, what, lambda: call(self._group))
        except ClusterError as fault:
            if fault.kind is not FaultKind.MISSING or isinstance(self._group, AutoscalingV1Api):
                raise
        # A missing object and a missing API both answer 404: only v1 can tell them apart.
        older = AutoscalingV1Api(self._api)
        answer = ask(self._api, verb, what, lambda: call(older))
        self._group = older
        return answer


def _autoscaler(found: V2HorizontalPodAutoscaler | V1HorizontalPodAutoscaler) -> Autoscaler:
    meta, spec = found.metadata, found.spec
    if meta is None or spec is None:
        raise ClusterError(FaultKind.REJECTED, "get", "an HPA came without metadata or spec")
    owners = {owner.kind for owner in meta.owner_references or []}
    return Autoscaler(
        name=meta.name or "",
        resource_version=meta.resource_version or "",
        min_replicas=1 if spec.min_replicas is None else spec.min_replicas,
        max_replicas=spec.max_replicas,
        target=(spec.scale_target_ref.kind, spec.scale_target_ref.name),
        keda="ScaledObject" in owners or "scaledobject.keda.sh/name" in (meta.labels or {}),
        annotations=meta.annotations or {},
    )


def scaled_objects(api: ClusterClient, namespace: str, deployment: str) -> list[str]:
    """Names of KEDA's ScaledObjects on the Deployment; raises ClusterError.

    A paused one has no HPA to show for it.
    """
    custom = CustomObjectsApi(api)
    try:
        found: Any = ask(
            api,
            "list",
            f"scaledobjects.keda.sh in {namespace}",
            lambda: custom.list_namespaced_custom_object(
                "keda.sh", "v1alpha1", namespace, "scaledobjects"
            ),
        )
    except ClusterError as error:
        # Without KEDA there is no such resource; without the permission, its HPA still shows.
        if error.kind in (FaultKind.MISSING, FaultKind.DENIED):
            return []
        raise
    return [
        item["metadata"]["name"]
        for item in found.get("items") or []
        if item["spec"]["scaleTargetRef"].get("name") == deployment
        and item["spec"]["scaleTargetRef"].get("kind", "Deployment") == "Deployment"
    ]
