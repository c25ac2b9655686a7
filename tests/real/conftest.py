"""The public data sets, where they are: $HARNESS_DATA, or ../shared/data beside the repository."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(os.environ.get("HARNESS_DATA", Path(__file__).parents[3] / "shared" / "data"))
Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def public() -> Callable[..., Rows]:
    """The records of a public data set, one file after the other; skips where it is absent."""

    def read(name: str, *splits: str) -> Rows:
        if not (ROOT / name).is_dir():
            pytest.skip(f"no {name} at $HARNESS_DATA")
        texts = [(ROOT / name / f"{split}.jsonl").read_text("utf-8") for split in splits]
        # A text may hold U+2028, where splitlines would cut it.
        return [json.loads(line) for text in texts for line in text.split("\n") if line]

    return read
