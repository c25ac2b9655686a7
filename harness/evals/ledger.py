"""The attempts that have been made on sealed items, and what error each may still spend.

Whoever tries candidates on the gate's own items until one passes releases falsely far more often than `alpha`: with
ten candidates that are all too bad, 24 to 37 % of the time. So each candidate that is judged on the same items is
counted, and attempt k spends alpha · 6/(π² k²): over all attempts, however many there are, that is alpha.

What is counted: another candidate on the same evaluation records. A candidate is the identity of the trained
adapter; the merged checkpoint and the files that are made of it are judged in a fixed sequence (see
`harness.export.pick`) and are no attempts of their own. Judging the same identity again is none either. The
records alone make the key: other thresholds, another order of the records or another name of the recipe do not
open a fresh account.

On disk it is a `harness.evals.chain.Chain`, so that no attempt can be taken back unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.evals.chain import Chain
from harness.evals.results import RuleVerdict, State
from harness.files import canonical_json, digest_json
from harness.stats.multiplicity import alpha_for_attempt

if TYPE_CHECKING:
    from harness.data.records import Record
    from harness.specs.gate import Gate

LEDGER = "attempts.jsonl"
METRIC = "attempt"


class Attempt(NamedTuple):
    """Which attempt on these items a candidate is."""

    number: int
    """From 1."""
    items: str
    """Digest of the sealed records."""
    identity: str
    """Of the candidate."""
    is_spent: bool
    """Whether the rules are held to the attempt's share of alpha; counted alone where not."""

    def alpha(self, alpha: float) -> float:
        """What a rule with this `alpha` may spend on the attempt."""
        return alpha_for_attempt(alpha, self.number) if self.is_spent else alpha

    def hold(self, gates: Sequence[Gate]) -> tuple[Gate, ...]:
        """The rules with the alpha that this attempt may spend."""
        return tuple(gate.model_copy(update={"alpha": self.alpha(gate.alpha)}) for gate in gates)

    def rule(self, suite: str, gates: Sequence[Gate]) -> RuleVerdict:
        """What the verdict shows of the attempt; it never blocks, and is no proof of quality."""
        alpha = max((gate.alpha for gate in gates), default=0.05)
        if self.is_spent:
            reason = f"attempt {self.number} on these items: alpha {self.alpha(alpha):.3g} of {alpha:g} is spent on it"
        else:
            bound = min(1.0, self.number * alpha)
            reason = (
                f"attempt {self.number} on these items, counted and not spent: over all of them a false release has "
                f"probability {bound:.3g} at most"
            )
        return RuleVerdict(
            rule="attempts on the same items", suite=suite, metric=METRIC, slice="all", n=self.number, score=None,
            low=None, high=None, threshold=None, verdict=State.PASS, reason=reason,
        )  # fmt: skip


def sealed_digest(records: Mapping[str, Sequence[Record]]) -> str:
    """The key of an account: what the evaluation records of each suite ask and want, in whatever order they stand.

    Names have no part in it: records with other ids, units or slices are still the same items.
    """
    return digest_json(sorted(sorted(map(_question, of)) for of in records.values()))


def _question(record: Record) -> str:
    return canonical_json([record.input, record.context, list(record.options), list(record.targets)])


class Ledger:
    """The attempts of one harness home."""

    def __init__(self, home: Path) -> None:
        hint = "bring the file back: without it nobody knows how often these items were tried"
        self._chain = Chain(home / LEDGER, keys=("items", "identity"), hint=hint)

    def enter(self, items: str, identity: str, run: str, *, spend: bool = True) -> Attempt:
        """Which attempt the candidate is; written down before this returns, unless it was known.

        Raises:
            IntegrityError: a line was changed, removed or put in.
        """
        when = datetime.now(UTC).isoformat(timespec="seconds")
        entries = self._chain.append_unless(
            {"time": when, "items": items, "identity": identity, "run": run},
            lambda known: identity in _identities(known, items),
        )
        return Attempt(_identities(entries, items).index(identity) + 1, items, identity, spend)

    def find(self, items: str, identity: str, *, spend: bool = True) -> Attempt | None:
        """Which attempt the candidate was; None for one that was never judged on these items.

        Raises:
            IntegrityError: as `enter`.
        """
        known = _identities(self._chain.entries(), items)
        return Attempt(known.index(identity) + 1, items, identity, spend) if identity in known else None


def _identities(entries: Sequence[Mapping[str, Any]], items: str) -> list[str]:
    return [str(entry["identity"]) for entry in entries if entry["items"] == items]
