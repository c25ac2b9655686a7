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
        self._exact = exact
        self._prefix: list[int] = []
        self._prefix_cache: list[tuple[Any, Any]] = []

    def close(self) -> None:
        """Gives the memory back."""
        self._network = None
        self._prefix, self._prefix_cache = [], []
        self._fitted.cache_clear()

    def _set_prefix(self, ids: list[int]) -> None:
        if ids == self._prefix:
            return
        self._prefix, self._prefix_cache = ids, []
        if ids:
            batch = Batch(self._network, self.device, [], [])
            batch.feed([list(ids)], keep=1)
            self._prefix_cache = batch.layers()

    def _start(self, rows: Sequence[Sequence[int]]) -> tuple[Batch, Any]:
        """The prompts, fed: and the logits after each, shape (rows, vocab)."""
        shared = len(self._prefix)
        is_shared = shared and all(len(ids) > shared and list(ids[:shared]) == self._prefix for ids in rows)
        prefix = self._prefix if is_shared else []
        batch = Batch(self._network, self.device, prefix, self._prefix_cache if is_shared else [])
        logits = batch.feed([list(ids[len(prefix) :]) for ids in rows], keep=1)
        return batch, logits[:, -1]

    def _score_rows(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        import torch

        searches = [Search(row.trie, exact=self._exact) for row in rows]
        with torch.inference_mode():
            batch, logits = self._start([row.ids for row in rows])
            self._record(searches, [(row, 0, ROOT) for row in range(len(rows))], logits[:, None])
            while any(nodes := [search.take() for search in searches]):
                logits = batch.feed_nodes([row.trie for row in rows], nodes)
                places = [(row, at, node) for row, ones in enumerate(nodes) for at, node in enumerate(ones)]
                self._record(searches, places, logits)
        return searches

    def _record(self, searches: list[Search], places: list[tuple[int, int, int]], logits: Any) -> None:
        """Tells each search the log-probabilities after its nodes; logits (rows, nodes, vocab)."""
        import torch

        for start in range(0, len(places), HEAD_ROWS):
            part = places[start : start + HEAD_ROWS]
            rows = torch.tensor([row for row, _, _ in part])
            ats = torch.tensor([at for _, at, _ in part])
            here = logits[rows, ats].float()  # (part, vocab)
            totals = here.logsumexp(-1, keepdim=True)
            wanted = [searches[row].trie.wanted[node] for row, _, node in part]
            width = max(map(len, wanted))
            ids = torch.tensor([[*ids, *([0] * (width - len(ids)))] for ids in wanted], device=here.device)
            found = (here.gather(1, ids) - totals).tolist()
            for (row, _, node), ids_here, values in zip(part, wanted, found, strict=True):
                if not searches[row].is_broken:
                    searches[row].record(node, values[: len(ids_here)])

    def _generate_rows(self, rows: Sequence[GenerateRow]) -> list[Generated]:
        import torch

        answers = [Continuation(row.request, self.chat) for row in rows]
        with torch.inference_mode():
            batch, logits = self._start([row.ids for row in rows])
            active = list(range(len(rows)))
            while True:
                tokens = [answers[row].extend(line) for row, line in zip(active, _lines(logits), strict=True)]
                going = [at for at, row in enumerate(active) if not answers[row].is_done]
                if not going:
                    return [answer.result() for answer in answers]
                if len(going) < len(active):
                    batch.keep(going)
                    active = [active[at] for at in going]
                logits = batch.feed([[tokens[at]] for at in going], keep=1)[:, -1]


def _lines(logits: Any) -> Any:
    return logits.float().cpu().numpy()


def _context_tok(config: Any) -> int:
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    limit = int(config.max_position_embeddings)
    slides = "sliding_attention" in kinds or (window and not kinds)
    return min(limit, int(window)) if slides and window else limit


class Batch:
    """Rows that are fed together: the key-value cache, and who may see what."""

    def __init__(self, network: Any, device: str, prefix: list[int], layers: list[tuple[Any, Any]]) -> None:
        from transformers import DynamicCache

        self._network = network
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
        """Appends ids to each row, padded on the left; the last `keep` logits, (rows, keep, vocab)."""
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
        logits = self._forward(ids, positions, torch.cat([before, within], dim=-1), keep)
        self._seen = torch.cat([self._seen, own], dim=-1)
        self._lengths = [length + len(row) for length, row in zip(self._lengths, rows, strict=True)]
        return logits

    def feed_nodes(self, tries: list[Trie], nodes: list[list[int]]) -> Any:
        """Appends branches to each row: every node sees the prompt and its own path; (rows, nodes, vocab)."""
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
        logits = self._forward(ids, positions, mask, width)
        self._seen = torch.cat([self._seen, torch.zeros(len(nodes), width, dtype=torch.bool)], dim=-1)
        return logits

    def _begin(self, rows: int) -> None:
        import torch

        for index, (keys, values) in enumerate(self._prefix_layers):
            self._cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
        self._seen = torch.ones(rows, self._prefix_tok, dtype=torch.bool)
        self._lengths = [self._prefix_tok] * rows
        self._slots = [{} for _ in range(rows)]

    def _forward(self, ids: Any, positions: Any, mask: Any, keep: int) -> Any:
        return self._network(
            input_ids=ids.to(self._device),
            position_ids=positions.to(self._device),
            attention_mask=mask[:, None].to(self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
