"""What an adapter does to each weight of its base, as arithmetic on one tensor at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.errors import IntegrityError, ModelError
from harness.export.weights import WEIGHTS, TensorPlace, read_float32, read_header
from harness.files import read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_LORA_PART = re.compile(
    r"^base_model\.model\.(?P<module>.+)\."
    r"(lora_(?P<part>[AB])(\.default)?\.weight|(?P<length>lora_magnitude_vector)(\.default)?(\.weight)?)$"
)
_IA3_PART = re.compile(r"^base_model\.model\.(?P<module>.+)\.ia3_l(\.default)?$")
_UNSUPPORTED = {
    "modules_to_save": "whole trained modules",
    "fan_in_fan_out": "transposed layers",
    "lora_bias": "a bias in B",
    "layer_replication": "repeated layers",
    "trainable_token_indices": "trained token rows",
}

Rounding = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]
"""To the values that 4-bit layers compute with, and back."""


class Change(Protocol):
    """What becomes of one tensor of the base."""

    def apply(self, weight: NDArray[np.float32], rounding: Rounding | None) -> NDArray[np.float32]:
        """The changed tensor, of the same shape; `rounding` is what training had the base go through."""


class LowRank(NamedTuple):
    """`W + scale · B @ A`; with DoRA each row then gets its trained length."""

    a: TensorPlace
    """(rank, in)"""
    b: TensorPlace
    """(out, rank)"""
    scale: float
    trained_rank: int | None = None
    """With PiSSA: rows of A and columns of B up to here were trained, those after are what they began as."""
    lengths: TensorPlace | None = None
    """(out,), DoRA's."""

    def apply(self, weight: NDArray[np.float32], rounding: Rounding | None) -> NDArray[np.float32]:
        a, b = read_float32(self.a), read_float32(self.b)
        if rounding is not None and self.trained_rank is not None:
            # Over NF4 PiSSA rounds what is left of W after its principal components are taken out.
            own = self.trained_rank
            weight = rounding(weight + self._product(a[own:], b[:, own:])) + self._product(
                a[:own], b[:, :own]
            )
        else:
            weight = (weight if rounding is None else rounding(weight)) + self._product(a, b)
        return weight if self.lengths is None else _with_lengths(weight, read_float32(self.lengths))

    def _product(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        product: NDArray[np.float32] = np.float32(self.scale) * (b @ a)
        return product


class Factors(NamedTuple):
    """IA3: each row or each column times its factor."""

    factors: TensorPlace
    """(out, 1) or (1, in)"""
    is_bias: bool = False

    def apply(self, weight: NDArray[np.float32], rounding: Rounding | None) -> NDArray[np.float32]:
        factors = read_float32(self.factors)
        if self.is_bias:
            return weight * factors.reshape(-1)
        return (weight if rounding is None else rounding(weight)) * factors


class Replaced(NamedTuple):
    """All weights were trained: the tensor is another."""

    by: TensorPlace

    def apply(self, weight: NDArray[np.float32], rounding: Rounding | None) -> NDArray[np.float32]:  # noqa: ARG002
        return read_float32(self.by)


def _with_lengths(weight: NDArray[np.float32], lengths: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    norms = np.linalg.norm(weight, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = weight * (lengths.reshape(-1, 1) / norms)
    return scaled


def is_whole(adapter: Path) -> bool:
    """Whether the folder is a checkpoint of which all weights were trained, and no adapter."""
    return (adapter / WEIGHTS).is_file() and not (adapter / ADAPTER_CONFIG).exists()


def read_changes(adapter: Path, places: Mapping[str, TensorPlace]) -> dict[str, Change]:
    """What the adapter changes, by the name of the base's tensor.

    Raises:
        ModelError: no kind that can be merged, a tensor without its partner, or one that does not fit the base.
    """
    if is_whole(adapter):
        return dict(_replaced(adapter, places))
    config = read_json(adapter / ADAPTER_CONFIG)
    kind = config.get("peft_type")
    _refuse_unsupported(adapter, config)
    found = dict(_ia3(adapter, places) if kind == "IA3" else _low_rank(adapter, config, places))
    if not found:
        raise ModelError(
            f"{adapter}: holds no LoRA factors" if kind == "LORA" else f"{adapter}: holds no factors"
        )
    return found


def _refuse_unsupported(adapter: Path, config: Mapping[str, Any]) -> None:
    where, kind = adapter / ADAPTER_CONFIG, config.get("peft_type")
    if kind == "PROMPT_TUNING":
        raise ModelError(
            f"{where}: virtual tokens are no weights: they can't be merged, and no GGUF can hold them",
            hint="train with method ia3 or lora",
        )
    if kind not in ("LORA", "IA3"):
        raise ModelError(f"{where}: peft_type = {kind}; wanted LORA or IA3")
    for key, what in _UNSUPPORTED.items():
        if config.get(key):
            raise ModelError(f"{where}: {key} = {config[key]}; can't be merged here: {what}")
    if config.get("bias", "none") != "none":
        raise ModelError(f"{where}: bias = {config['bias']}; wanted none")


def _low_rank(
    adapter: Path, config: Mapping[str, Any], places: Mapping[str, TensorPlace]
) -> Iterator[tuple[str, Change]]:
    parts: dict[str, dict[str, TensorPlace]] = {}
    for place in read_header(adapter / ADAPTER_WEIGHTS):
        found = _LORA_PART.match(place.name)
        if found is None:
            raise ModelError(f"{adapter}: tensor {place.name} is no LoRA factor of a linear layer")
        parts.setdefault(found["module"], {})[found["part"] or "lengths"] = place
    start_rank = read_about(adapter / ADAPTER_WEIGHTS).get("start_rank")
    for module, pair in sorted(parts.items()):
        change = _fitting(adapter, config, module, pair, places)
        yield f"{module}.weight", change._replace(trained_rank=int(start_rank) if start_rank else None)


def _fitting(
    adapter: Path,
    config: Mapping[str, Any],
    module: str,
    pair: Mapping[str, TensorPlace],
    places: Mapping[str, TensorPlace],
) -> LowRank:
    if not {"A", "B"} <= pair.keys():
        raise ModelError(f"{adapter}: {module} has lora_{next(iter(pair))} without its partner")
    out, width = _shape(adapter, module, places)
    a, b, lengths = pair["A"], pair["B"], pair.get("lengths")
    rank = int(_by_pattern(config.get("rank_pattern"), module, config["r"]))
    if (a.shape, b.shape) != ((rank, width), (out, rank)):
        raise ModelError(
            f"{adapter}: {module} has A {a.shape} and B {b.shape}; "
            f"rank {rank} on this base wants {(rank, width)} and {(out, rank)}"
        )
    if bool(config.get("use_dora")) != (lengths is not None):
        raise ModelError(
            f"{adapter}: {module}: use_dora = {config.get('use_dora')} and its lengths don't agree"
        )
    if lengths is not None and math.prod(lengths.shape) != out:
        raise ModelError(f"{adapter}: {module} has lengths {lengths.shape}; wanted ({out},)")
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LowRank(a, b, scale, lengths=lengths)


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value whose pattern ends the module's name, as PEFT matches them: the first that fits."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _ia3(adapter: Path, places: Mapping[str, TensorPlace]) -> Iterator[tuple[str, Change]]:
    for place in read_header(adapter / ADAPTER_WEIGHTS):
        found = _IA3_PART.match(place.name)
        if found is None:
            raise ModelError(f"{adapter}: tensor {place.name} holds no IA3 factors of a linear layer")
        module = found["module"]
        out, width = _shape(adapter, module, places)
        if place.shape not in ((out, 1), (1, width)):
            raise ModelError(f"{adapter}: {module} has {place.shape}; wanted {(out, 1)} or {(1, width)}")
        yield f"{module}.weight", Factors(place)
        if place.shape == (out, 1) and f"{module}.bias" in places:
            yield f"{module}.bias", Factors(place, is_bias=True)


def _shape(adapter: Path, module: str, places: Mapping[str, TensorPlace]) -> tuple[int, int]:
    place = places.get(f"{module}.weight")
    if place is None:
        raise ModelError(f"{adapter}: {module} is no layer of the base")
    return place.shape[0], place.shape[-1]


def _replaced(folder: Path, places: Mapping[str, TensorPlace]) -> Iterator[tuple[str, Change]]:
    for place in read_header(folder / WEIGHTS):
        if place.name not in places or places[place.name].shape != place.shape:
            raise ModelError(f"{folder}: tensor {place.name} {place.shape} is none of the base's")
        yield place.name, Replaced(place)


def read_about(file: Path) -> dict[str, str]:
    """What the header of a safetensors file says besides its tensors."""
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        return dict(opened.metadata() or {})


def check_base(adapter: Path, base: Path) -> None:
    """Returns when the adapter was trained on the base, or does not say on which.

    Raises:
        IntegrityError: it was trained on another one.
    """
    from harness.models.identity import checkpoint_identity

    named = read_about(adapter / (WEIGHTS if is_whole(adapter) else ADAPTER_WEIGHTS)).get("base_identity")
    if named is not None and named != (found := checkpoint_identity(base).digest):
        raise IntegrityError(
            f"{adapter}: adapter names {named[:16]}… as its base, and {base} is {found[:16]}…",
            hint="merge it onto the base that it was trained on",
        )
