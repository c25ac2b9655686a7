"""The scorers by name, and the canaries that prove each can tell right from wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from harness.errors import StatsError
from harness.models.base import Model
from harness.scoring.arithmetic import derivation
from harness.scoring.attributes import attributes
from harness.scoring.bias import stereotype
from harness.scoring.canaries import CANARIES, Canaries, MakeCanaries, text_canaries
from harness.scoring.citations import citations
from harness.scoring.claims import certainty, forbidden_claims
from harness.scoring.clause_terms import clause_terms
from harness.scoring.fields import fields, valid_json
from harness.scoring.findings import findings, statements
from harness.scoring.form import form
from harness.scoring.grounded import grounded
from harness.scoring.injection import injection
from harness.scoring.item import Item, Score, Scorer
from harness.scoring.judge import FACTORIES, prove_judge
from harness.scoring.labels import choice, label, label_set
from harness.scoring.lm_match import lm_eval_match
from harness.scoring.mentions import mentions
from harness.scoring.mixed import number_or_text
from harness.scoring.ngrams import NGRAM_SCORERS
from harness.scoring.number_match import number
from harness.scoring.pii import pii_leak
from harness.scoring.promises import promises
from harness.scoring.ranking import hits_at, ndcg, reciprocal_rank, token_probability
from harness.scoring.refusal import refusal
from harness.scoring.retrieved import retrieval_rank, retrieval_recall
from harness.scoring.spans import spans_chars, spans_exact, spans_overlap, spans_tokens
from harness.scoring.text import exact, normalised, token_f1
from harness.scoring.truthful import truthful
from harness.text import visible

SCORERS: Mapping[str, Scorer] = MappingProxyType({
    "label": label, "choice": choice, "label_set": label_set, "exact": exact, "normalised": normalised,
    "token_f1": token_f1, "number": number, "fields": fields, "valid_json": valid_json,
    "spans_exact": spans_exact, "spans_overlap": spans_overlap, "spans_chars": spans_chars,
    "spans_tokens": spans_tokens, "reciprocal_rank": reciprocal_rank, "hits_at": hits_at, "ndcg": ndcg,
    "token_probability": token_probability, "derivation": derivation, "citations": citations,
    "grounded": grounded, "refusal": refusal, "pii_leak": pii_leak, "form": form, "lm_eval_match": lm_eval_match,
    "mentions": mentions, "promises": promises, "attributes": attributes, "clause_terms": clause_terms,
    "number_or_text": number_or_text,
    "findings": findings, "statements": statements, "forbidden_claims": forbidden_claims, "certainty": certainty,
    "stereotype": stereotype, "injection": injection, "truthful": truthful,
    "retrieval_recall": retrieval_recall, "retrieval_rank": retrieval_rank,
    **NGRAM_SCORERS,
})  # fmt: skip

_DEFAULTS = {
    "classify": "label", "verify": "label", "choice": "choice", "multi_label": "label_set", "extract": "fields",
    "spans": "spans_overlap", "number": "number", "answer": "normalised", "generate": "normalised",
    "rank": "reciprocal_rank", "perplexity": "token_probability",
}  # fmt: skip
_NEEDS = {
    "citations": "passages in the context that begin a line with [id], or the setting chunks_field",
    "grounded": "name the passage that answers stand on in fields.context",
    "clause_terms": "gold objects whose terms stand in the record's own text",
    "findings": "a list of phrases in each record at findings_field",
    "statements": "name the passage that answers stand on in fields.context",
    "certainty": "name the passage that answers stand on in fields.context",
    "stereotype": "records that name the stereotyped option at biased_field",
    "retrieval_recall": "a suite with `retrieval`, and records that name what is to be found at gold_field",
    "retrieval_rank": "a suite with `retrieval`, and records that name what is to be found at gold_field",
    "number": "gold texts that hold a number",
    "derivation": "gold texts that hold a number",
}
MAX_PROVEN = 50
"""Records of a suite whose golds go through a scorer as canaries."""


def default_scorer(task: str) -> str:
    """The scorer's name that a task takes when its suite names none."""
    return _DEFAULTS[task]


def find_scorer(
    name: str, settings: Mapping[str, Any] | None = None, *, judge: Model | None = None
) -> Scorer:
    """The scorer of that name. One that needs a model is built around `judge`, with the settings.

    Raises:
        StatsError: no scorer has the name, it needs a judge and there is none, or a setting means nothing to it.
    """
    if name not in FACTORIES:
        return _named(name)
    if judge is None:
        raise StatsError(f"scorer {name!r} needs a model to judge with, and none is at hand")
    return FACTORIES[name](judge, settings)


def prove_scorer(
    name: str, items: Sequence[Item], *, scorer: Scorer | None = None, make: MakeCanaries | None = None
) -> None:
    """Sends known-good and known-bad answers of this very suite through the scorer.

    `items` hold the golds, with the suite's settings, and no answer; of many, 50 spread evenly are taken.
    `scorer` is what `find_scorer` gave, where it was built for the suite: a judge is proven by `prove_judge`.
    `make` makes the canaries of a scorer that has no name here.

    Raises:
        StatsError: a gold answer does not score high enough, or a wrong, empty or missing one too high.
    """
    judged = scorer or find_scorer(name)
    if name in FACTORIES:
        if items:
            prove_judge(name, judged, items)
        return
    step = max(len(items) // MAX_PROVEN, 1)
    made = [(make or CANARIES.get(name, text_canaries))(item) for item in items[::step][:MAX_PROVEN]]
    for canaries in made:
        for good in canaries.good:
            _expect(name, judged, good, canaries, is_good=True)
        for bad in canaries.bad:
            _expect(name, judged, bad, canaries, is_good=False)
    if made and not (any(one.good for one in made) and any(one.bad for one in made)):
        raise StatsError(
            f"scorer {name!r} can't be proven: the records give no answer that is known to be right, and wrong",
            hint=_NEEDS.get(name, "look at fields.target and fields.context of the suite"),
        )


def checked_score(name: str, item: Item, *, scorer: Scorer | None = None) -> Score:
    """The score: its value a finite number from 0 to 1, its counts whole and not negative.

    Raises:
        StatsError: the scorer gave anything else; NaN would compare as neither better nor worse.
    """
    score = (scorer or find_scorer(name))(item)
    if not (
        isinstance(score.value, int | float) and math.isfinite(score.value) and 0.0 <= score.value <= 1.0
    ):
        raise StatsError(
            f"scorer {name!r} gave {score.value!r} for {_shown(item)}, wanted a number from 0 to 1"
        )
    wrong = [cells for cells in score.counts.values() if any(type(n) is not int or n < 0 for n in cells)]
    if wrong:
        raise StatsError(
            f"scorer {name!r} counts {wrong[0]!r} for {_shown(item)}, wanted whole numbers from 0"
        )
    return score


def _named(name: str) -> Scorer:
    if name not in SCORERS:
        raise StatsError(
            f"no scorer is named {name!r}", hint=f"one of {', '.join(sorted((*SCORERS, *FACTORIES)))}"
        )
    return SCORERS[name]


def _expect(name: str, scorer: Scorer, item: Item, canaries: Canaries, *, is_good: bool) -> None:
    found = checked_score(name, item, scorer=scorer).value
    if found >= canaries.good_at_least if is_good else found <= canaries.bad_at_most:
        return
    wanted = f"at least {canaries.good_at_least}" if is_good else f"at most {canaries.bad_at_most}"
    raise StatsError(
        f"scorer {name!r} can't tell right from wrong: canary answer {_shown(item)} to gold "
        f"{_clipped(list(item.targets) or item.target)} scores {found!r}, wanted {wanted}"
    )


def _shown(item: Item) -> str:
    return _clipped(item.answer if item.parsed is None else item.parsed)


def _clipped(value: Any) -> str:
    return visible(repr(value), keep_newlines=False, limit_chars=200)
