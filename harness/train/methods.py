"""The base with its adapters, ready to train, and adapters as files that know their base."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, IntegrityError, ModelError
from harness.files import write_json
from harness.specs.recipe import Tune
from harness.train.batches import Encoded, tensors
from harness.train.packed import can_pack, pack, use_row_attention

if TYPE_CHECKING:
    import torch
    from torch import nn

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapted:
    """A frozen base with trainable adapters."""

    model: nn.Module
    """The base in its own class; its linear layers carry the adapters."""
    parameters: Mapping[str, nn.Parameter]
    """The trainable tensors by their PEFT names, in the order of the layers; float32."""
    config: Any
    """PEFT's LoraConfig."""
    device: torch.device
    dtype: torch.dtype
    """Of activations and base weights."""
    is_packed: bool
    """Micro-batches are one sequence of rows side by side, instead of padded rows."""

    def hidden_and_targets(
        self, rows: Sequence[Encoded], *, pad_id: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden state before each supervised token, and that token.

        Shapes (supervised, width) and (supervised,).
        """
        backbone: Any = self.model.get_submodule(str(self.model.base_model_prefix))
        if self.is_packed:
            config: Any = self.model.config
            groups = config.num_attention_heads // config.num_key_value_heads
            packed = pack(rows, groups=groups, dtype=self.dtype, pad_id=pad_id)
            states = backbone(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                layout=packed.layout,
                use_cache=False,
            ).last_hidden_state  # (1, tokens, width)
            return states[0][packed.places], packed.targets
        ids, places, targets = (tensor.to(self.device) for tensor in tensors(rows, pad_id=pad_id))
        states = backbone(input_ids=ids, use_cache=False).last_hidden_state  # (batch, time, width)
        return states.flatten(0, 1)[places], targets


def adapt(
    base: Path, tune: Tune, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Adapted:
    """The checkpoint's model with adapters that start as zero, so that it still answers as the base does.

    `qlora` rounds the linear layers' weights to NF4 with double quantization. On a GPU they stay packed;
    on a CPU they are unpacked once, which gives the same products without unpacking at each step.
    Adapters are float32: they are small, and bfloat16 would round late updates away.

    Raises:
        ModelError: the checkpoint can't be loaded, or no layer has a name of `tune.targets`.
    """
    import torch

    from harness.models.nf4 import apply_nf4
    from harness.train.lean import make_blocks_lean, make_lean

    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or compute_dtype(device)
    model = _load(
        base, is_packed=tune.method == "qlora" and device.type == "cuda", device=device, dtype=dtype
    )
    if tune.method == "qlora" and device.type != "cuda":
        apply_nf4(model)
    config = _inject(model, tune)
    parameters = {_peft_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    make_lean(model)
    is_packed = can_pack(model, device)
    if is_packed:
        use_row_attention(model)
        make_blocks_lean(model)
    return Adapted(model, parameters, config, device, dtype, is_packed)


def parameter_groups(adapted: Adapted, tune: Tune) -> list[dict[str, Any]]:  # noqa: ARG001
    """The trainable tensors as an optimizer takes them; `rate_ratio` multiplies the schedule's rate."""
    return [{"params": list(adapted.parameters.values()), "rate_ratio": 1.0}]


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, float32 elsewhere: emulated bfloat16 is several times slower."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16
    cpu = torch.cpu
    has_bfloat16 = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _load(base: Path, *, is_packed: bool, device: torch.device, dtype: torch.dtype) -> nn.Module:
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    packed = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
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


def _inject(model: nn.Module, tune: Tune) -> Any:
    """Adds the adapters in place, in float32, drawn from `tune.seed`; everything else is frozen."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=tune.rank,
        lora_alpha=tune.alpha,
        lora_dropout=tune.dropout,
        target_modules=list(tune.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(tune.seed)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            raise ModelError(f"tune.targets = {', '.join(tune.targets)}: {error}") from error
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return config


def _peft_name(name: str) -> str:
    """The tensor's name in an adapter file, such as `base_model.model.…q_proj.lora_A.weight`."""
    return PEFT_PREFIX + name.replace(".default.weight", ".weight")


def save_adapter(adapted: Adapted, folder: Path, *, base_identity: str, method: str) -> None:
    """Writes a PEFT adapter whose safetensors header names the base that it belongs to."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    values = {name: p.detach().cpu().contiguous() for name, p in adapted.parameters.items()}
    about = {"format": "pt", "base_identity": base_identity, "method": method}
    (folder / ADAPTER_WEIGHTS).write_bytes(_in_fixed_order(save(values, metadata=about)))
    config = {key: _plain(value) for key, value in adapted.config.to_dict().items()}
    write_json(folder / ADAPTER_CONFIG, {**config, "base_model_name_or_path": None, "inference_mode": True})


def _in_fixed_order(file: bytes) -> bytes:
    """The safetensors file with its metadata sorted: the library writes them in another order each time,
    and an adapter's identity is the digest of its bytes."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data after it
    return len(text).to_bytes(8, "little") + text + file[8 + length :]


def _plain(value: Any) -> Any:
    """The value as JSON holds it, with sets in a fixed order."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return json.loads(json.dumps(value, default=str))


def load_adapter(adapted: Adapted, folder: Path, *, base_identity: str) -> None:
    """Puts the file's tensors into the adapters.

    Raises:
        IntegrityError: the adapter was trained on another base.
        DataError: its tensors are not those of these adapters.
    """
    check_base(folder, base_identity)
    stored = dict(_stored(folder / ADAPTER_WEIGHTS))
    if stored.keys() != adapted.parameters.keys():
        odd = sorted(stored.keys() ^ adapted.parameters.keys())
        raise DataError(f"{folder}: tensors differ from the recipe's adapters: {len(odd)}, first {odd[0]}")
    for name, parameter in adapted.parameters.items():
        if stored[name].shape != parameter.shape:
            shapes = f"{tuple(stored[name].shape)}, wanted {tuple(parameter.shape)}"
            raise DataError(f"{folder}: {name} has shape {shapes}")
        parameter.data.copy_(stored[name])


def check_base(folder: Path, base_identity: str) -> None:
    """Returns when the adapter in the folder was trained on the base.

    Raises:
        IntegrityError: it was trained on another one, or does not say.
    """
    found = adapter_metadata(folder).get("base_identity", "")
    if found != base_identity:
        said = f"{found[:16]}…" if found else "nothing"
        raise IntegrityError(
            f"{folder}: adapter names {said} as its base, and this base is {base_identity[:16]}…",
            hint="use the base that the adapter was trained on, or train again",
        )


def adapter_metadata(folder: Path) -> dict[str, str]:
    """What the adapter file's header says: `base_identity` and `method`."""
    from safetensors import safe_open

    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{folder / ADAPTER_WEIGHTS}: {error}") from error
    except Exception as error:
        raise IntegrityError(f"{folder / ADAPTER_WEIGHTS}: is not a safetensors file: {error}") from error


def _stored(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            yield name, file.get_tensor(name)
