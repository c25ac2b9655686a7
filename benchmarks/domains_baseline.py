"""What a word count answers to a suite: the baseline of `domains.py`.

Labels: TF-IDF of words and pairs with logistic regression. Options: the one that is nearest to the question by TF-IDF.
Everything else: the answer of the nearest training record, and a refusal where that was to be refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.data.records import Record
from harness.evals.results import Sample
from harness.evals.run import Work, to_sample
from harness.models.base import Answer
from harness.scoring.item import Item
from harness.scoring.refusal import expects_refusal
from harness.specs.suite import CHOOSES_LABEL

LEAST_LOGPROB = -50.0
"""Of a label that training never shows."""


def baseline_samples(work: Work) -> list[Sample]:
    """The records answered and scored by the suite's own scorers; empty where no training record can teach."""
    if work.suite.task in CHOOSES_LABEL:
        answers = linear(work) if work.train else []
    elif work.suite.task in ("choice", "rank"):
        # Likeness is no log-probability: there is nothing to divide by a length.
        suite = work.suite.model_copy(update={"normalise": "none"})
        work = Work(work.stage, suite, work.labels, work.records, work.train)
        answers = nearest_option(work)
    else:
        answers = nearest_record(work) if work.train else []
    return [
        to_sample(work, record, answer) for record, answer in zip(work.records, answers, strict=bool(answers))
    ]


def linear(work: Work) -> list[Answer]:
    """Log-probabilities of the labels by logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=30.0, max_iter=2000))
    model.fit([text_of(record) for record in work.train], [record.targets[0] for record in work.train])
    place = {label: at for at, label in enumerate(model.classes_)}
    rows = model.predict_proba([text_of(record) for record in work.records])
    return [
        _weighed(
            record, [_log(row[place[label]]) if label in place else LEAST_LOGPROB for label in work.labels]
        )
        for record, row in zip(work.records, rows, strict=True)
    ]


def nearest_option(work: Work) -> list[Answer]:
    """The options by their cosine to question and context; the words' weights are from all records' texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True)
    words.fit([" ".join((text_of(record), *record.options)) for record in (*work.train, *work.records)])
    found = []
    for record in work.records:
        asked = words.transform([text_of(record)])
        likeness = (words.transform(list(record.options)) @ asked.T).toarray()[:, 0]
        found.append(_weighed(record, [float(value) for value in likeness]))
    return found


def nearest_record(work: Work) -> list[Answer]:
    """The first gold answer of the training record whose text is nearest."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = words.fit_transform([text_of(record) for record in work.train])
    near = (words.transform([text_of(record) for record in work.records]) @ known.T).toarray().argmax(axis=1)
    return [
        Answer(record.id, text=_told(work, work.train[int(at)]))
        for record, at in zip(work.records, near, strict=True)
    ]


def _told(work: Work, record: Record) -> str:
    """The record's gold answer; where the gold says whether to refuse, a refusal or an answer."""
    if not any(scorer.name == "refusal" for scorer in work.suite.scorers):
        return record.targets[0]
    refuses = expects_refusal(Item(None, record.targets, meta=record.raw))
    return "I'm sorry, but I can't help with that." if refuses else "Here is what you asked for."


def text_of(record: Record) -> str:
    """What the record shows: its question and what the answer stands on."""
    return f"{record.input}\n{record.context}"


def _weighed(record: Record, weights: Sequence[float]) -> Answer:
    return Answer(record.id, choice_logprobs=tuple(weights), choice_tok=(1,) * len(weights))


def _log(value: float) -> float:
    return max(math.log(value), LEAST_LOGPROB) if value > 0.0 else LEAST_LOGPROB
