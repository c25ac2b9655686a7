"""Canned answers from a JSONL file: a Model without a network, for tests and for trying a suite out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, ModelError
from harness.files import canonical_json, parse_json, sha256_file, sha256_text
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Identity, Prompt
from harness.models.batching import in_order
from harness.models.identity import identity_of

BATCH = 64
MISS_LOGPROB = -20.0
"""Of the choices that a script names no score for."""
_FIELDS = {"id", "prompt", "text", "logprobs", "error", "delay_ms"}


@dataclass(frozen=True, slots=True)
class Line:
    """One canned answer: to the request with this id, or to the prompt with this digest; `*` is any."""

    text: str | None = None
    logprobs: dict[str, float] | None = None
    """For choices: the score of each, by its text."""
    error: str | None = None
    delay_ms: float = 0.0


class ScriptedModel:
    """Answers by the request's id, else by its prompt's digest, else by the line for `*`, else fails."""

    def __init__(self, lines: dict[str, Line], weights: str) -> None:
        self._lines = lines
        self.identity: Identity = identity_of(kind="scripted", weights=weights)

    @classmethod
    def from_file(cls, path: Path) -> ScriptedModel:
        """The model that the file describes: `{"id" or "prompt", "text", "logprobs", "error", "delay_ms"}` a line.

        Raises:
            ModelError: the file is missing or a line is wrong.
        """
        try:
            rows = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: {error}") from error
        lines: dict[str, Line] = {}
        for number, row in enumerate(rows, start=1):
            if row.strip():
                key, line = _parsed(row, f"{path}, line {number}")
                if key in lines:
                    raise ModelError(f"{path}, line {number}: a second answer for {key!r}")
                lines[key] = line
        return cls(lines, sha256_file(path))

    def plan(self, requests: Sequence[ChoiceRequest] | Sequence[GenerateRequest]) -> list[list[int]]:
        """Indices of the requests in batches, in their order."""
        return [
            list(range(start, min(start + BATCH, len(requests)))) for start in range(0, len(requests), BATCH)
        ]

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        """One answer a request, in their order."""
        return in_order(requests, self.plan(requests), lambda batch: [self._scored(one) for one in batch])

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Answer]:
        """One answer a request, in their order."""
        return in_order(requests, self.plan(requests), lambda batch: [self._written(one) for one in batch])

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The prompt's UTF-8 bytes: there is no tokenizer."""
        return list(_spelled(prompt).encode("utf-8", "surrogatepass"))

    def close(self) -> None:
        """Nothing to give back."""

    def _find(self, request: ChoiceRequest | GenerateRequest) -> tuple[Line, str]:
        digest = scripted_digest(request.prompt)
        for key in (request.id, digest, "*"):
            if key in self._lines:
                line = self._lines[key]
                if line.delay_ms:
                    time.sleep(line.delay_ms / 1e3)
                return line, digest
        return Line(error="the script has no answer for this request"), digest

    def _scored(self, request: ChoiceRequest) -> Answer:
        line, digest = self._find(request)
        if line.error is not None:
            return Answer(request.id, prompt_digest=digest, error=line.error)
        known = line.logprobs or ({} if line.text is None else {line.text: 0.0})
        scores = tuple(known.get(choice, MISS_LOGPROB) for choice in request.choices)
        if not scores or not any(choice in known for choice in request.choices):
            return Answer(request.id, text=line.text, prompt_digest=digest, error="no choice has a score")
        best = request.choices[scores.index(max(scores))]
        return Answer(request.id, text=best, choice_logprobs=scores, prompt_digest=digest)

    def _written(self, request: GenerateRequest) -> Answer:
        line, digest = self._find(request)
        if line.error is not None or line.text is None:
            error = line.error or "the script has no text for this request"
            return Answer(request.id, prompt_digest=digest, error=error)
        places = [line.text.find(stop) for stop in request.stop if stop and stop in line.text]
        text = line.text[: min(places)] if places else line.text
        return Answer(request.id, text=text, prompt_digest=digest)


def scripted_digest(prompt: Prompt) -> str:
    """What a script's `prompt` key holds: sha256 hex of the messages' canonical JSON."""
    return sha256_text(_spelled(prompt))


def _spelled(prompt: Prompt) -> str:
    return canonical_json([[message.role, message.content] for message in prompt.messages])


def _parsed(row: str, where: str) -> tuple[str, Line]:
    try:
        value = parse_json(row, name=where)
    except DataError as error:
        raise ModelError(error.message) from error
    if not isinstance(value, dict) or not isinstance(key := value.get("id", value.get("prompt")), str):
        raise ModelError(f"{where}: wanted an object with id or prompt")
    unknown = set(value) - _FIELDS
    if unknown:
        raise ModelError(f"{where}: unknown keys {', '.join(sorted(unknown))}; there are {sorted(_FIELDS)}")
    return key, _line(value, where)


def _line(value: dict[str, Any], where: str) -> Line:
    kinds: tuple[tuple[str, Any], ...] = (
        ("text", str),
        ("logprobs", dict),
        ("error", str),
        ("delay_ms", int | float),
    )
    for name, kind in kinds:
        if value.get(name) is not None and not isinstance(value[name], kind):
            raise ModelError(f"{where}: {name} is {value[name]!r}")
    logprobs = value.get("logprobs")
    if logprobs and not all(isinstance(score, int | float) for score in logprobs.values()):
        raise ModelError(f"{where}: logprobs are {logprobs!r}, wanted numbers")
    return Line(value.get("text"), logprobs, value.get("error"), float(value.get("delay_ms") or 0.0))
