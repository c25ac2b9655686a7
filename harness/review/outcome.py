"""What the reviews of a stage come to: verdicts that stand, disputes, agreement, and records to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.review.agreement import Agreement, cohens_kappa
from harness.review.answers import Judgement, Review, answer_digest, standing

DECIDING = (Judgement.RIGHT, Judgement.WRONG)
TRUSTED_KAPPA = 0.6
"""A scorer or judge model whose lower bound against people reaches this may stand for them ("substantial",
Landis and Koch 1977)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the reviews stand."""

    settled: dict[str, Review]
    """By sample: a word that stands, because all agree or because it was adjudicated."""
    disputed: tuple[str, ...]
    """Samples on which reviewers disagree and nobody has adjudicated."""
    n_by_reviewer: dict[str, int]
    between: dict[tuple[str, str], Agreement]
    """Agreement of each two reviewers."""
    with_scorer: dict[str, Agreement]
    """Agreement of each reviewer with the suite's scorer."""
    outdated: tuple[str, ...]
    """Samples whose reviews are about another answer than the one that stands there now."""


def outcome_of(samples: Sequence[Mapping[str, Any]], reviews: Sequence[Review]) -> Outcome:
    """The outcome of all reviews of these samples; those about another answer do not count."""
    by_id = {str(sample["id"]): sample for sample in samples}
    words = standing(reviews)
    fresh = {key: one for key, one in words.items() if _is_about(one, by_id)}
    outdated = tuple(sorted({one.sample for one in words.values() if not _is_about(one, by_id)}))
    settled, disputed = _settle(fresh.values())
    rights: dict[str, dict[str, bool]] = {}
    for one in fresh.values():
        if one.judgement in DECIDING and not one.is_adjudication:
            rights.setdefault(one.by, {})[one.sample] = one.judgement is Judgement.RIGHT
    names = sorted(rights)
    # Without a gold no scorer has said anything: a score of 0 is then no word against the answer.
    scored = {
        id_: float(sample.get("score") or 0.0) >= 1.0 for id_, sample in by_id.items() if sample.get("gold")
    }
    return Outcome(
        settled, disputed, {name: len(rights[name]) for name in names},
        {(a, b): cohens_kappa(rights[a], rights[b]) for at, a in enumerate(names) for b in names[at + 1 :]},
        {name: cohens_kappa(rights[name], scored) for name in names}, outdated,
    )  # fmt: skip


def _is_about(review: Review, by_id: Mapping[str, Mapping[str, Any]]) -> bool:
    return review.sample in by_id and answer_digest(by_id[review.sample]) == review.answer_digest


def _settle(reviews: Any) -> tuple[dict[str, Review], tuple[str, ...]]:
    settled: dict[str, Review] = {}
    disputed: list[str] = []
    groups: dict[str, list[Review]] = {}
    for one in reviews:
        if one.judgement in (*DECIDING, Judgement.BAD_ITEM):
            groups.setdefault(one.sample, []).append(one)
    for sample, group in sorted(groups.items()):
        final = [one for one in group if one.is_adjudication]
        if final:
            settled[sample] = max(final, key=lambda one: one.at)
        elif len({one.judgement for one in group}) == 1:
            settled[sample] = group[0]
        else:
            disputed.append(sample)
    return settled, tuple(disputed)


def to_records(
    samples: Sequence[Mapping[str, Any]], found: Outcome, inputs: Mapping[str, str], *, run: str, stage: str
) -> Iterator[dict[str, Any]]:
    """Records for training or evaluation from what stands, with who said so, when and why.

    Only answers found right, and wrong ones with a correction; `inputs` is each record's text by its id,
    and what has none is left out.
    """
    for sample in samples:
        id_ = str(sample["id"])
        review = found.settled.get(id_)
        target = _target(sample, review)
        if review is None or target is None or id_ not in inputs:
            continue
        yield {
            "id": f"{id_}-reviewed", "input": inputs[id_], "target": target, "slices": sample.get("slices") or {},
            "meta": {
                "unit": sample.get("unit"), "run": run, "stage": stage, "sample": id_, "by": review.by, "at": review.at,
                "why": review.why, "judgement": review.judgement.value, "is_adjudication": review.is_adjudication,
            },
        }  # fmt: skip


def _target(sample: Mapping[str, Any], review: Review | None) -> str | None:
    if review is None:
        return None
    if review.judgement is Judgement.RIGHT:
        return str(sample.get("output") if sample.get("output") is not None else sample.get("answer"))
    return review.correction if review.judgement is Judgement.WRONG else None
