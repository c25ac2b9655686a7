"""A file with stand-ins for its personal data, and the file as it was."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from harness.data.protection import FORMAT, report_path
from harness.errors import HarnessError, IntegrityError
from harness.files import file_written_whole, sha256_file, write_json
from harness.privacy.alias_map import AliasMap, Edit, MapWriter, read_map
from harness.privacy.aliases import Aliases, canonical
from harness.privacy.find import Finder, Found
from harness.privacy.keys import PrivacyKey
from harness.privacy.pieces import Form, Line, Piece, encode, form_of, pieces, read_lines

LEAST_REPEATED_CHARS = 4
"""A value found once in a record is replaced wherever else it stands there, if it is at least this long."""


class Change(NamedTuple):
    """A part of a line and what stands for it."""

    start: int
    end: int
    text: str
    kind: str
    value: str


def map_path(output: Path) -> Path:
    """Where the way back of a pseudonymised file is, unless somebody says otherwise."""
    return output.with_name(f"{output.name}.map")


def pseudonymise(
    source: Path,
    output: Path,
    key: PrivacyKey,
    find: Finder,
    *,
    finders: Mapping[str, str],
    fields: Mapping[str, str] | None = None,
    way_back: Path | None = None,
) -> dict[str, Any]:
    """Writes `output`, the encrypted map at `way_back` and the report beside the output; gives the report back.

    `fields` are dotted paths or columns whose whole text is personal, with its kind. A map that is there already
    lends its table, so that several files agree. Without `way_back` nobody can go back. The same source, key and
    finders give the same output. Lines are read one at a time; the table of values stays in memory.

    Raises:
        HarnessError: source and output are one file, or the output is there and nothing that this wrote.
        DataError: a line can't be read.
    """
    _refuse(source, output)
    aliases = Aliases(key.aliases)
    if way_back is not None and way_back.is_file():
        aliases.add(read_map(way_back, key).values)
    rewriter = _Rewriter(form_of(source.name), find, aliases, dict(fields or {}), source.name)
    with file_written_whole(output) as written:
        if way_back is None:
            digest = rewriter.run(source, written, None)
        else:
            with file_written_whole(way_back) as map_file:
                map_writer = MapWriter(map_file, key)
                digest = rewriter.run(source, written, map_writer)
                map_writer.end(digest, aliases.values)
    report = {
        "format": FORMAT,
        "source": {"name": source.name, "bytes": source.stat().st_size, "sha256": rewriter.source_sha256},
        "output": {"name": output.name, "bytes": output.stat().st_size, "sha256": digest},
        "map": None if way_back is None else {"name": way_back.name, "sha256": sha256_file(way_back)},
        "key": key.id,
        "finders": dict(finders),
        "fields": dict(fields or {}),
        "records": rewriter.n_records,
        "records_changed": rewriter.n_changed,
        "kinds": rewriter.counts(),
    }
    write_json(report_path(output), report)
    return report


def _refuse(source: Path, output: Path) -> None:
    if output.exists() and source.samefile(output):
        raise HarnessError(f"{output}: is the source itself", hint="name another file for the output")
    if output.exists() and not report_path(output).is_file():
        raise HarnessError(
            f"{output}: is there, and this did not write it", hint="remove it, or name another file"
        )


class _Rewriter:
    """One pass over one file."""

    def __init__(self, form: Form, find: Finder, aliases: Aliases, fields: dict[str, str], name: str) -> None:
        self._form, self._find, self._aliases, self._fields, self._name = form, find, aliases, fields, name
        self._columns: tuple[str, ...] = ()
        self._replaced: Counter[str] = Counter()
        self._distinct: defaultdict[str, set[str]] = defaultdict(set)
        self.n_records = self.n_changed = 0
        self.source_sha256 = ""

    def run(self, source: Path, output: BinaryIO, way_back: MapWriter | None) -> str:
        """The sha256 of the output."""
        read, written = hashlib.sha256(), hashlib.sha256()
        with source.open("rb") as file:
            for line in read_lines(file, self._form, self._name):
                read.update(line.text.encode())
                changes = self._changes(line)
                text, edits = _apply(line, changes)
                output.write(data := text.encode())
                written.update(data)
                if way_back is not None:
                    way_back.add(edits)
        self.source_sha256 = read.hexdigest()
        return written.hexdigest()

    def counts(self) -> dict[str, dict[str, int]]:
        return {
            kind: {"replaced": n, "distinct": len(self._distinct[kind])}
            for kind, n in sorted(self._replaced.items())
        }

    def _changes(self, line: Line) -> list[Change]:
        if self._form in ("csv", "tsv") and not self._columns:
            self._columns = _header(line.text, self._form)
            return []
        self.n_records += 1
        texts = pieces(line, self._form, self._name, self._columns)
        found = [self._found(piece) for piece in texts]
        _repeat(texts, found)
        changes = [
            change
            for piece, some in zip(texts, found, strict=True)
            for change in self._replacements(piece, some)
        ]
        self.n_changed += bool(changes)
        return changes

    def _found(self, piece: Piece) -> list[Found]:
        kind = self._fields.get(piece.field) if piece.field else None
        if kind is not None:
            stripped = piece.text.strip()
            start = piece.text.find(stripped)
            return [Found(kind, start, start + len(stripped))] if stripped else []
        return self._find(piece.text)

    def _replacements(self, piece: Piece, found: Sequence[Found]) -> Iterator[Change]:
        for one in found:
            value = piece.text[one.start : one.end]
            alias = self._aliases.of(one.kind, value)
            self._replaced[one.kind] += 1
            self._distinct[one.kind].add(canonical(one.kind, value))
            start, end = piece.places[one.start], piece.places[one.end]
            yield Change(start, end, encode(piece, alias, self._form), one.kind, value)


def _header(text: str, form: Form) -> tuple[str, ...]:
    (row,) = csv.reader([text.removeprefix("\ufeff")], delimiter="," if form == "csv" else "\t")
    return tuple(row)


def _repeat(texts: Sequence[Piece], found: Sequence[list[Found]]) -> None:
    """Adds each other place in the record where a value that was found stands by itself."""
    kinds: dict[str, str] = {}
    for piece, some in zip(texts, found, strict=True):
        for one in some:
            value = piece.text[one.start : one.end].strip()
            if len(value) >= LEAST_REPEATED_CHARS:
                kinds.setdefault(value.casefold(), one.kind)
    if not kinds:
        return
    words = "|".join(re.escape(value) for value in sorted(kinds, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
    for piece, some in zip(texts, found, strict=True):
        taken = [(one.start, one.end) for one in some]
        for match in pattern.finditer(piece.text):
            kind = kinds.get(match.group().casefold())
            if kind and not any(start < match.end() and match.start() < end for start, end in taken):
                some.append(Found(kind, *match.span()))
        some.sort(key=lambda one: one.start)


def _apply(line: Line, changes: Sequence[Change]) -> tuple[str, list[Edit]]:
    """The line with its changes, and the way back."""
    parts: list[str] = []
    edits: list[Edit] = []
    at = length = 0
    for change in changes:
        parts += [line.text[at : change.start], change.text]
        length += change.start - at
        edits.append(Edit(line.number, length, len(change.text), line.text[change.start : change.end]))
        length += len(change.text)
        at = change.end
    return "".join([*parts, line.text[at:]]), edits


def restore(pseudonymised: Path, output: Path, way_back: Path, key: PrivacyKey) -> bool:
    """Writes the file as it was; whether it is the source, byte for byte.

    Where the file is not the one that the map is of, such as answers of a model, stand-ins are looked for in it as
    they were first written, and what they stood for takes their place.

    Raises:
        HarnessError: the output is there.
        IntegrityError: the map is of another key, or not whole.
    """
    if output.exists():
        raise HarnessError(f"{output}: is there", hint="name another file for the output")
    opened = read_map(way_back, key)
    is_whole = sha256_file(pseudonymised) == opened.output_sha256
    with file_written_whole(output) as written, pseudonymised.open("rb") as file:
        lines = read_lines(file, form_of(pseudonymised.name), pseudonymised.name)
        for text in _undone(lines, opened.edits()) if is_whole else _unaliased(lines, opened):
            written.write(text.encode())
    return is_whole


def _undone(lines: Iterable[Line], edits: Iterator[Edit]) -> Iterator[str]:
    waiting = next(edits, None)
    for line in lines:
        parts, at = [], 0
        while waiting is not None and waiting.line == line.number:
            parts += [line.text[at : waiting.start], waiting.original]
            at = waiting.start + waiting.length
            waiting = next(edits, None)
        yield "".join([*parts, line.text[at:]])
    if waiting is not None:
        raise IntegrityError("the map has edits behind the end of the file")


def _unaliased(lines: Iterable[Line], opened: AliasMap) -> Iterator[str]:
    originals = {value.alias: value.original for value in opened.values if value.kind != "birth_date"}
    if not originals:
        yield from (line.text for line in lines)
        return
    words = "|".join(re.escape(alias) for alias in sorted(originals, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)")
    for line in lines:
        yield pattern.sub(lambda match: originals[match.group()], line.text)
