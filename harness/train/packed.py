"""Rows of one batch side by side, without padding and with their common beginning computed once.

Chat templates begin every prompt with the same tokens. Causal attention gives those the same hidden
states in every row, so one copy serves all rows: the loss and the gradient are those of separate rows.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Layout(NamedTuple):
    """Where the rows stand among the tokens: the common prefix, each row's own tokens, then padding."""

    prefix_tok: int
    rows: int
    width: int
    """Own tokens of the longest row, rounded up."""
    slots: torch.Tensor  # (own tokens,), index into (rows * width)
    prefix_mask: torch.Tensor  # (1, groups * prefix, prefix), 0 or -inf
    mask: torch.Tensor  # (1, groups * width, prefix + width), 0 or -inf


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


def pack(rows: Sequence[Encoded], *, groups: int, dtype: torch.dtype, pad_id: int) -> Packed:
    """The rows as one sequence; `groups` is the number of query heads a key head serves."""
    import torch

    prefix = shared_prefix(rows)
    own = [len(row.ids) - prefix for row in rows]
    width = _rounded(max(own), WIDTH_MULTIPLE)
    ids, positions = list(rows[0].ids[:prefix]), list(range(prefix))
    slots: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for at, row in enumerate(rows):
        places.extend(len(ids) + place - prefix - 1 for place in row.supervised_at)
        targets.extend(row.ids[place] for place in row.supervised_at)
        ids.extend(row.ids[prefix:])
        positions.extend(range(prefix, len(row.ids)))
        slots.extend(range(at * width, at * width + own[at]))
    padding = _rounded(len(ids), TOKENS_MULTIPLE) - len(ids)
    layout = Layout(
        prefix,
        len(rows),
        width,
        torch.tensor(slots),
        _mask(0, prefix, groups, dtype),
        _mask(prefix, width, groups, dtype),
    )
    return Packed(
        torch.tensor([ids + [pad_id] * padding]),
        torch.tensor([positions + [0] * padding]),
        layout,
        torch.tensor(places),
        torch.tensor(targets),
    )


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
            out = torch.zeros_like(q)
            saved = []
            for part in _parts(layout):
                heads = part.queries(q) * scale, part.keys(k), part.keys(v)
                weights = torch.softmax(torch.bmm(heads[0], heads[1].mT).add_(part.mask), dim=-1)
                part.write(out, torch.bmm(weights, heads[2]))
                saved += [*heads, weights]
            ctx.save_for_backward(*saved)
            ctx.scale, ctx.layout, ctx.shapes = scale, layout, (q.shape, k.shape)
            return out

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            dq, dk, dv = (
                grad.new_zeros(ctx.shapes[0]),
                grad.new_zeros(ctx.shapes[1]),
                grad.new_zeros(ctx.shapes[1]),
            )
            saved = ctx.saved_tensors  # once: recomputed activations can't be unpacked twice
            for at, part in enumerate(_parts(ctx.layout)):
                q, k, v, weights = saved[4 * at : 4 * at + 4]
                d_out = part.queries(grad)
                part.add_keys(dv, torch.bmm(weights.mT, d_out))
                d_weights = torch.bmm(d_out, v.mT)
                d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
                part.write(dq, torch.bmm(d_scores, k).mul_(ctx.scale))
                part.add_keys(dk, torch.bmm(d_scores.mT, q))
            return dq, dk, dv, None, None

    return RowAttention.apply


def _parts(layout: Layout) -> list[Any]:
    own = _Own(layout)
    return [_Prefix(layout), own] if layout.prefix_tok else [own]


class _Prefix:
    """The common prefix looking at itself, one batch entry a key head."""

    def __init__(self, layout: Layout) -> None:
        self.tokens = layout.prefix_tok
        self.mask = layout.prefix_mask

    def queries(self, x: Any) -> Any:
        return _grouped(x[: self.tokens][None], self.mask)

    def keys(self, x: Any) -> Any:
        return x[: self.tokens].transpose(0, 1).contiguous()

    def write(self, out: Any, heads: Any) -> None:
        out[: self.tokens] = _ungrouped(heads, 1, self.tokens, out)[0]

    def add_keys(self, out: Any, heads: Any) -> None:
        out[: self.tokens] += heads.transpose(0, 1)


class _Own:
    """Each row's own tokens looking at the prefix and at themselves, one batch entry a row and key head."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.mask = layout.mask
        self.start = layout.prefix_tok
        self.end = layout.prefix_tok + len(layout.slots)

    def queries(self, x: Any) -> Any:
        return _grouped(self._padded(x), self.mask)

    def keys(self, x: Any) -> Any:
        import torch

        own = self._padded(x).transpose(1, 2)  # (rows, heads, width, size)
        if not self.start:
            return own.reshape(-1, *own.shape[2:])
        shared = x[: self.start].transpose(0, 1)[None].expand(self.layout.rows, -1, -1, -1)
        return torch.cat([shared, own], dim=2).flatten(0, 1)

    def write(self, out: Any, heads: Any) -> None:
        padded = _ungrouped(heads, self.layout.rows, self.layout.width, out)
        out[self.start : self.end] = padded.flatten(0, 1)[self.layout.slots]

    def add_keys(self, out: Any, heads: Any) -> None:
        rows = heads.view(self.layout.rows, -1, *heads.shape[1:])  # (rows, heads, prefix + width, size)
        own = rows[:, :, self.start :].transpose(1, 2).flatten(0, 1)
        out[self.start : self.end] = own[self.layout.slots]
        if self.start:
            out[: self.start] += rows[:, :, : self.start].sum(0).transpose(0, 1)

    def _padded(self, x: Any) -> Any:
        """(tokens, heads, size) → (rows, width, heads, size), zero where a row has no token."""
        padded = x.new_zeros(self.layout.rows * self.layout.width, *x.shape[1:])
        padded.index_copy_(0, self.layout.slots, x[self.start : self.end])
        return padded.view(self.layout.rows, self.layout.width, *x.shape[1:])


def _grouped(x: Any, mask: Any) -> Any:
    """(rows, time, heads, size) → (rows * key heads, groups * time, size): heads that share keys are one."""
    rows, time, heads, size = x.shape
    groups = mask.shape[1] // time
    split = x.view(rows, time, heads // groups, groups, size).permute(0, 2, 3, 1, 4)
    return split.reshape(-1, groups * time, size)


def _ungrouped(x: Any, rows: int, time: int, like: Any) -> Any:
    """The inverse of `_grouped`; `like` has the heads and their size as its last dimensions."""
    heads, size = like.shape[1:]
    groups = x.shape[1] // time
    return (
        x.view(rows, heads // groups, groups, time, size)
        .permute(0, 3, 1, 2, 4)
        .reshape(rows, time, heads, size)
    )
