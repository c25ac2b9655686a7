"""Run folders as the screens read them: bounded work a look, nothing read twice, nothing written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.errors import DataError
from harness.evals.results import Scorecard, Verdict
from harness.files import read_json
from harness.jobs.journal import Tail
from harness.jobs.store import FINAL, RunInfo, RunState, describe_run, runs_folder
from harness.tui.views.progress import Progress

LINES_A_LOOK = 2000
"""Some 20 ms of work: a key waits so long at most, and the next look follows at once where there is more."""
CHAIN = (
    "base", "adapter", "merged", "f16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_0", "q4_k_m", "q4_k_s", "q4_0",
    "iq4_nl", "iq4_xs", "q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "q2_k", "q2_k_s", "iq2_m",
    "iq2_s", "iq2_xs", "iq2_xxs", "edge",
)  # fmt: skip
"""Stages in the order in which a release is built."""

T = TypeVar("T")


def stage_order(name: str) -> tuple[int, str]:
    """Sorts stages as the chain runs; a name that is not known comes last."""
    return (CHAIN.index(name) if name in CHAIN else len(CHAIN), name)


class _Cached(Generic[T]):
    """What a file said when it last changed."""

    def __init__(self) -> None:
        self._stamp: dict[Path, tuple[int, int]] = {}
        self._value: dict[Path, T | None] = {}

    def read(self, path: Path, parse: Any) -> T | None:
        """The parsed file; None where it is absent or can't be read."""
        try:
            stat = path.stat()
        except OSError:
            return None
        stamp = (stat.st_mtime_ns, stat.st_size)
        if self._stamp.get(path) != stamp:
            self._stamp[path] = stamp
            self._value[path] = _parsed(path, parse)
        return self._value[path]


def _parsed(path: Path, parse: Any) -> Any:
    try:
        return parse(read_json(path))
    except (DataError, KeyError, TypeError, ValueError, AttributeError):
        return None


class RunFolder:
    """One run, looked at again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progress = Progress()
        self.verdicts: dict[str, Verdict] = {}
        """By stage, in the chain's order."""
        self.scorecards: dict[tuple[str, str], Scorecard] = {}
        """By stage and suite."""
        self.sources: list[tuple[str, str]] = []
        """(stage, suite) of every samples file, in the chain's order."""
        self._tail = Tail(folder / "events.jsonl")
        self._verdicts: _Cached[Verdict] = _Cached()
        self._scorecards: _Cached[Scorecard] = _Cached()
        self._documents: _Cached[dict[str, Any]] = _Cached()

    def look(self, limit: int = LINES_A_LOOK) -> int:
        """How many events came; at most `limit` of them are applied a call."""
        events = self._tail.drain(limit)
        for event in events:
            self.progress.apply(event)
        self._look_at_stages()
        return len(events)

    def catch_up(self) -> RunFolder:
        """Reads the journal to its end."""
        while self.look():
            pass
        return self

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest; empty where it can't be read."""
        return self._documents.read(self.folder / "manifest.json", _mapping) or {}

    def document(self, name: str) -> dict[str, Any] | None:
        """The JSON document at this path inside the run; None where it is absent or can't be read."""
        return self._documents.read(self.folder / name, _mapping)

    @property
    def result(self) -> dict[str, Any] | None:
        """The document that the finished run prints, or None."""
        return self._documents.read(self.folder / "result.json", _mapping)

    @property
    def command(self) -> str:
        """The command that made the run, and that resumes it."""
        import shlex

        found = self.manifest.get("command")
        if isinstance(found, list):
            return shlex.join(str(word) for word in found)
        return str(found) if found else f"harness show {self.folder.name}"

    def _look_at_stages(self) -> None:
        stages = self.folder / "stages"
        read = {
            path.parent.name: self._verdicts.read(path, Verdict.from_json)
            for path in stages.glob("*/verdict.json")
        }
        judged = {name: verdict for name, verdict in read.items() if verdict}
        self.verdicts = {name: judged[name] for name in sorted(judged, key=stage_order)}
        cards = {
            (path.parent.parent.name, path.parent.name): self._scorecards.read(path, Scorecard.from_json)
            for path in stages.glob("*/*/scorecard.json")
        }
        self.scorecards = {source: card for source, card in cards.items() if card}
        sources = [(path.parent.parent.name, path.parent.name) for path in stages.glob("*/*/samples.jsonl")]
        self.sources = sorted(sources, key=lambda source: (stage_order(source[0]), source[1]))

    @property
    def newest_source(self) -> tuple[str, str] | None:
        """The samples of the last stage of the chain that has any."""
        chained = [source for source in self.sources if source[0] in CHAIN]
        found = chained or self.sources
        return found[-1] if found else None

    def samples_path(self, source: tuple[str, str]) -> Path:
        return self.folder / "stages" / source[0] / source[1] / "samples.jsonl"


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


class Home:
    """All runs of a home folder: what ended and did not change is not read again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runs: list[RunInfo] = []
        self._known: dict[Path, tuple[tuple[int, ...], RunInfo]] = {}
        self._folders: dict[Path, RunFolder] = {}

    def look(self) -> list[RunInfo]:
        """The runs, newest first."""
        found = [self._describe(path.parent) for path in runs_folder(self.home).glob("*/manifest.json")]
        self.runs = sorted((info for info in found if info), key=lambda info: info.created, reverse=True)
        return self.runs

    def folder(self, info: RunInfo) -> RunFolder:
        """The run's folder, read so far as it was asked for."""
        return self._folders.setdefault(info.folder, RunFolder(info.folder))

    def _describe(self, folder: Path) -> RunInfo | None:
        stamp = _stamp(folder)
        known = self._known.get(folder)
        if known and known[0] == stamp and known[1].state is not RunState.RUNNING:
            return known[1]
        info = describe_run(folder)
        if info is not None:
            self._known[folder] = (stamp, info)
        return info


def can_be_written(home: Path) -> bool:
    """Whether a run can be kept there; for a home that is not there yet, in the folder where it would stand."""
    place = home.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _stamp(folder: Path) -> tuple[int, ...]:
    """Changes whenever the run's state may have changed."""
    out: list[int] = []
    for name in ("manifest.json", "events.jsonl", "lease.json"):
        try:
            stat = (folder / name).stat()
            out += [stat.st_mtime_ns, stat.st_size]
        except OSError:
            out += [0, 0]
    return tuple(out)


def has_ended(progress: Progress) -> bool:
    """Whether the journal holds the run's last word."""
    return progress.ended is not None and progress.ended.name in FINAL
