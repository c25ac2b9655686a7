"""What the records of every domain's own suite must keep."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.overlap import find_overlaps, near_duplicates
from harness.data.records import Record
from harness.data.sources import load_split
from harness.data.targets import labels_of
from harness.evals.run import Work
from harness.models.base import Answer, ChoiceRequest
from harness.specs.load import load_suite
from harness.specs.suite import Confidence, Invariance, Split, Suite
from tests.evals.fakes import Told

ROOT = Path(__file__).resolve().parents[2]
NAMES: tuple[Split, ...] = ("train", "dev", "calibration", "eval")
KEYS = ("id", "input", "target", "slices", "unit")


class Loaded(NamedTuple):
    """A suite with its splits."""

    path: Path
    suite: Suite
    splits: dict[Split, list[Record]]

    @property
    def records(self) -> list[Record]:
        return [record for split in self.splits.values() for record in split]


def load(name: str, *, data_root: Path | None = None, is_whole: bool = False) -> Loaded:
    """The suite `domain/name` and its records; with `is_whole`, those too that no run asks."""
    path = ROOT / "suites" / f"{name}.yaml"
    suite = load_suite(path, data_root=data_root)
    suite = suite.model_copy(update={"limit": {}}) if is_whole else suite
    splits = {one: load_split(suite, one, suite_path=path, data_root=data_root) for one in NAMES}
    return Loaded(path, suite, splits)


def sizes(loaded: Loaded) -> dict[Split, int]:
    return {name: len(records) for name, records in loaded.splits.items()}


def is_balanced(loaded: Loaded) -> bool:
    """Whether each split has every label equally often, one a record."""
    for records in loaded.splits.values():
        counts = Counter(target for record in records for target in record.targets)
        if set(counts) != set(loaded.suite.labels) or len(set(counts.values())) > 1:
            return False
    return all(len(record.targets) == 1 for record in loaded.records)


def shared(loaded: Loaded) -> list[Any]:
    """What two splits share exactly: ids, units, texts."""
    return [
        overlap
        for left, right in combinations(NAMES, 2)
        for overlap in find_overlaps(loaded.splits[left], loaded.splits[right])
    ]


def nearly_the_same(loaded: Loaded) -> list[Any]:
    """Pairs of records with half of their five-word shingles in common."""
    return [
        overlap
        for left, right in combinations_with_replacement(NAMES, 2)
        for overlap in near_duplicates(loaded.splits[left], loaded.splits[right], threshold=0.5)
        if overlap.left != overlap.right
    ]


def unclean(loaded: Loaded) -> list[str]:
    """Ids of records whose text has odd spaces, signs or punctuation."""
    marks = (" ,", " ;", "..", ",,", "!")
    return [
        record.id
        for record in loaded.records
        if record.input != " ".join(record.input.split())
        or not record.input.isascii()
        or any(mark in record.input for mark in marks)
    ]


def lines_are_plain(loaded: Loaded) -> bool:
    """Whether each line holds the documented keys, in their order."""
    rows = [
        json.loads(line)
        for name in NAMES
        for line in (loaded.path.parent / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    return {tuple(row) for row in rows} == {KEYS}


def slice_sizes(records: list[Record], key: str) -> Counter[str]:
    return Counter(str(record.slices[key]) for record in records)


def baseline_hits(loaded: Loaded) -> int:
    """How many of the eval records TF-IDF with logistic regression names right, trained on train alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, held_out = loaded.splits["train"], loaded.splits["eval"]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(C=10.0, max_iter=2000)
    model.fit(vectorizer.fit_transform([r.input for r in train]), [r.targets[0] for r in train])
    answers = model.predict(vectorizer.transform([r.input for r in held_out]))
    return sum(answer in record.targets for answer, record in zip(answers, held_out, strict=True))


def work_of(loaded: Loaded, n: int | None = None) -> Work:
    """The eval split as the base stage's work, of at most n records; nothing is asked twice."""
    once = {"repeat": 0, "confidence": Confidence(), "invariance": Invariance()}
    suite = loaded.suite.model_copy(update=once)
    labels = labels_of(suite, loaded.splits["train"])
    return Work("base", suite, labels, tuple(loaded.splits["eval"][:n]))


def answering(work: Work, *, rightly: bool) -> Told:
    """A model that gives each record's own gold, or never one."""
    records = {record.id: record for record in work.records}

    def reply(request: Any) -> Answer:
        record = records[request.id]
        if not isinstance(request, ChoiceRequest):
            text = record.targets[0] if rightly else "\u2297"
            return Answer(request.id, text=text, token_logprobs=(-0.1,))
        meant = record.options or work.labels
        weights = tuple(-0.1 if (name in record.targets) is rightly else -7.0 for name in meant)
        return Answer(request.id, choice_logprobs=weights, choice_tok=(1,) * len(weights))

    return Told(reply, size=64)
