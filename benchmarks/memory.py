"""Peak memory of scoring 32 rows of 1,024 tokens: ours beside the plain way and lm-evaluation-harness.

    python benchmarks/memory.py                       SmolLM2-135M, float32; about as long as three batches take
    python benchmarks/memory.py --rows 4 --tokens 256

Each system runs in a fresh process: it loads the model, scores one short row, and then all rows, each of which is a
prompt with one continuation of 16 tokens. Reported is how much the process's largest resident size (VmHWM, reset
before the rows) is over its size with the model loaded. The plain way is one forward pass of all rows, logits at
every position, and their log-softmax. What does not fit into this machine's memory is reported as such, never guessed.

Writes benchmarks/results/memory.json and .md. The exit code is 1 where ours takes a quarter of the peer's or more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

if __package__:
    from benchmarks.multiple_choice import PEER, checkpoint, machine, peer_python
else:
    from multiple_choice import PEER, checkpoint, machine, peer_python

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCORED, SEED, LIMIT_FRAC = 16, 17, 0.25
Rows = list[tuple[list[int], list[int]]]
"""The ids of each prompt and of its continuation."""


def main() -> int:
    """Measures each system, prints and writes the table; 1 where ours is over the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--system", choices=sorted(SYSTEMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = (options.rows, options.tokens)
    if options.system:
        print(json.dumps(SYSTEMS[options.system](str(checkpoint()), shape, options.threads)))
        return 0
    report = {
        "rows": options.rows, "tokens": options.tokens, "scored": SCORED, "dtype": "float32", "peer": list(PEER),
        "systems": {name: measured(command) for name, command in commands(shape, options.threads).items()},
        "machine": machine(),
    }  # fmt: skip
    options.out.mkdir(exist_ok=True, parents=True)
    (options.out / "memory.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "memory.md").write_text(page(report))
    print(json.dumps(report) if options.json else page(report))
    return 0 if is_small(report["systems"]) else 1


def commands(shape: tuple[int, int], threads: int) -> dict[str, list[str]]:
    """How each system is measured; the peer in its own environment."""
    shaped = ["--rows", str(shape[0]), "--tokens", str(shape[1]), "--threads", str(threads)]
    here = {name: [sys.executable, __file__, "--system", name, *shaped] for name in SYSTEMS}
    script = str(HERE / "peers" / "lm_eval_memory.py")
    peer = [
        str(peer_python("lm-eval", PEER)),
        script,
        str(checkpoint()),
        str(shape[0]),
        str(shape[1]),
        str(threads),
    ]
    return {**here, "lm-evaluation-harness hf": peer}


def measured(command: list[str]) -> dict[str, Any]:
    """The last line that the command prints, as JSON; an error where it dies, as for want of memory."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        return {"error": f"ended with {done.returncode}: {done.stderr.strip()[-200:]}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(folder: str, shape: tuple[int, int], threads: int) -> dict[str, Any]:
    """All rows as one call to the harness's model."""
    from harness.models.answering import ChoiceRow
    from harness.models.transformers import TransformersModel
    from harness.models.trie import build_trie

    model = TransformersModel(Path(folder), dtype="float32", device="cpu", threads=threads)
    made = rows(*shape)
    asked = [ChoiceRow(prompt, build_trie([answer], None)) for prompt, answer in made]
    model._score_rows([ChoiceRow([1, 2, 3], build_trie([[4, 5]], None))])
    return peak(lambda: sum(search.logprobs()[0] for search in model._score_rows(asked)))


def plain(folder: str, shape: tuple[int, int], threads: int) -> dict[str, Any]:
    """One pass of all rows, with logits and log-probabilities at every position."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[*prompt, *answer] for prompt, answer in rows(*shape)])

    def score() -> float:
        with torch.inference_mode():
            logprobs = network(ids[:, :-1]).logits.log_softmax(-1)  # (rows, tokens - 1, vocab)
        return float(logprobs[:, -SCORED:].gather(2, ids[:, -SCORED:, None]).sum())

    with torch.inference_mode():
        network(ids[:1, :8])
    return peak(score)


SYSTEMS: Mapping[str, Callable[[str, tuple[int, int], int], dict[str, Any]]] = {
    "ours (Transformers)": ours,
    "plain (full logits)": plain,
}


def rows(count: int, tokens: int) -> Rows:
    """Random ids; rows of one length, so that nobody pads, and without common beginnings."""
    draw = random.Random(SEED)
    texts = [[draw.randrange(100, 40_000) for _ in range(tokens)] for _ in range(count)]
    return [(text[:-SCORED], text[-SCORED:]) for text in texts]


def peak(score: Callable[[], float]) -> dict[str, Any]:
    """Bytes that `score` adds to this process at most, and the sum of log-probabilities it found."""
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to the present size
    before = status_bytes("VmRSS")
    total = score()
    return {"model_bytes": before, "added_bytes": status_bytes("VmHWM") - before, "sum_logprob": total}


def status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def is_small(systems: Mapping[str, Mapping[str, Any]]) -> bool:
    """True where ours added less than a quarter of what the peer added; a peer that died took more."""
    mine = systems["ours (Transformers)"].get("added_bytes")
    theirs = systems["lm-evaluation-harness hf"].get("added_bytes")
    return mine is not None and (theirs is None or mine < LIMIT_FRAC * theirs)


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"| {name} | {row['added_bytes'] / 1e6:,.0f} | {row['model_bytes'] / 1e6:,.0f} | {row['sum_logprob']:.3f} |\n"
        if "error" not in row
        else f"| {name} | {row['error']} | | |\n"
        for name, row in report["systems"].items()
    ]
    return (
        "# Peak memory of scoring\n\n"
        f"{report['rows']} rows of {report['tokens']:,} tokens, {report['scored']} of them scored, SmolLM2-135M in "
        f"{report['dtype']}. Written by `benchmarks/memory.py`.\n\n"
        "| system | added by scoring, MB | with the model loaded, MB | sum of log-probabilities |\n|---|---|---|---|\n"
        + "".join(lines)
        + f"\nMachine: {report['machine']['cpu']}, {report['machine']['cpus']} CPUs.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
