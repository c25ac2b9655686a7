"""What PiSSA took out of a base before it was rounded, read back from the adapter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from harness.files import read_json

if TYPE_CHECKING:
    from torch import Tensor


def principal_parts(adapter: Path) -> dict[str, Tensor]:
    """By layer, the principal part of its weight that the adapter began as, float32 (out, in); empty without PiSSA.

    Source: Meng et al. (2024), "PiSSA", section 4: what remains is rounded, and the principal part is not.
    """
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        start = (file.metadata() or {}).get("start_rank")
        if start is None:
            return {}
        config, own = read_json(adapter / "adapter_config.json"), int(start)
        scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
        found = {}
        for name in (name for name in file.keys() if name.endswith(".lora_A.weight")):  # noqa: SIM118
            a, b = (file.get_tensor(name.replace(".lora_A.", f".lora_{part}.")) for part in "AB")
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            found[layer] = -scale * (b[:, own:] @ a[own:])
        return found
