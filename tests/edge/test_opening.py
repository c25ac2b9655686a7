"""A release's engine: what its questions begin with is there before the first one, and its cache was judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.edge import opening
from harness.edge.engine import EdgeEngine
from harness.edge.opening import engine_opener, prefix_asks
from harness.edge.served import Release, open_release
from harness.errors import RefusedError
from harness.export.release import write_release
from tests.edge.conftest import Heard
from tests.edge.process import tiny_gguf
from tests.edge.serving import NOBODY, contents, shared_release

PASSED = {
    "type": "q8_0",
    "bytes_per_tok": 34.0,
    "mean_kl": 0.002,
    "verdict": "PASS",
    "reason": "passes every rule",
}
FAILED = {**PASSED, "verdict": "FAIL", "reason": "clauses: 71 % is under 75 %"}
UNFIT = {**PASSED, "mean_kl": None, "verdict": None, "reason": "heads of 24 numbers"}


def prefix_tok(engine: EdgeEngine, release: Release) -> int:
    """Tokens that the suite's requests begin with, by pinning them under another name."""
    pair = prefix_asks(release.question("clauses"))
    assert pair is not None
    return engine.pin("again", pair).tokens


def first_answer(engine: EdgeEngine, release: Release) -> int:
    """Tokens that the first question of the suite found computed."""
    question = release.question("clauses")
    asked = question.ask(question.record("first", {"input": "Either party may end this."}), budget_ms=None)
    return Heard(engine, asked).done().cached_tok


def test_the_first_question_of_a_suite_finds_its_beginning_computed(tmp_path: Path) -> None:
    release = shared_release(gguf=str(tiny_gguf()))
    engine = engine_opener(threads=1, slots=2, prefixes=tmp_path)(release)
    try:
        cached = first_answer(engine, release)
        assert cached >= prefix_tok(engine, release) > 0
    finally:
        engine.close()


def test_a_later_start_reads_the_beginning_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[str] = []

    class Watched(EdgeEngine):
        def pin(self, *arguments: Any, **options: Any) -> Any:
            pinned = super().pin(*arguments, **options)
            sources.append(pinned.source)
            return pinned

    monkeypatch.setattr(opening, "EdgeEngine", Watched)
    release = shared_release(gguf=str(tiny_gguf()))
    for _ in range(2):
        engine_opener(threads=1, slots=2, prefixes=tmp_path)(release).close()

    assert sources == ["computed", "disk"]


def judged(folder: Path, *rows: dict[str, Any]) -> Release:
    """A release whose pick says this of its caches."""
    made = contents(folder / "parts", gguf=str(tiny_gguf()))
    written = write_release(folder / "release", replace(made, pick={**made.pick, "caches": list(rows)}))
    return open_release(written.folder, NOBODY)


class OpenedError(Exception):
    """The engine was asked for."""


def opened_with(release: Release, kv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(*_: Any, **options: Any) -> Any:
        raise OpenedError(options["kv"])

    monkeypatch.setattr(opening, "EdgeEngine", engine)
    engine_opener(kv=kv)(release)


def test_an_8_bit_cache_is_used_where_the_release_passed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OpenedError, match="q8_0"):
        opened_with(judged(tmp_path, PASSED), "q8_0", monkeypatch)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ((), "was not judged with a q8_0 cache"),
        ((FAILED,), "FAIL with a q8_0 cache: clauses: 71 % is under 75 %"),
        ((UNFIT,), "unjudged with a q8_0 cache: heads of 24 numbers"),
    ],
)
def test_an_8_bit_cache_is_refused_where_no_verdict_stands_behind_it(
    rows: tuple[dict[str, Any], ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = judged(tmp_path, *rows)

    with pytest.raises(RefusedError, match=why):
        opened_with(release, "q8_0", monkeypatch)
    with pytest.raises(OpenedError, match="f16"):
        opened_with(release, "f16", monkeypatch)
