"""Child processes with native code that one test leaves to the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.export import forward, imatrix, parity, quantize
from harness.export.native import Native


@pytest.fixture(scope="session")
def idle() -> Iterator[list[Native]]:
    """Children that wait for their next user."""
    children: list[Native] = []
    yield children
    for child in children:
        Native.close(child)


@pytest.fixture
def warm(idle: list[Native], monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code runs in children that stay: to import torch and llama.cpp takes each of them seconds."""

    class Lent(Native):
        def close(self) -> None:
            if self._child.poll() is None:
                idle.append(self)
            else:
                super().close()

    for room in (forward, imatrix, parity, quantize):
        monkeypatch.setattr(room, "Native", lambda threads: idle.pop() if idle else Lent(threads=threads))
