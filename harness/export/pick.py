"""Which file ships: the smallest that passes every rule and fits the device, and why each other does not.

All files are judged on the same items, so taking the smallest of those that happen to pass would be choosing by the
gate: of k files that are all too bad, one would slip through with up to k · alpha. The files are therefore tried in a
fixed sequence, from the largest to the smallest, and the first that does not pass ends it. To ship a file that is too
bad, the first such file of the sequence must pass falsely, which happens with probability alpha, however many files
there are (Maurer, Hothorn & Lehmacher 1995; Westfall & Krishen 2001, J. Statistical Planning and Inference 99, 25-40).
The order is that of their sizes, which know nothing of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.evals.results import RuleVerdict, State, Verdict
from harness.specs.device import Device


@dataclass(frozen=True, slots=True)
class Candidate:
    """One quantized file with all that was measured on it."""

    quant: str
    bytes: int
    verdict: Verdict | None
    """None when it was never judged."""
    mean_kl: float | None = None
    """From the 16-bit file, in nats a token."""
    memory_mb: float | None = None
    """Most memory that a process running it held; None when it was not measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one candidate."""

    quant: str
    bytes: int
    is_picked: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The picked file, and a row for each candidate in their order."""

    picked: str | None
    """None when no candidate may ship."""
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pick(candidates: Sequence[Candidate], device: Device, *, max_mean_kl: float | None = None) -> Choice:
    """The smallest candidate that passes; of two equally small ones the one nearer to its parent."""
    end = _sequence_end(candidates)
    obstacles = {
        one.quant: obstacle(one, device, max_mean_kl) or _out_of_sequence(one, end) for one in candidates
    }
    able = [one for one in candidates if obstacles[one.quant] is None]
    best = min(able, key=_preference, default=None)
    rows = (
        Row(one.quant, one.bytes, one is best, obstacles[one.quant] or _comparison(one, best))
        for one in candidates
    )
    return Choice(best.quant if best else None, tuple(rows))


def _sequence_end(candidates: Sequence[Candidate]) -> Candidate | None:
    """The first file, from the largest to the smallest, that does not pass; None where all do."""
    ladder = sorted(candidates, key=lambda one: -one.bytes)
    return next((one for one in ladder if one.verdict is None or one.verdict.verdict is not State.PASS), None)


def _out_of_sequence(one: Candidate, end: Candidate | None) -> str | None:
    if end is None or one.bytes > end.bytes:
        return None
    return f"passes, but the larger {end.quant} does not, and that ended the sequence of tries"


def _preference(one: Candidate) -> tuple[int, float, str]:
    return one.bytes, float("inf") if one.mean_kl is None else one.mean_kl, one.quant


def obstacle(one: Candidate, device: Device, max_mean_kl: float | None) -> str | None:
    """Why the candidate may not ship, in words; None when nothing stands in its way."""
    if one.verdict is None:
        return "not judged"
    if one.verdict.verdict is not State.PASS:
        return _blocking(one.verdict)
    if max_mean_kl is not None and one.mean_kl is None:
        return "its distance from the 16-bit file was not measured"
    if max_mean_kl is not None and one.mean_kl is not None and not one.mean_kl <= max_mean_kl:
        return f"mean KL {one.mean_kl:.3g} nats a token is over {max_mean_kl:g}"
    # The weights alone are a lower bound for what was not measured.
    needed_mb = one.bytes / 2**20 if one.memory_mb is None else max(one.memory_mb, one.bytes / 2**20)
    if needed_mb > device.memory_mb:
        return f"needs {needed_mb:,.0f} MiB, {device.name} has {device.memory_mb:,}"
    return None


def _blocking(verdict: Verdict) -> str:
    failed = [rule for rule in verdict.rules if rule.verdict is State.FAIL]
    open_ones = [rule for rule in verdict.rules if rule.verdict is State.INCONCLUSIVE]
    blocking = failed or open_ones
    if not blocking:
        return f"{verdict.verdict}: no rule was measured"
    more = f", and {len(blocking) - 1} more" if len(blocking) > 1 else ""
    return f"{verdict.verdict}: {describe_rule(blocking[0])}{more}"


def describe_rule(rule: RuleVerdict) -> str:
    """The rule, its slice and the reason, in one line."""
    where = "" if rule.slice == "all" else f" · {rule.slice}"
    return f"{rule.rule}{where}: {rule.reason}"


def _comparison(one: Candidate, best: Candidate | None) -> str:
    assert best is not None  # a candidate without an obstacle is a best one's rival, or the best
    if one is best:
        return "passes every rule and is the smallest that does"
    return f"passes, and is {one.bytes / best.bytes - 1.0:.0%} larger than {best.quant}"
