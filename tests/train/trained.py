"""Tiny models trained a little by each method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from harness.specs.tune import Tune
from harness.train.batches import Encoded, encode_all
from harness.train.methods import Adapted, adapt, parameter_groups
from harness.train.objectives import Supervised
from tests.train.conftest import build_example

CPU = torch.device("cpu")
METHODS: dict[str, dict[str, Any]] = {
    "qlora": {},
    "lora, rank stabilized": {"method": "lora", "rslora": True},
    "lora+": {"method": "lora", "b_rate_ratio": 16.0},
    "dora": {"method": "lora", "dora": True},
    "dora over nf4": {"dora": True},
    "pissa": {"method": "lora", "init": "pissa"},
    "pissa over nf4": {"init": "pissa"},
    "pissa, rank stabilized": {"method": "lora", "init": "pissa", "rslora": True},
    "ia3": {"method": "ia3", "learning_rate": 0.05},
    "ia3 over nf4": {"method": "ia3", "learning_rate": 0.05, "base_precision": "nf4"},
    "prompt": {"method": "prompt"},
    "full": {"method": "full", "learning_rate": 1e-3},
}


def tuned(**settings: Any) -> Tune:
    return Tune(**{"rank": 4, "alpha": 8.0, "learning_rate": 5e-3, **settings})


def fresh(base: Path, tune: Tune) -> Adapted:
    return adapt(base, tune, device=CPU, dtype=torch.float32)


def encoded(chat: Any, count: int = 8) -> list[Encoded]:
    return encode_all([build_example(at) for at in range(count)], chat, max_tokens=300)[0]


def loss_of(adapted: Adapted, rows: list[Encoded]) -> float:
    adapted.model.eval()
    with torch.no_grad():
        loss = float(Supervised().summed_loss(adapted, rows, pad_id=2)) / Supervised().count(rows)
    adapted.model.train()
    return loss


def train(adapted: Adapted, tune: Tune, rows: list[Encoded], *, steps: int = 8) -> list[float]:
    """The loss before each step."""
    optimizer = torch.optim.AdamW(parameter_groups(adapted, tune), lr=tune.learning_rate)
    for group in optimizer.param_groups:
        group["lr"] = tune.learning_rate * group["rate_ratio"]
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = Supervised().summed_loss(adapted, rows, pad_id=2) / Supervised().count(rows)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def checkpoint_loss(folder: Path, rows: list[Encoded]) -> float:
    """Transformers' own mean loss of a checkpoint on the rows, in float32, without any of this trainer's code."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    total = 0.0
    for row in rows:
        ids = torch.tensor([row.ids])
        labels = ids.clone()
        labels[:, : row.supervised_from] = -100
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * row.supervised_tok
    return total / sum(row.supervised_tok for row in rows)
