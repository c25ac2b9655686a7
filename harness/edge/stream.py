"""Tokens → text while it is written: whole characters, and nothing that may still become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from harness.models.gguf_api import Weights

_PROBE = "a . b , c"
"""Some tokenizers take such spaces out when they write a text: then a text is more than its tokens."""


class Pieces:
    """What each token writes, for a vocabulary whose texts are its tokens' bytes one after another."""

    def __init__(self, weights: Weights) -> None:
        probe = weights.encode(_PROBE)
        self._weights = weights
        self._decode = weights.decode
        self._has_lead = weights.decode(weights.encode("a")) != b"".join(
            weights.piece_bytes(token) for token in weights.encode("a")
        ).decode("utf-8", "replace")
        joined = b"".join(weights.piece_bytes(token) for token in probe).decode("utf-8", "replace")
        self.is_exact = weights.decode(probe) == (joined[1:] if self._has_lead else joined)
        """Token by token it is the text; else the text is only known as a whole."""

    def bytes_of(self, token: int, is_first: bool) -> bytes:
        """What the token adds to the text."""
        data = self._weights.piece_bytes(token)
        return data[1:] if is_first and self._has_lead and data.startswith(b" ") else data

    def whole(self, ids: Sequence[int]) -> str:
        """The text of all of them."""
        return self._decode(ids)


class TextStream:
    """The text of one answer as it grows."""

    def __init__(self, pieces: Pieces, stop: Sequence[str]) -> None:
        self._pieces = pieces
        self._stops = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._held = ""
        self._told: list[str] = []
        self.is_stopped = False
        """A stop string was written; what came from it on is not in the text."""

    @property
    def text(self) -> str:
        """All that was told."""
        return "".join(self._told)

    def add(self, token: int) -> str:
        """What can be told now that the token was written; often nothing."""
        self._ids.append(token)
        if self._pieces.is_exact:
            self._held += self._decoder.decode(self._pieces.bytes_of(token, len(self._ids) == 1))
            return self._tell(_safe_end)
        self._held = self._pieces.whole(self._ids)
        return self._tell(lambda _text, _stops: 0)

    def end(self) -> str:
        """What was held back, at the end of the answer."""
        if self.is_stopped:
            return ""
        if self._pieces.is_exact:
            self._held += self._decoder.decode(b"", final=True)
        return self._tell(lambda text, _stops: len(text))

    def _tell(self, safe_end: Callable[[str, Sequence[str]], int]) -> str:
        places = [self._held.find(stop) for stop in self._stops if stop in self._held]
        if places:
            self.is_stopped = True
        end = min(places) if places else safe_end(self._held, self._stops)
        told, self._held = self._held[:end], "" if places else self._held[end:]
        if told:
            self._told.append(told)
        return told


def _safe_end(text: str, stops: Sequence[str]) -> int:
    """Characters that no stop string can begin in; what follows may be the beginning of one."""
    longest = max(map(len, stops), default=1) - 1
    for at in range(max(0, len(text) - longest), len(text)):
        if any(stop.startswith(text[at:]) for stop in stops):
            return at
    return len(text)
