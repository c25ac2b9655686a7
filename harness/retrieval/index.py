"""An index over documents: SQLite FTS5 with Porter stems and BM25, whole in memory, and whole or absent on disk."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from harness.errors import DataError, IntegrityError
from harness.files import write_atomic
from harness.retrieval.chunks import Chunk, cut
from harness.retrieval.documents import MAX_TOTAL_BYTES, Document
from harness.retrieval.instructions import Flag, flag_chunks
from harness.retrieval.merkle import snapshot_of
from harness.text import visible

FORMAT = 1
CHUNK_WORDS = 120
MAX_TERMS = 128
"""Distinct words of a query that are looked for; a longer one is cut."""
Flagged = Literal["keep", "leave_out", "refuse"]
"""What becomes of a chunk with instruction-like text."""

_TERM = re.compile(r"[^\W_]{1,64}")
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE chunks(place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL, sha256 TEXT NOT NULL,
    start INTEGER NOT NULL, end INTEGER NOT NULL, text TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(text, content='chunks', content_rowid='place', tokenize='porter unicode61');
"""
_SEARCH = (
    "SELECT place, -bm25(words) FROM words JOIN chunks ON place = words.rowid"
    " WHERE words MATCH ? {only} ORDER BY bm25(words), place LIMIT ?"
)
_COLUMNS = "id, document, sha256, start, end, text"


class Hit(NamedTuple):
    """A chunk that a query found."""

    chunk: Chunk
    score: float
    """BM25, larger is better; of one index only."""


class Index:
    """Chunks that can be searched. `snapshot` is the Merkle root over their digests: it names exactly this content."""

    def __init__(
        self, connection: sqlite3.Connection, chunks: Sequence[Chunk], flags: Sequence[Flag]
    ) -> None:
        self._connection = connection
        self._lock = (
            threading.Lock()
        )  # one connection, and the terminal reads documents beside a worker's thread
        self.chunks = tuple(chunks)
        self.flags = tuple(flags)
        """Of all chunks that were read, also of those that were left out."""
        self.snapshot = snapshot_of(chunk.digest for chunk in chunks)

    @property
    def documents(self) -> tuple[str, ...]:
        """Names of the documents that have a chunk here."""
        return tuple(dict.fromkeys(chunk.document for chunk in self.chunks))

    def search(self, query: str, k: int, *, within: str | None = None) -> list[Hit]:
        """The k best chunks that share a word with the query, best first; ties in the order of documents and places.

        `within` takes one document's chunks alone.
        """
        terms = list(dict.fromkeys(_TERM.findall(query.casefold())))[:MAX_TERMS]
        if not terms or k < 1:
            return []
        asked = " OR ".join(f'"{term}"' for term in terms)
        only = "" if within is None else "AND chunks.document = ?"
        with self._lock:
            rows = self._connection.execute(
                _SEARCH.format(only=only),
                (asked, *([] if within is None else [within]), k),
            ).fetchall()
        return [Hit(self.chunks[place], score) for place, score in rows]

    def write(self, path: Path) -> None:
        """The index as one SQLite file; whole, or what was there before. The same documents give the same bytes."""
        with self._lock:
            data = self._connection.serialize()
        write_atomic(path, data)


def build_index(
    documents: Sequence[Document], *, words: int = CHUNK_WORDS, flagged: Flagged = "keep"
) -> Index:
    """The index of the documents, in chunks of at most `words` words.

    Raises:
        DataError: no chunk is left, two documents would be cited by one name, or a chunk is flagged and `flagged` is
            `refuse`: all such are named.
    """
    chunks = cut(documents, words=words)
    flags = flag_chunks(chunks)
    if flags and flagged == "refuse":
        raise DataError(
            f"instruction-like text in documents:\n{describe_flags(flags)}",
            hint="take it out, or index with flagged: leave_out",
        )
    if flagged == "leave_out":
        out = {flag.chunk for flag in flags}
        chunks = [chunk for chunk in chunks if chunk.id not in out]
    if not chunks:
        raise DataError("no chunk is left to index: all are flagged", hint="harness index show names them")
    return _filled(chunks, flags)


@lru_cache(maxsize=4)
def index_of(documents: tuple[Document, ...], words: int, flagged: Flagged) -> Index:
    """As `build_index`; the same content is indexed once a process, as each split of a suite asks for it."""
    return build_index(documents, words=words, flagged=flagged)


def open_index(path: Path) -> Index:
    """The index of a file that `Index.write` wrote, read to memory and checked whole.

    Raises:
        DataError: the file is missing, too large or no index.
        IntegrityError: the chunks are not those of its snapshot, or its words not those of its chunks.
    """
    try:
        with path.open("rb") as file:
            data = file.read(4 * MAX_TOTAL_BYTES + 1)
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}", hint="harness index build FOLDER writes one"
        ) from error
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        return _opened(path, connection, data)
    except (sqlite3.Error, MemoryError) as error:  # an empty file reads as one that there is no memory for
        raise DataError(f"{path}: no index: {error}", hint="harness index build FOLDER writes one") from error


def describe_flags(flags: Sequence[Flag], *, limit: int = 20) -> str:
    """One line a flag, safe to show; those over `limit` are counted."""
    lines = [
        f"  {visible(flag.chunk)}  {flag.kind}: {visible(flag.text, keep_newlines=False, limit_chars=80)}"
        for flag in flags[:limit]
    ]
    return "\n".join([*lines, *([f"  and {len(flags) - limit:,} more"] if len(flags) > limit else [])])


def _filled(chunks: Sequence[Chunk], flags: Sequence[Flag]) -> Index:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    index = Index(connection, chunks, flags)
    with connection:
        connection.executescript(_SCHEMA)
        rows = ((place, *chunk) for place, chunk in enumerate(chunks))
        connection.executemany(f"INSERT INTO chunks(place, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608
        connection.execute("INSERT INTO words(words) VALUES ('rebuild')")
        connection.execute("INSERT INTO words(words) VALUES ('optimize')")
        meta = {"format": str(FORMAT), "snapshot": index.snapshot}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    return index


def _opened(path: Path, connection: sqlite3.Connection, data: bytes) -> Index:
    connection.execute("PRAGMA trusted_schema = OFF")  # the file may be a stranger's
    connection.deserialize(data)
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    if meta.get("format") != str(FORMAT):
        raise DataError(f"{path}: an index of format {visible(str(meta.get('format')))}, wanted {FORMAT}")
    rows = connection.execute(f"SELECT {_COLUMNS} FROM chunks ORDER BY place").fetchall()  # noqa: S608
    chunks = [Chunk(*row) for row in rows]
    index = Index(connection, chunks, flag_chunks(chunks))
    if index.snapshot != meta.get("snapshot"):
        raise IntegrityError(
            f"{path}: its chunks are not those of its snapshot {str(meta.get('snapshot'))[:16]}…"
        )
    try:
        connection.execute("INSERT INTO words(words, rank) VALUES ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        raise IntegrityError(f"{path}: its words are not those of its chunks") from error
    return index
