"""The calendar of the people who cause the traffic: their clock, their days off, their events.

Knows time zones with their two odd days a year, weekends and public holidays by country, and
one-off events that were announced. Knows no model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime
from difflib import get_close_matches
from functools import lru_cache

import holidays
import numpy as np
import numpy.typing as npt
from holidays.registry import COUNTRIES

from forecaster.history import Floats, TrafficHistory

Bools = npt.NDArray[np.bool_]

DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
_MONDAY = date(1970, 1, 5)  # 1970-01-01 was a Thursday
_MONDAY_SECONDS = 4 * DAY_SECONDS
_WEEKEND = 5


@dataclass(frozen=True, slots=True)
class Event:
    """A one-off in [starts_at, ends_at): a launch, a match, a load test.

    Either `factor` says by how much demand is expected to exceed that of an ordinary day, or
    `ignore_history` that nothing is expected and nothing is to be learned from it. Raises
    ValueError where it is neither or both, ends before it starts or has no time zone.
    """

    name: str
    starts_at: datetime
    ends_at: datetime
    factor: float | None = None
    ignore_history: bool = False

    def __post_init__(self) -> None:
        if self.starts_at.tzinfo is None or self.ends_at.tzinfo is None:
            raise ValueError(f"event {self.name!r}: its times need a time zone")
        if not self.starts_at < self.ends_at:
            raise ValueError(f"event {self.name!r}: its end must come after its start")
        if (self.factor is None) != self.ignore_history:
            raise ValueError(f"event {self.name!r}: give exactly one of factor and ignoreHistory")
        if self.factor is not None and not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"event {self.name!r}: factor must be above 0, got {self.factor:g}")

    def covers(self, epoch_seconds: npt.NDArray[np.int64], step_seconds: int = 1) -> Bools:
        """True for each step of which a part lies within the event."""
        starts, ends = self.starts_at.timestamp(), self.ends_at.timestamp()
        return np.asarray((epoch_seconds + step_seconds > starts) & (epoch_seconds < ends))


@dataclass(frozen=True, slots=True)
class Calendar:
    """Days off are the weekends and public holidays of `country` (ISO 3166) and its
    `subdivision`, and `extra_days_off`. A country or a year that is not known has weekends on
    Saturday and Sunday and no holidays.
    """

    time_zone: str = "UTC"
    country: str | None = None
    subdivision: str | None = None
    extra_days_off: tuple[date, ...] = ()
    events: tuple[Event, ...] = ()

    def local_seconds(self, epoch_seconds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Seconds since Monday 1970-01-05 00:00 of the wall clock.

        In autumn an hour of the wall clock occurs twice, in spring one is skipped: two steps may
        share a local time, which is what their users do too.
        """
        if self.time_zone == "UTC":
            return epoch_seconds - _MONDAY_SECONDS
        # Imported here: it takes as long as a small command, and UTC does not need it.
        import pandas as pd  # noqa: PLC0415

        stamps = pd.to_datetime(epoch_seconds, unit="s", utc=True)
        wall = stamps.tz_convert(self.time_zone).tz_localize(None)
        local: npt.NDArray[np.int64] = wall.as_unit("s").asi8 - _MONDAY_SECONDS
        return local

    def day_types(self, local: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """1 where the local second lies on a day off, else 0."""
        if not len(local):
            return np.zeros(0, dtype=np.int64)
        days = local // DAY_SECONDS
        first, last = (_MONDAY.toordinal() + int(day) for day in (days.min(), days.max()))
        first_year, last_year = date.fromordinal(first).year, date.fromordinal(last).year
        types = np.concatenate(
            [
                _day_types_of(self.country, self.subdivision, year)
                for year in range(first_year, last_year + 1)
            ]
        )
        january = date(first_year, 1, 1).toordinal()
        for extra in self.extra_days_off:
            if first_year <= extra.year <= last_year:
                types[extra.toordinal() - january] = 1
        return np.asarray(types[days + (_MONDAY.toordinal() - january)])

    def effect(self, epoch_seconds: npt.NDArray[np.int64]) -> Floats:
        """The factor on demand that events are expected to have at each second; 1 outside."""
        factors = np.ones(len(epoch_seconds))
        for event in self.events:
            if event.factor is not None:
                factors[event.covers(epoch_seconds)] = event.factor
        return factors

    def masked(self, history: TrafficHistory) -> TrafficHistory:
        """The history to learn ordinary days from: every step of an event is a gap.

        Those of an expected effect are gaps too: were they learned, the effect would be counted
        twice.
        """
        seconds = history.epoch_seconds()
        values = history.values.copy()
        for event in self.events:
            values[event.covers(seconds, history.step_seconds)] = np.nan
        return TrafficHistory(history.series, history.start, history.step_seconds, values)

    def without_effects(self, history: TrafficHistory) -> TrafficHistory:
        """The history as it would have been without the effects that were expected of events.

        So a model that carries the present on does so during an event, and whatever it says is
        multiplied again by the effect. Ignored steps are gaps.
        """
        seconds = history.epoch_seconds()
        values = history.values / self.effect(seconds)
        for event in self.events:
            if event.ignore_history:
                values[event.covers(seconds, history.step_seconds)] = np.nan
        return TrafficHistory(history.series, history.start, history.step_seconds, values)

    def strongest_event(self, starts_at: datetime, ends_at: datetime) -> Event | None:
        """The event with the highest factor of those that overlap [starts_at, ends_at)."""
        overlapping = (
            event
            for event in self.events
            if event.factor is not None and event.starts_at < ends_at and starts_at < event.ends_at
        )
        return max(overlapping, key=lambda event: event.factor or 0.0, default=None)


def event_factor(calendar: Calendar, starts_at: datetime, ends_at: datetime) -> float:
    """The highest factor that an event is expected to have on demand in [starts_at, ends_at).

    1 where there is none, and at least 1 where the window reaches beyond the events: a fall
    counts only where it lasts for the whole window.
    """
    event = calendar.strongest_event(starts_at, ends_at)
    if event is None or event.factor is None:
        return 1.0
    inside = event.starts_at <= starts_at and ends_at <= event.ends_at
    return event.factor if inside else max(1.0, event.factor)


def check_region(country: str, subdivision: str | None = None) -> None:
    """Raises ValueError, with what was probably meant, where no holidays are known for them."""
    codes = {code: entry[0] for entry in COUNTRIES.values() for code in entry[1:] if len(code) <= 3}
    if country not in codes:
        near = ", ".join(f"{code} ({codes[code]})" for code in _close_countries(country))
        raise ValueError(
            f"{country!r} is not a known country code of ISO 3166"
            + (f"; close to it are {near}" if near else ", such as DE or US")
        )
    official = holidays.country_holidays(country)
    known = [*official.subdivisions, *official.subdivisions_aliases]
    if subdivision is not None and subdivision not in known:
        near = ", ".join(get_close_matches(subdivision, known, 3) or official.subdivisions)
        raise ValueError(
            f"{subdivision!r} is not a known subdivision of {country}"
            + (f"; there are {near}" if near else ", which has none")
        )


def _close_countries(text: str) -> list[str]:
    """Codes of the countries whose name or code looks like the text, the closest first."""
    names = {
        name.lower(): entry[1]
        for module, entry in COUNTRIES.items()
        for name in (module.replace("_", " "), *entry[1:])
    }
    return list(dict.fromkeys(names[name] for name in get_close_matches(text.lower(), names, 5)))


@lru_cache(maxsize=256)
def _day_types_of(country: str | None, subdivision: str | None, year: int) -> npt.NDArray[np.int64]:
    """The type of each day of a year, from its first of January on."""
    first, after = date(year, 1, 1).toordinal(), date(year, 12, 31).toordinal() + 1
    known = _official(country, subdivision, year)
    days = (date.fromordinal(day) for day in range(first, after))
    types = [
        day.weekday() >= _WEEKEND if known is None else not known.is_working_day(day)
        for day in days
    ]
    return np.array(types, dtype=np.int64)


def _official(
    country: str | None, subdivision: str | None, year: int
) -> holidays.HolidayBase | None:
    if country is None:
        return None
    try:
        return holidays.country_holidays(country, subdiv=subdivision, years=year)
    except NotImplementedError:
        return None


def fourier(
    local: npt.NDArray[np.int64], period_seconds: int, harmonics: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Columns sin(2 pi k t / period), cos(2 pi k t / period) for each harmonic k."""
    phase = 2 * np.pi * (local % period_seconds)[:, None] / period_seconds * harmonics[None, :]
    return np.hstack([np.sin(phase), np.cos(phase)])
