"""What two splits share and must not: ids, units, texts, and texts that are almost the same."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from harness.data.records import Record

SHINGLE_WORDS = 5
CONTAINED_WORDS = 5
"""Shorter texts stand in other texts by chance."""
SAME_CONTEXT = 0.8
"""Contexts with this Jaccard index of word shingles are one, with a word changed here or there."""
_WORD = re.compile(r"\w+")


Kind = Literal["id", "unit", "text", "normalised", "near"]
Key = Callable[[Record], str]


class Overlap(NamedTuple):
    """Two records that should not be on two sides."""

    kind: Kind
    left: str
    """Id on the first side."""
    right: str
    """Id on the second side."""
    similarity: float
    """1 for all kinds but `near`, where it is the Jaccard index of the word shingles."""


def normalise(text: str) -> str:
    """The words alone: NFKC, case folded, one space between words, no punctuation."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def find_overlaps(left: Sequence[Record], right: Sequence[Record]) -> list[Overlap]:
    """What the sides share exactly: an id, a unit, a text, a text after `normalise`.

    One overlap for each record of `right` and kind, naming the first record of `left` that has the
    same; a text that is the same to the letter is not named again as `normalised`. The same question about
    another document is another question: texts of records that both have a context count where it is nearly one.
    """
    contexts = _Contexts()
    found: list[Overlap] = []
    names: list[tuple[Kind, Key]] = [("id", lambda record: record.id), ("unit", lambda record: record.unit)]
    for kind, name in names:
        first = _first_by(left, name)
        found += [Overlap(kind, first[name(one)], one.id, 1.0) for one in right if name(one) in first]
    same_text: set[str] = set()
    texts: list[tuple[Kind, Key]] = [
        ("text", lambda record: record.input), ("normalised", lambda record: normalise(record.input))
    ]  # fmt: skip
    for kind, text in texts:
        alike = _all_by(left, text)
        for record in right:
            other = next(
                (one for one in alike.get(text(record), ()) if not contexts.differ(one, record)), None
            )
            if other is not None and record.id not in same_text:
                found.append(Overlap(kind, other.id, record.id, 1.0))
                same_text.add(record.id)
    return found


def shared(left: Sequence[Record], right: Sequence[Record]) -> dict[tuple[str, str], str]:
    """Each pair of ids whose records are the same or nearly, once, with the first kind that finds it.

    `left` trains and `right` judges: a text of `right` that stands word for word inside one of `left` counts as
    `normalised`. Where both have a context, it has to be nearly the same too.
    """
    found = [*find_overlaps(left, right), *_contained(left, right), *near_duplicates(left, right)]
    pairs: dict[tuple[str, str], str] = {}
    for overlap in found:
        pairs.setdefault((overlap.left, overlap.right), overlap.kind)
    return pairs


class _Contexts:
    """Whether records stand on different texts; each pair of texts is compared once."""

    def __init__(self) -> None:
        self._shingles: dict[str, frozenset[str]] = {}
        self._differ: dict[tuple[str, str], bool] = {}

    def differ(self, left: Record, right: Record) -> bool:
        """Both have a context, and they are not nearly one. What was looked up for a question is no part of it."""
        pair = left.context, right.context
        if not all(pair) or pair[0] == pair[1] or left.retrieved or right.retrieved:
            return False
        if pair not in self._differ:
            one, other = (self._shingles.setdefault(text, _shingles(text)) for text in pair)
            common = len(one & other)
            self._differ[pair] = common < SAME_CONTEXT * (len(one) + len(other) - common)
        return self._differ[pair]


def _contained(left: Sequence[Record], right: Sequence[Record]) -> Iterator[Overlap]:
    """Texts of `right` inside a text of `left`: a template around them hides nothing."""
    contexts = _Contexts()
    starts: dict[tuple[str, ...], list[tuple[Record, str]]] = {}
    for record in right:
        words = tuple(normalise(record.input).split())
        if len(words) >= CONTAINED_WORDS:
            text = f" {' '.join(words)} "
            starts.setdefault(words[:CONTAINED_WORDS], []).append((record, text))
    for record in left:
        words = tuple(normalise(record.input).split())
        text = f" {' '.join(words)} "
        grams = {words[at : at + CONTAINED_WORDS] for at in range(len(words) - CONTAINED_WORDS + 1)}
        for gram in sorted(grams & starts.keys()):
            for judged, wanted in starts[gram]:
                if wanted in text and not contexts.differ(record, judged):
                    yield Overlap("normalised", record.id, judged.id, 1.0)


def near_duplicates(
    left: Sequence[Record], right: Sequence[Record], *, threshold: float = 0.8
) -> list[Overlap]:
    """All pairs whose word 5-shingles have a Jaccard index of at least `threshold`, most alike first.

    Exact: nothing is hashed to a sketch. A pair that alike must share one of the rarest few shingles
    of either side (the prefix filter of Bayardo et al., "Scaling up all pairs similarity search", 2007),
    so only those are indexed. Texts under five words are compared whole. Of records that both have a context, only
    those count whose contexts are nearly one.

    Raises:
        ValueError: the threshold is not over 0 and at most 1.
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError("a threshold lies over 0 and at most 1")
    left_sets, right_sets = [_shingles(r.input) for r in left], [_shingles(r.input) for r in right]
    rarity = Counter(shingle for shingles in [*left_sets, *right_sets] for shingle in shingles)
    index: dict[str, list[int]] = defaultdict(list)
    for place, shingles in enumerate(left_sets):
        for shingle in _prefix(shingles, rarity, threshold):
            index[shingle].append(place)
    contexts = _Contexts()
    found = [
        Overlap("near", left[other].id, record.id, similarity)
        for record, shingles in zip(right, right_sets, strict=True)
        for other, similarity in _alike(shingles, left_sets, index, rarity, threshold)
        if not contexts.differ(left[other], record)
    ]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.left, pair.right))


def _alike(
    shingles: frozenset[str],
    others: Sequence[frozenset[str]],
    index: dict[str, list[int]],
    rarity: Counter[str],
    threshold: float,
) -> Iterator[tuple[int, float]]:
    candidates = {
        place for shingle in _prefix(shingles, rarity, threshold) for place in index.get(shingle, ())
    }
    for place in sorted(candidates):
        shared = len(shingles & others[place])
        similarity = shared / (len(shingles) + len(others[place]) - shared)
        if similarity >= threshold:
            yield place, similarity


def _prefix(shingles: frozenset[str], rarity: Counter[str], threshold: float) -> list[str]:
    """The rarest shingles, of which any set this alike must share one; the order is the same for all sets."""
    ranked = sorted(shingles, key=lambda shingle: (rarity[shingle], shingle))
    # Minus a hair, so that rounding can only make the prefix longer.
    return ranked[: len(ranked) - math.ceil(threshold * len(ranked) - 1e-9) + 1]


def _shingles(text: str) -> frozenset[str]:
    words = normalise(text).split()
    if len(words) < SHINGLE_WORDS:
        return frozenset([" ".join(words)]) if words else frozenset()
    return frozenset(
        " ".join(words[start : start + SHINGLE_WORDS]) for start in range(len(words) - SHINGLE_WORDS + 1)
    )


def _all_by(records: Sequence[Record], key: Key) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[key(record)].append(record)
    return found


def _first_by(records: Sequence[Record], key: Key) -> dict[str, str]:
    first: dict[str, str] = {}
    for record in records:
        first.setdefault(key(record), record.id)
    return first
