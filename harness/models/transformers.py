"""A Transformers checkpoint as a Model: choices by exact log-probability, and free answers, in batches."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.models.answering import AnsweringModel, ChoiceRow, Generated, GenerateRow
from harness.models.attention import use_grouped_attention
from harness.models.chat import load_chat
from harness.models.decoder import plain_decoder
from harness.models.feeding import Feeder, Segment, TreeRow
from harness.models.identity import checkpoint_identity
from harness.models.linear import pack_linear_layers
from harness.models.network import Dtype, default_device, default_dtype, load_network, usable_threads
from harness.models.prefixes import Ids
from harness.models.readout import Readout
from harness.models.room import Room, is_out_of_memory
from harness.models.slots import slot_cache
from harness.models.trie import ROOT, Search
from harness.models.writing import Writer

BUDGET_TOK = 2048
"""Padded tokens of a batch, its shared prefix left out: what is committed, and lost when a run dies."""
MAX_ITEMS = 64
PREFIXES_TOK = 16_384
"""Tokens of all prefixes that are kept; the one that was not used for the longest time goes first."""


class TransformersModel(AnsweringModel):
    """Answers with torch, on CUDA when there is one, else on the processor."""

    keeps_prefixes = True

    def __init__(
        self,
        folder: Path,
        *,
        adapter: Path | None = None,
        nf4: bool = False,
        threads: int | None = None,
        dtype: Dtype | None = None,
        device: str | None = None,
        exact: bool = False,
        budget_tok: int = BUDGET_TOK,
        max_items: int = MAX_ITEMS,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        """Loads the checkpoint. `exact` follows every choice to its end, however unlikely.

        `on_note` is told what a person should know, such as that memory was short; None warns.

        Raises:
            ModelError: the checkpoint, its tokenizer or the adapter can't be used.
        """
        import torch

        identity = checkpoint_identity(folder, adapter, "nf4" if nf4 else "")
        super().__init__(identity, budget_tok=budget_tok, max_items=max_items)
        torch.set_num_threads(threads or usable_threads())
        self.device = device or default_device()
        self.dtype: Dtype = dtype or default_dtype(self.device)
        self.chat = load_chat(folder, needs_template=False)
        network = load_network(folder, adapter=adapter, nf4=nf4, dtype=self.dtype, device=self.device)
        self._network: Any = network
        self.context_tok = _context_tok(network.config)
        groups = use_grouped_attention(network, self.device)
        pack_linear_layers(network)
        self._readout = Readout(network, self.device, plain_decoder(network, groups, self.dtype))
        self._feeder = Feeder(self._readout, device=self.device, dtype=self.dtype, groups=groups)
        self._room = Room(network.config, self.dtype, self.device, on_note or _warn)
        self._exact = exact
        self._cache: Any = None
        self._prefix: Ids = ()
        self._prefixes: OrderedDict[Ids, Any] = OrderedDict()

    def close(self) -> None:
        """Gives the memory back."""
        self._network = self._readout = self._feeder = self._cache = None  # type: ignore[assignment]
        self.forget()

    def forget(self) -> None:
        """Drops what is kept of prompts and choices, prefixes among them; answers stay the same."""
        super().forget()
        self._cache = None
        self._prefix = ()
        self._prefixes.clear()

    def _set_prefix(self, ids: list[int]) -> None:
        self._prefix = tuple(ids)

    def _layers(self, prefix: Ids) -> Any:
        """The prefix's keys and values, computed on top of those of its own prefix unless they are kept."""
        if not prefix:
            return ()
        if prefix in self._prefixes:
            self._prefixes.move_to_end(prefix)
            return self._prefixes[prefix]
        above = self._shared.parents.get(prefix, ())
        cache = slot_cache()(1, len(prefix))
        cache.hold(self._layers(above), 1)
        own = prefix[len(above) :]
        sees = _sees_before(len(above), len(own))
        self._feeder.feed(
            cache, [Segment(own, range(len(above), len(prefix)), len(above), sees, [len(own) - 1])]
        )
        room_tok = min(PREFIXES_TOK, self._room.cache_tok) - len(prefix)
        while self._prefixes and sum(map(len, self._prefixes)) > room_tok:
            self._prefixes.popitem(last=False)
        self._prefixes[prefix] = cache.layers_of(0, len(prefix))
        return self._prefixes[prefix]

    def _slots(self, rows: int, columns: int) -> Any:
        """A cache with the prefix in so many slots, each with room for the columns."""
        layers = self._layers(self._prefix)
        if self._cache is None or self._cache.slots < rows or self._cache.capacity_tok < columns:
            self._cache = None  # gives its memory back before the next one takes its own
            self._cache = slot_cache()(rows, columns)
        self._cache.hold(layers, rows)
        return self._cache

    def _score_rows(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        import torch

        own = [len(row.ids) - len(self._prefix) for row in rows]
        nodes = [len(row.trie.scored) - 1 for row in rows]
        is_first = [self._exact or row.trie.is_exact for row in rows]
        costs = [one + more * first for one, more, first in zip(own, nodes, is_first, strict=True)]
        later = max((more for more, first in zip(nodes, is_first, strict=True) if not first), default=0)
        with torch.inference_mode():
            return self._room.fill(rows, costs, self._score_part, shared_tok=len(self._prefix) + later)

    def _score_part(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        searches = [Search(row.trie, exact=self._exact) for row in rows]
        cache = self._slots(len(rows), max(len(row.ids) + len(row.trie.scored) - 1 for row in rows))
        trees = [TreeRow(row.ids, row.trie, len(self._prefix)) for row in rows]
        nodes = [search.take_all() if search.is_exact else [] for search in searches]
        openings = [tree.opening(ones) for tree, ones in zip(trees, nodes, strict=True)]
        self._record(searches, [[ROOT, *ones] for ones in nodes], self._feeder.feed(cache, openings))
        while any(nodes := [search.take() for search in searches]):
            for part in self._room.ranges([len(ones) for ones in nodes]):
                branches = [tree.branches(ones) for tree, ones in zip(trees[part], nodes[part], strict=True)]
                states = self._feeder.feed(cache, branches, start=part.start)
                self._record(searches[part], nodes[part], states)
        if any(search.is_broken for search in searches):
            self._cache = None  # what is not a number there would spoil whoever comes next, even unseen
        return searches

    def _record(self, searches: list[Search], nodes: list[list[int]], states: Any) -> None:
        """Tells each search the log-probabilities after its nodes; states (all nodes, state), row by row."""
        places = [(search, node) for search, ones in zip(searches, nodes, strict=True) for node in ones]
        wanted = [search.trie.wanted[node] for search, node in places]
        for (search, node), values in zip(places, self._readout.logprobs(states, wanted), strict=True):
            if not search.is_broken:
                search.record(node, values)

    def _generate_rows(self, rows: Sequence[GenerateRow]) -> list[Generated]:
        import torch

        columns = max(len(row.ids) + row.request.max_new_tokens for row in rows)
        with torch.inference_mode():
            while True:
                slots = max(1, min(len(rows), self._room.slots, self._room.cache_tok // columns))
                writer = Writer(self._feeder, self._readout, self.chat, len(self._prefix))
                try:
                    return writer.write(rows, self._slots(slots, columns))
                except (RuntimeError, MemoryError) as error:
                    self._cache = None
                    if not is_out_of_memory(error) or slots == 1:
                        raise
                    self._room.halve(slots, self._room.pass_tok)


def _sees_before(prefix: int, own: int) -> Any:
    """(own, prefix + own) bools: each token looks at the prefix and at what is before it."""
    import numpy as np

    return np.tri(own, prefix + own, prefix, dtype=np.bool_)


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def _context_tok(config: Any) -> int:
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    limit = int(config.max_position_embeddings)
    slides = "sliding_attention" in kinds or (window and not kinds)
    return min(limit, int(window)) if slides and window else limit
