"""Small evidence, said in few words."""

from __future__ import annotations

from harness.evals.gate import Evidence
from harness.evals.results import Sample
from harness.specs.gate import Gate


def sample(number: int, *, right: bool = True, **changes: object) -> Sample:
    values: dict[str, object] = {
        "id": f"r{number}", "gold": ("a",), "answer": "a" if right else "b", "score": float(right),
        "slices": {}, "unit": f"r{number}", "prompt_digest": "d",
    }  # fmt: skip
    return Sample(**{**values, **changes})  # type: ignore[arg-type]


def samples(hits: int, n: int, **changes: object) -> list[Sample]:
    return [sample(number, right=number < hits, **changes) for number in range(n)]


def evidence(hits: int, n: int, **changes: object) -> Evidence:
    return Evidence(samples(hits, n), max_error_frac=0.02, **changes)  # type: ignore[arg-type]


def gate(**values: object) -> Gate:
    return Gate.model_validate({"metric": "accuracy", **values})
