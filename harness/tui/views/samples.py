"""Samples of one stage: an index of the committed ones, a filter, and the text of each."""

from __future__ import annotations

import json
import os
import re
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.evals.results import Sample

PAGE = 500
"""Samples that are held in memory at once."""
LINES_A_LOOK = 10_000
"""At most a tenth of a second of work on a slow machine: keys wait so long."""
BYTES_A_LOOK = 16 * 2**20
"""At most, that a look filters: long lines count more."""
MAX_LINE_BYTES = 64 * 2**20
MAX_BATCH = 50_000
"""A file that closes no batch for so long was not written by a run."""
_SCORE = re.compile(rb'"score": ?(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)[,}\s]')
_ID = re.compile(rb'\{"id": ?("(?:[^"\\]|\\.)*")')
_HEADER = b'{"header"'
_PROBS = re.compile(rb'"label_probs": ?\{[^}\n]*\}')
_NO_PROBS = b'"label_probs": {}'
_BATCH = re.compile(rb'^\{"batch": ?\d+')
_BETWEEN = re.compile(rb'\n\{"(?:header"|batch": ?\d+)')
"""The end of a line and one of no sample: found many times quicker than with `^`. No block begins with such a line."""


class SampleIndex:
    """Where each committed sample of a file is, and whether it failed.

    A batch counts once its closing line is there: before that, a resumed run may still cut it off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clear()

    def _clear(self) -> None:
        self._starts = array("q")
        self._failed = bytearray()
        self._end = 0
        self._first_line = b""
        self._pages: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._ids: list[Any] = []

    def __len__(self) -> int:
        return len(self._starts)

    def is_failure(self, index: int) -> bool:
        """Whether the sample scored less than 1."""
        return bool(self._failed[index])

    @property
    def n_failures(self) -> int:
        return sum(self._failed)

    def look(self, limit: int = LINES_A_LOOK) -> bool:
        """Takes in what was committed since the last look; whether there may be more at once."""
        try:
            with self.path.open("rb") as file:
                return self._read(file, limit)
        except OSError:
            self._clear()
            return False

    def _read(self, file: BinaryIO, limit: int) -> bool:
        first_line = file.readline(MAX_LINE_BYTES)
        if os.fstat(file.fileno()).st_size < self._end or first_line != self._first_line:
            self._clear()
        self._first_line = first_line
        file.seek(self._end)
        starts: list[int] = []
        failed, at = bytearray(), self._end
        while line := file.readline(MAX_LINE_BYTES):
            if not line.endswith(b"\n"):
                return False
            if _BATCH.match(line):
                self._commit(starts, failed, at + len(line))
                if len(starts) >= limit:
                    return True
                starts, failed, limit = [], bytearray(), limit - len(starts)
            elif not _is_between(line):
                starts.append(at)
                failed.append(_is_failure(line))
                if len(starts) > MAX_BATCH:
                    return False
            at += len(line)
        return False

    def _commit(self, starts: list[int], failed: bytearray, end: int) -> None:
        self._starts.extend(starts)
        self._failed.extend(failed)
        self._end = end

    def raw(self, index: int) -> bytes:
        """The line of the sample."""
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            return file.readline(MAX_LINE_BYTES)

    def data(self, index: int) -> dict[str, Any]:
        """The sample's object; the last `PAGE` asked for are kept."""
        if index not in self._pages:
            self._pages[index] = parse(self.raw(index))
            if len(self._pages) > PAGE:
                self._pages.popitem(last=False)
        self._pages.move_to_end(index)
        return self._pages[index]

    def find(self, sample: str) -> int | None:
        """The place of the sample with this id among what is indexed, or None."""
        for index, line in self.lines(range(len(self._ids), len(self))):
            found = _ID.match(line)
            self._ids.append(json.loads(found[1]) if found else self.data(index).get("id"))
        return self._ids.index(sample) if sample in self._ids else None

    def reach(self, first: int, limit: int) -> int:
        """How far a look from `first` on goes: so many samples, or so many bytes, and one at least."""
        last = min(len(self), first + limit)
        if first >= last:
            return last
        within = bisect_left(self._starts, self._starts[first] + BYTES_A_LOOK, first, last)
        return max(first + 1, within)

    def block(self, first: int, last: int) -> bytes:
        """The lines of the samples from `first` up to `last`, with what stands between them."""
        end = self._starts[last] if last < len(self) else self._end
        with self.path.open("rb") as file:
            file.seek(self._starts[first])
            return file.read(end - self._starts[first])

    def lines(self, indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """The samples' lines, in the order of the file."""
        with self.path.open("rb") as file:
            for index in indices:
                file.seek(self._starts[index])
                yield index, file.readline(MAX_LINE_BYTES)


def _is_between(line: bytes) -> bool:
    """Whether the line is none of a sample: the header, or one that closes a batch."""
    return line.startswith(_HEADER) or (line.startswith(b'{"batch"') and _BATCH.match(line) is not None)


def parse(line: bytes) -> dict[str, Any]:
    """The object of a line; one with an `error` where it is none."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"id": "?", "error": f"this line of the file can't be read: {error}"}
    return data if isinstance(data, dict) else {"id": "?", "error": "this line of the file is no sample"}


def _is_failure(line: bytes) -> bool:
    if line.count(b'"score"') == 1 and (found := _SCORE.search(line)):
        return float(found[1]) < 1.0
    score = parse(line).get("score")
    return not isinstance(score, int | float) or score < 1.0


def text_of(value: Any) -> str:
    """Any value of a sample as text."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(text_of(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which samples are listed: all terms must hold."""

    text: str = ""
    is_failures_only: bool = False

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(self.text.casefold().split())

    def places(self, block: bytes) -> Iterator[int]:
        """Which of the sample lines in these bytes hold every term, counted from 0."""
        terms = self.terms
        # Every line names every label: without this each would hold a label that is looked for.
        lines = _PROBS.sub(_NO_PROBS, block.removesuffix(b"\n"))
        # What is not in the bytes of a line is not in its values: most lines need not be parsed.
        parts = [part.encode() for term in terms if (part := _plain_part(term))]
        for place, line in _lines_with(parts, lines):
            data = parse(line)
            if all(_holds(data, term) for term in terms):
                yield place


def _lines_with(parts: Sequence[bytes], block: bytes) -> Iterator[tuple[int, bytes]]:
    """The sample lines that hold every part, small letters for capitals, each with its place among the sample lines.

    From hit to hit: to look at each of a hundred thousand lines takes longer than to read them.
    """
    folded, sought = block.lower(), max(parts, key=len, default=b"")
    between = [found.start() + 1 for found in _BETWEEN.finditer(block)]
    at = n_before = 0
    while at <= len(folded) and (hit := folded.find(sought, at)) >= 0:
        begin = max(at, folded.rfind(b"\n", at, hit) + 1)
        n_before += folded.count(b"\n", at, begin)
        end = folded.find(b"\n", hit)
        at = (len(folded) if end < 0 else end) + 1
        n_between = bisect_left(between, begin)
        is_sample = between[n_between : n_between + 1] != [begin]
        if is_sample and all(folded.find(part, begin, at) >= 0 for part in parts):
            yield n_before - n_between, block[begin : at - 1]
        n_before += 1


def _plain_part(term: str) -> str:
    """What of the term stands in a line of JSON as it is written here; empty where that is not sure."""
    part = term.rpartition("=")[2]
    return part if part.isascii() and part.isalnum() else ""


def _holds(data: dict[str, Any], term: str) -> bool:
    key, equals, wanted = term.partition("=")
    if equals and key == "label":
        return any(wanted == text_of(gold).casefold() for gold in data.get("gold") or ())
    slices = data.get("slices")
    if equals and isinstance(slices, dict):
        return any(
            key == str(name).casefold() and wanted in [text_of(item).casefold() for item in _many(value)]
            for name, value in slices.items()
        )
    return term in _searched(data)


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _searched(data: dict[str, Any]) -> str:
    parts = [text_of(data.get(key)) for key in ("id", "gold", "answer", "output", "error", "input", "unit")]
    slices = data.get("slices")
    if isinstance(slices, dict):
        parts += [f"{key}={text_of(value)}" for key, value in slices.items()]
    return "\n".join(parts).casefold()


class SampleList:
    """The samples of a file that a filter lets through, found bit by bit."""

    def __init__(self, index: SampleIndex, wanted: Filter) -> None:
        self.index = index
        self.wanted = wanted
        self._forget()

    def _forget(self) -> None:
        self._matches = array("q")
        self._checked = 0
        self._n_failures = 0

    def __len__(self) -> int:
        return len(self._matches)

    def __getitem__(self, position: int) -> int:
        return self._matches[position]

    @property
    def checked_frac(self) -> float:
        """How much of what is indexed has been looked through."""
        return self._checked / len(self.index) if len(self.index) else 1.0

    def look(self, limit: int = LINES_A_LOOK) -> bool:
        """Reads on; whether there is more to do at once."""
        more = self.index.look(limit)
        if self._checked > len(self.index):
            self._forget()
        last = self.index.reach(self._checked, limit)
        found = self._holding(self._checked, last)
        self._matches.extend(found)
        self._n_failures += sum(self.index.is_failure(index) for index in found)
        self._checked = last
        return more or last < len(self.index)

    def _holding(self, first: int, last: int) -> list[int]:
        found: Iterable[int] = range(first, last)
        if self.wanted.terms and first < last:
            found = [first + place for place in self.wanted.places(self.index.block(first, last))]
        return [at for at in found if not self.wanted.is_failures_only or self.index.is_failure(at)]

    def look_at_all(self) -> None:
        """Reads to the end at once."""
        while self.look():
            pass

    def position_of(self, sample: str) -> int | None:
        """Where in the list the sample with this id is, or None."""
        index = self.index.find(sample)
        at = bisect_left(self._matches, -1 if index is None else index)
        return at if index is not None and at < len(self._matches) and self._matches[at] == index else None

    def failure_from(self, position: int, step: int) -> int | None:
        """The position of the next failure in this direction, or None."""
        position += step
        while 0 <= position < len(self):
            if self.index.is_failure(self[position]):
                return position
            position += step
        return None

    @property
    def n_failures(self) -> int:
        return self._n_failures


def sample_of(data: dict[str, Any]) -> Sample | None:
    """The contract's sample, where the object is one."""
    try:
        return Sample.from_json({key: value for key, value in data.items() if key in Sample.__slots__})
    except (TypeError, KeyError):
        return None
