from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.export.gguf import convert
from harness.export.native import Native
from tests.export.children import idle, warm
from tests.export.tiny_models import save_checkpoint

__all__ = ["idle", "warm"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def native() -> Iterator[Native]:
    """One child process for all tests that only ask it."""
    with Native(threads=1) as child:
        yield child


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama checkpoint. Read it, never write to it."""
    return save_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def llama_gguf(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny llama as F16 GGUF. Read it, never write to it."""
    return convert(llama, tmp_path_factory.mktemp("gguf") / "llama.gguf", metadata={"base": "tiny"}).path
