"""From a number with its bounds to what a rule says, and which failures stand among many slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from harness.evals.results import RuleVerdict, State
from harness.specs.gate import Gate


class Bounds(NamedTuple):
    """A rule's number with its one-sided bounds."""

    n: int
    score: float | None
    low: float | None
    high: float | None
    reason: str = ""
    """Why there is no number, or what else a reader must know."""
    needed: Callable[[], int | None] = lambda: None
    """Items still missing if today's score stays; asked only where the rule is undecided."""
    worth: float | None = None
    """Independent items that the items are worth; None where that makes no sense."""
    discordant: tuple[int, int] | None = None
    """For paired rules: items that the baseline alone, and the candidate alone, has right."""


class Compared(NamedTuple):
    """The values that a verdict compares bounds with."""

    low_at: float
    """Shown where the lower bound is above it."""
    high_at: float
    """Shown where the upper bound is below it."""


class Aim(NamedTuple):
    """What a bound must reach."""

    threshold: float
    wants_more: bool
    """Whether a higher number is better."""
    alpha: float
    beta: float
    is_strict: bool = False
    """Whether the bound must be beyond the threshold, and not only at it."""

    @property
    def errors(self) -> tuple[float, float]:
        """Error of the lower bound and of the upper one: the bound that a PASS needs is the one at alpha."""
        return (self.alpha, self.beta) if self.wants_more else (self.beta, self.alpha)

    def compared(self, noise: float) -> Compared:
        """The values that decide: what the lower bound must be above, and the upper one below."""
        return Compared(self.threshold + noise, self.threshold - noise)

    def passes(self, low: float | None, high: float | None, noise: float = 0.0) -> bool:
        """Whether the bounds, each moved outwards by the noise, show that the claim holds."""
        if self.wants_more:
            return low is not None and _reaches(low - noise, self.threshold, self.is_strict)
        return high is not None and _reaches(-(high + noise), -self.threshold, self.is_strict)

    def fails(self, low: float | None, high: float | None, noise: float = 0.0) -> bool:
        """Whether they show that it does not."""
        if self.wants_more:
            return high is not None and high + noise < self.threshold
        return low is not None and low - noise > self.threshold


class Measure(Protocol):
    """A slice's number with bounds at these errors."""

    def __call__(self, low_error: float, high_error: float) -> Bounds: ...


def nothing(reason: str, n: int = 0) -> Bounds:
    """No number, and why."""
    return Bounds(n, None, None, None, reason)


def aim_of(gate: Gate) -> Aim:
    """What the rule's bound must reach, for rules with a bound or a margin."""
    if gate.versus is not None:
        is_gain = gate.better_than is not None
        wanted = gate.better_than if gate.better_than is not None else -(gate.no_worse_than or 0.0)
        return Aim(wanted, True, gate.alpha, gate.beta, is_strict=is_gain)
    if gate.at_least is not None:
        return Aim(gate.at_least, True, gate.alpha, gate.beta)
    if gate.at_most is not None:
        return Aim(gate.at_most, False, gate.alpha, gate.beta)
    wanted = next((value for value in (gate.gap, gate.within) if value is not None), 0.0)
    return Aim(wanted, False, gate.alpha, gate.beta, is_strict=gate.gap is not None)


def judge_parts(
    gate: Gate, suite: str, parts: Mapping[str, Measure], *, aim: Aim | None = None, noise: float = 0.0
) -> list[RuleVerdict]:
    """What the rule says of each part. Failures of several parts stand only as far as Holm's correction lets them."""
    aim = aim or aim_of(gate)
    bounds = {name: measure(*aim.errors) for name, measure in parts.items()}
    verdicts = {name: decide(gate, suite, name, found, aim, noise) for name, found in bounds.items()}
    failing = [name for name, verdict in verdicts.items() if verdict.verdict is State.FAIL]
    standing = failing if len(parts) < 2 else _standing(failing, parts, aim, noise)
    for name in set(failing) - set(standing):
        reason = f"{verdicts[name].reason}; not shown after Holm's correction over {len(parts)} slices"
        verdicts[name] = replace(verdicts[name], verdict=State.INCONCLUSIVE, reason=reason)
    return [verdicts[name] for name in parts]


def decide(
    gate: Gate, suite: str, slice_name: str, bounds: Bounds, aim: Aim | None = None, noise: float = 0.0
) -> RuleVerdict:
    """The rule's verdict on one slice."""
    aim = aim or aim_of(gate)
    state = _state(aim, bounds, noise)
    return RuleVerdict(
        rule=gate.name, suite=suite, metric=gate.metric, slice=slice_name, n=bounds.n, score=bounds.score,
        low=bounds.low, high=bounds.high, threshold=aim.threshold, verdict=state,
        reason=reason_for(state, bounds, aim, noise),
        needed=bounds.needed() if state is State.INCONCLUSIVE and bounds.score is not None else None,
        noise=noise or None,
    )  # fmt: skip


def skipped(gate: Gate, suite: str, name: str, n: int, score: float | None) -> RuleVerdict:
    """A slice that is reported and not judged."""
    return RuleVerdict(
        rule=gate.name, suite=suite, metric=gate.metric, slice=name, n=n, score=score, low=None, high=None,
        threshold=aim_of(gate).threshold, verdict=State.SKIPPED,
        reason=f"{n} items, fewer than min_n {gate.min_n}: reported, not judged",
    )  # fmt: skip


def reason_for(state: State, bounds: Bounds, aim: Aim, noise: float = 0.0) -> str:
    """The bound that decides beside the threshold, in words."""
    if bounds.score is None:
        return bounds.reason or "no number"
    is_low = (state is not State.FAIL) == aim.wants_more
    bound = bounds.low if is_low else bounds.high
    shown = f"{'lower' if is_low else 'upper'} bound {bound:.4g}" if bound is not None else "no bound"
    relation = {State.PASS: "clears", State.FAIL: "misses"}.get(state, "does not clear")
    floor = f" by the noise floor {noise:.4g}" if noise else ""
    return f"{shown} {relation} {aim.threshold:.4g}{floor}{f'; {bounds.reason}' if bounds.reason else ''}"


def _state(aim: Aim, bounds: Bounds, noise: float) -> State:
    if bounds.score is None:
        return State.INCONCLUSIVE
    if aim.passes(bounds.low, bounds.high, noise):
        return State.PASS
    return State.FAIL if aim.fails(bounds.low, bounds.high, noise) else State.INCONCLUSIVE


def _standing(failing: Sequence[str], parts: Mapping[str, Measure], aim: Aim, noise: float) -> list[str]:
    """Holm (1979): the failures that stand, each shown at beta over the number of claims not yet rejected."""
    standing: list[str] = []
    while True:
        level = aim.beta / max(1, len(parts) - len(standing))
        tried = [name for name in failing if name not in standing]
        found = [name for name in tried if _fails_at(parts[name], aim, level, noise)]
        if not found:
            return standing
        standing += found


def _fails_at(measure: Measure, aim: Aim, level: float, noise: float) -> bool:
    bounds = measure(*aim._replace(beta=level).errors)
    return aim.fails(bounds.low, bounds.high, noise)


def _reaches(bound: float, threshold: float, is_strict: bool) -> bool:
    return bound > threshold if is_strict else bound >= threshold
