"""Which file ships: of those that pass every rule and fit the device, the smallest, fastest or best.

All files are judged on the same items, so taking the smallest of those that happen to pass would be choosing by the
gate: of k files that are all too bad, one would slip through with up to k · alpha. The files are therefore tried in a
fixed sequence, from the largest to the smallest, and the first that does not pass ends it. To ship a file that is too
bad, the first such file of the sequence must pass falsely, which happens with probability alpha, however many files
there are (Maurer, Hothorn & Lehmacher 1995; Westfall & Krishen 2001, J. Statistical Planning and Inference 99, 25-40).
The order is that of their sizes, which know nothing of the answers.

A file that can't ship whatever it answers (it is too far from the 16-bit file on the development split, or too large
for the device) is not of the sequence: it is neither tried nor does it end it. All that passed in the sequence have
been proven at alpha together, so which of them ships may follow from their speed or their distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

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
    top1: float | None = None
    """Share of positions where it finds the 16-bit file's most probable token most probable too."""
    decode_ms: float | None = None
    """A token, written one after another on the machine that exported."""
    prompt_tok_s: float | None = None
    variant: str = ""
    """How it was rounded, beyond its type."""


Aim = Literal["smallest", "fastest", "best"]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one candidate, with all that a Pareto front of size, speed, memory and quality is drawn from."""

    quant: str
    bytes: int
    is_picked: bool
    reason: str
    mean_kl: float | None
    top1: float | None
    memory_mb: float | None
    decode_ms: float | None
    prompt_tok_s: float | None
    variant: str
    verdict: str | None
    """None where it was not judged."""
    is_pareto: bool
    """No other is at least as good in size, speed, memory and distance, and better in one of them."""


@dataclass(frozen=True, slots=True)
class CacheRow:
    """What the picked file does with one type of keys and values."""

    type: str
    bytes_per_tok: float
    """Of all layers together."""
    mean_kl: float | None
    """From the 16-bit file with a 16-bit cache; None where llama.cpp can't run it."""
    verdict: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The picked file, and a row for each candidate in their order."""

    picked: str | None
    """None when no candidate may ship."""
    rows: tuple[Row, ...]
    aim: Aim = "smallest"
    caches: tuple[CacheRow, ...] = ()
    """Types of keys and values that the picked file was judged with."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pick(
    candidates: Sequence[Candidate],
    device: Device,
    *,
    max_mean_kl: float | None = None,
    aim: Aim = "smallest",
) -> Choice:
    """The candidate that ships; of two equal ones the one nearer to its parent."""
    end = _sequence_end(candidates, device, max_mean_kl)
    obstacles = {one.quant: obstacle(one, device, max_mean_kl, end) for one in candidates}
    able = [one for one in candidates if obstacles[one.quant] is None]
    best = min(able, key=lambda one: _preference(one, aim), default=None)
    front = pareto(candidates)
    rows = (
        Row(
            one.quant, one.bytes, one is best, obstacles[one.quant] or _comparison(one, best, aim), one.mean_kl,
            one.top1, one.memory_mb, one.decode_ms, one.prompt_tok_s, one.variant,
            None if one.verdict is None else one.verdict.verdict.value, one.quant in front,
        )
        for one in candidates
    )  # fmt: skip
    return Choice(best.quant if best else None, tuple(rows), aim)


def sequence(candidates: Sequence[Candidate], device: Device, max_mean_kl: float | None) -> list[Candidate]:
    """Those that could ship, in the order in which they are tried; no verdict is looked at."""
    able = [one for one in candidates if _premise(one, device, max_mean_kl) is None]
    return sorted(able, key=lambda one: (-one.bytes, one.quant))


def pareto(candidates: Sequence[Candidate]) -> set[str]:
    """Quants that no other beats; what was not measured beats nothing."""

    def beats(one: Candidate, other: Candidate) -> bool:
        known = [(a, b) for a, b in zip(_measures(one), _measures(other), strict=True) if b is not None]
        return all(a is not None and a <= b for a, b in known) and any(
            a is not None and a < b for a, b in known
        )

    return {one.quant for one in candidates if not any(beats(other, one) for other in candidates)}


def _measures(one: Candidate) -> tuple[float | None, ...]:
    return one.bytes, one.decode_ms, one.memory_mb, one.mean_kl


def _sequence_end(
    candidates: Sequence[Candidate], device: Device, max_mean_kl: float | None
) -> Candidate | None:
    """The first of the sequence that does not pass; None where all do."""
    tried = sequence(candidates, device, max_mean_kl)
    return next((one for one in tried if one.verdict is None or one.verdict.verdict is not State.PASS), None)


def _preference(one: Candidate, aim: Aim) -> tuple[float, float, float, str]:
    unknown = float("inf")
    distance = unknown if one.mean_kl is None else one.mean_kl
    slowness = unknown if one.decode_ms is None else one.decode_ms
    first = {"smallest": float(one.bytes), "fastest": slowness, "best": distance}[aim]
    return first, distance, float(one.bytes), one.quant


def obstacle(
    one: Candidate, device: Device, max_mean_kl: float | None, end: Candidate | None = None
) -> str | None:
    """Why the candidate may not ship, in words; None when nothing stands in its way.

    `end` is the first of the sequence that does not pass.
    """
    if one.verdict is not None and one.verdict.verdict is not State.PASS:
        return _blocking(one.verdict)
    if premise := _premise(one, device, max_mean_kl):
        return premise
    if end is not None and one is not end and one.bytes <= end.bytes:
        if one.verdict is None:
            return f"not judged: the larger {end.quant} does not pass{_ENDED}"
        return f"passes, but the larger {end.quant} does not{_ENDED}"
    return "not judged" if one.verdict is None else None


_ENDED = ", and that ended the sequence of tries"


def _premise(one: Candidate, device: Device, max_mean_kl: float | None) -> str | None:
    """What stands in the way whatever it answers; None when nothing does."""
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


def _comparison(one: Candidate, best: Candidate | None, aim: Aim) -> str:
    assert best is not None  # a candidate without an obstacle is a best one's rival, or the best
    if one is best:
        return f"passes every rule and is the {aim} that does"
    if aim == "smallest":
        return f"passes, and is {one.bytes / best.bytes - 1.0:.0%} larger than {best.quant}"
    if aim == "fastest" and one.decode_ms is not None and best.decode_ms is not None:
        return f"passes, and takes {one.decode_ms:.1f} ms a token, {best.quant} {best.decode_ms:.1f}"
    if aim == "best" and one.mean_kl is not None and best.mean_kl is not None:
        return f"passes, and its mean KL is {one.mean_kl:.3g}, that of {best.quant} {best.mean_kl:.3g}"
    return f"passes, and what {best.quant} is picked for was not measured on it"
