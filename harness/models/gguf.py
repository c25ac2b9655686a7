"""A GGUF file as a Model, through llama.cpp's low-level interface."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import IntegrityError, ModelError
from harness.gbnf import check_grammar
from harness.models.answering import AnsweringModel, ChoiceRow, Generated, GenerateRow
from harness.models.base import ChoiceRequest, GenerateRequest, Identity
from harness.models.batching import plan_batches
from harness.models.chat import Chat, find_end_text
from harness.models.continuation import Continuation
from harness.models.gguf_api import Cache, Context, Weights, widen
from harness.models.gguf_constraint import Ends, GrammarConstraint
from harness.models.gguf_following import Following
from harness.models.gguf_scoring import MAX_SEQUENCES, PLACES, PREFIXES, Prefixes, Scoring, end_nodes
from harness.models.gguf_writing import Job, Writing, free_memory_bytes, plan_cache
from harness.models.identity import gguf_identity, identity_of
from harness.models.prefixes import Ids
from harness.models.trie import Search

BUDGET_TOK = 512
"""Tokens of a batch: the cost of attention grows with all that lies in the cache."""
MAX_ITEMS = 16
WRITTEN_ITEMS = 64
"""Answers of a batch that are written: the places in the cache go from one to the next."""
BATCH_TOK = 2048
CACHE_8_BIT = "keys and values in q8_0"
CELL_STEP = 1024
"""A cache that grows with every batch would be allocated with every batch."""


class GgufModel(AnsweringModel):
    """Answers with llama.cpp in this process: run it in a worker, native code can take a process down."""

    has_grammars = True
    keeps_prefixes = True

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        sha256: str | None = None,
        exact: bool = False,
        widened: bool = False,
        is_cache_8_bit: bool = False,
        budget_tok: int = BUDGET_TOK,
        max_items: int = MAX_ITEMS,
    ) -> None:
        """Loads the file. `exact` follows every choice to its end, however unlikely.

        `widened` computes with the file's weights in float32, and a float32 cache. As it ships, an F16 file
        is multiplied by activations that are rounded to F16: log P of a token then moves by 0.005. Widened
        it is the textbook's to 1e-4, and any quantization is told apart from llama.cpp's own rounding.
        `is_cache_8_bit` holds keys and values in q8_0, and is another model by its identity.

        Raises:
            ModelError: llama.cpp can't use the file, or no token ends a turn.
            IntegrityError: its sha256 is not the one that was promised.
        """
        from harness.models.network import usable_threads

        identity = gguf_identity(path)
        if sha256 is not None and identity.weights != sha256:
            raise IntegrityError(f"{path}: sha256 is {identity.weights[:16]}…, wanted {sha256[:16]}…")
        if widened or is_cache_8_bit:
            identity = changed(identity, "widened to float32" if widened else CACHE_8_BIT)
        super().__init__(identity, budget_tok=budget_tok, max_items=max_items)
        self._threads = threads or usable_threads()
        self._weights = _load_widened(path, self._threads) if widened else _load(path)
        self.chat = gguf_chat(self._weights, path)
        self.context_tok = self._weights.context_tok
        self._is_widened, self._is_8_bit = widened, is_cache_8_bit and not widened
        self._exact = exact
        self._ends = Ends(self._weights, self.chat)
        self._proved = lru_cache(maxsize=256)(self._prove)
        self._chain: list[Ids] = []
        """What the rows of the next calls begin with, and its own beginnings, outermost first."""
        self._context: Context | None = None
        self._prefixes: Prefixes | None = None

    def close(self) -> None:
        """Gives the memory back."""
        self._drop_context()
        self._weights.close()
        self._fitted.cache_clear()

    def _drop_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = self._prefixes = None

    def _set_prefix(self, ids: list[int]) -> None:
        chain = [tuple(ids)] if ids else []
        while chain and (above := self._shared.parents.get(chain[-1])):
            chain.append(above)
        self._chain = chain[::-1][-PREFIXES:]

    @property
    def _kind(self) -> dict[str, bool]:
        return {"is_float32": self._is_widened, "is_8_bit": self._is_8_bit}

    def _room(self, cache: Cache) -> tuple[Context, Prefixes]:
        """A context with such a cache, or a larger one of its kind, and the prefix in it."""
        context, prefixes = self._context, self._prefixes
        if context is None or prefixes is None or not _serves(context.cache, cache):
            self._drop_context()
            context = Context(self._weights, cache, batch_tok=BATCH_TOK, threads=self._threads)
            prefixes = Prefixes(context)
            self._context, self._prefixes = context, prefixes
        prefixes.hold(self._chain)
        return context, prefixes

    def _batches(self, requests: Sequence[ChoiceRequest] | Sequence[GenerateRequest]) -> list[list[int]]:
        written = [request for request in requests if isinstance(request, GenerateRequest)]
        if len(written) < len(requests):
            return super()._batches(requests)
        prefixes = [self._prefix_of.get(request.prompt, ()) for request in written]
        return plan_batches(
            [self._new_tok(request, len(ids)) for request, ids in zip(written, prefixes, strict=True)],
            budget_tok=WRITTEN_ITEMS * self.context_tok,
            max_items=WRITTEN_ITEMS,
            groups=[self._shared.order[ids] for ids in prefixes],
        )

    def _score_rows(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        shared = len(self._chain[-1]) if self._chain else 0
        cells = shared + sum(len(row.ids) + len(row.trie.tokens) for row in rows)
        cache = Cache(-(-cells // CELL_STEP) * CELL_STEP, MAX_SEQUENCES)._replace(**self._kind)
        is_whole = [(self._exact or row.trie.is_exact) and len(end_nodes(row.trie)) <= PLACES for row in rows]
        whole = [row for row, is_one in zip(rows, is_whole, strict=True) if is_one]
        rest = [row for row, is_one in zip(rows, is_whole, strict=True) if not is_one]
        try:
            context, prefixes = self._room(cache)
            scored = iter(Scoring(context, prefixes, whole).run())
            followed = iter(Following(context, prefixes, rest, exact=self._exact).run())
        except RuntimeError:
            self._drop_context()
            raise
        return [next(scored) if is_one else next(followed) for is_one in is_whole]

    def _generate_rows(self, rows: Sequence[GenerateRow]) -> list[Generated]:
        constraints = [
            None
            if row.request.grammar is None
            else GrammarConstraint(self._weights, row.request.grammar, self._ends)
            for row in rows
        ]
        try:
            return self._written(rows, constraints)
        except RuntimeError:
            self._drop_context()
            raise
        finally:
            for constraint in constraints:
                if constraint is not None:
                    constraint.close()

    def _written(
        self, rows: Sequence[GenerateRow], constraints: Sequence[GrammarConstraint | None]
    ) -> list[Generated]:
        jobs = [
            Job(row.ids, Continuation(row.request, self.chat, constraint), row.request.max_new_tokens)
            for row, constraint in zip(rows, constraints, strict=True)
        ]
        cell_bytes = self._weights.cache_values * (4 if self._is_widened else 2)
        cache = plan_cache(jobs, cell_bytes, free_memory_bytes())._replace(**self._kind)
        context, prefixes = self._room(cache)
        Writing(context, prefixes, jobs).run()
        return [job.answer.result() for job in jobs]

    def _generate_row(self, request: GenerateRequest) -> list[GenerateRow]:
        rows = super()._generate_row(request)
        if request.grammar is not None:
            self._proved(request.grammar)
        return rows

    def _prove(self, grammar: str) -> None:
        check_grammar(grammar)
        if self._ends.probe is None:
            raise ModelError("llama.cpp knows no token of the file that ends a turn: no grammar could end")
        GrammarConstraint(self._weights, grammar, self._ends).close()


def changed(identity: Identity, how: str) -> Identity:
    """The identity of the same bytes, computed with in another way."""
    parts = identity._asdict() | {"quantization": how}
    return identity_of(**{name: value for name, value in parts.items() if name != "digest"})


def _serves(has: Cache, wanted: Cache) -> bool:
    alike = (has.is_apart, has.is_float32, has.is_8_bit) == (
        wanted.is_apart,
        wanted.is_float32,
        wanted.is_8_bit,
    )
    return alike and has.cells >= wanted.cells and has.sequences >= wanted.sequences


def _load(path: Path) -> Weights:
    from harness.models.gguf_probe import needs_plain_buffers

    with Weights(path, vocab_only=True) as head:
        is_quantized = head.is_quantized
    is_plain = needs_plain_buffers(path.resolve(), is_quantized=is_quantized)
    return Weights(path, use_extra_buffers=not is_plain)


def _load_widened(path: Path, threads: int) -> Weights:
    with Weights(path, vocab_only=True), TemporaryDirectory() as folder:
        wide = Path(folder) / path.name
        widen(path, wide, threads=threads)
        return Weights(wide)  # mapped into memory: the file's name is no longer needed


def gguf_chat(weights: Weights, path: Path) -> Chat:
    """The chat of a GGUF: its own template and its own tokenizer. Without a template, for raw text only.

    Raises:
        ModelError: no token ends a turn.
    """
    source = weights.meta("tokenizer.chat_template") or ""
    tokens, special = weights.special_tokens(), weights.special_ids()
    end_text = find_end_text(source, tokens, weights.control_pieces())
    ids = weights.encode(end_text)
    if len(ids) != 1:
        raise ModelError(f"{path}: the end of turn {end_text!r} is {len(ids)} tokens, wanted one")
    bos = special.get("bos_token")
    return Chat(
        template=source,
        tokens=tokens,
        encode=weights.encode,
        decode=weights.decode,
        end_text=end_text,
        end_id=ids[0],
        end_ids=(ids[0], *sorted(weights.turn_end_ids() - {ids[0]})),
        pad_id=ids[0],
        bos_ids=(bos,) if bos is not None and weights.begins_with_bos else (),
        start_id=bos if bos is not None else special.get("eos_token"),
    )
