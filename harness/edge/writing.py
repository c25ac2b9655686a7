"""One free answer while it is written: chosen as `harness.models.continuation` chooses, told as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.edge.base import Ask, Finish
from harness.edge.stream import Pieces, TextStream
from harness.models.continuation import logprobs_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.models.gguf_constraint import GrammarConstraint


class NotFiniteError(RuntimeError):
    """The network gave a number that is none: there is no answer in it."""


class Written(NamedTuple):
    """What is known of an answer so far, enough to go on with it in another process."""

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Empty where nobody asked for them."""


class Writing:
    """Greedy, or sampled from the request's own seed: either way the same whatever else is in the batch."""

    def __init__(
        self,
        ask: Ask,
        end_ids: Sequence[int],
        pieces: Pieces,
        constraint: GrammarConstraint | None,
        begun: Written,
    ) -> None:
        """An answer at its start, or where another process left it."""
        import numpy as np

        self._ask = ask
        self._end_ids = end_ids
        self._constraint = constraint
        self._stream = TextStream(pieces, ask.stop)
        self._random = np.random.default_rng(ask.seed)
        self.ids: list[int] = []
        self.logprobs: list[float] = list(begun.logprobs)
        self.finish: Finish | None = None
        for token in begun.ids:
            self._draw()
            self._add(token)

    def extend(self, logits: NDArray[Any]) -> str:
        """Takes the next token from the logits (vocab,) after the last one; the text that can be told now.

        Raises:
            NotFiniteError: a logit is no number.
            RuntimeError: nothing continues what the grammar allows, or the grammar takes too long.
        """
        import numpy as np

        token = self._chosen(logits)
        if not np.isfinite(logits[token]):
            raise NotFiniteError("the model's logits are not finite")
        if self._ask.wants_logprobs:
            self.logprobs.append(logprobs_of(logits, [token])[0])
        return self._add(token)

    def stop(self, finish: Finish) -> str:
        """Ends the answer where it is; what was held back of its text."""
        self.finish = finish
        return self._stream.end()

    def close(self) -> None:
        """Frees what native code holds for it. Calling it twice is fine."""
        if self._constraint is not None:
            self._constraint.close()

    def _add(self, token: int) -> str:
        self.ids.append(token)
        if self._constraint is not None:
            self._constraint.accept(token)
        if token in self._end_ids:
            return self.stop("stop")
        told = self._stream.add(token)
        if self._stream.is_stopped:
            self.finish = "stop"
        elif len(self.ids) >= self._ask.max_new_tokens:
            return told + self.stop("length")
        return told

    def _draw(self) -> float:
        return float(self._random.random()) if self._ask.temperature > 0 else 0.0

    def _chosen(self, logits: NDArray[Any]) -> int:
        import numpy as np

        if self._ask.temperature <= 0 or not np.isfinite(logits).any():
            return int(np.argmax(logits)) if self._constraint is None else self._constraint.best(logits)
        allowed = logits if self._constraint is None else self._constraint.masked(logits)
        exact = allowed.astype(np.float64)
        weights = np.exp((exact - exact.max()) / self._ask.temperature)
        edges = np.cumsum(_nucleus(weights, self._ask.top_p))
        token = int(np.searchsorted(edges, self._draw() * edges[-1], side="right"))
        return min(token, len(edges) - 1)


def _nucleus(weights: NDArray[Any], top_p: float) -> NDArray[Any]:
    """The weights (vocab,), zero outside the fewest tokens that hold `top_p` of them.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration (ICLR 2020).
    """
    import numpy as np

    if top_p >= 1.0:
        return weights
    order = np.argsort(-weights, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    kept = order[before < top_p * weights.sum()]
    found = np.zeros_like(weights)
    found[kept] = weights[kept]
    return found
