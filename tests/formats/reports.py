"""Verdicts for reports, said in few words."""

from __future__ import annotations

from typing import Any

from harness.evals.results import RuleVerdict, State, Verdict
from harness.formats.report import Report


def rule(state: State = State.PASS, **changes: Any) -> RuleVerdict:
    values = {
        "rule": "accuracy at least 0.8", "suite": "legal", "metric": "accuracy", "slice": "all", "n": 100,
        "score": 0.9, "low": 0.83, "high": 0.95, "threshold": 0.8, "verdict": state, "reason": "because",
    }  # fmt: skip
    return RuleVerdict(**{**values, **changes})


def verdict(*rules: RuleVerdict, state: State = State.PASS, stage: str = "q4_0") -> Verdict:
    return Verdict(stage, "1" * 64, "2" * 64, state, rules)


def report(*verdicts: Verdict, **changes: Any) -> Report:
    return Report("demo-1a2b", verdicts, **changes)
