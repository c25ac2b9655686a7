"""The base with what a method trains in it: adapters, factors, virtual tokens, or the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import ModelError
from harness.specs.tune import Method, Tune
from harness.train.batches import Encoded, tensors
from harness.train.packed import Heads, can_pack, pack, use_row_attention

if TYPE_CHECKING:
    import torch
    from torch import nn

PEFT_PREFIX = "base_model.model."
PROMPT = "prompt_embeddings"
"""The name of virtual tokens in an adapter file, as PEFT spells it."""
VIRTUAL_TOKENS = 16
INPUT_SIDE = ("down_proj", "fc2")
"""Layers whose *input* IA3 scales, as Liu et al. (2022) do inside the feed-forward part; elsewhere the output."""


class Start(tuple["torch.Tensor", "torch.Tensor"]):
    """The factors A (rank, in) and B (out, rank) that PiSSA took out of a layer's weight, float32."""

    __slots__ = ()


@dataclass(frozen=True)
class Adapted:
    """A base with what is trainable in it."""

    model: nn.Module
    """The base in its own class; its linear layers carry the adapters."""
    parameters: Mapping[str, nn.Parameter]
    """The trainable tensors by their PEFT names, in the order of the layers; float32."""
    config: Any
    """PEFT's settings; None where all weights are trained."""
    device: torch.device
    dtype: torch.dtype
    """Of activations and base weights."""
    is_packed: bool
    """Micro-batches are one sequence of rows side by side, instead of padded rows."""
    base: Path
    method: Method
    prompt: nn.Parameter | None = None
    """(virtual tokens, width): embeddings before every row."""
    starts: Mapping[str, Start] | None = None
    """With PiSSA: by layer, what the base no longer holds and the adapter began with."""

    def hidden_and_targets(
        self, rows: Sequence[Encoded], *, pad_id: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden state before each supervised token, and that token.

        Shapes (supervised, width) and (supervised,), row by row.
        """
        backbone: Any = self.model.get_submodule(str(self.model.base_model_prefix))
        if self.is_packed:
            config: Any = self.model.config
            heads = Heads(config.num_attention_heads, config.num_key_value_heads)
            packed = pack(rows, heads=heads, dtype=self.dtype, pad_id=pad_id)
            states = backbone(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                layout=packed.layout,
                use_cache=False,
            ).last_hidden_state  # (1, tokens, width)
            return states[0][packed.places], packed.targets
        ids, places, targets = (tensor.to(self.device) for tensor in tensors(rows, pad_id=pad_id))
        if self.prompt is None:
            states = backbone(input_ids=ids, use_cache=False).last_hidden_state  # (batch, time, width)
        else:
            states = self._after_prompt(backbone, ids)
        return states.flatten(0, 1)[places], targets

    def _after_prompt(self, backbone: Any, ids: torch.Tensor) -> torch.Tensor:
        """The hidden states of the ids alone, (batch, time, width), with the virtual tokens before them."""
        import torch

        assert self.prompt is not None
        embedded = self.model.get_input_embeddings()(ids)  # type: ignore[operator]
        before = self.prompt.to(embedded.dtype).expand(len(ids), -1, -1)
        states = backbone(inputs_embeds=torch.cat([before, embedded], dim=1), use_cache=False)
        return cast("torch.Tensor", states.last_hidden_state[:, self.prompt.shape[0] :])

    @contextmanager
    def reference(self) -> Iterator[Adapted]:
        """The same model as if nothing had been trained: adapters off, while the context lasts.

        Raises:
            ModelError: the base itself is trained, so it is no longer there.
        """
        if self.method == "full" or self.starts:
            raise ModelError("the base's own weights are changed by this method: it is no reference")
        layers: list[Any] = [m for m in self.model.modules() if hasattr(m, "_disable_adapters")]
        # PEFT's own switch also freezes the adapters, and the optimizer would lose them.
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield replace(self, prompt=None)
        finally:
            for layer in layers:
                layer._disable_adapters = False


def adapt(
    base: Path,
    tune: Tune,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Adapted:
    """The checkpoint's model with `tune.method` in it; adapters start as zero, so it still answers as the base.

    Over NF4 the linear layers' weights are rounded with double quantization. On a GPU they stay packed;
    on a CPU they are unpacked once, which gives the same products without unpacking at each step.
    What is trained is float32: adapters are small, and bfloat16 would round late updates away. `full`
    computes in float32 too, and so does differential privacy, which needs the layers' own forwards and padded
    rows besides.

    Raises:
        ModelError: the checkpoint can't be loaded, or no layer has a name of `tune.targets`.
    """
    import torch

    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_exact = tune.method == "full" or tune.dp is not None
    dtype = torch.float32 if is_exact else dtype or compute_dtype(device)
    # PiSSA rounds what is left of the weights, so it needs them unpacked.
    stays_packed = tune.is_nf4 and device.type == "cuda" and tune.init != "pissa" and tune.dp is None
    model = _load(base, is_packed=stays_packed, device=device, dtype=dtype)
    rounds = tune.is_nf4 and not stays_packed
    if rounds and tune.init != "pissa":
        _round_base(model)
    adapted = _trainable(
        Adapted(model, {}, None, device, dtype, is_packed=False, base=base, method=tune.method), tune
    )
    if rounds and tune.init == "pissa":
        _round_base(model)
    return adapted if tune.dp is not None else _made_lean(adapted)


def frozen(checkpoint: Path) -> Adapted:
    """The checkpoint's model with nothing trainable in it, such as a teacher."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = compute_dtype(device)
    model = _load(checkpoint, is_packed=False, device=device, dtype=dtype)
    model.requires_grad_(False)
    return Adapted(model, {}, None, device, dtype, is_packed=False, base=checkpoint, method="full")


def _made_lean(adapted: Adapted) -> Adapted:
    """With forwards that keep less for the backward, where they compute the same."""
    from harness.train.lean import make_blocks_lean, make_lean

    make_lean(adapted.model)
    if adapted.prompt is not None or not can_pack(adapted.model, adapted.device):
        return adapted
    use_row_attention(adapted.model)
    if adapted.method != "full":  # their norms would get no gradient
        make_blocks_lean(adapted.model)
    return replace(adapted, is_packed=True)


def parameter_groups(adapted: Adapted, tune: Tune) -> list[dict[str, Any]]:
    """The trainable tensors as an optimizer takes them; `rate_ratio` multiplies the schedule's rate.

    LoRA+ gives the factors B a rate of their own (Hayou et al., 2024, "LoRA+").
    """
    fast = [p for name, p in adapted.parameters.items() if tune.b_rate_ratio != 1.0 and ".lora_B." in name]
    chosen = {id(parameter) for parameter in fast}
    others = [p for p in adapted.parameters.values() if id(p) not in chosen]
    groups = [{"params": others, "rate_ratio": 1.0}, {"params": fast, "rate_ratio": tune.b_rate_ratio}]
    return [group for group in groups if group["params"]]


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, float32 elsewhere: emulated bfloat16 is several times slower."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16
    cpu = torch.cpu
    has_bfloat16 = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def four_bits(dtype: torch.dtype) -> dict[str, Any]:
    """Settings of a BitsAndBytesConfig for QLoRA.

    The packed bytes are held in tensors of the dtype that they are computed in: FSDP shards tensors of one
    dtype only.
    """
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
        "bnb_4bit_quant_storage": dtype,
    }


def _load(base: Path, *, is_packed: bool, device: torch.device, dtype: torch.dtype) -> nn.Module:
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    packed = BitsAndBytesConfig(**four_bits(dtype))
    extra = {"quantization_config": packed, "device_map": {"": device}} if is_packed else {}
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False, **extra
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{base}: can't be loaded for training: {error}") from error
    keep_packed_weights_in_place(model)
    return model if is_packed else model.to(device)


def keep_packed_weights_in_place(model: nn.Module) -> None:
    """Keeps bitsandbytes from repacking 4-bit weights at the first forward in eval mode.

    On a processor with AVX512-BF16 it otherwise does so in place: gradients through the base are then
    lost, and a merge writes a destroyed model.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - not in the type


def _round_base(model: nn.Module) -> None:
    """Rounds the linear layers' weights to NF4, also below adapters, which keep theirs."""
    import torch

    from harness.models.nf4 import linear_layers, round_to_nf4

    with torch.no_grad():
        for name, layer in linear_layers(model).items():
            if ".lora_" not in name:
                layer.weight.copy_(round_to_nf4(layer.weight))


def _trainable(adapted: Adapted, tune: Tune) -> Adapted:
    """The model with everything frozen but what the method trains, drawn from `tune.seed`."""
    import torch

    for parameter in adapted.model.parameters():
        parameter.requires_grad_(tune.method == "full")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tune.seed)
        if tune.method == "full":
            return replace(adapted, parameters=dict(adapted.model.named_parameters()))
        if tune.method == "prompt":
            return _with_prompt(adapted, tune)
        return _with_adapters(adapted, tune)


def _with_adapters(adapted: Adapted, tune: Tune) -> Adapted:
    from peft import inject_adapter_in_model

    config = _ia3_config(tune) if tune.method == "ia3" else _lora_config(tune)
    model = adapted.model
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ModelError(f"tune.targets = {', '.join(tune.targets)}: {error}") from error
    trained = {}
    for name, parameter in model.named_parameters():
        is_trained = ".lora_" in name or ".ia3_l." in name
        parameter.requires_grad_(is_trained)
        if is_trained:
            parameter.data = parameter.data.float()
            trained[peft_name(name)] = parameter
    starts = _starts(trained) if tune.init == "pissa" else None
    return replace(adapted, parameters=trained, config=config, starts=starts)


def _lora_config(tune: Tune) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=tune.rank,
        lora_alpha=tune.alpha,
        lora_dropout=tune.dropout,
        target_modules=list(tune.targets),
        use_rslora=tune.rslora,
        use_dora=tune.dora,
        init_lora_weights="pissa" if tune.init == "pissa" else True,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _ia3_config(tune: Tune) -> Any:
    from peft import IA3Config

    inside = [target for target in tune.targets if target in INPUT_SIDE]
    return IA3Config(target_modules=list(tune.targets), feedforward_modules=inside, task_type="CAUSAL_LM")


def _with_prompt(adapted: Adapted, tune: Tune) -> Adapted:
    """Virtual tokens that start as embeddings of random tokens (Lester et al., 2021, section 3.2)."""
    import torch
    from peft import PromptTuningConfig

    count = tune.virtual_tokens or VIRTUAL_TOKENS
    words = adapted.model.get_input_embeddings().weight  # type: ignore[operator]
    drawn = words[torch.randint(0, len(words), (count,)).to(words.device)]
    prompt = torch.nn.Parameter(drawn.detach().float().clone())
    shape: Any = adapted.model.config
    config = PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=count,
        token_dim=words.shape[1],
        num_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_transformer_submodules=1,
    )
    return replace(adapted, parameters={PROMPT: prompt}, config=config, prompt=prompt)


def _starts(parameters: Mapping[str, nn.Parameter]) -> dict[str, Start]:
    """The factors as they are now, by layer."""
    layers = [name.removesuffix(".lora_A.weight") for name in parameters if name.endswith(".lora_A.weight")]
    return {
        layer: Start(parameters[f"{layer}.lora_{part}.weight"].detach().clone() for part in "AB")
        for layer in layers
    }


def peft_name(name: str) -> str:
    """The tensor's name in an adapter file, such as `base_model.model.…q_proj.lora_A.weight`."""
    for kind in (".lora_magnitude_vector", ".ia3_l"):
        if kind in name:
            return PEFT_PREFIX + name.partition(kind)[0] + kind
    return PEFT_PREFIX + name.replace(".default.weight", ".weight")
