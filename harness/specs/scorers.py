"""The scorers that a suite can name: the tasks that each fits, and the settings that it knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, get_args

from harness.specs.suite import Task

_FREE = ("answer", "generate")
_FORM = tuple(
    f"{end}_{what}" for end in ("min", "max") for what in ("chars", "words", "sentences", "lines", "bullets")
)
_NUMBER = (
    "tolerance", "absolute", "decimals", "decimal_mark", "list", "pick", "sign", "assume_scale", "scale",
    "scale_field",
)  # fmt: skip

_RUBRIC = ("question", "verdicts", "shows_reference", "shows_context", "expected", "max_new_tokens")
JUDGES = ("judge", "pairwise_judge")
"""Scorers that need the suite's `judge`."""


class ScorerUse(NamedTuple):
    """Where a scorer makes sense."""

    tasks: tuple[str, ...]
    settings: tuple[str, ...] = ()


KNOWN_SCORERS: Mapping[str, ScorerUse] = MappingProxyType({
    "label": ScorerUse(("classify", "verify")),
    "choice": ScorerUse(("choice",)),
    "stereotype": ScorerUse(("choice",), ("biased_field", "unknown_field", "group_field")),
    "label_set": ScorerUse(("multi_label",)),
    "exact": ScorerUse(("classify", "verify", "choice", "answer", "generate", "number")),
    "normalised": ScorerUse(("classify", "verify", "choice", "answer", "generate")),
    "token_f1": ScorerUse(("answer", "generate")),
    "number": ScorerUse(("number", "answer", "generate"), _NUMBER),
    "fields": ScorerUse(("extract",), (*_NUMBER, "strings", "gold_lists", "ignore_extra")),
    "valid_json": ScorerUse(("extract", "generate"), ("required",)),
    "spans_exact": ScorerUse(("spans",), ("matching",)),
    "spans_overlap": ScorerUse(("spans",), ("overlap", "matching")),
    "spans_chars": ScorerUse(("spans",)),
    "spans_tokens": ScorerUse(("spans",)),
    "reciprocal_rank": ScorerUse(("rank",)),
    "hits_at": ScorerUse(("rank",), ("k",)),
    "ndcg": ScorerUse(("rank",), ("k",)),
    "token_probability": ScorerUse(("perplexity",)),
    "derivation": ScorerUse(("number", "answer", "generate"), _NUMBER),
    "citations": ScorerUse(_FREE, ("required", "every_sentence", "chunks_field")),
    "grounded": ScorerUse(_FREE, ("numbers", "names", "derive")),
    "refusal": ScorerUse(_FREE, ("expect", "expect_field")),
    "pii_leak": ScorerUse(_FREE, ("allow", "copied")),
    "form": ScorerUse(_FREE, (*_FORM, "banned", "required", "matches", "example")),
    "mentions": ScorerUse(_FREE, ("required_field", "banned_field")),
    "promises": ScorerUse(_FREE),
    "injection": ScorerUse(_FREE, ("success_field",)),
    "truthful": ScorerUse(_FREE, ("incorrect_field",)),
    "number_or_text": ScorerUse(_FREE, _NUMBER),
    "findings": ScorerUse(_FREE, ("findings_field",)),
    "statements": ScorerUse(_FREE, ("support",)),
    "forbidden_claims": ScorerUse(_FREE, ("copied",)),
    "certainty": ScorerUse(_FREE, ("match",)),
    "attributes": ScorerUse(_FREE, ("kinds", "extra", "allow")),
    "clause_terms": ScorerUse(("extract",), ("jurisdiction", "date", "amount", "quote")),
    **{
        name: ScorerUse(get_args(Task), ("gold_field", "document_field", "k"))
        for name in ("retrieval_recall", "retrieval_rank")
    },
    **{name: ScorerUse(_FREE) for name in ("rouge_1", "rouge_2", "rouge_l", "chrf", "bleu")},
    "judge": ScorerUse(_FREE, _RUBRIC),
    "pairwise_judge": ScorerUse(_FREE, (*_RUBRIC, "versus_field")),
    "lm_eval_match": ScorerUse(
        ("answer", "generate"), ("steps", "ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore")
    ),
})  # fmt: skip
