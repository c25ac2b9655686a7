"""The attempts that have been made on sealed items, and what error each may still spend.

Whoever tries candidates on the gate's own items until one passes releases falsely far more often than `alpha`: with
ten candidates that are all too bad, 24 to 37 % of the time. So each candidate that is judged on the same items is
counted, and attempt k spends alpha · 6/(π² k²): over all attempts, however many there are, that is alpha.

What is counted: another candidate on the same evaluation records. A candidate is the identity of the trained
adapter; the merged checkpoint and the files that are made of it are judged in a fixed sequence (see
`harness.export.pick`) and are no attempts of their own. Judging the same identity again is none either. The
records alone make the key: other thresholds, another order of the records or another name of the recipe do not
open a fresh account.

On disk: one line an attempt, each with the digest of the line before it, under a lock that the kernel drops when
a process dies. A file beside it holds how many lines there are, so that a removed last line is missed too.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import IntegrityError
from harness.evals.results import RuleVerdict, State
from harness.files import canonical_json, digest_json, parse_json, read_json, sha256_text, write_json
from harness.stats.multiplicity import alpha_for_attempt

if TYPE_CHECKING:
    from harness.data.records import Record
    from harness.specs.gate import Gate

LEDGER = "attempts.jsonl"
HEAD = "attempts.head.json"
START = "0" * 64
"""What the first line names as the line before it."""
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
        self._path = home / LEDGER
        self._head = home / HEAD

    def enter(self, items: str, identity: str, run: str, *, spend: bool = True) -> Attempt:
        """Which attempt the candidate is; written down before this returns, unless it was known.

        Raises:
            IntegrityError: a line was changed, removed or put in.
        """
        with self._locked():
            lines = self._lines()
            known = _identities(lines, items)
            if identity not in known:
                self._append(lines, {"items": items, "identity": identity, "run": run})
                known.append(identity)
            return Attempt(known.index(identity) + 1, items, identity, spend)

    def find(self, items: str, identity: str, *, spend: bool = True) -> Attempt | None:
        """Which attempt the candidate was; None for one that was never judged on these items.

        Raises:
            IntegrityError: as `enter`.
        """
        if not self._path.exists() and not self._head.exists():
            return None
        with self._locked():
            known = _identities(self._lines(), items)
        return Attempt(known.index(identity) + 1, items, identity, spend) if identity in known else None

    def _append(self, lines: Sequence[Mapping[str, Any]], entry: dict[str, Any]) -> None:
        before = sha256_text(canonical_json(lines[-1])) if lines else START
        when = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"n": len(lines) + 1, "before": before, "time": when, **entry}
        data = (canonical_json(line) + "\n").encode()
        with self._path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._write_head([*lines, line])

    def _lines(self) -> list[dict[str, Any]]:
        """The lines whose chain holds. A torn last line, which no process got to see finished, is cut off."""
        data = self._path.read_bytes() if self._path.exists() else b""
        whole, newline, torn = data.rpartition(b"\n")
        if torn:
            os.truncate(self._path, len(whole) + len(newline))
        lines = [
            self._parse(line, number) for number, line in enumerate(whole.split(b"\n") if whole else [], 1)
        ]
        self._check_chain(lines)
        self._check_head(lines)
        return lines

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        value = parse_json(line, name=f"{self._path} line {number}")
        if not isinstance(value, dict) or not {"n", "before", "items", "identity"} <= value.keys():
            raise self._tampered(f"line {number} is no attempt")
        return value

    def _check_chain(self, lines: Sequence[Mapping[str, Any]]) -> None:
        before = START
        for number, line in enumerate(lines, 1):
            if line["n"] != number or line["before"] != before:
                raise self._tampered(f"line {number} does not follow the line before it")
            before = sha256_text(canonical_json(line))

    def _check_head(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if not self._head.exists():
            if len(lines) > 1:  # the first line's head may not have been written when the process was killed
                raise self._tampered(f"{self._head.name} is gone")
        else:
            head = read_json(self._head)
            kept = lines[: head["n"]]
            if len(kept) < head["n"] or len(lines) > head["n"] + 1 or _last_digest(kept) != head["last"]:
                raise self._tampered(f"{head['n']} attempts were written down, {len(lines)} are there")
        if lines:
            self._write_head(lines)

    def _write_head(self, lines: Sequence[Mapping[str, Any]]) -> None:
        head = {"n": len(lines), "last": _last_digest(lines)}
        if not self._head.exists() or read_json(self._head) != head:
            write_json(self._head, head)

    def _tampered(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"TAMPERED: {self._path}: {what}",
            hint="bring the file back: without it nobody knows how often these items were tried",
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _last_digest(lines: Sequence[Mapping[str, Any]]) -> str:
    return sha256_text(canonical_json(lines[-1])) if lines else START


def _identities(lines: Sequence[Mapping[str, Any]], items: str) -> list[str]:
    return [str(line["identity"]) for line in lines if line["items"] == items]
