"""Peak memory of lm-evaluation-harness `hf`; runs in the peer's own environment.

    python lm_eval_memory.py FOLDER ROWS TOKENS THREADS

Prints the line of `memory.peak` for the rows of `memory.rows`, all in one batch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    """Loads the model, scores a short row, then all rows at once."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from memory import peak, rows

    folder, count, tokens, threads = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=count)
    model._loglikelihood_tokens([(("", ""), [1, 2, 3], [4, 5])], disable_tqdm=True)
    asked = [((str(at), ""), *row) for at, row in enumerate(rows(count, tokens))]
    found = peak(lambda: sum(logprob for logprob, _ in model._loglikelihood_tokens(asked, disable_tqdm=True)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
