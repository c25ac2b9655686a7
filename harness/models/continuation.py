"""One free answer while it grows, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from harness.models.answering import Generated
from harness.models.base import GenerateRequest
from harness.models.chat import Chat

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Constraint(Protocol):
    """What an answer must follow, as far as it is written."""

    def best(self, logits: NDArray[Any]) -> int:
        """The allowed token with the highest logit."""

    def masked(self, logits: NDArray[Any]) -> NDArray[Any]:
        """A copy of the logits, -inf for every token that is not allowed."""

    def accept(self, token: int) -> None:
        """The token was written."""


class Continuation:
    """Greedy, or sampled from the request's own seed: either way the same whatever else is in the batch."""

    def __init__(self, request: GenerateRequest, chat: Chat, constraint: Constraint | None = None) -> None:
        import numpy as np

        self._request = request
        self._chat = chat
        self._constraint = constraint
        self._random = np.random.default_rng(request.seed)
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._text: str | None = None
        self._is_finished = False
        self.is_done = request.max_new_tokens < 1

    def extend(self, logits: NDArray[Any]) -> int:
        """The next token, from the logits (vocab,) after the last one, which are not kept.

        Its log-probability is the model's own, over the whole vocabulary at temperature 1: also where the
        token was sampled at another temperature, or a constraint left only some tokens to choose from.
        """
        token = self._chosen(logits)
        self._ids.append(token)
        self._logprobs.append(logprobs_of(logits, [token])[0])
        if self._constraint is not None:
            self._constraint.accept(token)
        self._settle(token)
        return token

    def result(self) -> Generated:
        """What was written; the end of turn counts as a token and is not in the text."""
        text = self._chat.decode(self._ids) if self._text is None else self._text
        return Generated(self._ids, self._logprobs, text, self._is_finished)

    def _chosen(self, logits: NDArray[Any]) -> int:
        import numpy as np

        if self._request.temperature <= 0 or not np.isfinite(logits).any():
            return int(np.argmax(logits)) if self._constraint is None else self._constraint.best(logits)
        allowed = logits if self._constraint is None else self._constraint.masked(logits)
        exact = allowed.astype(np.float64)
        edges = np.cumsum(np.exp((exact - exact.max()) / self._request.temperature))
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


def logprobs_of(logits: NDArray[Any], ids: Sequence[int]) -> list[float]:
    """log P of the ids under the logits (vocab,); exponentials in their own type, the sum in float64."""
    import numpy as np

    top = logits.max()
    total = float(top) + float(np.log(np.exp(logits - top).sum(dtype=np.float64)))
    return [float(logits[token]) - total for token in ids]
