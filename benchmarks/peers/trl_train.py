"""TRL's SFTTrainer, asked over standard streams; runs in the peer's own environment.

    python trl_train.py JOB.json THREADS

Speaks the lines of `train_speed.serve`: {"steps", "bf16"} → {"seconds": [one a step], "losses": [one a step],
"peak_mb"}.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def main() -> None:
    """Loads the job once, then trains afresh for each line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(int(sys.argv[2]))
    for line in sys.stdin:
        asked = json.loads(line)
        found = run({**job, "bf16": job["bf16"] and asked["bf16"]}, asked["steps"])
        print(json.dumps(found), file=answers, flush=True)


def run(job: dict[str, Any], steps: int) -> dict[str, Any]:
    """One training from the job's adapter over its batches, in their order."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.losses: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                self.losses.append(logs["loss"])

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    rows = [row for batch in job["batches"][:steps] for row in batch]
    data = Dataset.from_list(
        [{"input_ids": ids, "labels": [-100] * first + ids[first:]} for ids, first in rows]
    )
    clock, is_cuda = Clock(), job["device"] == "cuda"
    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=job["batch"] // job["accumulate"],
        gradient_accumulation_steps=job["accumulate"], max_steps=steps, learning_rate=job["learning_rate"],
        lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=job["clip_norm"], weight_decay=0.0,
        bf16=job["bf16"], use_cpu=not is_cuda, logging_steps=1, save_strategy="no", report_to=[], seed=17,
        gradient_checkpointing=False, dataloader_num_workers=0, disable_tqdm=True, packing=False,
        dataset_kwargs={"skip_prepare_dataset": True}, max_length=None,
        optim="paged_adamw_8bit" if is_cuda else "adamw_torch_fused",
    )  # fmt: skip
    trainer = InOrder(
        model=load(job), args=settings, train_dataset=data, callbacks=[clock],
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
    )  # fmt: skip
    forget_peak()
    trainer.train()
    return {"seconds": clock.seconds, "losses": clock.losses[:steps], "peak_mb": peak_mb()}


def forget_peak() -> None:
    """So that `peak_mb` tells of what follows."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float | None:
    """As `harness.train.telemetry.peak_memory_mb`; None where it can't be read."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def load(job: dict[str, Any]) -> Any:
    """The base with the job's adapter, as PEFT loads it for training."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = torch.bfloat16 if job["bf16"] else torch.float32
    quantized = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )  # fmt: skip
    extra = {"quantization_config": quantized} if job["method"] == "qlora" else {}
    base = AutoModelForCausalLM.from_pretrained(job["base"], dtype=dtype, attn_implementation="sdpa", **extra)
    for module in base.modules():  # else its first forward without gradients repacks the weights in place
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return PeftModel.from_pretrained(base, job["adapter"], is_trainable=True)


if __name__ == "__main__":
    main()
