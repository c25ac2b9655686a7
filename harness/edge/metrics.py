"""Counters, gauges and histograms as Prometheus reads them.

Source: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_HELP: Mapping[str, tuple[str, str]] = {
    "requests_total": ("counter", "Requests by endpoint and status."),
    "routes_total": ("counter", "Answers by who gave them: edge, server, review."),
    "guards_total": ("counter", "Answers that a guard held back, by guard."),
    "escalations_total": ("counter", "Requests that the server model was asked, by outcome."),
    "switches_total": ("counter", "Releases put in place while serving, by outcome."),
    "log_lost_total": ("counter", "Lines that the request log could not take."),
    "review_lost_total": ("counter", "Answers that the review queue could not take."),
    "output_tokens_total": ("counter", "Tokens written."),
    "prompt_tokens_total": ("counter", "Tokens of prompts."),
    "cached_tokens_total": ("counter", "Of them, those whose state was at hand."),
    "request_seconds": ("histogram", "From acceptance to the end of the reply."),
    "first_token_seconds": ("histogram", "From acceptance to the first token."),
    "under_way": ("gauge", "Requests under way."),
    "engine_running": ("gauge", "Requests that the engine answers."),
    "engine_waiting": ("gauge", "Requests that wait for the engine."),
    "engine_restarts": ("gauge", "Times that the engine's process died and was started again."),
    "engine_memory_megabytes": ("gauge", "Resident memory of the engine's process."),
    "engine_ready": ("gauge", "1 where the engine can answer."),
    "release_info": ("gauge", "What is served; always 1."),
}
_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """What has happened since the server began. Any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, _Labels], float] = {}
        self._times: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def count(self, name: str, by: float = 1, /, **labels: str) -> None:
        """Adds to a counter."""
        key = name, tuple(sorted(labels.items()))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0.0) + by

    def observe(self, name: str, seconds: float) -> None:
        """Adds one time to a histogram."""
        with self._lock:
            cells = self._times.setdefault(name, [0] * (len(SECONDS) + 1))
            cells[next((at for at, edge in enumerate(SECONDS) if seconds <= edge), len(SECONDS))] += 1
            self._sums[name] = self._sums.get(name, 0.0) + seconds

    def read(self, name: str, /, **labels: str) -> float:
        """A counter's value."""
        with self._lock:
            return self._counts.get((name, tuple(sorted(labels.items()))), 0.0)

    def text(self, gauges: Sequence[tuple[str, Mapping[str, str], float | None]] = ()) -> str:
        """All of it, with gauges as they are now; an unknown one is left out, never 0."""
        with self._lock:
            rows = [(name, labels, value) for (name, labels), value in self._counts.items()]
            times = {name: list(cells) for name, cells in self._times.items()}
            sums = dict(self._sums)
        rows += [
            (name, tuple(sorted(labels.items())), value)
            for name, labels, value in gauges
            if value is not None
        ]
        lines: list[str] = []
        for name in dict.fromkeys([row[0] for row in rows]):
            lines += _head(name)
            lines += [_row(name, labels, value) for found, labels, value in rows if found == name]
        for name, cells in times.items():
            lines += [*_head(name), *_histogram(name, cells, sums[name])]
        return "\n".join(lines) + "\n"


def _head(name: str) -> list[str]:
    kind, what = _HELP[name]
    return [f"# HELP harness_{name} {what}", f"# TYPE harness_{name} {kind}"]


def _row(name: str, labels: _Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"harness_{name}{{{inside}}} {value:g}" if inside else f"harness_{name} {value:g}"


def _histogram(name: str, cells: Sequence[int], total_s: float) -> list[str]:
    below, lines = 0, []
    for edge, n in zip((*SECONDS, None), cells, strict=True):
        below += n
        lines.append(_row(f"{name}_bucket", (("le", "+Inf" if edge is None else f"{edge:g}"),), below))
    return [*lines, f"harness_{name}_sum {total_s:.6f}", f"harness_{name}_count {below}"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
