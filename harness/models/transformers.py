"""A Transformers checkpoint as a Model: choices by exact log-probability, and free answers, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.models.answering import AnsweringModel, ChoiceRow, Generated, GenerateRow
from harness.models.chat import load_chat
from harness.models.continuation import Continuation
from harness.models.identity import checkpoint_identity
from harness.models.network import Dtype, default_device, default_dtype, load_network, usable_threads
from harness.models.trie import ROOT, Search, Trie

BUDGET_TOK = 2048
"""Padded prompt tokens of a batch."""
MAX_ITEMS = 64
HEAD_ROWS = 256
"""Positions whose logits are held at once: (256, vocab) in float32 is 50 MB for a vocabulary of 49k."""


class TransformersModel(AnsweringModel):
    """Answers with torch, on CUDA when there is one, else on the processor."""

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
    ) -> None:
        """Loads the checkpoint. `exact` follows every choice to its end, however unlikely.

        Raises:
            ModelError: the checkpoint, its tokenizer or the adapter can't be used.
        """
        import torch

        identity = checkpoint_identity(folder, adapter, "nf4" if nf4 else "")
        super().__init__(identity, budget_tok=budget_tok, max_items=max_items)
        torch.set_num_threads(threads or usable_threads())
        self.device = device or default_device()
        self.dtype: Dtype = dtype or default_dtype(self.device)
        self.chat = load_chat(folder)
        self._network: Any = load_network(
            folder, adapter=adapter, nf4=nf4, dtype=self.dtype, device=self.device
        )
        self.context_tok = _context_tok(self._network.config)
        self._readout = Readout(self._network, self.device)
        self._exact = exact
        self._prefix: list[int] = []
        self._prefix_cache: list[tuple[Any, Any]] = []

    def close(self) -> None:
        """Gives the memory back."""
        self._network = self._readout = None  # type: ignore[assignment]
        self._prefix, self._prefix_cache = [], []
        self._fitted.cache_clear()

    def _set_prefix(self, ids: list[int]) -> None:
        if ids == self._prefix:
            return
        self._prefix, self._prefix_cache = ids, []
        if ids:
            batch = Batch(self._readout, self.device, [], [])
            batch.feed([list(ids)], keep=1)
            self._prefix_cache = batch.layers()

    def _start(self, rows: Sequence[Sequence[int]]) -> tuple[Batch, Any]:
        """The prompts, fed, and the states after each, shape (rows, 1, state)."""
        shared = len(self._prefix)
        is_shared = shared and all(len(ids) > shared and list(ids[:shared]) == self._prefix for ids in rows)
        prefix = self._prefix if is_shared else []
        batch = Batch(self._readout, self.device, prefix, self._prefix_cache if is_shared else [])
        return batch, batch.feed([list(ids[len(prefix) :]) for ids in rows], keep=1)

    def _score_rows(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        import torch

        searches = [Search(row.trie, exact=self._exact) for row in rows]
        with torch.inference_mode():
            batch, states = self._start([row.ids for row in rows])
            self._record(searches, [(row, 0, ROOT) for row in range(len(rows))], states)
            while any(nodes := [search.take() for search in searches]):
                states = batch.feed_nodes([row.trie for row in rows], nodes)
                places = [(row, at, node) for row, ones in enumerate(nodes) for at, node in enumerate(ones)]
                self._record(searches, places, states)
        return searches

    def _record(self, searches: list[Search], places: list[tuple[int, int, int]], states: Any) -> None:
        """Tells each search the log-probabilities after its nodes; states (rows, nodes, state)."""
        import torch

        for start in range(0, len(places), HEAD_ROWS):
            part = places[start : start + HEAD_ROWS]
            rows = torch.tensor([row for row, _, _ in part])
            ats = torch.tensor([at for _, at, _ in part])
            logits = self._readout.logits(states[rows, ats])  # (part, vocab)
            wanted = [searches[row].trie.wanted[node] for row, _, node in part]
            for (row, _, node), values in zip(part, _logprobs(logits, wanted), strict=True):
                if not searches[row].is_broken:
                    searches[row].record(node, values)

    def _generate_rows(self, rows: Sequence[GenerateRow]) -> list[Generated]:
        import torch

        answers = [Continuation(row.request, self.chat) for row in rows]
        with torch.inference_mode():
            batch, states = self._start([row.ids for row in rows])
            active = list(range(len(rows)))
            while True:
                lines = self._readout.logits(states[:, -1]).cpu().numpy()  # (rows, vocab)
                tokens = [answers[row].extend(line) for row, line in zip(active, lines, strict=True)]
                going = [at for at, row in enumerate(active) if not answers[row].is_done]
                if not going:
                    return [answer.result() for answer in answers]
                if len(going) < len(active):
                    batch.keep(going)
                    active = [active[at] for at in going]
                states = batch.feed([[tokens[at]] for at in going], keep=1)


def _logprobs(logits: Any, wanted: Sequence[Sequence[int]]) -> list[list[float]]:
    """log P of each row's ids; logits (rows, vocab) in float32."""
    import torch

    if (
        logits.device.type == "cpu"
    ):  # row by row: a table of all log-probabilities is fresh pages, five times slower
        return [row.log_softmax(-1)[list(ids)].tolist() for row, ids in zip(logits, wanted, strict=True)]
    width = max(map(len, wanted))
    table = torch.tensor([[*ids, *([0] * (width - len(ids)))] for ids in wanted])
    found = logits.log_softmax(-1).gather(1, table.to(logits.device)).tolist()
    return [values[: len(ids)] for values, ids in zip(found, wanted, strict=True)]


def _context_tok(config: Any) -> int:
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    limit = int(config.max_position_embeddings)
    slides = "sliding_attention" in kinds or (window and not kinds)
    return min(limit, int(window)) if slides and window else limit


class Readout:
    """The network in two steps, so that logits are computed only where they are needed.

    A state is the last hidden state where the logits are just the output head's product with it. Where
    the architecture does more, such as capping them, which a first small pass shows, a state is the row
    of logits itself.
    """

    def __init__(self, network: Any, device: str) -> None:
        import torch

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

    def states(self, keep: int, **inputs: Any) -> Any:
        """The states of the last `keep` positions, (rows, keep, state)."""
        if self._is_plain:
            return self._decoder(**inputs).last_hidden_state[:, -keep:]
        return self._network(**inputs, logits_to_keep=keep).logits

    def logits(self, states: Any) -> Any:
        """The logits in float32, (…, vocab)."""
        return (self._head(states) if self._is_plain else states).float()


class Batch:
    """Rows that are fed together: the key-value cache, and who may see what."""

    def __init__(
        self, readout: Readout, device: str, prefix: list[int], layers: list[tuple[Any, Any]]
    ) -> None:
        from transformers import DynamicCache

        self._readout = readout
        self._device = device
        self._prefix_tok = len(prefix)
        self._prefix_layers = layers
        self._cache = DynamicCache()
        self._seen: Any = None
        """(rows, cached) bool: cached positions that hold the row's own tokens, no padding."""
        self._lengths: list[int] = []
        """Tokens of each row so far, padding and branches left out."""
        self._slots: list[dict[int, int]] = []
        """Where in the cache each row's trie nodes are."""

    def layers(self) -> list[tuple[Any, Any]]:
        """Each layer's keys and values, (rows, heads, cached, size)."""
        return [(layer.keys, layer.values) for layer in self._cache.layers]

    def keep(self, rows: list[int]) -> None:
        """Drops all other rows."""
        import torch

        chosen = torch.tensor(rows, device=self._device)
        self._cache.batch_select_indices(chosen)
        self._seen = self._seen[chosen.to(self._seen.device)]
        self._lengths = [self._lengths[row] for row in rows]

    def feed(self, rows: list[list[int]], *, keep: int) -> Any:
        """Appends ids to each row, padded on the left; the last `keep` states, (rows, keep, state)."""
        import torch

        if self._seen is None:
            self._begin(len(rows))
        width = max(map(len, rows))
        pads = [width - len(ids) for ids in rows]
        ids = torch.tensor([[0] * pad + row for pad, row in zip(pads, rows, strict=True)])
        steps = torch.arange(width)
        own = steps[None] >= torch.tensor(pads)[:, None]  # (rows, width)
        starts = torch.tensor(self._lengths) - torch.tensor(pads)
        positions = (starts[:, None] + steps[None]).clamp(min=0)
        within = own[:, None, :] & (steps[None, :] <= steps[:, None]) | torch.eye(width, dtype=torch.bool)
        before = self._seen[:, None, :].expand(-1, width, -1)
        states = self._forward(ids, positions, torch.cat([before, within], dim=-1), keep)
        self._seen = torch.cat([self._seen, own], dim=-1)
        self._lengths = [length + len(row) for length, row in zip(self._lengths, rows, strict=True)]
        return states

    def feed_nodes(self, tries: list[Trie], nodes: list[list[int]]) -> Any:
        """Appends branches to each row: every node sees the prompt and its own path; (rows, nodes, state)."""
        import torch

        width = max(map(len, nodes))
        begin = self._seen.shape[1]
        ids = torch.zeros(len(nodes), width, dtype=torch.long)
        positions = torch.zeros(len(nodes), width, dtype=torch.long)
        mask = torch.zeros(len(nodes), width, begin + width, dtype=torch.bool)
        mask[:, :, :begin] = self._seen[:, None, :]
        mask[:, :, begin:] = torch.eye(width, dtype=torch.bool)
        for row, (trie, ones) in enumerate(zip(tries, nodes, strict=True)):
            slots = self._slots[row]
            slots.update((node, begin + at) for at, node in enumerate(ones))
            for at, node in enumerate(ones):
                ids[row, at] = trie.tokens[node]
                positions[row, at] = self._lengths[row] + trie.depths[node] - 1
                mask[row, at, [slots[above] for above in trie.path(node)]] = True
        states = self._forward(ids, positions, mask, width)
        self._seen = torch.cat([self._seen, torch.zeros(len(nodes), width, dtype=torch.bool)], dim=-1)
        return states

    def _begin(self, rows: int) -> None:
        import torch

        for index, (keys, values) in enumerate(self._prefix_layers):
            self._cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
        self._seen = torch.ones(rows, self._prefix_tok, dtype=torch.bool)
        self._lengths = [self._prefix_tok] * rows
        self._slots = [{} for _ in range(rows)]

    def _forward(self, ids: Any, positions: Any, mask: Any, keep: int) -> Any:
        return self._readout.states(
            keep,
            input_ids=ids.to(self._device),
            position_ids=positions.to(self._device),
            attention_mask=mask[:, None].to(self._device),
            past_key_values=self._cache,
            use_cache=True,
        )
