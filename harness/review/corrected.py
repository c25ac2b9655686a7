"""How many answers are right as people judge, from a scorer's word on all and people's on a random few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.files import sha256_text
from harness.review.answers import Judgement
from harness.review.outcome import DECIDING, Outcome
from harness.stats.proportions import Interval

LEAST = 30
"""People's words that the interval takes."""


class CorrectedRate(NamedTuple):
    """The share of right answers, as people would judge all of them."""

    n: int
    """Answers that people judge, drawn at random."""
    of: int
    """Answers that the scorer judged."""
    waiting: tuple[str, ...]
    """Drawn answers without a word that stands; with any there is no rate."""
    scorer: float
    """The scorer's own mean over all answers."""
    rate: float | None
    interval: Interval | None
    """95 %, two-sided, within 0 and 1."""
    worth: float | None
    """People's words that would say as much without the scorer."""
    reason: str
    """Why there is no rate or interval; empty where there is."""


def random_draw(samples: Sequence[Mapping[str, Any]], n: int, seed: int) -> list[str]:
    """Ids of `n` samples, fixed by seed and ids before anybody has judged; a larger `n` only adds to them."""
    ranked = sorted(
        (sha256_text(f"corrected:{seed}:{sample['id']}"), str(sample["id"])) for sample in samples
    )
    return [id_ for _, id_ in ranked[:n]]


def corrected_rate(
    samples: Sequence[Mapping[str, Any]], found: Outcome, *, n: int, seed: int = 17
) -> CorrectedRate:
    """The rate by prediction-powered inference: people's words on the draw measure and mend the scorer's bias.

    Only answers of the draw count, as those that a reviewer chose, or the review screen shows first, are no random
    sample. An error counts as wrong by the scorer, and people judge it like any other answer.

    Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, through `harness.stats.ppi`.

    Raises:
        DataError: fewer than 30 are to be drawn, or more than there are.
    """
    import numpy as np

    from harness.stats.ppi import corrected_bounds, corrected_mean

    if not LEAST <= n <= len(samples):
        raise DataError(
            f"{n} answers to draw of {len(samples)}", hint=f"at least {LEAST}, and no more than there are"
        )
    scores = {str(sample["id"]): float(sample.get("score") or 0.0) for sample in samples}
    drawn = random_draw(samples, n, seed)
    words = {id_: found.settled[id_].judgement for id_ in drawn if id_ in found.settled}
    waiting = tuple(id_ for id_ in drawn if words.get(id_) not in DECIDING)
    said = CorrectedRate(n, len(samples), waiting, sum(scores.values()) / len(scores), None, None, None, "")
    if why := _why_not(samples, waiting):
        return said._replace(reason=why)
    labels = np.array([float(words[id_] is Judgement.RIGHT) for id_ in drawn])
    judged = np.array([scores[id_] for id_ in drawn])
    rest = np.array([score for id_, score in scores.items() if id_ not in words])
    mean = corrected_mean(labels, judged, rest)
    bounds = corrected_bounds(labels, judged, rest, 0.025, 0.025)
    if mean is None or bounds is None:
        return said._replace(reason="people said the same of every answer: there is no spread to measure")
    return said._replace(rate=min(max(mean.mean, 0.0), 1.0), interval=_within(bounds), worth=mean.worth)


def _why_not(samples: Sequence[Mapping[str, Any]], waiting: Sequence[str]) -> str:
    if any(not sample.get("gold") for sample in samples):
        return "no scorer has judged: there are answers without a gold"
    units = [sample.get("unit") for sample in samples]
    if len(set(units)) < len(units):
        return "answers share units: they are not independent, and the interval would be too narrow"
    return f"{len(waiting)} drawn answers have no word that stands" if waiting else ""


def _within(bounds: Interval) -> Interval:
    return Interval(*(min(max(bound, 0.0), 1.0) for bound in (bounds.low, bounds.high)))
