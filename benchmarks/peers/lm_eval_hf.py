"""lm-evaluation-harness `hf`, asked over standard streams; runs in the peer's own environment.

    python lm_eval_hf.py FOLDER THREADS

Speaks the lines of `multiple_choice.serve`: {"questions": [[prompt, choices, gold], …], "batch_size"} →
{"seconds", "logprobs"}.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    """Loads the model once, then answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(int(sys.argv[2]))
    model = HFLM(pretrained=sys.argv[1], device="cpu", dtype="float32", batch_size=1)
    for line in sys.stdin:
        asked = json.loads(line)
        model.batch_size_per_gpu = asked["batch_size"]
        began = time.perf_counter()
        requests = [
            Instance("loglikelihood", {}, (prompt, choice), 0)
            for prompt, choices, _ in asked["questions"]
            for choice in choices
        ]
        found = iter(model.loglikelihood(requests, disable_tqdm=True))
        logprobs = [[next(found)[0] for _ in choices] for _, choices, _ in asked["questions"]]
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "logprobs": logprobs}), file=answers, flush=True)


if __name__ == "__main__":
    main()
