"""A tiny random llama as a GGUF, and an engine over it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.edge.base import Ask, Done, Event, Failed, Piece
from harness.edge.engine import EdgeEngine
from harness.files import sha256_file
from harness.models.base import Message
from tests.export.tiny_models import save_checkpoint
from tests.models.conftest import write_tiny_checkpoint

ANSWER_S = 60.0
ENDLESS = "root ::= [a-z] root"
LONG_TOK = 60_000


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def gguf(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from harness.export.gguf import convert

    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(tiny_folder, out, metadata={}, pre="gpt-2")
    return out


@pytest.fixture(scope="session")
def long_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that can write for minutes: what is stopped in it was surely under way."""
    from harness.export.gguf import convert

    folder = tmp_path_factory.mktemp("long")
    convert(
        save_checkpoint(folder / "model", max_position_embeddings=2**17), folder / "long.gguf", metadata={}
    )
    return folder / "long.gguf"


@pytest.fixture(scope="module")
def patient(long_gguf: Path) -> Iterator[EdgeEngine]:
    opened = EdgeEngine(long_gguf, sha256_file(long_gguf), threads=1, slots=2, context_tok=2**16)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def sha256(gguf: Path) -> str:
    return sha256_file(gguf)


@pytest.fixture(scope="module")
def engine(gguf: Path, sha256: str) -> Iterator[EdgeEngine]:
    opened = EdgeEngine(gguf, sha256, threads=1, slots=4)
    yield opened
    opened.close()


class Heard:
    """All that an engine told of one request."""

    def __init__(self, engine: Any, ask: Ask) -> None:
        self.id = ask.id
        self.events: list[Event] = []
        self.threads: set[int] = set()
        self._ended = threading.Event()
        self._begun = threading.Event()
        engine.submit(ask, self._tell)

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())
        self._begun.set()
        if isinstance(event, Done | Failed):
            self._ended.set()

    def wait_for_text(self) -> None:
        assert self._begun.wait(ANSWER_S)

    def end(self) -> Done | Failed:
        assert self._ended.wait(ANSWER_S), "no end was told"
        last = self.events[-1]
        assert isinstance(last, Done | Failed)
        return last

    def done(self) -> Done:
        last = self.end()
        assert isinstance(last, Done), last
        return last

    def failed(self) -> Failed:
        last = self.end()
        assert isinstance(last, Failed), last
        return last

    def streamed(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Piece))


Hear = Callable[..., Heard]
_names = iter(range(10**9))


def endless(text: str, **options: Any) -> Ask:
    """A request whose answer ends when somebody stops it."""
    return ask(text, grammar=ENDLESS, max_new_tokens=LONG_TOK, **options)


def ask(text: str, **options: Any) -> Ask:
    """A request with an id of its own."""
    messages = (Message("system", "Be brief."), Message("user", text))
    return Ask(
        **{"id": f"{os.getpid()}-{next(_names)}", "messages": messages, "max_new_tokens": 12, **options}
    )
