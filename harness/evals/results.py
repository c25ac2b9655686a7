"""What an evaluation leaves behind: samples, scorecards and verdicts, as frozen data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """What a gate says."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIPPED = "SKIPPED"
    """A slice with fewer than `min_n` items: reported, not judged."""
    STALE = "STALE"
    """It was a verdict on another model, or on other data, thresholds or code than stand now."""
    WAIVED = "WAIVED"
    """It did not pass, and a person has answered for that by name, until a date."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A record with its answer and scores."""

    id: str
    gold: tuple[str, ...]
    """Any of these is right."""
    answer: str | None
    """The parsed answer: a label or a text; None after an error or where nothing could be parsed."""
    score: float
    """0 to 1; an error or an unparsed answer scores 0 and stays in the denominator."""
    slices: dict[str, str | list[str]]
    unit: str
    confidence: float | None = None
    """Probability that the model gives its answer: softmax over the labels' log-probabilities."""
    label_probs: dict[str, float] | None = None
    output: str | None = None
    """The text as the model wrote it."""
    prompt_digest: str = ""
    prompt_tok: int = 0
    output_tok: int = 0
    latency_ms: float | None = None
    is_truncated: bool = False
    error: str | None = None
    parsed: Any = None
    """The answer as the task reads it, as JSON: labels, an object, spans, a number; None for plain labels
    and texts, where `answer` says it all."""
    scores: dict[str, float] = field(default_factory=dict)
    """The score by each scorer of the suite, 0 to 1; `score` is the first one's."""
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """True positives, false positives and false negatives, by label or field, where one answer holds
    several parts. `precision`, `recall` and F1 are computed from these where they are there."""
    confidences: dict[str, float] = field(default_factory=dict)
    """Other confidences by name: `mean_logprob`, `min_logprob`, `p_true`, `self_consistency`,
    `semantic_entropy`."""
    choice_logprobs: tuple[float, ...] | None = None
    """log P of each choice, in the order of the request, where the task scores choices of its own."""
    error_class: str | None = None
    """How a wrong answer is wrong, in a scorer's words: `unit_slip`, `sign_slip`, …"""
    variants: dict[str, str | None] = field(default_factory=dict)
    """The answer to the item with one thing changed that must not matter, by the kind of change, in the item's own
    names; None where nothing was answered."""
    moved: tuple[str, ...] = ()
    """The kinds of change under which the answer was another one."""
    retrieved: dict[str, str] = field(default_factory=dict)
    """Digests of the passages that the prompt held, by their ids, best first."""

    def to_json(self) -> dict[str, Any]:
        """The sample as JSON; what only some tasks have is left out where it is empty."""
        values = ((name, getattr(self, name)) for name in self.__slots__)  # asdict would copy every value
        return {name: value for name, value in values if name not in _OPTIONAL or value != _OPTIONAL[name]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Sample:
        logprobs = data.get("choice_logprobs")
        counts = {name: tuple(cells) for name, cells in data.get("counts", {}).items()}
        return cls(
            **{
                **data,
                "gold": tuple(data["gold"]),
                "counts": counts,
                "moved": tuple(data.get("moved", ())),
                "choice_logprobs": None if logprobs is None else tuple(logprobs),
            }
        )


_OPTIONAL: dict[str, Any] = {
    "parsed": None, "scores": {}, "counts": {}, "confidences": {}, "choice_logprobs": None, "error_class": None,
    "variants": {}, "moved": (), "retrieved": {},
}  # fmt: skip
"""Left out where they are at these values."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of a scorecard with its 95 % interval (two-sided, for display)."""

    metric: str
    slice: str
    """`all`, `key=value`, or `label=value`."""
    n: int
    """Items in the denominator."""
    hits: int | None
    """Items in the numerator, for rates."""
    score: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Scorecard:
    """A run's numbers on one suite."""

    suite: str
    stage: str
    identity: str
    n: int
    n_errors: int
    n_truncated: int
    readings: tuple[Reading, ...]
    confusions: tuple[tuple[str, str, int], ...] = ()
    """(gold, answer, count) of the most frequent mistakes."""
    noise: dict[str, Any] | None = None
    """How far answers move by themselves: {"items", "flips", "upper", "max_difference", "is_sampled",
    "margin_sd"}; None where it was not measured."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scorecard:
        readings = tuple(Reading(**reading) for reading in data["readings"])
        confusions = tuple((gold, answer, count) for gold, answer, count in data["confusions"])
        return cls(**{**data, "readings": readings, "confusions": confusions})


@dataclass(frozen=True, slots=True)
class Waiver:
    """Who lets a release pass without a rule, why, and until when."""

    rule: str
    """The rule's name."""
    suite: str
    slice: str | None
    """None waives every slice of the rule."""
    who: str
    why: str
    expires: str
    """The last day on which it holds, as an ISO date."""


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What one rule says of one slice."""

    rule: str
    suite: str
    metric: str
    slice: str
    n: int
    score: float | None
    low: float | None
    """One-sided bound at `alpha` for PASS."""
    high: float | None
    """One-sided bound at `beta` for FAIL."""
    threshold: float | None
    verdict: State
    reason: str
    needed: int | None = None
    """How many more items would settle it, if the score stays as it is; None when unknown or decided."""
    design: str = "fixed"
    """`fixed` or `sequential`."""
    items_used: int | None = None
    """With a sequential design: items that the decision stands on."""
    items_saved: int | None = None
    """With a sequential design: planned items that were not needed."""
    too_small: tuple[str, ...] = ()
    """Groups with too few items to be shown within the cap, or for a threshold of their own."""
    noise: float | None = None
    """Share of answers that may change from run to run; the bound had to clear the threshold by as much."""
    waiver: Waiver | None = None
    """With WAIVED: who answers for it."""
    waived: State | None = None
    """With WAIVED: what the rule said."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RuleVerdict:
        waiver, waived = data.get("waiver"), data.get("waived")
        return cls(
            **{
                **data,
                "verdict": State(data["verdict"]),
                "too_small": tuple(data.get("too_small", ())),
                "waiver": None if waiver is None else Waiver(**waiver),
                "waived": None if waived is None else State(waived),
            }
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The AND of the rules for one stage."""

    stage: str
    identity: str
    lock: str
    """Digest of thresholds, data, template and scorers that the verdict stands on."""
    verdict: State
    rules: tuple[RuleVerdict, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Verdict:
        rules = tuple(RuleVerdict.from_json(rule) for rule in data["rules"])
        return cls(**{**data, "verdict": State(data["verdict"]), "rules": rules})
