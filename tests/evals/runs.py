"""Run folders with the few files that a comparison reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.evals.results import Sample
from harness.files import write_json


def write_run(folder: Path, *, lock: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A run folder with its manifest; with `lock`, also the parts of its lock."""
    recipe = {"recipe": "r", "tune": {"rank": 16}, "gates": [{"metric": "accuracy", "at_least": 0.8}]}
    suite = {"suite": "s", "prompt": {"user": "{input}"}}
    manifest = {
        "format": 1, "run": folder.name, "job": "release", "title": "t", "created": "2026-11-22T09:00:00+00:00",
        "command": [], "document": {"recipe": recipe, "suites": {"s": suite}}, "lock": (lock or {}).get("digest", "l"),
        "options": {"base": "embedded:m", "until": "release"}, "harness": "0.1.0",
    }  # fmt: skip
    write_json(folder / "manifest.json", {**manifest, **changes})
    if lock:
        write_json(folder / "lock.json", lock)
    return folder


def write_stage(
    folder: Path, stage: str, samples: Sequence[Sample], *, suite: str = "s", identity: str = "m", requests: str = "q"
) -> Path:  # fmt: skip
    """The stage's samples, as one finished batch."""
    path = folder / "stages" / stage / suite / "samples.jsonl"
    path.parent.mkdir(parents=True)
    lines = [
        {"header": {"identity": identity, "requests": requests}},
        *(sample.to_json() for sample in samples),
        {"batch": 0, "n": len(samples)},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
