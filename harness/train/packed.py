"""Rows of one batch side by side, without padding and with their common beginning computed once.

Chat templates begin every prompt with the same tokens. Causal attention gives those the same hidden
states in every row, so one copy serves all rows: the loss and the gradient are those of separate rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.models.prompts import common_prefix
from harness.train.batches import Encoded

if TYPE_CHECKING:
    import torch
    from torch import nn

ATTENTION = "harness_rows"
TOKENS_MULTIPLE = 32
"""Lengths are rounded up to this: matrix kernels are built once a shape, which costs more than a few tokens."""
WIDTH_MULTIPLE = 16
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")


class Heads(NamedTuple):
    """Of an attention layer."""

    queries: int
    keys: int
    """Each serves `queries // keys` query heads."""


class Square(NamedTuple):
    """Rows of equal width that look at themselves and at what all of them share, one batch entry a row and key head.

    The indexes count heads of tokens: head h of token t is t * heads + h.
    """

    start: int
    """The rows' own tokens are [start, end)."""
    end: int
    shared_tok: int
    """Tokens before `start` that every row looks at."""
    batch: int
    """Rows times key heads."""
    queries: torch.Tensor  # (batch * groups * width,), into the query heads
    keys: torch.Tensor  # (batch * (shared + width),), into the key heads
    own_queries: torch.Tensor  # ((end - start) * query heads,), into `queries`
    own_keys: torch.Tensor  # ((end - start) * key heads,), into `keys`
    mask: torch.Tensor  # (1, groups * width, shared + width), 0 or -inf

    def of_queries(self, x: Any) -> Any:
        """(tokens, heads, size) → (batch, groups * width, size)."""
        return x.reshape(-1, x.shape[-1]).index_select(0, self.queries).view(self.batch, -1, x.shape[-1])

    def of_keys(self, x: Any) -> Any:
        """(tokens, key heads, size) → (batch, shared + width, size)."""
        return x.reshape(-1, x.shape[-1]).index_select(0, self.keys).view(self.batch, -1, x.shape[-1])

    def write_queries(self, out: Any, values: Any) -> None:
        """Puts what `of_queries` would read of the rows' own tokens into `out`."""
        _write(out[self.start : self.end], values, self.own_queries)

    def write_keys(self, out: Any, values: Any) -> None:
        """Puts the gradient of keys or values into `out`, and adds the shared tokens' to what stands there."""
        _write(out[self.start : self.end], values, self.own_keys)
        if self.shared_tok:
            rows = values.view(-1, out.shape[1], *values.shape[1:])  # (rows, key heads, shared + width, size)
            out[: self.shared_tok] += rows[:, :, : self.shared_tok].sum(0).transpose(0, 1)


class Layout(NamedTuple):
    """Where the rows stand among the tokens: the common prefix, each row's own tokens, then padding."""

    prefix_tok: int
    rows: int
    end: int
    """The first token of the padding, of which there is at least one."""
    squares: tuple[Square, ...]


class Packed(NamedTuple):
    """A micro-batch as one sequence."""

    input_ids: torch.Tensor  # (1, tokens), int64
    position_ids: torch.Tensor  # (1, tokens), int64
    layout: Layout
    places: torch.Tensor  # (supervised,), the position before each supervised token
    targets: torch.Tensor  # (supervised,), int64


def can_pack(model: nn.Module, device: torch.device) -> bool:
    """True where `use_row_attention` computes what the model's own attention would, and is faster: on a CPU."""
    config: Any = model.config
    return (
        device.type == "cpu"
        and config.model_type in ARCHITECTURES
        and not getattr(config, "attention_dropout", 0.0)
        and not getattr(config, "use_sliding_window", False)
        and (config.model_type != "mistral" or getattr(config, "sliding_window", None) is None)
    )


def use_row_attention(model: nn.Module) -> None:
    """From now on the model's forward needs `layout=`."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attention)
    model.config._attn_implementation = ATTENTION  # type: ignore[union-attr]


def pack(rows: Sequence[Encoded], *, heads: Heads, dtype: torch.dtype, pad_id: int) -> Packed:
    """The rows as one sequence, for attention layers with these heads."""
    import torch

    prefix = shared_prefix(rows)
    ids, positions = list(rows[0].ids[:prefix]), list(range(prefix))
    starts: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for row in rows:
        starts.append(len(ids))
        places.extend(len(ids) + place - prefix - 1 for place in row.supervised_at)
        targets.extend(row.ids[place] for place in row.supervised_at)
        ids.extend(row.ids[prefix:])
        positions.extend(range(prefix, len(row.ids)))
    end = len(ids)
    tokens = _rounded(end + 1, TOKENS_MULTIPLE)
    return Packed(
        torch.tensor([ids + [pad_id] * (tokens - end)]),
        torch.tensor([positions + [0] * (tokens - end)]),
        Layout(prefix, len(rows), end, tuple(_squares(prefix, starts, end, heads, dtype))),
        torch.tensor(places),
        torch.tensor(targets),
    )


def _squares(
    prefix: int, starts: Sequence[int], end: int, heads: Heads, dtype: torch.dtype
) -> Iterator[Square]:
    """The prefix by itself, then all rows after it."""
    import torch

    if prefix:
        yield _square(torch.arange(prefix)[None], 0, 0, prefix, heads, dtype)
    widths = [after - start for start, after in zip(starts, [*starts[1:], end], strict=True)]
    columns = torch.arange(_rounded(max(widths), WIDTH_MULTIPLE))
    tokens = torch.tensor(starts)[:, None] + columns
    # Slots without a token of their own read the padding: no row looks there, and its gradient is zero.
    own = columns < torch.tensor(widths)[:, None]
    yield _square(torch.where(own, tokens, end), prefix, prefix, end, heads, dtype)


def _square(
    tokens: torch.Tensor, shared: int, start: int, end: int, heads: Heads, dtype: torch.dtype
) -> Square:
    """`tokens` (rows, width) names the token of each slot; `end` or above where there is none."""
    import torch

    (rows, width), groups = tokens.shape, heads.queries // heads.keys
    head = torch.arange(heads.queries).view(1, heads.keys, groups, 1)
    key_head = torch.arange(heads.keys).view(1, heads.keys, 1)
    queries = tokens[:, None, None] * heads.queries + head  # (rows, key heads, groups, width)
    seen = torch.cat([torch.arange(shared).expand(rows, -1), tokens], dim=1)  # (rows, shared + width)
    keys = seen[:, None] * heads.keys + key_head  # (rows, key heads, shared + width)
    is_own = tokens < end
    slots = (
        torch.arange(queries.numel()).view_as(queries).permute(0, 3, 1, 2)[is_own]
    )  # (own, key heads, groups)
    key_slots = (
        torch.arange(keys.numel()).view_as(keys)[:, :, shared:].permute(0, 2, 1)[is_own]
    )  # (own, key heads)
    return Square(
        start, end, shared, rows * heads.keys, queries.flatten(), keys.flatten(), slots.flatten(),
        key_slots.flatten(), _mask(shared, width, groups, dtype),
    )  # fmt: skip


def shared_prefix(rows: Sequence[Encoded]) -> int:
    """Tokens that all rows begin with, short of the place that predicts the first supervised one."""
    if len(rows) < 2:
        return 0
    limit = min(row.supervised_from for row in rows) - 1
    return max(0, min(limit, len(common_prefix([row.ids for row in rows]))))


def _rounded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _mask(prefix: int, width: int, groups: int, dtype: torch.dtype) -> torch.Tensor:
    """0 where a token of a row may look, -inf elsewhere: the whole prefix, and its own past."""
    import torch

    mask = torch.full((width, prefix + width), float("-inf"), dtype=dtype).triu(prefix + 1)
    return mask.repeat(groups, 1)[None]


def attention(module: nn.Module, q: Any, k: Any, v: Any, mask: Any, **kwargs: Any) -> tuple[Any, None]:  # noqa: ARG001
    """Attention inside each row and to the common prefix, in the signature that Transformers calls.

    q is (1, heads, tokens, size), k and v (1, key heads, tokens, size); the result (1, tokens, heads, size).
    """
    flat = (tensor[0].transpose(0, 1) for tensor in (q, k, v))  # (tokens, heads, size)
    out = row_attention()(*flat, kwargs["scaling"], kwargs["layout"])
    return out[None], None


@cache
def row_attention() -> Any:
    """The differentiable attention, as a function of q, k, v, scale and layout."""
    import torch

    class RowAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, scale: float, layout: Layout) -> Any:
            out = _blank(q, layout)
            saved = []
            for square in layout.squares:
                heads = square.of_queries(q).mul_(scale), square.of_keys(k), square.of_keys(v)
                weights = torch.softmax(torch.bmm(heads[0], heads[1].mT).add_(square.mask), dim=-1)
                square.write_queries(out, torch.bmm(weights, heads[2]))
                saved += [*heads, weights]
            ctx.save_for_backward(*saved)
            ctx.scale, ctx.layout, ctx.key_shape = scale, layout, k.shape
            return out

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            layout: Layout = ctx.layout
            dq = _blank(grad, layout)
            dk, dv = (_blank(grad.new_empty(ctx.key_shape), layout) for _ in range(2))
            saved = ctx.saved_tensors  # once: recomputed activations can't be unpacked twice
            for at, square in enumerate(layout.squares):
                q, k, v, weights = saved[4 * at : 4 * at + 4]
                d_out = square.of_queries(grad)
                square.write_keys(dv, torch.bmm(weights.mT, d_out))
                d_weights = torch.bmm(d_out, v.mT)
                d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
                square.write_queries(dq, torch.bmm(d_scores, k).mul_(ctx.scale))
                square.write_keys(dk, torch.bmm(d_scores.mT, q))
            return dq, dk, dv, None, None

    return RowAttention.apply


def _blank(like: Any, layout: Layout) -> Any:
    """Memory for as many heads of tokens, zero in the padding."""
    import torch

    blank = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    blank[layout.end :].zero_()
    return blank


def _write(out: Any, values: Any, places: torch.Tensor) -> None:
    """`out` (tokens, heads, size), contiguous, becomes the values' heads at the places."""
    import torch

    size = out.shape[-1]
    torch.index_select(values.reshape(-1, size), 0, places, out=out.view(-1, size))
