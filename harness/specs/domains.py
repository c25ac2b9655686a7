"""What each domain's work looks like: the method that suits it, its data, its latency, what matters most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from harness.specs.suite import Domain


class Range(NamedTuple):
    """How many records."""

    least: int
    most: int


class DomainAdvice(NamedTuple):
    """One row of the guide's table."""

    work: str
    method: Literal["lora", "conservative", "small_lora", "smallest", "sft"]
    uses_retrieval: bool
    records: Range | None
    latency: Literal["relaxed", "medium", "low", "very low"]
    matters: tuple[str, ...]


DOMAINS: Mapping[Domain, DomainAdvice] = {
    "healthcare": DomainAdvice(
        "clinical summaries, coding", "lora", True, Range(10_000, 100_000), "relaxed",
        ("calibration and abstention", "subgroup bias", "human in the loop"),
    ),
    "finance": DomainAdvice(
        "risk reports, numeric answers", "conservative", True, Range(5_000, 50_000), "medium",
        ("factuality of every number", "calibration", "review time"),
    ),
    "legal": DomainAdvice(
        "clauses", "lora", True, Range(5_000, 20_000), "medium",
        ("precision and recall per clause type", "consistency", "legal-risk review"),
    ),
    "support": DomainAdvice(
        "triage, draft replies", "small_lora", True, Range(1_000, 50_000), "low",
        ("satisfaction A/B", "latency", "drift"),
    ),
    "ecommerce": DomainAdvice(
        "descriptions", "smallest", False, Range(1_000, 20_000), "very low",
        ("conversion A/B", "content safety", "fairness across audiences"),
    ),
    "science": DomainAdvice(
        "extraction, summaries", "sft", True, None, "relaxed",
        ("factuality", "provenance", "expert review", "reproducibility"),
    ),
    "shared": DomainAdvice("no domain of its own", "lora", False, None, "medium", ()),
}  # fmt: skip

LATENCY_MS: Mapping[str, float] = {"low": 500.0, "very low": 150.0}
"""What `low` and `very low` are taken for where nobody says a number."""
