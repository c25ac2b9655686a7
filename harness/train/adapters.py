"""What was trained as files that know their base: safetensors whose header names it, and PEFT's settings."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, IntegrityError
from harness.files import read_json, write_json
from harness.models.identity import TOKENIZER_FILES

if TYPE_CHECKING:
    import torch

    from harness.train.methods import Adapted, Start

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
FULL_WEIGHTS = "model.safetensors"
BESIDE_WEIGHTS = ("generation_config.json", "chat_template.jinja", *TOKENIZER_FILES)


def save_adapter(adapted: Adapted, folder: Path, *, base_identity: str, method: str) -> None:
    """Writes what was trained, with the base that it belongs to in the header.

    Adapters are PEFT's files. With PiSSA they are written as a change of the *whole* base, of twice the rank,
    so that whoever reads them needs no changed base. Where all weights are trained, it is a checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {name: p.detach().cpu().contiguous() for name, p in adapted.parameters.items()}
    about = {"format": "pt", "base_identity": base_identity, "method": method}
    if adapted.config is None:
        _write_weights(folder / FULL_WEIGHTS, values, about)
        _copy_documents(adapted.base, folder)
        return
    config = {key: _plain(value) for key, value in adapted.config.to_dict().items()}
    if adapted.starts:
        about["start_rank"] = str(config["r"])
        values, config = _with_starts(values, adapted.starts), _of_twice_the_rank(config)
    _write_weights(folder / ADAPTER_WEIGHTS, values, about)
    write_json(folder / ADAPTER_CONFIG, {**config, "base_model_name_or_path": None, "inference_mode": True})


def _write_weights(path: Path, values: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    from safetensors.torch import save

    path.write_bytes(_in_fixed_order(save(values, metadata=about)))


def _with_starts(values: Mapping[str, torch.Tensor], starts: Mapping[str, Start]) -> dict[str, torch.Tensor]:
    """The factors of B A - B0 A0: the rows of A0 below those of A, the columns of -B0 beside those of B."""
    import torch

    found = dict(values)
    for layer, (a, b) in starts.items():
        name_a, name_b = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
        found[name_a] = torch.cat([values[name_a], a.cpu()]).contiguous()  # (2 rank, in)
        found[name_b] = torch.cat([values[name_b], -b.cpu()], dim=1).contiguous()  # (out, 2 rank)
    return found


def _of_twice_the_rank(config: dict[str, Any]) -> dict[str, Any]:
    """The settings under which twice the rank is scaled by the same number."""
    more = math.sqrt(2.0) if config.get("use_rslora") else 2.0
    alpha = config["lora_alpha"] * more
    return {**config, "r": 2 * config["r"], "lora_alpha": alpha, "init_lora_weights": True}


def _copy_documents(base: Path, folder: Path) -> None:
    config = read_json(base / "config.json")
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", {**config, "dtype": "float32"})
    for name in BESIDE_WEIGHTS:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


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
    """Puts the file's tensors into what is trained.

    Raises:
        IntegrityError: the file belongs to another base, another method, or another start of PiSSA.
        DataError: its tensors are not those of these adapters.
    """
    check_base(folder, base_identity)
    _check_method(folder, adapted)
    stored = dict(_stored(weights_file(folder)))
    if stored.keys() != adapted.parameters.keys():
        odd = sorted(stored.keys() ^ adapted.parameters.keys())
        raise DataError(f"{folder}: tensors differ from the recipe's adapters: {len(odd)}, first {odd[0]}")
    if adapted.starts:
        stored = _without_starts(folder, stored, adapted.starts)
    for name, parameter in adapted.parameters.items():
        if stored[name].shape != parameter.shape:
            shapes = f"{tuple(stored[name].shape)}, wanted {tuple(parameter.shape)}"
            raise DataError(f"{folder}: {name} has shape {shapes}")
        parameter.data.copy_(stored[name])


def _without_starts(
    folder: Path, stored: dict[str, torch.Tensor], starts: Mapping[str, Start]
) -> dict[str, torch.Tensor]:
    """The trained halves, when the other halves are what the base here was split into."""
    import torch

    found = dict(stored)
    for layer, (a, b) in starts.items():
        name_a, name_b = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
        rank = len(a)
        if not torch.equal(stored[name_a][rank:], a.cpu()) or not torch.equal(
            stored[name_b][:, rank:], -b.cpu()
        ):
            raise IntegrityError(
                f"{folder}: {layer} was split into other principal components than here",
                hint="continue on the machine, with the torch and the rank that it began with, or train again",
            )
        found[name_a], found[name_b] = stored[name_a][:rank], stored[name_b][:, :rank]
    return found


def _check_method(folder: Path, adapted: Adapted) -> None:
    about = adapter_metadata(folder)
    if bool(adapted.starts) != ("start_rank" in about):
        has = "was" if "start_rank" in about else "was not"
        raise IntegrityError(f"{folder}: {has} trained with init pissa, unlike this recipe")


def check_base(folder: Path, base_identity: str) -> None:
    """Returns when what is in the folder was trained on the base.

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


def weights_file(folder: Path) -> Path:
    """Where the trained tensors are: an adapter's file, or a checkpoint's where all weights were trained."""
    full = folder / FULL_WEIGHTS
    return full if full.is_file() and not (folder / ADAPTER_WEIGHTS).exists() else folder / ADAPTER_WEIGHTS


def adapter_metadata(folder: Path) -> dict[str, str]:
    """What the file's header says: `base_identity`, `method`, and `start_rank` where it was PiSSA's."""
    from safetensors import safe_open

    path = weights_file(folder)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path}: {error}") from error
    except Exception as error:
        raise IntegrityError(f"{path}: is not a safetensors file: {error}") from error


def _stored(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            yield name, file.get_tensor(name)
