"""Did the search find what the answer stands on: recall and rank of gold passages, whatever the answer says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.errors import StatsError
from harness.scoring.counts import Cells, as_counts
from harness.scoring.item import Item, Score

RETRIEVED = "retrieved"
"""Where a record holds its passages: `{id, document, start, end, …}`, best first."""
COVERED_FRAC = 0.5
"""A span is found where passages hold at least this share of its characters."""


class Gold(NamedTuple):
    """What has to be found: a document, or a span of it."""

    document: str
    start: int | None = None
    end: int | None = None


def retrieval_recall(item: Item) -> Score:
    """The share of the record's gold documents or spans that are among its first `k` passages: recall@k.

    Settings: `gold_field`, dotted path to a document's name, or a list of names or of `{doc_id, start, end}` (in
    characters); `document_field`, where the record names the document of spans without `doc_id`; `k`, else all
    passages. A document is found by any passage of it, a span by passages that hold half of it.
    Counts: `passage`, golds found and not found. Error class: `not_retrieved`.

    Raises:
        StatsError: the record has no gold, or no passages were retrieved for the suite.
    """
    golds, passages = read_golds(item), _passages(item)
    found = [_is_found(gold, passages) for gold in golds]
    hits, missing = sum(found), [gold for gold, is_there in zip(golds, found, strict=True) if not is_there]
    return Score(
        hits / len(golds), as_counts({"passage": Cells(hits, 0, len(missing))}),
        "not_retrieved" if missing else None, ", ".join(dict.fromkeys(gold.document for gold in missing)),
    )  # fmt: skip


def retrieval_rank(item: Item) -> Score:
    """1 / place of the first passage with a gold, 0 where none has one; its mean is the mean reciprocal rank (MRR).

    Settings and errors as `retrieval_recall`; for a span, a passage that holds any character of it counts.
    """
    golds = read_golds(item)
    places = [
        place
        for place, passage in enumerate(_passages(item), start=1)
        if any(_overlap(gold, passage) for gold in golds)
    ]
    return Score(1.0 / places[0] if places else 0.0, error_class=None if places else "not_retrieved")


def read_golds(item: Item) -> list[Gold]:
    """What has to be found.

    Raises:
        StatsError: nothing, or it can't be read.
    """
    path = item.settings.get("gold_field")
    if not path:
        raise StatsError("scorers of retrieval need to know what is to be found", hint="set gold_field")
    value = _at(item.meta, str(path))
    parts = value if isinstance(value, list | tuple) else [] if value is None else [value]
    default = (
        _at(item.meta, str(item.settings["document_field"])) if item.settings.get("document_field") else None
    )
    if not parts:
        raise StatsError(
            f"a record has nothing at {path}: a search can't find what nobody named",
            hint="leave such records out of the suite that measures retrieval",
        )
    return [_gold(part, default, str(path)) for part in parts]


def _gold(part: Any, default: Any, path: str) -> Gold:
    if isinstance(part, str):
        return Gold(part)
    document = part.get("doc_id", default) if isinstance(part, Mapping) else None
    start, end = (part.get("start"), part.get("end")) if isinstance(part, Mapping) else (None, None)
    is_span = type(start) is int and type(end) is int and 0 <= start < end
    if not isinstance(document, str) or not (is_span or start is end is None):
        raise StatsError(f"{path} holds {part!r}, wanted a document's name or {{doc_id, start, end}}")
    return Gold(document, start, end)


def _passages(item: Item) -> Sequence[Mapping[str, Any]]:
    found = item.meta.get(RETRIEVED)
    if not isinstance(found, list):
        raise StatsError("nothing was retrieved for this suite", hint="give the suite `retrieval`")
    k = item.settings.get("k")
    return found if k is None else found[: int(k)]


def _is_found(gold: Gold, passages: Sequence[Mapping[str, Any]]) -> bool:
    if gold.start is None or gold.end is None:
        return any(passage["document"] == gold.document for passage in passages)
    covered = sum(_overlap(gold, passage) for passage in passages)  # passages of one document don't overlap
    return covered >= COVERED_FRAC * (gold.end - gold.start)


def _overlap(gold: Gold, passage: Mapping[str, Any]) -> int:
    """Characters of the gold that the passage holds; 1 for a document as a whole."""
    if passage["document"] != gold.document:
        return 0
    if gold.start is None or gold.end is None:
        return 1
    return max(0, min(gold.end, int(passage["end"])) - max(gold.start, int(passage["start"])))


def _at(data: Mapping[str, Any], path: str) -> Any:
    value: Any = data
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
