"""Scores of options in an order, and of a text's own log-probability."""

from __future__ import annotations

import math
from collections.abc import Mapping

from harness.scoring.item import Item, Score


def reciprocal_rank(item: Item) -> Score:
    """1 / the place of the first right option; 0 where none is there. `parsed`: options, best first."""
    order = _order(item)
    places = [place for place, option in enumerate(order, start=1) if option in item.targets]
    return Score(1.0 / places[0] if places else 0.0, note=f"place {places[0]}" if places else "")


def hits_at(item: Item) -> Score:
    """1 if a right option is among the first `k` (setting, 1 unless told)."""
    k = int(item.settings.get("k", 1))
    return Score(float(any(option in item.targets for option in _order(item)[:k])))


def ndcg(item: Item) -> Score:
    """Normalised discounted cumulative gain of the first `k` (setting, all unless told).

    Gains come from `target` where it maps options to grades of 0 or more, else each gold option has 1
    (Järvelin & Kekäläinen 2002, doi 10.1145/582415.582418).
    """
    gains = gains_of(item)
    order = _order(item)
    k = int(item.settings.get("k", max(len(order), 1)))
    best = _discounted(sorted(gains.values(), reverse=True)[:k])
    return Score(_discounted([gains.get(option, 0.0) for option in order[:k]]) / best if best > 0 else 0.0)


def token_probability(item: Item) -> Score:
    """The geometric mean of the target's token probabilities: 1 / perplexity.

    `parsed`: `{"logprob": natural log, "tok": count}`, or the mean log-probability of a token.
    """
    mean = _mean_logprob(item.parsed)
    if mean is None:
        return Score(0.0, error_class="unread")
    return Score(math.exp(min(mean, 0.0)), note=f"perplexity {math.exp(min(-mean, 700.0)):.4g}")


def _order(item: Item) -> list[str]:
    """The options, best first, each once."""
    if isinstance(item.parsed, list | tuple):
        return list(dict.fromkeys(str(option) for option in item.parsed))
    return [] if item.answer is None else [item.answer]


def gains_of(item: Item) -> dict[str, float]:
    """What each option is worth: its grade in the record, 1 for a gold option without one."""
    grades = item.target if isinstance(item.target, Mapping) else {}
    numbers = {str(option): grade for option, grade in grades.items() if isinstance(grade, int | float)}
    return {option: max(float(grade), 0.0) for option, grade in numbers.items()} or dict.fromkeys(
        item.targets, 1.0
    )


def _discounted(gains: list[float]) -> float:
    return math.fsum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


def _mean_logprob(parsed: object) -> float | None:
    if isinstance(parsed, Mapping):
        logprob, tok = parsed.get("logprob"), parsed.get("tok")
        if not isinstance(logprob, int | float) or not isinstance(tok, int) or tok < 1:
            return None
        parsed = logprob / tok
    if isinstance(parsed, bool) or not isinstance(parsed, int | float) or not math.isfinite(parsed):
        return None
    return float(parsed)
