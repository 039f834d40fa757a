"""The settings file: one YAML for daemon and simulator, read once, checked whole.

Knows the file's keys, their units and bounds, and how they become the policies' own types. Every
mistake in a file is reported at once, each with its path. Secrets never stand in the file: they
are named by file or environment variable, read when needed, and never printed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from datetime import UTC, date, datetime
from difflib import get_close_matches
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
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
from policies.registry import BY_THE_CLOCK, POLICIES, parameters_of
from policies.schedule import Schedule
from scaler.loop import LoopSettings


class SettingsError(Exception):
    """The settings cannot be used; the message lists every problem with file and path."""


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone such as Europe/Berlin") from error
    return name


def _text(value: object) -> object:
    if isinstance(value, (bool, int, float)):
        raise ValueError("must stand in quotes: YAML reads NO as false and 01 as a number")  # noqa: TRY004
    return value


def _moment(value: object) -> object:
    # pydantic would take a number for seconds since 1970.
    number = isinstance(value, str) and re.fullmatch(r"[-+.\d]+", value) and "-" not in value[1:]
    if number or isinstance(value, (bool, int, float)):
        raise ValueError("is not a time such as 2026-07-19 21:00 or 2026-07-19T19:00:00Z")
    return value


NO_SECRETS = "a password must not stand in the file"


def _readable_url(url: str) -> str:
    try:
        urlsplit(url).port  # noqa: B018  # which looks at host and port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    return url


def _secret_free_url(url: str) -> str:
    if re.search(r"//[^/@]*:[^/@]+@", url):
        raise ValueError(
            f"{NO_SECRETS}; give it in a file or by the environment, as "
            "prometheus.basicAuth and database.urlEnv do"
        )
    return url


LABEL = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
Name = Annotated[str, Field(pattern=LABEL)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Text = Annotated[str, BeforeValidator(_text)]
# Time of the workload's clock, unless it says where it counts from.
Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "examples": ["2026-07-19 21:00", "2026-07-19T19:00:00Z"]}),
]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """One mapping of the file: camelCase keys, none unknown, never changed after reading."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, validate_default=True
    )


class BasicAuth(Section):
    username: str
    password_file: Path | None = None
    password_env: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> BasicAuth:
        if (self.password_file is None) == (self.password_env is None):
            raise ValueError("give exactly one of passwordFile and passwordEnv")
        return self

    def password(self) -> str:
        """Raises SettingsError where the file or variable is missing."""
        return read_secret(self.password_file, self.password_env)


class Tls(Section):
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("certFile and keyFile go together")
        return self


HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
HeaderValue = Annotated[str, Field(pattern=r"^[^\s]([^\r\n]*[^\s])?$")]


class Prometheus(Section):
    """Where history and signals are read; Thanos, Mimir and VictoriaMetrics speak the same."""

    url: Annotated[
        str,
        Field(pattern=r"^https?://[^\s]+$"),
        AfterValidator(_secret_free_url),
        AfterValidator(_readable_url),
    ]
    timeout_seconds: Positive = 10.0
    history_timeout_seconds: Positive = 60.0
    max_response_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    bearer_token_file: Path | None = None
    basic_auth: BasicAuth | None = None
    tls: Tls = Tls()
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    tenant: str | None = None
    tenant_header: str = "X-Scope-OrgID"

    @model_validator(mode="after")
    def _one_credential(self) -> Prometheus:
        if self.bearer_token_file and self.basic_auth:
            raise ValueError("give at most one of bearerTokenFile and basicAuth")
        forbidden = [name for name in self.headers if name.lower() == "authorization"]
        if forbidden:
            raise ValueError("secrets do not belong in headers; use bearerTokenFile or basicAuth")
        return self


class Database(Section):
    """The decision log. SQLite by default; PostgreSQL as postgresql+psycopg://user@host/name."""

    url: Annotated[str, AfterValidator(_secret_free_url)] | None = None
    url_env: str | None = None
    url_file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Database:
        if sum(source is not None for source in (self.url, self.url_env, self.url_file)) > 1:
            raise ValueError("give at most one of url, urlEnv and urlFile")
        return self

    def resolved_url(self) -> str:
        """Raises SettingsError where the file or variable is missing."""
        if self.url_env or self.url_file:
            return read_secret(self.url_file, self.url_env)
        return self.url or "sqlite:///daybreak.db"


LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Server(Section):
    """Health, metrics and the live page. Loopback unless told otherwise.

    `allowedHosts` are the names, such as a Service's, by which it may be asked. Pausing and
    overriding from the page needs the token of `tokenFile` or `tokenEnv`, or a name in
    `userHeader`, which a reverse proxy on this machine sets; without either the page only shows.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    allowed_hosts: tuple[str, ...] = ()
    token_file: Path | None = None
    token_env: str | None = None
    user_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None

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

    kubeconfig: Path | None = None
    context: str | None = None
    timeout_seconds: Positive = 5.0


class Mode(StrEnum):
    """What may be written: see the table of modes in the README."""

    SHADOW = "shadow"
    FLOOR = "floor"
    SCALE = "scale"
    METRIC = "metric"


class Target(Section):
    kind: Literal["Deployment"] = "Deployment"
    namespace: Name = "default"
    name: Name
    mode: Mode = Mode.FLOOR
    hpa: Name | None = None
    floor_ttl_seconds: Positive = 900.0

    @model_validator(mode="after")
    def _hpa_for_floor(self) -> Target:
        if self.mode is Mode.FLOOR and self.hpa is None:
            raise ValueError("mode floor needs hpa: the name of the HPA whose minReplicas it sets")
        return self


class VllmDemand(Section):
    """Demand from vLLM alone: completions plus the change of running and waiting requests."""

    labels: dict[str, str]

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: dict[str, str]) -> dict[str, str]:
        if not labels:
            raise ValueError("give at least one label, such as model_name")
        for name in labels:
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
                raise ValueError(f"{name!r} is not a Prometheus label name")
        return labels


class Demand(Section):
    """Where requests are counted: a gateway's arrivals (`query`) or vLLM's own figures."""

    query: str | None = None
    vllm: VllmDemand | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Demand:
        if (self.query is None) == (self.vllm is None):
            raise ValueError(
                "give exactly one of query (PromQL: one series, requests a second) and vllm"
            )
        return self


class Signals(Section):
    """Optional PromQL for what stands beside demand; each must give one series."""

    requests_running: str | None = None
    requests_waiting: str | None = None
    kv_cache_usage_ratio: str | None = None
    latency_p99_seconds: str | None = None
    errors_qps: str | None = None


class History(Section):
    days: Annotated[float, Field(gt=0, le=400)] = 28.0
    step_seconds: Annotated[int, Field(ge=1, le=3600)] = 15
    time_zone: TimeZone = "UTC"
    max_age_seconds: Positive = 180.0

    @property
    def steps(self) -> int:
        return round(self.days * 86_400 / self.step_seconds)


class EventSettings(Section):
    """A one-off: by how much it multiplies demand, or that its history teaches nothing.

    A time without an offset is one of history.timeZone.
    """

    name: Annotated[Text, Field(min_length=1)]
    start: Moment
    end: Moment
    factor: Positive | None = None
    ignore_history: bool = False

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
    """Days off and one-off events of the people who cause the traffic.

    `country` is an ISO 3166 code; its weekends and public holidays are days off, with those of
    the `subdivision` and `extraDaysOff`.
    """

    country: Text | None = None
    subdivision: Text | None = None
    extra_days_off: tuple[Annotated[date, BeforeValidator(_moment)], ...] = ()
    events: tuple[EventSettings, ...] = ()

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
    p99_seconds: Positive = 1.0


class CapacitySettings(Section):
    """Requests a second that one replica serves with its P99 inside slo.p99Seconds, and where it
    saturates, if that is known."""

    qps_per_replica: Positive
    saturation_qps: Positive | None = None
    backlog_seconds: Positive = 30.0

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
    """From a pod's creation until it serves; `learned` raises it to what starts of the last days
    took."""

    p50_seconds: NotNegative = 120.0
    p95_seconds: NotNegative = 180.0
    metric_lag_seconds: NotNegative = 15.0
    learned: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> LeadTimeSettings:
        if self.p50_seconds > self.p95_seconds:
            raise ValueError("p50Seconds must not exceed p95Seconds")
        return self


class HpaPolicy(Section):
    type: RateUnit
    value: Annotated[int, Field(gt=0)]
    period_seconds: Annotated[int, Field(gt=0, le=3600)]


class HpaRules(Section):
    """One direction of an HPA `behavior` block, as Kubernetes spells it."""

    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    select_policy: SelectPolicy = SelectPolicy.MAX
    policies: tuple[HpaPolicy, ...] = ()
    tolerance: NotNegative | None = None

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
    """An HPA `behavior` block. Up is unlimited unless said; down is limited per minute and per
    half hour."""

    scale_up: HpaRules = HpaRules()
    scale_down: HpaRules = DEFAULT_SCALE_DOWN


class ScheduleSettings(Section):
    """From each firing of the cron line `start` to the next of `end` so many replicas are wanted,
    by the policies that go by the clock."""

    start: str
    end: str
    replicas: Annotated[int, Field(ge=0)]
    time_zone: str = "UTC"

    @model_validator(mode="after")
    def _readable(self) -> ScheduleSettings:
        self.schedule().covers(datetime(2026, 1, 1, tzinfo=UTC))  # It says what never fires, too.
        return self

    def schedule(self) -> Schedule:
        return Schedule(self.start, self.end, self.replicas, self.time_zone)


class Policy(Section):
    """`targetBadRatio` is the knob: the share of requests that may fail or be late. From it the
    margin is calibrated for each workload once a day; the parameter `margin` overrides it."""

    name: str = "predictive"
    target_bad_ratio: Annotated[float, Field(gt=0, le=0.5)] = 1e-4
    parameters: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    schedules: tuple[ScheduleSettings, ...] = ()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in POLICIES:
            raise ValueError(f"{name!r} is not a policy; there are {', '.join(sorted(POLICIES))}")
        return name

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
        if self.name in BY_THE_CLOCK and not self.schedules:
            raise ValueError(f"{self.name} goes by schedules, and there are none")
        return self


class Workload(Section):
    name: Name
    target: Target
    demand: Demand
    signals: Signals = Signals()
    history: History = History()
    calendar: CalendarSettings = CalendarSettings()
    slo: Slo = Slo()
    capacity: CapacitySettings
    lead_time: LeadTimeSettings = LeadTimeSettings()
    policy: Policy = Policy()
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)]
    behavior: Behavior = Behavior()

    @model_validator(mode="after")
    def _bounds(self) -> Workload:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"minReplicas ({self.min_replicas}) must not exceed maxReplicas "
                f"({self.max_replicas})"
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

    interval_seconds: Annotated[float, Field(ge=1, le=300)] = 15.0
    refit_interval_seconds: Annotated[float, Field(ge=60, le=604_800)] = 86_400.0
    workers: Annotated[int, Field(ge=1, le=64)] = 4
    prometheus: Prometheus
    database: Database = Database()
    server: Server = Server()
    kubernetes: Kubernetes = Kubernetes()
    workloads: tuple[Workload, ...]

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


def read_secret(file: Path | None, env: str | None) -> str:
    """A secret from its file or environment variable; raises SettingsError where it is absent."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"cannot read the secret file {file}: {error.strerror}") from error
    value = os.environ.get(env or "")
    if not value:
        raise SettingsError(f"the environment variable {env} is not set, or empty")
    return value


def load_settings(path: Path) -> Settings:
    """Read and check a settings file; raises SettingsError with every problem it has."""
    document = read_mapping(path, "prometheus and workloads")
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise SettingsError(explained(path, error)) from error


def read_mapping(path: Path, expected: str) -> dict[str, Any]:
    """The mapping of a YAML file, of which JSON is a part; raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text") from error
    try:
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: expected a mapping with {expected}")
    return document


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; here the second is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a single word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _as_text(loader: _UniqueKeyLoader, node: yaml.ScalarNode) -> str:
    return loader.construct_scalar(node)


# A time stays text until its key is known: PyYAML would end without path on 30 February.
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:timestamp", _as_text)


def explained(path: Path, error: ValidationError) -> str:
    """Every problem of a file on a line of its own, with its path within the file."""
    problems = error.errors(include_url=False)
    lines = [f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    for problem in problems:
        where = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]
        ).lstrip(".")
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "is not a known key"
        given = problem["input"]
        plain = isinstance(given, (str, int, float)) and NO_SECRETS not in message
        shown = f" (got {given!r})" if plain else ""
        lines.append(f"  {where or 'the file'}: {message}{shown}")
    return "\n".join(lines)
