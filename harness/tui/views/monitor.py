"""Screen 8: what answers on this device: releases, requests, who answered, how long it took."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from harness.tui.views import numbers
from harness.tui.views.bars import progress_bar
from harness.tui.views.cells import Line, Span, between, exactly, fit, fit_line, line, rule
from harness.tui.views.matrix import mark, window
from harness.tui.views.numbers import number

KEPT_REQUESTS = 20_000
"""Of each server, the newest."""
KEPT_EVENTS = 50
LINES_A_LOOK = 2000
WINDOW_S = 24 * 3600.0
HOURS = 24
_RISING = "▁▂▃▄▅▆▇█"
_ACTIVE = "requests.jsonl"


class Request(NamedTuple):
    """What the screen needs of one line of the log. Unknown is None."""

    time_s: float
    status: int
    route: str | None
    band: str | None
    guard: str | None
    first_ms: float | None
    total_ms: float | None
    output_tok: float | None


class Happened(NamedTuple):
    """What befell the server itself."""

    time_s: float
    name: str
    words: str


@dataclass
class Service:
    """One server's request log, read as it grows; files that were full are read before the one that is written."""

    folder: Path
    requests: deque[Request] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    events: deque[Happened] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    release: str = ""
    stage: str = ""
    _offsets: dict[int, int] = field(default_factory=dict)
    """By inode: a file that is renamed is not read again."""

    def look(self, limit: int = LINES_A_LOOK) -> bool:
        """Takes in what came since the last look; whether there may be more at once."""
        for path in _files(self.folder):
            limit -= self._read(path, limit)
            if limit <= 0:
                return True
        return False

    def _read(self, path: Path, limit: int) -> int:
        taken = 0
        try:
            with path.open("rb") as file:
                inode = path.stat().st_ino
                file.seek(self._offsets.get(inode, 0))
                while taken < limit and (text := file.readline()).endswith(b"\n"):
                    self._take(text)
                    taken += 1
                self._offsets[inode] = file.tell() if taken == limit or not text else file.tell() - len(text)
        except OSError:
            return taken
        return taken

    def _take(self, text: bytes) -> None:
        try:
            data = json.loads(text)
            time_s = datetime.fromisoformat(data["time"]).timestamp()
            event = str(data["event"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return
        self.release, self.stage = _text(data.get("release")), _text(data.get("stage"))
        if event == "request":
            self.requests.append(_request(time_s, data))
        else:
            self.events.append(Happened(time_s, event, _happened(event, data)))


def _request(time_s: float, data: Mapping[str, Any]) -> Request:
    status = number(data.get("status"))
    route, band, guard = (_text(data.get(key)) or None for key in ("route", "band", "guard"))
    times = [number(data.get(key)) for key in ("first_ms", "total_ms", "output_tok")]
    return Request(time_s, int(status or 0), route, band, guard, *times)


def _happened(event: str, data: Mapping[str, Any]) -> str:
    if event in ("switch", "rollback"):
        took = numbers.quantity(number(data.get("ms")))
        return f"{_text(data.get('before'))[:12]} → {_text(data.get('release'))[:12]} in {took} ms"
    if event == "start":
        return f"{_text(data.get('url'))} · {_text(data.get('signature'))}"
    if event == "stop":
        return f"{_text(data.get('served'))} served, {_text(data.get('unanswered'))} unanswered"
    return _text(data.get("reason"))


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)[:80]


def services_of(home: Path) -> list[Service]:
    """Every server that kept a log in this home, read to its end, by name."""
    folders = sorted({path.parent for path in (home / "serving").glob("*/requests*.jsonl")})
    services = [Service(folder) for folder in folders]
    for service in services:
        while service.look():
            pass
    return services


def _files(folder: Path) -> list[Path]:
    full = [path for path in folder.glob("requests.*.jsonl") if path.name.split(".")[1].isdigit()]
    return [*sorted(full, key=lambda path: int(path.name.split(".")[1])), folder / _ACTIVE]


class Installed(NamedTuple):
    """A model of the device, and the release in its place."""

    name: str
    release: str
    words: str


class Summary(NamedTuple):
    """A server's last 24 hours."""

    n: int
    n_errors: int
    routes: Mapping[str, int]
    bands: Mapping[str, int]
    guards: Mapping[str, int]
    first_ms: tuple[float | None, float | None]
    """Half of the answers' first tokens came within the first, 95 % within the second."""
    total_ms: tuple[float | None, float | None]
    by_hour: tuple[int, ...]
    """Requests of each hour, the last one now."""


def summary_of(service: Service, now_s: float) -> Summary:
    """What the last 24 hours were like. Times are those of answers, errors have none."""
    shown = [one for one in service.requests if 0 <= now_s - one.time_s < WINDOW_S]
    answered = [one for one in shown if 200 <= one.status < 300]
    hours = Counter(int((now_s - one.time_s) // 3600) for one in shown)
    return Summary(
        len(shown), len(shown) - len(answered), Counter(one.route for one in answered if one.route),
        Counter(one.band for one in answered if one.band), Counter(one.guard for one in shown if one.guard),
        _half_and_most(one.first_ms for one in answered), _half_and_most(one.total_ms for one in answered),
        tuple(hours[back] for back in reversed(range(HOURS))),
    )  # fmt: skip


def _half_and_most(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    known = sorted(value for value in values if value is not None)
    return quantile(known, 0.5), quantile(known, 0.95)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that so many are not above (nearest rank); None of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def monitor_body(
    services: Sequence[Service],
    installed: Sequence[Installed],
    cursor: int,
    cells: int,
    rows: int,
    *,
    now_s: float,
) -> list[Line]:
    """The screen between its frame's lines."""
    found = [(service, summary_of(service, now_s)) for service in services]
    lines = _installed_lines(installed, cells)
    if not found:
        words = (
            " Nothing was served from here yet: harness serve RELEASE answers requests and keeps this log."
        )
        return [line(Span(" SERVED", "head")), fit_line((Span(words, "dim"),), cells), (), *lines]
    listed = max(1, min(len(found), rows // 4))
    first = max(0, window(cursor, len(found), listed))
    head = line(Span(" SERVED", "head"), Span(f"  {len(found)} on this machine · the last 24 hours", "dim"))
    table = [
        _service_line(service, found_, at == cursor, cells)
        for at, (service, found_) in list(enumerate(found))[first : first + listed]
    ]
    service, here = found[min(cursor, len(found) - 1)]
    body = [head, *table, rule(cells), *_summary_lines(here, cells), rule(cells), *lines]
    events = _event_lines(service, cells, max(2, rows - len(body)))
    return exactly([*body, *events], rows)


def _service_line(service: Service, found: Summary, is_here: bool, cells: int) -> Line:
    _, most = found.total_ms
    p95 = "" if most is None else f"p95 {numbers.quantity(round(most, 1))} ms"
    errors = Span(f"  {found.n_errors:,} errors", "fail-text" if found.n_errors else "dim")
    left = line(
        mark(is_here, True), Span(fit(service.folder.name, min(28, cells // 4)), "strong" if is_here else ""),
        Span(fit(service.stage, 8)), Span(fit(service.release, 13), "dim"),
        Span(f" {found.n:,} requests"), errors,
    )  # fmt: skip
    return between(left, line(Span(f"{p95} ", "dim")), cells)


def _summary_lines(found: Summary, cells: int) -> list[Line]:
    guards = " · ".join(f"{name} {count:,}" for name, count in found.guards.items()) or "none failed"
    lines = [
        *_shares("WHO ANSWERED", found.routes, ("edge", "server", "review"), cells),
        *_shares("BANDS", found.bands, ("answer", "escalate", "abstain"), cells),
        line(Span(fit(" GUARDS", 14), "dim"), Span(guards)),
        line(Span(fit(" FIRST TOKEN", 14), "dim"), Span(_times(found.first_ms))),
        line(Span(fit(" ANSWER", 14), "dim"), Span(_times(found.total_ms))),
        line(Span(fit(" BY HOUR", 14), "dim"), Span(_heights(found.by_hour), "curve"),
             Span(f"  at most {max(found.by_hour):,} an hour", "dim")),
    ]  # fmt: skip
    return [fit_line(spans, cells) for spans in lines]


def _shares(name: str, counts: Mapping[str, int], known: Sequence[str], cells: int) -> list[Line]:
    """A bar for each; where nothing was counted one line says so, for none of it was asked."""
    total = sum(counts.values())
    if not total:
        return [line(Span(fit(f" {name}", 14), "dim"), Span("nothing to tell", "dim"))]
    shown = [one for one in (*known, *sorted(set(counts) - set(known))) if counts.get(one)]
    lines: list[Line] = []
    for at, one in enumerate(shown):
        share = counts[one] / total
        head = Span(fit(f" {name}" if at == 0 else "", 14), "dim")
        bar = progress_bar(share, max(6, min(40, cells - 44)))
        lines.append((head, Span(fit(one, 12)), *bar, Span(f" {share:6.1%}  {counts[one]:,}")))
    return lines


def _times(found: tuple[float | None, float | None]) -> str:
    half, most = (numbers.quantity(None if one is None else round(one, 1), "ms") for one in found)
    return f"p50 {half} · p95 {most}"


def _heights(counts: Sequence[int]) -> str:
    top = max(counts) or 1
    return "".join(_RISING[math.ceil(count / top * (len(_RISING) - 1))] if count else "·" for count in counts)


def _event_lines(service: Service, cells: int, rows: int) -> list[Line]:
    lines: list[Line] = [line(Span(" EVENTS", "head"))]
    for one in list(service.events)[-(rows - 1) :]:
        style = "warning" if one.name in ("refused", "rollback") else ""
        words = (
            Span(f" {numbers.clock(one.time_s)}  ", "dim"),
            Span(f"{one.name} ", style),
            Span(one.words, style),
        )
        lines.append(fit_line(words, cells))
    return lines


def _installed_lines(installed: Sequence[Installed], cells: int) -> list[Line]:
    if not installed:
        return []
    lines: list[Line] = [line(Span(" INSTALLED", "head"), Span("  on the device of $HARNESS_DEVICE", "dim"))]
    for one in installed:
        words = (
            Span(fit(f" {one.name}", 24), "strong"),
            Span(fit(one.release, 13), "dim"),
            Span(f" {one.words}"),
        )
        lines.append(fit_line(words, cells))
    return lines
