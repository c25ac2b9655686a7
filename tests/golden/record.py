"""Keeps what a finished run has on disk as a fixture, without models and without paths of this machine.

    python tests/golden/record.py .harness/runs/demo-1a2b3c4d

Writes `tests/golden/runs/demo`. Then `HARNESS_GOLDEN=write pytest tests/tui` draws its screens anew.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "runs" / "demo"
KEPT = ("manifest.json", "lock.json", "base.json", "preflight.json", "train.json", "pick.json", "result.json")
STAGES_WITH_SAMPLES = ("base", "adapter", "q4_k_m")
NOISY_UNITS = ("tensors",)


def main(run: Path) -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for name in KEPT:
        write(TARGET / name, local(json.loads((run / name).read_text()), run))
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    events = [local(line, run) for line in lines if line.get("unit") not in NOISY_UNITS]
    (TARGET / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for path in sorted((run / "stages").rglob("*")):
        keep_stage_file(path, run)


def keep_stage_file(path: Path, run: Path) -> None:
    """Documents of every stage; samples of three stages, with their three most probable labels."""
    target = TARGET / path.relative_to(run)
    if path.suffix == ".json":
        write(target, local(json.loads(path.read_text()), run))
    elif path.name == "samples.jsonl" and path.relative_to(run / "stages").parts[0] in STAGES_WITH_SAMPLES:
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = [shorter(json.loads(line)) for line in path.read_text().splitlines()]
        target.write_text("".join(json.dumps(line) + "\n" for line in lines))


def shorter(line: dict[str, Any]) -> dict[str, Any]:
    if not line.get("label_probs"):
        return line
    ranked = sorted(line["label_probs"].items(), key=lambda item: -item[1])[:3]
    return {**line, "label_probs": {label: round(prob, 6) for label, prob in ranked}}


def local(value: Any, run: Path) -> Any:
    """The value with this machine's folders cut off its paths."""
    if isinstance(value, dict):
        return {key: local(item, run) for key, item in value.items()}
    if isinstance(value, list):
        return [local(item, run) for item in value]
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    path = Path(value)
    return str(path.relative_to(run)) if path.is_relative_to(run) else "/".join(path.parts[-2:])


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
