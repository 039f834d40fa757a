"""Schedules: replicas wanted at certain times of a clock, as cron lines say them.

Knows cron's five fields and the two odd days of a time zone's year. Zone rules come from the
system's database; nothing else is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SEARCH_DAYS = 8 * 366
"""A 29 February may be eight years away."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """From each firing of `start` to the next of `end`, `replicas` are wanted.

    Both are cron lines (minute, hour, day of month, month, day of week; Sunday is 0 or 7) on the
    clock of an IANA time zone. Raises ValueError where a line or the zone is not one, or
    replicas are negative.
    """

    start: str
    end: str
    replicas: int
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        parse_cron(self.start)
        parse_cron(self.end)
        _zone(self.time_zone)
        if self.replicas < 0:
            raise ValueError(f"a schedule's replicas must not be negative, got {self.replicas}")

    def covers(self, at: datetime) -> bool:
        """Whether the next end does not come after the next start: nothing else is remembered.

        So a start and an end on different weekdays stretch the span over what lies between.
        """
        zone = _zone(self.time_zone)
        next_end = next_firing(parse_cron(self.end), zone, at)
        return next_end <= next_firing(parse_cron(self.start), zone, at)


@dataclass(frozen=True, slots=True)
class Cron:
    """The days and clock times at which a cron line fires; `clocks` are in order."""

    line: str
    clocks: tuple[time, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def fires_on(self, day: date) -> bool:
        """Where both day fields are restricted, either of them suffices, as in cron."""
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        on_day = in_month or in_week if self.either_day else in_month and in_week
        return on_day and day.month in self.months


@lru_cache(maxsize=256)
def parse_cron(line: str) -> Cron:
    """Raises ValueError where the line has not five fields that can be read."""
    fields = line.lower().split()
    if len(fields) != 5:
        raise ValueError(f"a cron line needs 5 fields, got {line!r}")
    try:
        minutes, hours, days = _numbers(fields[0], 0, 59), _numbers(fields[1], 0, 23), fields[2]
        months = _numbers(_named(fields[3], _MONTHS, 1), 1, 12)
        weekdays = frozenset(n % 7 for n in _numbers(_named(fields[4], _WEEKDAYS, 0), 0, 7))
        return Cron(
            line,
            tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)),
            _numbers(days, 1, 31),
            months,
            weekdays,
            either_day=not days.startswith("*") and not fields[4].startswith("*"),
        )
    except ValueError as error:
        raise ValueError(f"cron line {line!r}: {error}") from None


def next_firing(cron: Cron, zone: ZoneInfo, at: datetime) -> datetime:
    """The first firing strictly after a moment, in UTC.

    A clock time that the change to summer time skips does not fire; one that occurs twice in
    autumn fires twice. Raises ValueError where the line never fires.
    """
    first = at.astimezone(zone).date()
    for ahead in range(_SEARCH_DAYS):
        day = first + timedelta(days=ahead)
        if not cron.fires_on(day):
            continue
        firings = [
            moment for clock in cron.clocks for moment in _moments(day, clock, zone) if moment > at
        ]
        if firings:
            return min(firings)
    raise ValueError(f"cron line {cron.line!r} never fires")


def _moments(day: date, clock: time, zone: ZoneInfo) -> list[datetime]:
    """When a wall clock shows this: once as a rule, never or twice on the odd days."""
    local = datetime.combine(day, clock)
    moments = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return [m for m in moments if m.astimezone(zone).replace(tzinfo=None, fold=0) == local]


def _numbers(field: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = ("*", "", "") if span == "*" else span.partition("-")
        start = low if first == "*" else int(first)
        open_end = first == "*" or (step and not last)
        end = high if open_end else int(last or first)
        if not low <= start <= end <= high or (step and int(step) < 1):
            raise ValueError(f"{part!r} is not within {low}-{high}")
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)


def _named(field: str, names: tuple[str, ...], first: int) -> str:
    for number, name in enumerate(names, first):
        field = field.replace(name, str(number))
    return field


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone of the IANA database") from None
