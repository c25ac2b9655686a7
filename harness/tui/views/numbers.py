"""How numbers, times and durations are written; unknown is a dash, never a zero."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

UNKNOWN = "—"


def number(value: Any) -> float | None:
    """The value where it is a finite number, else None: what a journal holds is not trusted to be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def count(value: Any) -> int | None:
    """The value where it is a whole number, else None."""
    found = number(value)
    return None if found is None else int(found)


def score(value: float | None) -> str:
    """Three decimals for rates, fewer for what is larger than ten."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return UNKNOWN if value is None else f"{value:+.3f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """`0:34`, `12:05` or `3:04:09`."""
    if seconds is None or seconds < 0:
        return UNKNOWN
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def quantity(value: float | None, unit: str = "") -> str:
    """`1.31`, `412`, `6.2k` or `1.9M`, with its unit."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    text = f"{value / 1e6:.1f}M" if size >= 1e6 else f"{value / 1e3:.1f}k" if size >= 1e4 else ""
    text = text or (f"{value:.0f}" if size >= 100 or value == int(value) else f"{value:.3g}")
    return f"{text} {unit}".rstrip()


def amount(value: int | None) -> str:
    """A whole number with its thousands set apart."""
    return UNKNOWN if value is None else f"{value:,}"


def clock(time_s: float | None) -> str:
    """The local time of day of a moment in seconds since the epoch."""
    if time_s is None:
        return UNKNOWN
    try:
        return datetime.fromtimestamp(time_s, UTC).astimezone().strftime("%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return UNKNOWN


def ago(created: str, now_s: float) -> str:
    """How long ago an ISO 8601 moment was, in one unit."""
    try:
        seconds = now_s - datetime.fromisoformat(created).timestamp()
    except (ValueError, OverflowError):
        return UNKNOWN
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def share(done: float | None, total: float | None) -> float | None:
    """How much of the total is done, 0 to 1; None where that is unknown."""
    if done is None or not total or total < 0:
        return None
    return min(1.0, max(0.0, done / total))
