"""A gate rule: what must hold, for whom, and how sure we must be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.specs.base import Document

Metric = Literal[
    "accuracy", "score", "precision", "recall", "f1", "error_rate", "truncated_rate",
    "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "size_mb", "memory_mb",
    "demographic_parity", "equal_opportunity", "equalized_odds",
    "coverage", "abstention", "confidence_gap", "brier", "ece", "consistency",
]  # fmt: skip
RATES = ("accuracy", "score", "precision", "recall", "f1", "error_rate", "truncated_rate")
COUNTED_METRICS = ("precision", "recall", "f1")
"""From true positives, false positives and false negatives."""
EDGE_METRICS = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "size_mb", "memory_mb")
"""Measured on what ships, on the device."""
FAIRNESS_METRICS = ("demographic_parity", "equal_opportunity", "equalized_odds")
CALIBRATED_METRICS = ("coverage", "abstention")
"""Judged with thresholds that the calibration split gave."""
PAIRED_METRICS = ("accuracy", "score", "brier")
SEQUENTIAL_METRICS = RATES
FROZEN_METRICS = ("accuracy", "recall", "error_rate", "truncated_rate")
"""Shares of records, whose number in the whole suite is known beforehand."""
LESS_IS_BETTER = (*EDGE_METRICS, "error_rate", "truncated_rate", "brier", "ece")


def _key_or_keys(value: Any) -> Any:
    is_keys = isinstance(value, list | tuple) and value and all(isinstance(key, str) for key in value)
    if value is not None and not isinstance(value, str) and not is_keys:
        raise ValueError("per wants a slice key, or a list of keys whose values are crossed")
    return tuple(value) if is_keys else value


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
SliceKeys = Annotated[str | tuple[str, ...] | None, BeforeValidator(_key_or_keys)]


class Gate(Document):
    """One rule. A release is the AND of its rules."""

    metric: Metric
    """What is measured. `accuracy` is the mean of the first scorer, `score` of another one; `precision`,
    `recall` and `f1` count labels or parts; the fairness metrics compare groups; `coverage` and `abstention`
    use what the calibration split gave; `confidence_gap`, `brier` and `ece` ask whether probabilities are right;
    `consistency` is the share of items whose answer no change of the suite's `invariance` moves."""
    score: str | None = None
    """With `metric: score`: the scorer's name."""
    average: Literal["micro", "macro"] | None = None
    """With precision, recall and f1, instead of `per: label`: over all labels' counts, or the mean of the labels."""
    at_least: float | None = None
    """PASS when the lower confidence bound reaches this."""
    at_most: float | None = None
    """PASS when the upper confidence bound stays at or under this."""
    versus: str | None = None
    """Compare on the same items with this: `base`, or a stage that came earlier in the chain."""
    no_worse_than: Probability | None = None
    """With `versus`: the largest loss that still passes (non-inferiority margin)."""
    better_than: Probability | None = None
    """With `versus`: the gain that must be exceeded (superiority when 0)."""
    gap: Share | None = None
    """Cap on how much better one group of `per` may fare than another: PASS when every pair is shown under it."""
    floor: Probability | None = None
    """With `gap`: what every group's own lower bound must reach."""
    positive: str | None = None
    """With the fairness metrics: the label that is the favourable answer."""
    within: Share | None = None
    """With `confidence_gap`: PASS when mean confidence minus accuracy is shown to lie within ± this."""
    target: Share | None = None
    """With `coverage`: what the prediction sets are made for, more than the `at_least` that is to be proved."""
    precision: Share | None = None
    """With `abstention`: how often the answers that are given must be right; `at_least` is the share answered."""
    confidence: str | None = None
    """With `abstention`: a confidence by name, such as `self_consistency`; else the answer's own probability."""
    calibrated: bool = False
    """With `confidence_gap`, `brier` and `ece`: at the temperature that the calibration split gave."""
    per: SliceKeys = None
    """A slice key of the records, or `label`: the rule holds for every value that has `min_n` items. A list of
    keys crosses their values. `variant`, with `consistency`: each kind of change by itself."""
    only: tuple[str, ...] = ()
    """With `per`: the values, or labels, that the rule holds for, such as the clause types of high risk."""
    min_n: Annotated[int, Field(ge=1)] = 20
    """With `per`: values with fewer items are reported and not judged."""
    design: Literal["fixed", "sequential"] = "fixed"
    """`fixed` judges all items at once; `sequential` looks after each batch and stops as soon as it knows."""
    n_max: Annotated[int, Field(ge=1)] | None = None
    """With `design: sequential`: most independent units to use; None means all there are."""
    order_seed: int = 17
    """With `design: sequential`: fixes the order of the items before the run."""
    max_parts: Annotated[int, Field(ge=1)] | None = None
    """With `design: sequential` and several parts an answer: the most parts, expected and given together, that a
    unit can have."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Largest probability of a false PASS."""
    beta: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Largest probability of a false FAIL."""
    population: Literal["open", "frozen"] = "open"
    """`open`: the records stand for all that will ever be asked. `frozen`: the suite's own records are all that is
    meant; bounds are those of drawing without replacement, and the score itself where every record was scored."""
    acknowledge: str | None = None
    """Why a rule is kept whose margin is finer than the records can show; `harness check` refuses it without."""
    binding: bool = False
    """Nobody can waive it."""
    stages: tuple[str, ...] = ()
    """Stages that the rule judges; empty means every stage but the base, `edge` alone for latency, size and memory."""
    suite: str | None = None
    """Name of the suite that the rule reads; may be left out when the recipe has one suite."""

    @model_validator(mode="after")
    def _whole(self) -> Gate:
        problems = [*self._aim_problems(), *self._metric_problems(), *self._design_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def slice_keys(self) -> tuple[str, ...]:
        """The keys of `per`; empty where the rule is over all items, or per label."""
        return () if self.per is None else (self.per,) if isinstance(self.per, str) else self.per

    @property
    def per_words(self) -> str:
        """`per` in words, such as `sex × age`; empty without."""
        named = f" ({', '.join(self.only)})" if self.only else ""
        return " × ".join(self.slice_keys) + named

    def holds_for(self, slice_name: str) -> bool:
        """Whether the rule judges this slice of its `per`, which is spelled `key=value`."""
        return not self.only or slice_name.partition("=")[2] in self.only

    @property
    def is_label_rule(self) -> bool:
        """Whether its slices are the labels."""
        return self.metric in COUNTED_METRICS and self.per == "label"

    @property
    def bound(self) -> float | None:
        """The number of `at_least` or `at_most`."""
        return self.at_least if self.at_least is not None else self.at_most

    @property
    def what(self) -> str:
        """The metric in words, such as `f1 (macro)` or `score rouge_l`."""
        extra = f" ({self.average})" if self.average else ""
        named = f"{self.metric} {self.score}" if self.score else self.metric
        return f"{named}{extra}{' (calibrated)' if self.calibrated else ''}"

    @property
    def name(self) -> str:
        """The rule in words, such as `recall per label at least 0.6`."""
        per = f" per {self.per_words}" if self.per else ""
        if self.gap is not None:
            floor = f", none below {self.floor:g}" if self.floor is not None else ""
            of = f" of {self.positive}" if self.positive is not None else ""
            return f"{self.what}{of} gap over {self.per_words} at most {self.gap:g}{floor}"
        if self.versus is not None:
            margin = self.no_worse_than if self.no_worse_than is not None else self.better_than
            word = "no worse than" if self.no_worse_than is not None else "better than"
            return f"{self.what}{per} {word} {self.versus} by {margin:g}"
        return f"{self.what}{self._aim_words(per)}"

    def _aim_words(self, per: str) -> str:
        if self.within is not None:
            return f"{per} within {self.within:g}"
        if self.metric == "coverage":
            return f" of {self.target:g} sets{per} at least {self.at_least:g}"
        if self.metric == "abstention":
            by = f" by {self.confidence}" if self.confidence else ""
            return f"{by}: answers at least {self.at_least:g} with precision {self.precision:g}"
        word = "at least" if self.at_least is not None else "at most"
        return f"{per} {word} {self.bound:g}"

    def _aim_problems(self) -> Iterator[str]:
        """What is wrong with what must hold."""
        aims = [self.at_least, self.at_most, self.gap, self.within]
        margins = [margin for margin in (self.no_worse_than, self.better_than) if margin is not None]
        given = sum(aim is not None for aim in aims)
        if self.versus is None:
            if given != 1:
                yield "a rule needs exactly one of at_least, at_most, gap, within, or versus with a margin"
            if margins:
                yield "no_worse_than and better_than need versus"
        elif given or len(margins) != 1:
            yield "versus needs exactly one of no_worse_than and better_than, and no bound"
        if self.versus is not None and self.metric not in PAIRED_METRICS:
            yield "versus compares accuracy, score or brier on the same items; other metrics have no paired test"
        if self.bound is not None and self.metric in (*RATES, "consistency") and not 0.0 <= self.bound <= 1.0:
            yield "a rate lies between 0 and 1"

    def _metric_problems(self) -> Iterator[str]:
        """Keys that the metric needs, and keys that mean nothing with it."""
        needs = {
            "score": ("score",), "coverage": ("target", "at_least"), "abstention": ("precision", "at_least"),
            "confidence_gap": ("within",), "consistency": ("at_least",),
            **dict.fromkeys(FAIRNESS_METRICS, ("gap", "positive")),
        }.get(self.metric, ())  # fmt: skip
        for key in needs:
            if getattr(self, key) is None:
                yield f"{self.metric} needs {key}"
        for key, metrics in _BELONGS_TO.items():
            if getattr(self, key) and self.metric not in metrics:
                yield f"{key} belongs to {', '.join(metrics)}"
        if self.metric in COUNTED_METRICS and (self.average is None) == (self.per != "label"):
            yield f"{self.metric} needs one of `per: label` and `average: micro` or `macro`"
        if self.average == "macro" and self.per is not None:
            yield "average: macro is over all items, without per"
        yield from self._group_problems()
        if self.target is not None and self.at_least is not None and self.target <= self.at_least:
            yield f"target must be more than at_least: sets made for {self.at_least:g} can't be shown to reach it"
        if self.metric in ("brier", "ece") and self.at_least is not None:
            yield f"at_least makes no sense for {self.metric}: less is better"

    def _group_problems(self) -> Iterator[str]:
        if self.gap is not None and self.per is None:
            yield "gap needs per: the key, or the list of keys, whose groups are compared"
        if self.floor is not None and self.gap is None:
            yield "floor belongs to a rule with gap"
        if self.per is not None and self.metric in ("abstention", "confidence_gap", "brier", "ece"):
            yield f"per makes no sense for {self.metric}: it is judged on all items"
        if isinstance(self.per, tuple) and len(set(self.per)) < len(self.per):
            yield "per names a key twice"

        yield from self._only_problems()

    def _only_problems(self) -> Iterator[str]:
        if not self.only:
            return
        if len(self.slice_keys) != 1 or self.bound is None or self.metric not in (*RATES, "consistency"):
            yield "only belongs to a rule with one key in `per` and a bound on a rate"
        if self.design != "fixed" or self.population != "open":
            yield "only belongs to design: fixed and population: open"
        if len(set(self.only)) < len(self.only):
            yield "only names a value twice"

    def _design_problems(self) -> Iterator[str]:
        if self.acknowledge is not None and not self.acknowledge.strip():
            yield "acknowledge is empty: give the reason"
        if self.population == "frozen" and (
            self.metric not in FROZEN_METRICS or self.bound is None or self.design != "fixed"
        ):
            yield f"population: frozen judges {', '.join(FROZEN_METRICS)} with a bound and design: fixed"
        if self.design == "fixed":
            for key in ("n_max", "max_parts"):
                if getattr(self, key) is not None:
                    yield f"{key} belongs to design: sequential"
            return
        if self.metric not in SEQUENTIAL_METRICS or self.gap is not None or self.average == "macro":
            yield f"design: sequential judges {', '.join(SEQUENTIAL_METRICS)} with a bound or versus, macro apart"
        if self.is_label_rule and self.metric != "recall":
            yield (
                f"design: sequential can't plan {self.metric} per label, as what will be answered is not known "
                "beforehand: use average: micro, or design: fixed"
            )


class GateFile(Document):
    """Rules by themselves, for runs that no recipe made."""

    gates: Annotated[tuple[Gate, ...], Field(min_length=1)]


_BELONGS_TO: dict[str, tuple[str, ...]] = {
    "score": ("score",),
    "average": COUNTED_METRICS,
    "gap": ("accuracy", *FAIRNESS_METRICS),
    "positive": FAIRNESS_METRICS,
    "within": ("confidence_gap",),
    "target": ("coverage",),
    "precision": ("abstention",),
    "confidence": ("abstention",),
    "calibrated": ("confidence_gap", "brier", "ece"),
    "max_parts": COUNTED_METRICS,
}
"""Keys that mean something with some metrics alone."""
