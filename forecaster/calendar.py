"""Local clock time as a model input: users follow their clocks, not UTC.

Knows time zones and their two odd days a year. Knows nothing of holidays yet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
_MONDAY = 4 * DAY_SECONDS  # 1970-01-01 was a Thursday


def local_seconds(epoch_seconds: npt.NDArray[np.int64], time_zone: str) -> npt.NDArray[np.int64]:
    """Seconds since Monday 1970-01-05 00:00 of the wall clock of a time zone.

    In autumn an hour of the wall clock occurs twice, in spring one is skipped: two steps may
    share a local time, which is what their users do too.
    """
    if time_zone == "UTC":
        return epoch_seconds - _MONDAY
    stamps = pd.to_datetime(epoch_seconds, unit="s", utc=True)
    wall = stamps.tz_convert(time_zone).tz_localize(None)
    local: npt.NDArray[np.int64] = wall.as_unit("s").asi8 - _MONDAY
    return local


def fourier(
    local: npt.NDArray[np.int64], period_seconds: int, harmonics: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Columns sin(2 pi k t / period), cos(2 pi k t / period) for each harmonic k."""
    phase = 2 * np.pi * (local % period_seconds)[:, None] / period_seconds * harmonics[None, :]
    return np.hstack([np.sin(phase), np.cos(phase)])
