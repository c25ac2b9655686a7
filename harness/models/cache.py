"""Answers that were computed before, by the same bytes, to the same tokens, under the same settings."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import HarnessError
from harness.files import digest_json, sha256_file
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Identity, Model, Prompt, Requests
from harness.models.cache_store import LIMIT_BYTES, AnswerStore, Note
from harness.models.identity import is_fixed
from harness.models.prompts import prompt_digest

ONE_LOOKUP = 256
"""Requests that are looked up together, and whose answers are kept in one transaction."""
ENGINES = {
    "transformers": ("torch", "transformers", "tokenizers", "peft", "bitsandbytes"),
    "gguf": ("llama_cpp_python",),
}
"""Packages that compute, by kind: another version may answer otherwise."""
_NOT_KEPT = ("id", "latency_ms", "error")
_KEPT = tuple(field.name for field in fields(Answer) if field.name not in _NOT_KEPT)
_TUPLES = ("choice_logprobs", "choice_tok", "token_logprobs")

Request = TypeVar("Request", ChoiceRequest, GenerateRequest)


class CachedModel:
    """A Model that asks the one inside only what nobody has asked it before.

    A kept answer has no `latency_ms`: nothing was measured now. Errors are never kept. What measures time,
    or how far repeated answers differ, asks `uncached(model)`.
    """

    def __init__(
        self, model: Model, folder: Path, *, limit_bytes: int = LIMIT_BYTES, note: Note | None = None
    ) -> None:
        """`folder` holds the kept answers of all models; `note` hears what goes wrong with it."""
        self.inner = model
        self._store = AnswerStore(folder, limit_bytes=limit_bytes, note=note or (lambda _: None))
        self._salt = engine_digest(model)

    @property
    def identity(self) -> Identity:
        """The inner model's."""
        return self.inner.identity

    def plan(self, requests: Requests) -> list[list[int]]:
        """The inner model's plan of all requests, known or not: what a run resumes by must not depend on it."""
        return self.inner.plan(requests)

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        """One answer a request, in their order."""
        return self._answers(requests, self.inner.score_choices)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Answer]:
        """One answer a request, in their order."""
        return self._answers(requests, self.inner.generate)

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The inner model's."""
        return self.inner.token_ids(prompt)

    def close(self) -> None:
        """Gives the inner model's memory and the file back."""
        self._store.close()
        self.inner.close()

    def _answers(
        self, requests: Sequence[Request], ask: Callable[[Sequence[Request]], Iterator[Answer]]
    ) -> Iterator[Answer]:
        for start in range(0, len(requests), ONE_LOOKUP):
            some = requests[start : start + ONE_LOOKUP]
            keys = [self._key(request) for request in some]
            known = self._known(keys)
            places = [at for at, key in enumerate(keys) if key is None or key not in known]
            fresh = self._asked([some[at] for at in places], ask)
            kept: dict[bytes, Answer] = {}
            try:
                for request, key in zip(some, keys, strict=True):
                    if key is not None and key in known:
                        yield replace(known[key], id=request.id)
                        continue
                    answer = next(fresh)
                    if key is not None and answer.error is None:
                        kept[key] = answer
                    yield answer
            finally:  # also what was answered before a model failed, or before nobody wanted more
                self._keep(kept)

    def _key(self, request: ChoiceRequest | GenerateRequest) -> bytes | None:
        try:
            ids = self.inner.token_ids(request.prompt)
        except HarnessError:
            return None  # the inner model answers it with an error, and errors are not kept
        return request_key(self.identity, self._salt, request, ids)

    def _known(self, keys: Sequence[bytes | None]) -> dict[bytes, Answer]:
        found = self._store.get([key for key in keys if key is not None])
        return {key: answer for key, data in found.items() if (answer := _unpacked(data)) is not None}

    def _asked(
        self, requests: Sequence[Request], ask: Callable[[Sequence[Request]], Iterator[Answer]]
    ) -> Iterator[Answer]:
        """One answer a request and in their order: kept under the wrong key, one would be wrong for ever."""
        answers = ask(requests) if requests else iter(())
        for request in requests:
            answer = next(answers, None)
            if answer is None or answer.id != request.id:
                raise RuntimeError(
                    f"{self.identity.kind} model: replies do not match the requests one to one"
                )
            yield answer

    def _keep(self, answers: Mapping[bytes, Answer]) -> None:
        packed = {key: _packed(answer) for key, answer in answers.items()}
        self._store.put({key: data for key, data in packed.items() if data is not None})


def uncached(model: Model) -> Model:
    """The model that computes every answer."""
    return model.inner if isinstance(model, CachedModel) else model


def is_worth_keeping(identity: Identity) -> bool:
    """Whether the model's answers may be kept, and looking them up beats computing them."""
    return is_fixed(identity) and identity.kind != "scripted"


def request_key(
    identity: Identity, salt: str, request: ChoiceRequest | GenerateRequest, ids: Sequence[int]
) -> bytes:
    """sha256 over all that an answer depends on: the model, the engine, the tokens fed, and each setting.

    The request's id is left out, but for scripted models, which answer by it.
    """
    asked_for = request.id if identity.kind == "scripted" else None
    settings = {field.name: getattr(request, field.name) for field in fields(request) if field.name != "id"}
    parts = [identity.digest, salt, type(request).__name__, asked_for, prompt_digest(ids), settings]
    return hashlib.sha256(json.dumps(parts, default=_as_object).encode()).digest()


def engine_digest(model: Model) -> str:
    """What else decides an answer beside weights and request: our code, packages, processor, device, precision."""
    packages = {name: _version(name) for name in ENGINES.get(model.identity.kind, ())}
    device = str(getattr(model, "device", ""))
    if device.startswith("cuda"):
        import torch

        device = torch.cuda.get_device_name(device)
    return digest_json([_code_digest(), packages, _processor(), device, str(getattr(model, "dtype", ""))])


@lru_cache(maxsize=1)
def _code_digest() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return digest_json([[path.name, sha256_file(path)] for path in files])


@lru_cache(maxsize=1)
def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _as_object(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _packed(answer: Answer) -> bytes | None:
    """The answer as JSON; None where it holds what JSON can't."""
    try:
        return json.dumps({name: getattr(answer, name) for name in _KEPT}, allow_nan=False).encode()
    except ValueError:
        return None


def _unpacked(data: bytes) -> Answer | None:
    """The answer, without its id; None where another version of this class wrote it."""
    try:
        values = json.loads(data)
        tuples = {name: tuple(values[name]) for name in _TUPLES if values[name] is not None}
        return Answer(id="", **{**values, **tuples})
    except (ValueError, TypeError, KeyError):
        return None
