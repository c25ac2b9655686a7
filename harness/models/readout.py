"""Hidden states → log-probabilities of the few tokens that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

HEAD_ROWS = 128
"""Positions whose logits are held at once: (128, vocab) in float32 is 25 MB for a vocabulary of 49k."""


class Places(NamedTuple):
    """Positions of a batch, shape (n,) each."""

    rows: list[int]
    ats: list[int]


class Readout:
    """The network in two steps, so that logits are computed only where they are needed.

    A state is the last hidden state where the logits are just the output head's product with it. Where
    the architecture does more, such as capping them, which a first small pass shows, a state is the row
    of logits itself.
    """

    def __init__(self, network: Any, device: str, decode: Callable[..., Any] | None = None) -> None:
        """Looks which kind of network it is; `decode` gives the last hidden states faster than its own decoder."""
        import torch

        self._decode = decode
        self._network = network
        self._decoder = network.get_decoder()
        self._head = network.get_output_embeddings()
        ids = torch.arange(8, device=device)[None]
        with torch.inference_mode():
            logits = network(input_ids=ids, use_cache=False).logits.float()
            self._is_plain = self._head is not None
            if self._is_plain:
                states = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
                self._is_plain = torch.allclose(self._head(states).float(), logits, atol=1e-3, rtol=1e-3)

    def states(self, places: Places, **inputs: Any) -> Any:
        """The states at these places of the batch, (places, state)."""
        import torch

        rows = torch.tensor(places.rows)
        if self._is_plain:
            return self._hidden(**inputs)[rows, torch.tensor(places.ats)]
        kept = sorted(set(places.ats))
        place = {at: index for index, at in enumerate(kept)}
        ats = torch.tensor([place[at] for at in places.ats])
        keep = torch.tensor(kept, device=inputs["input_ids"].device)
        return self._network(**inputs, logits_to_keep=keep).logits[rows, ats]

    def _hidden(self, **inputs: Any) -> Any:
        """The last hidden states, (rows, tokens, size)."""
        return self._decode(**inputs) if self._decode else self._decoder(**inputs).last_hidden_state

    def logits(self, states: Any) -> Any:
        """The logits in float32, (…, vocab)."""
        return (self._head(states) if self._is_plain else states).float()

    def logprobs(self, states: Any, wanted: Sequence[Sequence[int]]) -> list[list[float]]:
        """log P of each state's wanted ids; states (n, state)."""
        found: list[list[float]] = []
        for start in range(0, len(wanted), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            found.extend(logprobs_at(self.logits(states[part]), wanted[part]))
        return found


def logprobs_at(logits: Any, wanted: Sequence[Sequence[int]]) -> list[list[float]]:
    """log P of each row's ids; logits (n, vocab) in float32, which are overwritten."""
    import torch

    width = max(map(len, wanted))
    table = torch.tensor([[*ids, *([0] * (width - len(ids)))] for ids in wanted], device=logits.device)
    tops = logits.amax(-1, keepdim=True)  # (n, 1)
    chosen = logits.gather(1, table) - tops
    totals = logits.sub_(tops).exp_().sum(-1, keepdim=True).log_()  # in place: fresh pages cost more than exp
    found = (chosen - totals).tolist()
    return [values[: len(ids)] for values, ids in zip(found, wanted, strict=True)]
