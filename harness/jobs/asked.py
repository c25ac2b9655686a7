"""What a finished run asked: its prompts, made again from its documents and proved by their digest."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.evals.answers import requests_digest
from harness.evals.run import Work, build_requests
from harness.evals.samples import Header
from harness.jobs.evaluate import work_of
from harness.jobs.orders import load_order
from harness.models.base import Prompt


def inputs_of(manifest: Mapping[str, Any], stage: str, suite: str, header: Header | None) -> dict[str, str]:
    """The prompt of each sample by id; empty where today's documents do not give the very prompts that were asked."""
    with suppress(HarnessError, OSError, KeyError):
        work = _work(manifest, stage, suite)
        requests = build_requests(work) if work else []
        if header is not None and requests_digest(requests) == header.requests:
            return {request.id: _text(request.prompt) for request in requests}
    return {}


def _work(manifest: Mapping[str, Any], stage: str, suite: str) -> Work | None:
    options = manifest["options"]
    if manifest["job"] == "eval":
        return work_of(options)
    if manifest["job"] != "release":
        return None
    data_root = Path(options["data_root"]) if options["data_root"] else None
    loaded = load_order(Path(options["recipe"]), data_root)
    records, train = (tuple(loaded.splits[suite][split]) for split in ("eval", "train"))
    return Work(stage, loaded.suites[suite], loaded.labels[suite], records, train)


def _text(prompt: Prompt) -> str:
    """Raw text as it is; a conversation turn by turn, each under its role where there are several."""
    if prompt.text is not None:
        return prompt.text
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return "\n\n".join(f"{message.role}:\n{message.content}" for message in prompt.messages)
