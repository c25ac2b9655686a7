"""A betting test that may be looked at after every item, and stops as soon as it knows.

Two players start with 1. One bets that the mean score is above the threshold, the other that it is below; each
bet is fair or worse for a player who is wrong, so a wrong player reaches 1/alpha with probability alpha at most,
however often one looks (Ville). Bets are sized for the items that are left, as in Waudby-Smith & Ramdas (2024)
and Voráček & Orabona (2025, arXiv 2505.22422).

The order of the items has to be random and fixed before the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.errors import StatsError
from harness.stats.tails import require_probability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Decision = Literal["PASS", "FAIL"]
PRIOR_ITEMS = 20.0
"""Weight of the guessed variance, in items."""
LEAST_VARIANCE = 1e-6
LEAST_GOAL = 0.05
"""Log-wealth that a bet aims at when the goal is nearly reached or passed."""
BOLDEST = 0.9
"""Share of the wealth that a bet can lose at most."""


@dataclass(frozen=True, slots=True)
class Claim:
    """ "The mean score is at least `threshold`", with the errors that may be made and the items to be had."""

    threshold: float
    n_max: int
    """Items, or clusters, that the run has at most; bets are sized for it. Not a limit of validity."""
    alpha: float = 0.05
    beta: float = 0.05
    low: float = 0.0
    """Least possible score."""
    high: float = 1.0
    """Greatest possible score."""
    prior_variance: float | None = None
    """Guess of a score's variance after scaling to [0, 1]; None takes that of a rate at the threshold."""

    def __post_init__(self) -> None:
        require_probability("alpha", self.alpha)
        require_probability("beta", self.beta)
        if not self.low < self.threshold < self.high:
            raise StatsError(
                f"threshold {self.threshold:g}: wanted between {self.low:g} and {self.high:g}, exclusive"
            )
        if self.n_max < 1:
            raise StatsError(f"n_max = {self.n_max}: wanted 1 or more")

    @property
    def scaled(self) -> float:
        """The threshold on a scale from 0 to 1."""
        return (self.threshold - self.low) / (self.high - self.low)

    @property
    def variance(self) -> float:
        """The guessed variance of a scaled score."""
        return self.scaled * (1.0 - self.scaled) if self.prior_variance is None else self.prior_variance


def paired_claim(
    margin: float, n_max: int, discordance: float, alpha: float = 0.05, beta: float = 0.05
) -> Claim:
    """The claim "candidate minus baseline is at least -margin", for scores of -1, 0 and 1 an item.

    `discordance` is a guess of the share of items on which exactly one model is right; a wrong guess costs
    items, never validity.
    """
    return Claim(-margin, n_max, alpha, beta, -1.0, 1.0, discordance / 4.0)


class Outcome(NamedTuple):
    """Where a sequential test stands."""

    decision: Decision | None
    """None while it is open."""
    n: int
    """Items used: up to the decision where there is one."""
    pass_p: float
    """Anytime-valid p-value against "the mean is below the threshold"."""
    fail_p: float
    """Anytime-valid p-value against "the mean is at the threshold or above"."""


class Betting:
    """The two players and their wealth. The first to reach its goal decides; nothing after that matters."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        # Kept beside the claim, as they are needed with each of many thousand items.
        self._m, self._span = claim.scaled, claim.high - claim.low
        self._goal_for, self._goal_against = -math.log(claim.alpha), -math.log(claim.beta)
        self._boldest_for, self._boldest_against = BOLDEST / self._m, BOLDEST / (1.0 - self._m)
        self._n = 0
        self._score_sum = PRIOR_ITEMS * claim.scaled
        self._variance_sum = PRIOR_ITEMS * claim.variance
        self._for = self._against = 0.0
        self._best_for = self._best_against = 0.0
        self._decision: Decision | None = None

    def add(self, score: float) -> Decision | None:
        """The decision after one more score, None while it is open.

        Raises:
            StatsError: the score is outside the claim's range, or not a number.
        """
        if self._decision is None:
            self._bet(self._scale(score))
        return self._decision

    def extend(self, scores: Iterable[float]) -> Outcome:
        """Where the test stands after these scores, of which those after a decision are not read."""
        for score in scores:
            if self.add(score) is not None:
                break
        return self.outcome

    @property
    def outcome(self) -> Outcome:
        return Outcome(
            self._decision,
            self._n,
            math.exp(-max(0.0, self._best_for)),
            math.exp(-max(0.0, self._best_against)),
        )

    def _bet(self, x: float) -> None:
        gain = x - self._m
        variance = max(self._variance_sum / (PRIOR_ITEMS + self._n), LEAST_VARIANCE)
        items = variance * max(self.claim.n_max - self._n, 1)
        goal_for = max(self._goal_for - self._for, LEAST_GOAL)
        goal_against = max(self._goal_against - self._against, LEAST_GOAL)
        stake_for = min(math.sqrt(2.0 * goal_for / items), self._boldest_for)
        stake_against = min(math.sqrt(2.0 * goal_against / items), self._boldest_against)
        self._for += math.log1p(stake_for * gain)
        self._against += math.log1p(-stake_against * gain)
        self._learn(x)
        self._settle()

    def _learn(self, x: float) -> None:
        self._n += 1
        self._score_sum += x
        mean = self._score_sum / (PRIOR_ITEMS + self._n)
        self._variance_sum += (x - mean) ** 2

    def _settle(self) -> None:
        self._best_for = max(self._best_for, self._for)
        self._best_against = max(self._best_against, self._against)
        if self._for >= self._goal_for:
            self._decision = "PASS"
        elif self._against >= self._goal_against:
            self._decision = "FAIL"

    def _scale(self, score: float) -> float:
        claim = self.claim
        if not claim.low <= score <= claim.high:
            raise StatsError(f"score {score!r}: wanted a number from {claim.low:g} to {claim.high:g}")
        return (score - claim.low) / self._span


class Simulated(NamedTuple):
    """What became of many runs; all arrays of shape (runs,)."""

    passes: NDArray[np.bool_]
    fails: NDArray[np.bool_]
    n: NDArray[np.int64]


def simulate(claim: Claim, scores: Floats) -> Simulated:
    """The outcome of many runs at once: `Betting` over each row of `scores`, shape (runs, items)."""
    import numpy as np

    runs, items = scores.shape
    x_all = (scores - claim.low) / (claim.high - claim.low)
    m, log_pass, log_fail = claim.scaled, -math.log(claim.alpha), -math.log(claim.beta)
    score_sum, variance_sum = np.full(runs, PRIOR_ITEMS * m), np.full(runs, PRIOR_ITEMS * claim.variance)
    for_, against = np.zeros(runs), np.zeros(runs)
    done = Simulated(np.zeros(runs, bool), np.zeros(runs, bool), np.full(runs, items))
    for t in range(items):
        x = x_all[:, t]
        left = np.maximum(variance_sum / (PRIOR_ITEMS + t), LEAST_VARIANCE) * max(claim.n_max - t, 1)
        stake_for = np.minimum(np.sqrt(2.0 * np.maximum(log_pass - for_, LEAST_GOAL) / left), BOLDEST / m)
        stake_against = np.sqrt(2.0 * np.maximum(log_fail - against, LEAST_GOAL) / left)
        for_ += np.log1p(stake_for * (x - m))
        against += np.log1p(-np.minimum(stake_against, BOLDEST / (1.0 - m)) * (x - m))
        score_sum += x
        variance_sum += (x - score_sum / (PRIOR_ITEMS + t + 1)) ** 2
        is_open = ~(done.passes | done.fails)
        passes = is_open & (for_ >= log_pass)
        fails = is_open & ~passes & (against >= log_fail)
        done.passes[passes], done.fails[fails] = True, True
        done.n[passes | fails] = t + 1
    return done
