"""Packed layers and the decoder with fewer passes: Transformers' own numbers, or not used at all."""

from __future__ import annotations

from typing import Any

import pytest

from harness.models.attention import use_grouped_attention
from harness.models.decoder import plain_decoder
from harness.models.linear import pack_linear_layers, packed_linear


def tiny_network(kind: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_the_plain_decoder_stands_in_for_each_architecture_it_claims(kind: str) -> None:
    import torch

    network = tiny_network(kind)
    ids = torch.arange(40)[None] * 7 % 300
    with torch.inference_mode():
        wanted = network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    groups = use_grouped_attention(network, "cpu")
    assert pack_linear_layers(network) == 15

    decoder = plain_decoder(network, groups, "float32")

    assert decoder is not None
    from harness.models.attention import grouped_mask
    from harness.models.slots import slot_cache

    cache = slot_cache()(1, 40)
    cache.aim(0, torch.arange(40)[None], 40)
    mask = grouped_mask(torch.ones(1, 40, 40, dtype=torch.bool).tril(), groups, torch.float32)
    with torch.inference_mode():
        found = decoder(
            input_ids=ids, position_ids=torch.arange(40)[None], attention_mask=mask, past_key_values=cache
        )
    assert torch.allclose(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("change", ["activation", "norm", "rotation", "unpacked"])
def test_a_network_that_computes_otherwise_keeps_its_own_decoder(change: str) -> None:
    import torch

    network = tiny_network("Llama")
    groups = use_grouped_attention(network, "cpu")
    if change != "unpacked":
        pack_linear_layers(network)
    layer = network.model.layers[0]
    if change == "activation":
        layer.mlp.act_fn = torch.nn.ReLU()
    if change == "norm":
        plain = layer.input_layernorm.forward
        layer.input_layernorm.forward = lambda states: 1.5 * plain(states)
    if change == "rotation":
        turn = network.model.rotary_emb.forward
        uneven = torch.linspace(0.5, 1.0, 16)  # the halves of a head no longer turn alike
        network.model.rotary_emb.forward = lambda *a, **k: tuple(part * uneven for part in turn(*a, **k))

    assert plain_decoder(network, groups, "float32") is None


def test_a_packed_layer_multiplies_as_the_plain_one_and_gives_its_weights_back() -> None:
    import torch

    layer = torch.nn.Linear(32, 48)
    packed = packed_linear()(layer.weight, layer.bias)
    inputs = torch.randn(2, 3, 32)

    assert torch.allclose(packed(inputs), layer(inputs), atol=1e-5)
    assert torch.allclose(packed.silu(inputs), torch.nn.functional.silu(layer(inputs)), atol=1e-5)
    assert torch.equal(packed.weight, layer.weight)
