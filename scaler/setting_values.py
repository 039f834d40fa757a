"""What may stand at a key of the settings file: texts, times, URLs and numbers with their bounds.

Knows values one by one; sections, and what fits together, are the settings'.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from scaler.settings_file import SECRET


def known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone such as Europe/Berlin") from error
    return name


def _text(value: object) -> object:
    if isinstance(value, (bool, int, float)):
        raise ValueError("must stand in quotes: YAML reads NO as false and 1 as a number")  # noqa: TRY004
    return value


def _moment(value: object) -> object:
    # pydantic would take a number for seconds since 1970.
    number = isinstance(value, str) and re.fullmatch(r"[-+.\d]+", value) and "-" not in value[1:]
    if number or isinstance(value, (bool, int, float)):
        raise ValueError("is not a time such as 2026-07-19 21:00 or 2026-07-19T19:00:00Z")
    return value


def _number(value: object) -> object:
    # pydantic would take true for 1; and what YAML 1.1 does not read in base ten came as text.
    if isinstance(value, bool):
        raise ValueError("is not a number: YAML reads yes, no, on and off as true and false")  # noqa: TRY004
    if isinstance(value, str) and re.match(r"\s*[-+]?0[\d_]", value):
        raise ValueError("must not begin with a 0: YAML would read it in base eight")
    return value


def _query(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _secret_free_url(url: str) -> str:
    # Wider than what a URL may hold: a password with a slash or # in it is cut off by parsers.
    given = re.search(r"//.*:.+@", url, re.DOTALL) and not url.startswith("sqlite")
    parameters = parse_qsl(url.partition("?")[2], keep_blank_values=True)
    if given or any(SECRET.search(name) for name, _ in parameters):
        raise ValueError(
            "a password must not stand in the file; give it in a file or by the environment, as "
            "prometheus.basicAuth and database.urlEnv do"
        )
    return url


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("is not a URL such as http://prometheus:9090: host or port cannot be read")
    if "?" in url or "#" in url:
        raise ValueError("must end with the path: queries are added to it, so no ? and no #")
    return url


def kept_log(url: str) -> str:
    """SQLite's ways to say that a database is in memory only."""
    parts = urlsplit(url)
    if parts.scheme.startswith("sqlite") and (
        parts.path in ("", "/") or ":memory:" in url or "mode=memory" in parts.query
    ):
        raise ValueError("a log in memory is gone with the process; expected sqlite:///FILE")
    return url


def _host_name(name: str) -> str:
    if not re.fullmatch(r"\w([-\w.]*\w)?", name, re.ASCII):
        raise ValueError(
            "is not a host name such as daybreak.llm.svc: without scheme, port and wildcards"
        )
    return name


def _open_header(name: str) -> str:
    if SECRET.search(name):
        raise ValueError("secrets do not belong in headers; use bearerTokenFile or basicAuth")
    return name


LABEL = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
Name = Annotated[str, Field(pattern=LABEL)]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
TimeZone = Annotated[str, AfterValidator(known_zone)]
Text = Annotated[str, BeforeValidator(_text)]
Query = Annotated[str, AfterValidator(_query)]
# Time of the workload's clock, unless it says where it counts from.
Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "examples": ["2026-07-19 21:00", "2026-07-19T19:00:00Z"]}),
]
NUMBER = BeforeValidator(_number)
DAY_SECONDS = 86_400
MOST_REPLICAS = 2**31 - 1
"""More than Kubernetes can count."""
Whole = Annotated[int, NUMBER]
Number = Annotated[float, Field(allow_inf_nan=False), NUMBER]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER]
Seconds = Annotated[float, Field(gt=0, le=DAY_SECONDS, allow_inf_nan=False), NUMBER]
Delay = Annotated[float, Field(ge=0, le=DAY_SECONDS, allow_inf_nan=False), NUMBER]
Replicas = Annotated[int, Field(ge=1, le=MOST_REPLICAS), NUMBER]


HeaderName = Annotated[
    str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), AfterValidator(_open_header)
]
# Printable Latin-1 is what HTTP can carry.
HeaderValue = Annotated[str, Field(pattern=r"^[!-~\xa1-\xff]([ -~\xa1-\xff]*[!-~\xa1-\xff])?$")]
HostName = Annotated[str, AfterValidator(_host_name)]
HttpUrl = Annotated[
    str,
    Field(pattern=r"^https?://[^\s]+$"),
    AfterValidator(_secret_free_url),
    AfterValidator(_base_url),
]
LogUrl = Annotated[
    str, Field(min_length=1), AfterValidator(_secret_free_url), AfterValidator(kept_log)
]
Day = Annotated[date, BeforeValidator(_moment)]
