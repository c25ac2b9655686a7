"""The scorers that a suite can name: the tasks that each fits, and the settings that it knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

WRITTEN = ("extract", "spans", "number", "answer", "generate")
"""Tasks whose answer is a text that the model wrote in its own words."""
_NUMBER = (
    "tolerance", "absolute", "decimals", "decimal_mark", "list", "pick", "sign", "assume_scale", "scale",
    "scale_field",
)  # fmt: skip


class ScorerUse(NamedTuple):
    """Where a scorer makes sense."""

    tasks: tuple[str, ...]
    settings: tuple[str, ...] = ()


KNOWN_SCORERS: Mapping[str, ScorerUse] = MappingProxyType({
    "label": ScorerUse(("classify", "verify")),
    "choice": ScorerUse(("choice",)),
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
})  # fmt: skip
