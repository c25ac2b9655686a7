"""A release's engine, with what its questions begin with already computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from harness.edge.base import Ask
from harness.edge.engine import EdgeEngine
from harness.edge.questions import Question
from harness.edge.served import Release
from harness.edge.wire_openai import ApiError
from harness.errors import DataError, ModelError
from harness.files import sha256_file

UNLIKE = ("alpha", "Zulu")
"""Two inputs without a common beginning: what prompts share up to here, all prompts of the suite share."""


def engine_opener(
    *, threads: int | None = None, slots: int = 8, context_tok: int | None = None, kv: Literal["f16", "q8_0"] = "f16",
    adapters: Mapping[str, tuple[Path, str]] | None = None, prefixes: Path | None = None,
    note: Callable[[str], None] = lambda _text: None,
) -> Callable[[Release], EdgeEngine]:  # fmt: skip
    """What opens a release's engine; `prefixes` is the folder where computed beginnings outlive the process.

    It raises a RefusedError for a release that was not judged with this type of cache.
    """

    def opened(release: Release) -> EdgeEngine:
        release.require_cache(kv)
        engine = EdgeEngine(
            release.model, release.sha256, threads=threads or release.threads, slots=slots,
            context_tok=context_tok, kv=kv, prefix_folder=prefixes, adapters=adapters, on_note=note,
        )  # fmt: skip
        for name, question in release.questions.items():
            try:
                if pair := prefix_asks(question):
                    engine.pin(name, pair)
            except ModelError as error:  # answers are the same without, and later
                note(f"suite {name}: its beginning is not kept at hand: {error.message}")
        return engine

    return opened


def prefix_asks(question: Question) -> tuple[Ask, Ask] | None:
    """Two requests that differ where all requests of the suite do; None where none can be made up."""
    if question.why_not():
        return None
    options = {"options": ["a", "b"]} if question.suite.task == "choice" else {}
    has_context = question.suite.records.fields.context is not None
    bodies = [{**options, "input": text, **({"context": text} if has_context else {})} for text in UNLIKE]
    try:
        first, second = (
            question.ask(question.record(f"prefix-{at}", body), budget_ms=None)
            for at, body in enumerate(bodies)
        )
    except ApiError:  # the prompt needs a slice that nobody can make up
        return None
    return first, second


def read_adapters(pairs: Mapping[str, Path]) -> dict[str, tuple[Path, str]]:
    """Adapters by name, with the sha256 of the file that is there now.

    Raises:
        DataError: a file is not there.
    """
    for name, path in pairs.items():
        if not path.is_file():
            raise DataError(f"--adapter {name}={path}: no such file")
    return {name: (path, sha256_file(path)) for name, path in pairs.items()}
