"""The settings file: one YAML for daemon and simulator, read once, checked whole.

Knows the file's keys, their units and bounds, and how they become the policies' own types. Every
mistake in a file is reported at once, each with its path. Secrets never stand in the file: they
are named by file or environment variable, read when needed, and never printed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from forecaster.calendar import Calendar, Event, check_region
from policies.context import (
    Capacity,
    LeadTime,
    PolicySettings,
    RateLimit,
    RateUnit,
    ScalingRules,
    SelectPolicy,
)
from policies.registry import BY_THE_CLOCK, POLICIES, bounds_of, is_ours, parameters_of
from policies.schedule import Schedule
from scaler.loop import LoopSettings
from scaler.rounds import OVERDUE_INTERVALS
from scaler.setting_values import (
    DAY_SECONDS,
    MOST_REPLICAS,
    NUMBER,
    Day,
    Delay,
    HeaderName,
    HeaderValue,
    HostName,
    HttpUrl,
    LogUrl,
    Moment,
    Name,
    Namespace,
    NotNegative,
    Number,
    Positive,
    Query,
    Replicas,
    Seconds,
    Text,
    TimeZone,
    Whole,
    kept_log,
)
from scaler.settings_file import SettingsError, explained, read_mapping, read_secret


class Section(BaseModel):
    """One mapping of the file: camelCase keys, none unknown, never changed after reading."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, validate_default=True
    )


class BasicAuth(Section):
    """Give exactly one of passwordFile and passwordEnv."""

    username: str = Field(description="Name that is sent with each request.")
    password_file: Path | None = Field(None, description="File that holds the password.")
    password_env: str | None = Field(
        None, description="Environment variable that holds the password."
    )

    @model_validator(mode="after")
    def _one_source(self) -> BasicAuth:
        if (self.password_file is None) == (self.password_env is None):
            raise ValueError("give exactly one of passwordFile and passwordEnv")
        return self

    def password(self) -> str:
        """Raises SettingsError where the file or variable is missing."""
        return read_secret(self.password_file, self.password_env)


class Tls(Section):
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities that are trusted instead of the usual ones."
    )
    cert_file: Path | None = Field(
        None, description="PEM file of our own certificate, where the server asks for one."
    )
    key_file: Path | None = Field(None, description="PEM file of the key of certFile.")

    @model_validator(mode="after")
    def _pair(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("certFile and keyFile go together")
        return self


class Prometheus(Section):
    """Where history and signals are read; Thanos, Mimir and VictoriaMetrics speak the same."""

    url: HttpUrl = Field(description="Address of the API, without /api/v1.")
    timeout_seconds: Seconds = Field(
        10.0, description="Seconds that a query of a decision may take, with all its attempts."
    )
    history_timeout_seconds: Seconds = Field(
        60.0, description="Seconds that reading the whole history may take."
    )
    max_response_bytes: Whole = Field(
        64 * 1024 * 1024, ge=1024, description="Bytes of an answer beyond which it is refused."
    )
    bearer_token_file: Path | None = Field(
        None, description="File that holds a bearer token, read anew for each request."
    )
    basic_auth: BasicAuth | None = Field(
        None, description="User and password, in the place of a bearer token."
    )
    tls: Tls = Field(Tls(), description="Certificates of an https connection.")
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="Headers that are sent with each request; no secrets."
    )
    tenant: HeaderValue | None = Field(
        None, description="Tenant that Mimir or Thanos is asked for, sent in tenantHeader."
    )
    tenant_header: HeaderName = Field(
        "X-Scope-OrgID", description="Header in which tenant is sent."
    )

    @model_validator(mode="after")
    def _one_credential(self) -> Prometheus:
        if self.bearer_token_file and self.basic_auth:
            raise ValueError("give at most one of bearerTokenFile and basicAuth")
        return self


class Database(Section):
    """The decision log; give at most one of url, urlEnv and urlFile."""

    url: LogUrl | None = Field(
        None,
        description=(
            "sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME without password; "
            "sqlite:///daybreak.db where nothing is said."
        ),
    )
    url_env: str | None = Field(
        None, description="Environment variable that holds the URL, with its password."
    )
    url_file: Path | None = Field(None, description="File that holds the URL, with its password.")

    @model_validator(mode="after")
    def _one_source(self) -> Database:
        if sum(source is not None for source in (self.url, self.url_env, self.url_file)) > 1:
            raise ValueError("give at most one of url, urlEnv and urlFile")
        return self

    def resolved_url(self) -> str:
        """Raises SettingsError where the file or variable is missing, or keeps no log."""
        if not self.url_env and not self.url_file:
            return self.url or "sqlite:///daybreak.db"
        try:
            return kept_log(read_secret(self.url_file, self.url_env))
        except ValueError as error:
            raise SettingsError(
                f"database.{'urlFile' if self.url_file else 'urlEnv'}: {error}"
            ) from error


LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Server(Section):
    """Health, metrics and the live page.

    Pausing and overriding from the page needs a token or userHeader; without either it only shows.
    """

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address that is listened on; loopback by default."
    )
    port: Whole = Field(9464, ge=0, le=65535, description="Port; 0 takes a free one.")
    allowed_hosts: tuple[HostName, ...] = Field(
        (), description="Names, such as a Service's, by which it may be asked."
    )
    token_file: Path | None = Field(
        None, description="File that holds the token that pausing and overriding need."
    )
    token_env: str | None = Field(
        None, description="Environment variable that holds that token, in the place of tokenFile."
    )
    user_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = Field(
        None,
        description=(
            "Header in which a reverse proxy on this machine names the user, who may then pause "
            "and override; needs host to be loopback."
        ),
    )

    @model_validator(mode="after")
    def _who_may_override(self) -> Server:
        if self.token_file is not None and self.token_env is not None:
            raise ValueError("give at most one of tokenFile and tokenEnv")
        if self.user_header is not None and self.host not in LOOPBACK:
            raise ValueError(
                "userHeader needs host to be loopback: anybody else could send the header"
            )
        return self

    def token(self) -> str | None:
        """The token that pausing and overriding need; None where none is set.

        Raises SettingsError where its file or variable is missing.
        """
        if self.token_file is None and self.token_env is None:
            return None
        return read_secret(self.token_file, self.token_env)


class Kubernetes(Section):
    """How to reach the cluster: in-cluster where a service account is mounted, else kubeconfig."""

    kubeconfig: Path | None = Field(
        None, description="Kubeconfig file, in the place of a mounted service account."
    )
    context: str | None = Field(
        None, description="Context of the kubeconfig; its current one else."
    )
    timeout_seconds: Seconds = Field(5.0, description="Seconds that a request may take.")


class LeaderElection(Section):
    """Several daemons on one log, of which the holder of a Lease acts and the others stand by."""

    lease: Name = Field("daybreak", description="Name of the Lease; made where there is none.")
    namespace: Namespace = Field("daybreak", description="Its namespace.")
    lease_seconds: Whole = Field(
        15,
        ge=3,
        le=300,
        description="Seconds of silence after which another takes over; two thirds of them after "
        "its last renewal a leader stops by itself.",
    )

    @property
    def retry_seconds(self) -> float:
        return self.lease_seconds / 7.5

    @property
    def renew_seconds(self) -> float:
        return self.lease_seconds * 2 / 3


class Mode(StrEnum):
    """What may be written: see the table of modes in the README."""

    SHADOW = "shadow"
    FLOOR = "floor"
    SCALE = "scale"
    METRIC = "metric"


class Target(Section):
    kind: Literal["Deployment"] = Field("Deployment", description="Kind of what is scaled.")
    namespace: Namespace = Field("default", description="Its namespace.")
    name: Name = Field(description="Its name.")
    mode: Mode = Field(
        Mode.FLOOR,
        description=(
            "shadow and metric write nothing; floor raises the minReplicas of an HPA; scale sets "
            "the replicas, where there is no other autoscaler."
        ),
    )
    hpa: Name | None = Field(
        None, description="HPA whose minReplicas mode floor sets; kept for later in mode shadow."
    )
    floor_ttl_seconds: Seconds = Field(
        900.0, description="Seconds until a floor counts as expired unless it is renewed."
    )

    @model_validator(mode="after")
    def _hpa_for_floor(self) -> Target:
        if self.mode is Mode.FLOOR and self.hpa is None:
            raise ValueError("mode floor needs hpa: the name of the HPA whose minReplicas it sets")
        if self.mode is Mode.SCALE and self.hpa is not None:
            raise ValueError("mode scale allows no HPA on its target; leave hpa out, or use floor")
        return self


class VllmDemand(Section):
    """Demand from vLLM alone: completions plus the change of running and waiting requests."""

    labels: dict[str, str] = Field(
        description="Labels that select the workload's pods, such as model_name."
    )

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if not labels:
            raise ValueError("give at least one label, such as model_name")
        for name in labels:
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
                raise ValueError(f"{name!r} is not a Prometheus label name")
            if name == "__name__":
                raise ValueError("__name__ is the metric's own name, which is not for labels")
        return labels


class Demand(Section):
    """Where requests are counted: give exactly one of query and vllm."""

    query: Query | None = Field(
        None,
        description="PromQL for the arrivals, such as a gateway's: one series, requests a second.",
    )
    vllm: VllmDemand | None = Field(
        None, description="vLLM's own figures, where nothing counts arrivals."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Demand:
        if (self.query is None) == (self.vllm is None):
            raise ValueError(
                "give exactly one of query (PromQL: one series, requests a second) and vllm"
            )
        return self


class Signals(Section):
    """Optional PromQL for what stands beside demand; each must give one series."""

    requests_running: Query | None = Field(
        None, description="PromQL for the requests that pods are working on."
    )
    requests_waiting: Query | None = Field(
        None, description="PromQL for the requests that wait for a pod or in one."
    )
    kv_cache_usage_ratio: Query | None = Field(
        None, description="PromQL for the share of the pods' KV cache that is used, 0 to 1."
    )
    latency_p99_seconds: Query | None = Field(
        None, description="PromQL for the P99 of the time that requests take, in seconds."
    )
    errors_qps: Query | None = Field(
        None, description="PromQL for the requests a second that fail."
    )


MOST_STEPS = 2_500_000
"""Four weeks by the second, or a year by the quarter of a minute: some 250 queries to read."""


class History(Section):
    days: Number = Field(28.0, ge=1, le=400, description="Days of it that are used.")
    step_seconds: Whole = Field(
        15, ge=1, le=3600, description="Seconds of a step, over which demand is a mean."
    )
    time_zone: TimeZone = Field(
        "UTC", description="IANA name of the clock that the users live by, such as Europe/Berlin."
    )
    max_age_seconds: Seconds = Field(
        180.0, description="Seconds beyond which the newest sample is stale and nothing shrinks."
    )

    @property
    def steps(self) -> int:
        return round(self.days * DAY_SECONDS / self.step_seconds)

    @model_validator(mode="after")
    def _readable(self) -> History:
        if self.steps > MOST_STEPS:
            raise ValueError(
                f"{self.days:g} days in steps of {self.step_seconds} s are {self.steps:,} steps, "
                f"expected {MOST_STEPS:,} at most; raise stepSeconds or take fewer days"
            )
        return self


class EventSettings(Section):
    """A one-off: by how much it multiplies demand, or that its history teaches nothing.

    A time without an offset is one of history.timeZone.
    """

    name: Annotated[Text, Field(min_length=1)] = Field(description="What it is called.")
    start: Moment = Field(description="When it begins.")
    end: Moment = Field(description="When it ends.")
    factor: Annotated[float, Field(gt=0, le=1000), NUMBER] | None = Field(
        None, description="What it multiplies demand by."
    )
    ignore_history: bool = Field(
        False, description="Whether the demand of that time is left out of what is learned."
    )

    @model_validator(mode="after")
    def _one_purpose(self) -> EventSettings:
        if (self.factor is None) != self.ignore_history:
            raise ValueError("give exactly one of factor and ignoreHistory: true")
        return self

    def event(self, zone: ZoneInfo) -> Event:
        """Raises ValueError where it ends before it starts, or the clock skips one of its times."""
        start, end = _on_the_clock(self.start, zone), _on_the_clock(self.end, zone)
        return Event(self.name, start, end, self.factor, self.ignore_history)


def _on_the_clock(at: datetime, zone: ZoneInfo) -> datetime:
    """The moment in UTC; of an hour that comes twice, the first."""
    try:
        moment = (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{at} lies outside of the calendar") from None
    if at.tzinfo is not None:
        return moment
    if moment.astimezone(zone).replace(tzinfo=None) != at:
        raise ValueError(f"the clocks of {zone.key} skip {at:%Y-%m-%d %H:%M}")
    return moment


class CalendarSettings(Section):
    country: Text | None = Field(
        None,
        description="ISO 3166 code, such as DE; its weekends and public holidays are days off.",
    )
    subdivision: Text | None = Field(
        None, description="Part of the country, such as BY, whose holidays are days off too."
    )
    extra_days_off: tuple[Day, ...] = Field((), description="Dates that are days off as well.")
    events: tuple[EventSettings, ...] = Field(
        (), description="One-off events, announced or past; they must not overlap."
    )

    @field_validator("country")
    @classmethod
    def _known_country(cls, country: str | None) -> str | None:
        if country is not None:
            check_region(country)
        return country

    @field_validator("subdivision")
    @classmethod
    def _known_subdivision(cls, subdivision: str | None, info: ValidationInfo) -> str | None:
        if subdivision is not None and "country" in info.data:
            if info.data["country"] is None:
                raise ValueError("needs country")
            check_region(info.data["country"], subdivision)
        return subdivision


class Slo(Section):
    p99_seconds: Seconds = Field(
        1.0, description="Seconds that 99 of 100 requests must be answered within."
    )


class CapacitySettings(Section):
    qps_per_replica: Positive = Field(
        description="Requests a second that a replica serves with its P99 inside slo.p99Seconds."
    )
    saturation_qps: Positive | None = Field(
        None, description="Requests a second at which a replica saturates, if that is known."
    )
    backlog_seconds: Seconds = Field(
        30.0, description="Seconds in which waiting requests are to be worked off."
    )

    @model_validator(mode="after")
    def _saturates_later(self) -> CapacitySettings:
        if self.saturation_qps is not None and self.saturation_qps < self.qps_per_replica:
            raise ValueError("saturationQps must not lie below qpsPerReplica")
        return self

    @property
    def capacity(self) -> Capacity:
        ratio = (self.saturation_qps or self.qps_per_replica) / self.qps_per_replica
        return Capacity(self.qps_per_replica, self.backlog_seconds, saturation_ratio=ratio)


class LeadTimeSettings(Section):
    p50_seconds: Delay = Field(
        120.0, description="Seconds from a pod's creation until it serves, for half of the pods."
    )
    p95_seconds: Delay = Field(
        180.0, description="The same for 95 of 100 pods, which is what is planned with."
    )
    metric_lag_seconds: Delay = Field(
        15.0, description="Seconds until what happens can be read; the scrape interval at least."
    )
    learned: bool = Field(
        True, description="Whether p95Seconds rises to what the starts of the last days took."
    )

    @model_validator(mode="after")
    def _ordered(self) -> LeadTimeSettings:
        if self.p50_seconds > self.p95_seconds:
            raise ValueError("p50Seconds must not exceed p95Seconds")
        return self


class HpaPolicy(Section):
    """One limit of an HPA `behavior` block."""

    type: RateUnit = Field(description="What value counts.")
    value: Whole = Field(gt=0, le=MOST_REPLICAS, description="Pods or percent of change allowed.")
    period_seconds: Whole = Field(gt=0, le=3600, description="Seconds within which they count.")


class HpaRules(Section):
    """One direction of an HPA `behavior` block, as Kubernetes spells it."""

    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600), NUMBER] | None = Field(
        None,
        description=(
            "Seconds whose most cautious answer holds; as with an HPA 0 upwards and 300 downwards "
            "where the block leaves it out."
        ),
    )
    select_policy: SelectPolicy = Field(
        SelectPolicy.MAX,
        description="Whether the policy that allows most or least counts, or nothing moves.",
    )
    policies: tuple[HpaPolicy, ...] = Field(
        (), description="Limits of the change; none means that it is unlimited."
    )
    tolerance: NotNegative | None = Field(
        None, description="HPA's own; daybreak has none and refuses it."
    )

    @field_validator("tolerance")
    @classmethod
    def _no_tolerance(cls, tolerance: float | None) -> float | None:
        if tolerance is not None:
            raise ValueError("is HPA's own; daybreak has none, so leave it out")
        return tolerance

    def rules(self, default_window_seconds: int) -> ScalingRules:
        window = self.stabilization_window_seconds
        return ScalingRules(
            default_window_seconds if window is None else window,
            self.select_policy,
            tuple(RateLimit(p.type, p.value, p.period_seconds) for p in self.policies),
        )


DEFAULT_SCALE_DOWN = HpaRules.model_validate(
    {
        "stabilizationWindowSeconds": 60,
        "selectPolicy": "Min",
        "policies": [
            {"type": "Percent", "value": 10, "periodSeconds": 60},
            {"type": "Percent", "value": 50, "periodSeconds": 1800},
        ],
    }
)


class Behavior(Section):
    """An HPA `behavior` block."""

    scale_up: HpaRules = Field(HpaRules(), description="Upwards; unlimited unless said.")
    scale_down: HpaRules = Field(
        DEFAULT_SCALE_DOWN,
        description="Downwards; unless said 10 percent a minute and 50 percent in half an hour.",
    )

    @field_validator("scale_down")
    @classmethod
    def _leaves_something(cls, rules: HpaRules) -> HpaRules:
        if any(p.type is RateUnit.PERCENT and p.value > 100 for p in rules.policies):
            raise ValueError("policies: no more than 100 percent can go")
        return rules


class ScheduleSettings(Section):
    """Replicas that are wanted by the clock, by the policies that go by it."""

    start: str = Field(description="Cron line; from each of its firings on they are wanted.")
    end: str = Field(description="Cron line; until its next firing they are wanted.")
    replicas: Whole = Field(ge=0, le=MOST_REPLICAS, description="So many replicas.")
    time_zone: str = Field("UTC", description="IANA name of the clock of the cron lines.")

    @model_validator(mode="after")
    def _readable(self) -> ScheduleSettings:
        self.schedule().covers(datetime(2026, 1, 1, tzinfo=UTC))  # It says what never fires, too.
        return self

    def schedule(self) -> Schedule:
        return Schedule(self.start, self.end, self.replicas, self.time_zone)


class Policy(Section):
    name: str = Field(
        "predictive", description="predictive, or a peer's rule by its name in docs/policies.md."
    )
    target_bad_ratio: Number = Field(
        1e-4,
        gt=0,
        le=0.5,
        description=(
            "The knob: the share of requests that may fail or be late, from which the margin is "
            "calibrated once a day."
        ),
    )
    parameters: dict[str, Number] = Field(
        default_factory=dict,
        description="The policy's own numbers by name; margin overrides the calibrated one.",
    )
    schedules: tuple[ScheduleSettings, ...] = Field(
        (), description="Replicas by the clock, which only the policies cron and cron_floor heed."
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in POLICIES:
            raise ValueError(f"{name!r} is not a policy; there are {', '.join(sorted(POLICIES))}")
        return name

    @field_validator("parameters")
    @classmethod
    def _within_bounds(cls, parameters: dict[str, float]) -> dict[str, float]:
        for name, value in parameters.items():
            low, high = bounds_of(name)
            if not low <= value <= high:
                raise ValueError(f"{name}: expected {low:g} to {high:g}, got {value:g}")
        return parameters

    @model_validator(mode="after")
    def _read(self) -> Policy:
        known = parameters_of(self.name)
        for name in self.parameters:
            if name not in known:
                near = get_close_matches(name, known, n=len(known), cutoff=0.6) or sorted(known)
                raise ValueError(
                    f"parameters.{name} is not a parameter of {self.name}; there are "
                    f"{', '.join(near)}"
                )
        return self

    @model_validator(mode="after")
    def _by_the_clock(self) -> Policy:
        if self.name in BY_THE_CLOCK and not self.schedules:
            raise ValueError(f"{self.name} goes by schedules, and there are none")
        if self.name not in BY_THE_CLOCK and self.schedules:
            raise ValueError(
                f"{self.name} does not heed schedules; only {' and '.join(BY_THE_CLOCK)} do"
            )
        return self


class Workload(Section):
    """One fleet of pods that serve one stream of requests. Its log, metrics and overrides follow
    its name: under another one it begins anew, and what was paused is no longer."""

    name: Name = Field(description="What it is called in the log, in reports and in metrics.")
    target: Target = Field(description="What is scaled, and how.")
    demand: Demand = Field(description="Where its requests are counted.")
    signals: Signals = Field(Signals(), description="What else is read beside demand.")
    history: History = Field(
        History(), description="The past demand that forecasts are learned from."
    )
    calendar: CalendarSettings = Field(
        CalendarSettings(),
        description="Days off and one-off events of the people who cause the traffic.",
    )
    slo: Slo = Field(Slo(), description="The objective that requests are held to.")
    capacity: CapacitySettings = Field(description="What one replica carries.")
    lead_time: LeadTimeSettings = Field(
        LeadTimeSettings(), description="How long pods take to start, and metrics to arrive."
    )
    policy: Policy = Field(Policy(), description="Which rule decides, and how dear quality is.")
    min_replicas: Replicas = Field(1, description="Replicas that are never gone below.")
    max_replicas: Replicas = Field(description="Replicas that are never exceeded.")
    behavior: Behavior = Field(
        Behavior(), description="Limits on the pace; an HPA's block can be pasted."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Workload:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"minReplicas ({self.min_replicas}) must not exceed maxReplicas "
                f"({self.max_replicas})"
            )
        return self

    @model_validator(mode="after")
    def _fresh(self) -> Workload:
        lag, oldest = self.lead_time.metric_lag_seconds, self.history.max_age_seconds
        if lag >= oldest:
            raise ValueError(
                f"leadTime.metricLagSeconds ({lag:g}) must lie below history.maxAgeSeconds "
                f"({oldest:g}): every sample would be stale"
            )
        return self

    @model_validator(mode="after")
    def _events(self) -> Workload:
        events = sorted(self.traffic_calendar().events, key=lambda event: event.starts_at)
        for one, other in pairwise(events):
            if other.starts_at < one.ends_at:
                raise ValueError(f"calendar.events: {one.name!r} and {other.name!r} overlap")
        return self

    def traffic_calendar(self) -> Calendar:
        """The clock, the days off and the events of the people who cause the traffic."""
        zone = ZoneInfo(self.history.time_zone)
        return Calendar(
            time_zone=self.history.time_zone,
            country=self.calendar.country,
            subdivision=self.calendar.subdivision,
            extra_days_off=tuple(sorted(self.calendar.extra_days_off)),
            events=tuple(event.event(zone) for event in self.calendar.events),
        )

    def policy_settings(self) -> PolicySettings:
        return PolicySettings(
            policy=self.policy.name,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            scale_up=self.behavior.scale_up.rules(default_window_seconds=0),
            scale_down=self.behavior.scale_down.rules(default_window_seconds=300),
            parameters=tuple(sorted({"lookBackSeconds": 300.0, **self.policy.parameters}.items())),
            schedules=tuple(each.schedule() for each in self.policy.schedules),
            cuts_to_maximum=not is_ours(self.policy.name),
        )

    def loop_settings(self, interval_seconds: float) -> LoopSettings:
        lead = self.lead_time
        return LoopSettings(
            workload=self.name,
            policy=self.policy_settings(),
            capacity=self.capacity.capacity,
            lead_time=LeadTime(lead.p50_seconds, lead.p95_seconds, lead.metric_lag_seconds),
            interval_seconds=interval_seconds,
            history_steps=self.history.steps,
            step_seconds=self.history.step_seconds,
            learns_lead_time=lead.learned,
        )


class Settings(Section):
    """The whole file."""

    interval_seconds: Number = Field(
        15.0, ge=1, le=300, description="Seconds between two decisions."
    )
    refit_interval_seconds: Number = Field(
        86_400.0,
        ge=60,
        le=604_800,
        description="Seconds between two fits of the forecast, with the margin's calibration.",
    )
    workers: Whole = Field(
        4, ge=1, le=64, description="Workloads that are decided, or fitted, side by side."
    )
    prometheus: Prometheus = Field(description="Where history and signals are read.")
    database: Database = Field(Database(), description="The decision log.")
    server: Server = Field(Server(), description="Health, metrics and the live page.")
    kubernetes: Kubernetes = Field(Kubernetes(), description="How to reach the cluster.")
    leader_election: LeaderElection | None = Field(
        None, description="Of several daemons one acts; without it each does, so run one."
    )
    workloads: tuple[Workload, ...] = Field(description="The fleets that are scaled.")

    @field_validator("workloads")
    @classmethod
    def _distinct(cls, workloads: tuple[Workload, ...]) -> tuple[Workload, ...]:
        if not workloads:
            raise ValueError("needs at least one workload")
        for what, keys in (
            ("name", [w.name for w in workloads]),
            ("target", [f"{w.target.namespace}/{w.target.name}" for w in workloads]),
        ):
            twice = sorted({key for key in keys if keys.count(key) > 1})
            if twice:
                raise ValueError(f"{what} used by more than one workload: {', '.join(twice)}")
        return workloads

    @model_validator(mode="after")
    def _learnable(self) -> Settings:
        for workload in self.workloads:
            lead, days = workload.lead_time, workload.history.days
            ahead = lead.p95_seconds + lead.metric_lag_seconds
            if ahead > days * DAY_SECONDS / 2:
                raise ValueError(
                    f"workload {workload.name}: leadTime.p95Seconds and metricLagSeconds, "
                    f"{ahead:g} s together, must not exceed half of history.days ({days:g}): no "
                    "forecast could be learned"
                )
        return self

    def log_url(self) -> str:
        """The database of the log; raises SettingsError where it is not told, or not one that
        several daemons can share."""
        url = self.database.resolved_url()
        if self.leader_election is not None and not url.startswith("postgresql"):
            raise SettingsError(
                "leaderElection: expected a log that all daemons share, database.url "
                f"postgresql+psycopg://USER@HOST/NAME, got {url.partition(':')[0]}: whoever takes "
                "over goes on with it"
            )
        return url

    @model_validator(mode="after")
    def _time_to_stop(self) -> Settings:
        """What a leader has begun to write when it stops is over before another may take over."""
        election, longest = self.leader_election, self.kubernetes.timeout_seconds
        if election is not None and election.lease_seconds - election.renew_seconds < longest:
            raise ValueError(
                f"leaderElection.leaseSeconds must not lie below three times "
                f"kubernetes.timeoutSeconds ({longest:g} s), got {election.lease_seconds}: a write "
                "could still be under way when another daemon takes over"
            )
        return self

    @model_validator(mode="after")
    def _lasting_floors(self) -> Settings:
        least = OVERDUE_INTERVALS * self.interval_seconds
        for workload in self.workloads:
            target = workload.target
            if target.mode is Mode.FLOOR and target.floor_ttl_seconds < least:
                raise ValueError(
                    f"workload {workload.name}: target.floorTtlSeconds must not lie below "
                    f"{OVERDUE_INTERVALS} intervals of intervalSeconds ({least:g} s), got "
                    f"{target.floor_ttl_seconds:g}: it would expire between two decisions"
                )
        return self


def load_settings(path: Path) -> Settings:
    """Read and check a settings file; raises SettingsError with every problem it has."""
    document = read_mapping(path, "prometheus and workloads")
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise SettingsError(explained(path, error)) from error
