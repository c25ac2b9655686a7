"""One free answer while it grows, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.models.answering import Generated
from harness.models.base import GenerateRequest
from harness.models.chat import Chat

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Continuation:
    """Greedy, or sampled from the request's own seed: either way the same whatever else is in the batch."""

    def __init__(self, request: GenerateRequest, chat: Chat) -> None:
        import numpy as np

        self._request = request
        self._chat = chat
        self._random = np.random.default_rng(request.seed)
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._text: str | None = None
        self._is_finished = False
        self.is_done = request.max_new_tokens < 1

    def extend(self, logits: NDArray[Any]) -> int:
        """The next token, from the logits (vocab,) after the last one."""
        import numpy as np

        exact = logits.astype(np.float64)
        logprobs = exact - exact.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        token = self._chosen(logprobs)
        self._ids.append(token)
        self._logprobs.append(float(logprobs[token]))
        self._settle(token)
        return token

    def result(self) -> Generated:
        """What was written; the end of turn counts as a token and is not in the text."""
        text = self._chat.decode(self._ids) if self._text is None else self._text
        return Generated(self._ids, self._logprobs, text, self._is_finished)

    def _chosen(self, logprobs: NDArray[Any]) -> int:
        import numpy as np

        if self._request.temperature <= 0 or not np.isfinite(logprobs).any():
            return int(np.argmax(logprobs))
        weights = np.exp((logprobs - logprobs.max()) / self._request.temperature)
        edges = np.cumsum(weights)
        return int(np.searchsorted(edges, self._random.random() * edges[-1], side="right"))

    def _settle(self, token: int) -> None:
        if token in self._chat.end_ids:
            self._text = self._chat.decode(self._ids[:-1])
            self._is_finished = True
        elif self._request.stop:
            text = self._chat.decode(self._ids)
            places = [text.find(stop) for stop in self._request.stop if stop and stop in text]
            if places:
                self._text, self._is_finished = text[: min(places)], True
        is_broken = self._logprobs[-1] != self._logprobs[-1]
        self.is_done = self._is_finished or is_broken or len(self._ids) >= self._request.max_new_tokens
