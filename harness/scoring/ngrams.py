"""ROUGE, chrF and BLEU of a text against its references, through the libraries that publish them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from harness.scoring.item import Item, Score

MAX_CHARS = 20_000
"""More of a text is left out."""
MAX_CHARS_LCS = 6_000
"""The same for ROUGE-L: the longest common subsequence takes the product of both lengths."""


def rouge_1(item: Item) -> Score:
    """ROUGE-1 F1 of stemmed words, the best over the references (Lin 2004)."""
    return _rouge(item, "rouge1")


def rouge_2(item: Item) -> Score:
    """ROUGE-2 F1 of stemmed word pairs, the best over the references."""
    return _rouge(item, "rouge2")


def rouge_l(item: Item) -> Score:
    """ROUGE-L F1 of the longest common subsequence of stemmed words, the best over the references."""
    return _rouge(item, "rougeL")


def chrf(item: Item) -> Score:
    """Sentence chrF2 / 100 over all references (Popović 2015; sacrebleu's defaults)."""
    return _sacrebleu(item, _chrf())


def bleu(item: Item) -> Score:
    """Sentence BLEU-4 / 100 over all references, orders that the answer is too short for left out, exp smoothing."""
    return _sacrebleu(item, _bleu())


def _rouge(item: Item, kind: str) -> Score:
    most = MAX_CHARS_LCS if kind == "rougeL" else MAX_CHARS
    answer = (item.answer or "")[:most]
    if not answer.strip():
        return Score(0.0)
    scorer = _rouge_scorer(kind)
    values = [scorer.score(gold[:most], answer)[kind].fmeasure for gold in item.targets]
    return Score(max(values, default=0.0))


def _sacrebleu(item: Item, metric: Any) -> Score:
    answer = (item.answer or "")[:MAX_CHARS]
    references = [gold[:MAX_CHARS] for gold in item.targets if gold.strip()]
    if not answer.strip() or not references:
        return Score(0.0)
    value = metric.sentence_score(answer, references).score / 100
    return Score(min(max(value, 0.0), 1.0))


@lru_cache(maxsize=4)
def _rouge_scorer(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk: half a second

    return RougeScorer([kind], use_stemmer=True)


@lru_cache(maxsize=1)
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@lru_cache(maxsize=1)
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


NGRAM_SCORERS: dict[str, Callable[[Item], Score]] = {
    "rouge_1": rouge_1, "rouge_2": rouge_2, "rouge_l": rouge_l, "chrf": chrf, "bleu": bleu,
}  # fmt: skip
