"""What a model's answers looked like when it was judged: counts that later traffic can be held against.

No text of a record goes in: numbers, the suite's labels and the values of its slices alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.evals.results import Sample

CONFIDENCE_EDGES = tuple(step / 20.0 for step in range(1, 20))
"""The same for every release, so that releases compare."""
PARTS = 10
"""Bins of a count of tokens: tenths of the reference itself."""
LEVELS = tuple(step / 20.0 for step in range(21))
"""Shares at which quantiles are kept."""
NO_ANSWER = "(none)"


def reference_of(samples: Sequence[Sample], *, slices: Sequence[str], is_labelled: bool) -> dict[str, Any]:
    """The distributions of one suite's samples, as JSON.

    `confidence`, `prompt_tok` and `output_tok` are {n, mean, levels, quantiles, edges, counts}, None where nothing
    is known; counts are of values below the first edge, from each edge on below the next, and from the last on.
    `answers` counts labels, for suites that have them, and `slices` the values of each key; an item can have several.
    """
    confidences = [sample.confidence for sample in samples if sample.confidence is not None]
    return {
        "n": len(samples),
        "units": len({sample.unit for sample in samples}),
        "errors": sum(sample.error is not None for sample in samples),
        "truncated": sum(sample.is_truncated for sample in samples),
        "answers": _answers(samples) if is_labelled else None,
        "confidence": distribution(confidences, CONFIDENCE_EDGES),
        "prompt_tok": _lengths([sample.prompt_tok for sample in samples]),
        "output_tok": None if is_labelled else _lengths([sample.output_tok for sample in samples]),
        "slices": {key: _values(samples, key) for key in slices},
    }


def distribution(values: Sequence[float], edges: Sequence[float]) -> dict[str, Any] | None:
    """The values as counts between the edges, with their mean and quantiles; None where there are none.

    Quantiles are values themselves: the least that has at least that share at or below it.
    """
    known = sorted(value for value in values if math.isfinite(value))
    if not known:
        return None
    counts = Counter(bisect_right(edges, value) for value in known)
    return {
        "n": len(known),
        "mean": math.fsum(known) / len(known),
        "levels": list(LEVELS),
        "quantiles": [known[max(0, math.ceil(level * len(known)) - 1)] for level in LEVELS],
        "edges": list(edges),
        "counts": [counts[place] for place in range(len(edges) + 1)],
    }


def _lengths(counts_tok: Sequence[int]) -> dict[str, Any] | None:
    """As `distribution`, between tenths of the values themselves; None where no length is known."""
    known = sorted(
        count for count in counts_tok if count > 0
    )  # 0 is what an answer says that counts no tokens
    tenths = {known[max(0, math.ceil(part / PARTS * len(known)) - 1)] for part in range(1, PARTS) if known}
    return distribution(known, sorted(tenths))


def _answers(samples: Sequence[Sample]) -> dict[str, int]:
    return dict(sorted(Counter(NO_ANSWER if one.answer is None else one.answer for one in samples).items()))


def _values(samples: Sequence[Sample], key: str) -> Mapping[str, int]:
    found: Counter[str] = Counter()
    for sample in samples:
        value = sample.slices.get(key, ())
        found.update([value] if isinstance(value, str) else value)
    return dict(sorted(found.items()))
