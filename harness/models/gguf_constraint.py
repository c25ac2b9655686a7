"""A GBNF grammar that an answer must follow: llama.cpp's own sampler, one for each answer."""

from __future__ import annotations

import ctypes
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.gbnf import check_grammar
from harness.models.chat import Chat
from harness.models.gguf_api import Weights, library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIKELY = 64
"""Tokens that are tried before the whole vocabulary is: one call for all costs as much as a decode."""
PATIENCE_S = 2.0
"""One call that takes longer ends the answer: an ambiguous grammar's work can double with every token."""


class Ends:
    """The tokens that a grammar can't know as text: those that end an answer, and those that are none."""

    def __init__(self, weights: Weights, chat: Chat) -> None:
        self._weights = weights
        self.ids = chat.end_ids
        self.probe = next((token for token in chat.end_ids if weights.ends_text(token)), None)
        """A token that llama.cpp, too, takes for an end: it allows all such where the text is complete."""

    @cached_property
    def none(self) -> NDArray[np.bool_]:
        """Whether each token of the vocabulary is no text, or an end that the chat does not know; (vocab,).

        Decoded, they would leave nothing: a grammar that reads them as their names would be broken unseen.
        """
        import numpy as np

        weights = self._weights
        found = np.fromiter(
            (weights.is_control(token) or weights.ends_text(token) for token in range(weights.vocab_size)),
            dtype=np.bool_,
            count=weights.vocab_size,
        )
        found[list(self.ids)] = False
        return found


class GrammarConstraint:
    """The tokens that a grammar allows after those that were written.

    The log-probabilities of an answer stay those of the model, over its whole vocabulary: they say how
    willingly it followed the grammar, and do not sum to one over what the grammar allows.
    """

    def __init__(self, weights: Weights, grammar: str, ends: Ends) -> None:
        """The start of the grammar.

        Raises:
            ModelError: the grammar is none, or one that llama.cpp would not survive.
        """
        check_grammar(grammar)
        self._lib = library()
        self._ends = ends
        self._sampler = weights.grammar_sampler(grammar)

    def close(self) -> None:
        """Frees the sampler. Calling it twice is fine."""
        if self._sampler:
            self._lib.llama_sampler_free(self._sampler)
            self._sampler = None

    def best(self, logits: NDArray[Any]) -> int:
        """The allowed token with the highest logit.

        Raises:
            RuntimeError: no token of the vocabulary continues the text, or the grammar takes too long.
        """
        import numpy as np

        top = int(np.argmax(logits))
        if np.isnan(logits[top]) or self._allowed(np.array([top]))[0]:
            return top
        likely = np.argpartition(logits, -min(LIKELY, len(logits)))[-LIKELY:]
        for tokens in (likely, np.arange(len(logits))):
            allowed = tokens[self._allowed(tokens)]
            if len(allowed):
                return int(allowed[np.argmax(logits[allowed])])
        raise RuntimeError("no token of the vocabulary continues what the grammar has allowed so far")

    def masked(self, logits: NDArray[Any]) -> NDArray[Any]:
        """A copy of the logits, -inf for every token that is not allowed.

        Raises:
            RuntimeError: as `best`.
        """
        import numpy as np

        allowed = self._allowed(np.arange(len(logits)))
        if not allowed.any():
            raise RuntimeError("no token of the vocabulary continues what the grammar has allowed so far")
        return np.where(allowed, logits, np.array(-np.inf, dtype=logits.dtype))

    def accept(self, token: int) -> None:
        """The token, one that is allowed, was written.

        Raises:
            RuntimeError: the grammar takes too long.
        """
        if token in self._ends.ids or self._ends.none[token]:
            return  # llama.cpp would abort on the first and the second can only follow logits that are broken
        began = time.monotonic()
        self._lib.llama_sampler_accept(self._sampler, token)
        _check_patience(began)

    def _allowed(self, tokens: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each of the tokens, (n,), may come next."""
        import numpy as np

        ends = self._ends
        asked = tokens if ends.probe is None else np.append(tokens, ends.probe)
        rows = np.zeros(len(asked), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        rows["id"] = asked
        data = rows.ctypes.data_as(ctypes.POINTER(self._lib.llama_token_data))
        array = self._lib.llama_token_data_array(data=data, size=len(rows), selected=-1, sorted=False)
        began = time.monotonic()
        self._lib.llama_sampler_apply(self._sampler, ctypes.byref(array))
        _check_patience(began)
        allowed = (rows["logit"][: len(tokens)] == 0.0) & ~ends.none[tokens]
        is_complete = ends.probe is not None and bool(rows["logit"][-1] == 0.0)
        return np.where(np.isin(tokens, ends.ids), is_complete, allowed)


def _check_patience(began: float) -> None:
    if time.monotonic() - began > PATIENCE_S:
        raise RuntimeError(f"the grammar took over {PATIENCE_S:g} s for one token: is it ambiguous?")
