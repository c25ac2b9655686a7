"""Models that say what a test tells them, and suites in few words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.data.records import Record, read_records
from harness.data.targets import labels_of
from harness.evals.results import Sample
from harness.evals.run import Work, evaluate
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Identity, Prompt
from harness.specs.suite import Suite

Reply = Callable[[Any], Answer]


class Told:
    """A model that answers with a function, in batches of three; it keeps what it was asked."""

    def __init__(self, reply: Reply, *, digest: str = "m", size: int = 3) -> None:
        self.identity = Identity(digest, "scripted", "", "", "", "", "")
        self.asked: list[Any] = []
        self.calls: list[list[str]] = []
        self._reply, self._size = reply, size

    def plan(self, requests: Sequence[Any]) -> list[list[int]]:
        starts = range(0, len(requests), self._size)
        return [list(range(start, min(start + self._size, len(requests)))) for start in starts]

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        return self._answers(requests)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Answer]:
        return self._answers(requests)

    def token_ids(self, prompt: Prompt) -> list[int]:
        return []

    def close(self) -> None: ...

    def _answers(self, requests: Sequence[Any]) -> Iterator[Answer]:
        self.asked += requests
        self.calls.append([request.id for request in requests])
        yield from (self._reply(request) for request in requests)


def says(*texts: str, logprobs: tuple[float, ...] | None = (-0.5, -0.1)) -> Reply:
    """Writes the text whose place is the number in the request's id, the last one for all that follow."""
    return lambda request: Answer(
        request.id, text=texts[min(int(request.id[1:]), len(texts) - 1)], token_logprobs=logprobs
    )


def weighs(**logprobs: float) -> Reply:
    """Scores choices by their text without spaces; of those that it does not know, -9. Two tokens a choice."""
    return lambda request: Answer(
        request.id, choice_logprobs=tuple(logprobs.get(choice.strip(), -9.0) for choice in request.choices),
        choice_tok=(2,) * len(request.choices),
    )  # fmt: skip


def suite(task: str, **keys: Any) -> Suite:
    plain = {
        "suite": "tiny", "domain": "shared", "task": task, "repeat": 0, "records": {"eval": "e.jsonl"},
        "prompt": {"user": "{{ input }}"},
    }  # fmt: skip
    return Suite.model_validate_json(json.dumps({**plain, **keys}))


def records(folder: Path, asked: Suite, *rows: dict[str, Any], name: str = "e") -> tuple[Record, ...]:
    """The rows as records of the suite, through a file; they get ids r0, r1, … and an input."""
    path = folder / f"{name}.jsonl"
    lines = [json.dumps({"id": f"r{n}", "input": f"question {n}", **row}) for n, row in enumerate(rows)]
    path.write_text("\n".join(lines))
    return tuple(read_records(path, asked.records.fields, asked.task))


def make_work(
    folder: Path, asked: Suite, *rows: dict[str, Any], train: Sequence[dict[str, Any]] = ()
) -> Work:
    learned = records(folder, asked, *train, name="t") if train else ()
    return Work("base", asked, labels_of(asked, learned), records(folder, asked, *rows), learned)


def run(model: Told, work: Work, folder: Path, **more: Any) -> list[Sample]:
    return evaluate(
        model, work, folder / "out" / "samples.jsonl", on_event=lambda *_a, **_k: None,
        should_stop=lambda: False, **more,
    )  # type: ignore[arg-type]  # fmt: skip
