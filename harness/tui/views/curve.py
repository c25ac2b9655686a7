"""A curve of any length in bounded room: neighbours share a bucket, and its extremes are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MAX_BUCKETS = 4096
"""Many more than a terminal has columns of dots; a plot of so many takes some ten milliseconds."""


class _Bucket(NamedTuple):
    """The extremes of neighbouring points, in the order in which they came."""

    first: tuple[float, float]
    second: tuple[float, float]

    def joined(self, other: _Bucket) -> _Bucket:
        points = (*self, *other)
        low, high = min(points, key=_height), max(points, key=_height)
        return _Bucket(low, high) if low[0] <= high[0] else _Bucket(high, low)


def _height(point: tuple[float, float]) -> float:
    return point[1]


class Curve:
    """Points with rising x, added one by one. No spike is lost; at most two points a bucket remain."""

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = []
        self._in_last = 0
        self._width = 1
        """Points that share a bucket."""
        self._last: tuple[float, float] | None = None

    @property
    def last_x(self) -> float | None:
        """Where the curve ends; None before its first point."""
        return self._last[0] if self._last else None

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def append(self, x: float, y: float) -> None:
        """Takes one point, in time that does not grow with the curve."""
        point = _Bucket((x, y), (x, y))
        if self._buckets and self._in_last < self._width:
            self._buckets[-1] = self._buckets[-1].joined(point)
            self._in_last += 1
        else:
            self._buckets.append(point)
            self._in_last = 1
        self._last = (x, y)
        if len(self._buckets) > MAX_BUCKETS:
            self._halve()

    def _halve(self) -> None:
        pairs = zip(self._buckets[::2], self._buckets[1::2], strict=False)
        joined = [first.joined(second) for first, second in pairs]
        if len(self._buckets) % 2:
            joined.append(self._buckets[-1])
        else:
            self._in_last += self._width
        self._buckets, self._width = joined, self._width * 2

    def cut_back(self, x: float) -> None:
        """Forgets all points from `x` on."""
        kept = [bucket for bucket in self._buckets if bucket.first[0] < x]
        if kept and kept[-1].second[0] >= x:
            kept[-1] = _Bucket(kept[-1].first, kept[-1].first)
        self._buckets, self._in_last = kept, self._width
        self._last = kept[-1].second if kept else None

    def points(self) -> list[tuple[float, float]]:
        """What is left of the curve, x rising; it ends with the newest point."""
        found = list(self._points())
        return found if self._last is None or found[-1] == self._last else [*found, self._last]

    def _points(self) -> Iterator[tuple[float, float]]:
        for first, second in self._buckets:
            yield first
            if second != first:
                yield second
