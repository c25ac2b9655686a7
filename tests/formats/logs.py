"""Logs with samples of every kind, and hostile text in all of them."""

from __future__ import annotations

from typing import Any

from harness.evals.results import Sample
from harness.formats.log import Log

HOSTILE = "\x1b]0;owned\x07 \x9b2J \x00 \ud800 =cmd|'/C calc'!A0 ]]> <![CDATA[ \u202e \ufeff 🙂"


def sample(id_: str = "a", **changes: Any) -> Sample:
    values: dict[str, Any] = {
        "id": id_, "gold": ("yes",), "answer": "yes", "score": 1.0, "slices": {}, "unit": id_, "output": "yes",
    }  # fmt: skip
    return Sample(**{**values, **changes})


def samples() -> tuple[Sample, ...]:
    """Right, wrong, in error, with several golds and slices, hostile, and a megabyte long."""
    return (
        sample("right", slices={"kind": "short", "tags": ["x", "y"]}, confidence=0.75, latency_ms=12.5,
               prompt_tok=30, output_tok=2, label_probs={"yes": 0.75, "no": 0.25}),
        sample("wrong", answer="no", output="no", score=0.0, unit="doc-1"),
        sample("broken", answer=None, output=None, score=0.0, unit="doc-1", error="no answer could be read"),
        sample("several", gold=("yes", "oui"), answer="oui", output="oui", scores={"exact": 1.0, "f1": 0.5}),
        sample("partly", score=0.5, answer="ja"),
        sample("hostile", gold=(HOSTILE,), answer=HOSTILE, output=HOSTILE, score=0.0, slices={"kind": HOSTILE}),
        sample("hostile error", answer=None, output=None, score=0.0, error=HOSTILE),
        sample("long", output="x" * 2**20, answer="x", score=0.0),
        sample("empty", answer="", output="", score=0.0),
    )  # fmt: skip


def log(*found: Sample, **changes: Any) -> Log:
    values: dict[str, Any] = {
        "task": "legal-clauses", "model": "embedded:smollm2-135m", "metric": "label", "samples": found or samples(),
        "tool": "dragongate 0.1.0", "created": "2026-11-22T11:07:43+00:00", "settings": {"run": "eval-1a2b"},
        "inputs": {"right": "Is it?", "hostile": HOSTILE},
    }  # fmt: skip
    return Log(**{**values, **changes})
