"""What an index gives for one question: passages in a prompt, each behind the id that an answer cites."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from harness.retrieval.chunks import Chunk
from harness.retrieval.index import Index

_MARK = re.compile(r"^\[", re.MULTILINE)


class Retrieved(NamedTuple):
    """What a prompt was given."""

    snapshot: str
    """Of the index that it came from."""
    chunks: tuple[Chunk, ...]
    """Best first."""

    def to_json(self) -> list[dict[str, Any]]:
        """The passages as a record's field: `{id, document, sha256, start, end, digest, text}`."""
        return [{**chunk._asdict(), "digest": chunk.digest} for chunk in self.chunks]


def retrieve(index: Index, query: str, *, k: int, max_chars: int, within: str | None = None) -> Retrieved:
    """The k best passages for the query, as many of them from the first as fit `max_chars`."""
    found: list[Chunk] = []
    left = max_chars
    for hit in index.search(query, k, within=within):
        left -= len(_spelled(hit.chunk)) + len(_BETWEEN)
        if left < 0:
            break
        found.append(hit.chunk)
    return Retrieved(index.snapshot, tuple(found))


def as_context(retrieved: Retrieved) -> str:
    """The passages, each as `[id] text`, with an empty line between; empty where nothing was found."""
    return _BETWEEN.join(map(_spelled, retrieved.chunks))


_BETWEEN = "\n\n"


def _spelled(chunk: Chunk) -> str:
    # A line of a document that begins like a passage's id would be taken for another passage.
    return f"[{chunk.id}] {_MARK.sub(' [', chunk.text)}"
