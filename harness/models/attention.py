"""Attention on a processor without copies of keys and values for the query heads that share them."""

from __future__ import annotations

from typing import Any

ATTENTION = "harness_grouped"
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Whose attention is the plain one: no cap on its scores, no sinks, nothing added."""


def use_grouped_attention(network: Any, device: str) -> int:
    """From now on the network wants masks from `grouped_mask`; the query heads a key head serves.

    1 where the network keeps the attention it has, which takes a mask (rows, 1, tokens, columns) of bools.
    """
    config = network.config
    heads = getattr(config, "num_attention_heads", 1)
    groups = heads // (getattr(config, "num_key_value_heads", None) or heads)
    if device != "cpu" or groups == 1 or config.model_type not in ARCHITECTURES:
        return 1
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attention)
    config._attn_implementation = ATTENTION
    return int(groups)


def grouped_mask(sees: Any, groups: int, dtype: Any) -> Any:
    """(rows, tokens, columns) bools → (rows, 1, groups * tokens, columns), 0 or -inf."""
    import torch

    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(~sees, float("-inf"))
    return mask.repeat(1, groups, 1)[:, None]


def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> tuple[Any, None]:
    """In the signature that Transformers calls: query (rows, heads, tokens, size) → (rows, tokens, heads, size).

    The query heads of a key head are laid one after the other as if they were tokens.
    """
    import torch

    rows, heads, tokens, size = query.shape
    if mask is None or mask.dtype == torch.bool:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Any, None] = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return found
    shared = key.shape[1]
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, shared, heads // shared * tokens, size),
        key, value, attn_mask=mask, scale=kwargs.get("scaling"),
    )  # fmt: skip
    return out.view(rows, heads, tokens, size).transpose(1, 2).contiguous(), None
