"""How long writing answers takes on a GGUF, beside llama-cpp-python one by one and Transformers in a batch.

    python benchmarks/gguf_generation.py                        some minutes
    python benchmarks/gguf_generation.py --items 8 --repeats 5 --json

Made-up questions to the embedded model, greedily answered with 48 tokens at most, the same prompts everywhere:

- ours: side by side on the F16 file, a place that ends is taken by the next prompt;
- one by one: llama-cpp-python's `create_chat_completion` on the same file;
- Transformers' `generate`, all prompts in one batch padded on the left, in bfloat16 and in float32.

Every repetition runs all ways, in turn first, and ratios are taken within a repetition. Where ours spends its time is
measured in one more run. Writes benchmarks/results/gguf_generation.json and .md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from gguf_choices import RESULTS, Took, embedded_files, machine, place, write

from harness.models.base import GenerateRequest, Message, Prompt
from harness.models.embedded import embedded_checkpoint
from harness.models.gguf import GgufModel

TARGET = 2.0
NEW_TOK = 48
CONTEXT_TOK = 512
ASKED = (
    "What is {}?",
    "Name three uses of {}.",
    "Explain to a child how {} came about.",
    "Who should avoid {}, and why?",
)
ABOUT = (
    "a mortgage", "vaccination", "a lease", "insulin", "an audit", "soap", "a patent", "the tide", "a warranty",
    "sourdough", "an index fund", "a telescope", "copper", "a will", "fasting", "a glacier",
)  # fmt: skip

Way = Callable[[], list[str]]


def main() -> None:
    """Times all ways, prints the figures and writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    questions = [asked.format(about) for asked in ASKED for about in ABOUT][: options.items]
    path = embedded_files()["f16"]
    model = GgufModel(path, threads=options.threads)
    ways = {
        "ours": ours(model, questions),
        "one by one": one_by_one(path, questions, options.threads),
        "transformers bfloat16": transformers(questions, "bfloat16", options.threads),
        "transformers float32": transformers(questions, "float32", options.threads),
    }
    times, texts = run_all(ways, options.repeats)
    report = {
        "date": datetime.now(UTC).date().isoformat(), "machine": machine(options.threads), "items": len(questions),
        "repeats": options.repeats, "new_tok": NEW_TOK, "target": TARGET,
        "written_tok": sum(len(model.chat.encode(text)) for text in texts["ours"]),
        "ways": {name: row(times[name], times["ours"], texts[name], texts["ours"]) for name in ways},
        "profile": profile(ways["ours"]),
    }  # fmt: skip
    write(report, page(report), options.out, "gguf_generation", is_json=options.json)


def run_all(ways: Mapping[str, Way], repeats: int) -> tuple[dict[str, list[Took]], dict[str, list[str]]]:
    """All ways in every repetition, another one first each time."""
    times: dict[str, list[Took]] = {name: [] for name in ways}
    texts: dict[str, list[str]] = {}
    for turn in range(repeats):
        for name in [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]:
            wall, cpu = time.perf_counter(), time.process_time()
            texts[name] = ways[name]()
            times[name].append(Took(time.perf_counter() - wall, time.process_time() - cpu))
    return times, texts


def ours(model: GgufModel, questions: Sequence[str]) -> Way:
    requests = [
        GenerateRequest(str(at), Prompt((Message("user", question),)), NEW_TOK)
        for at, question in enumerate(questions)
    ]

    def run() -> list[str]:
        model.plan(requests)
        return [answer.text or "" for answer in model.generate(requests)]

    return run


def one_by_one(path: Path, questions: Sequence[str], threads: int) -> Way:
    import llama_cpp

    llama = llama_cpp.Llama(
        str(path), n_ctx=CONTEXT_TOK, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def answer(question: str) -> str:
        turns: Any = [{"role": "user", "content": question}]
        found: Any = llama.create_chat_completion(turns, max_tokens=NEW_TOK, temperature=0.0)
        return str(found["choices"][0]["message"]["content"])

    return lambda: [answer(question) for question in questions]


def transformers(questions: Sequence[str], dtype: str, threads: int) -> Way:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    folder = embedded_checkpoint("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    turns = [[{"role": "user", "content": question}] for question in questions]

    def run() -> list[str]:
        batch = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            found = network.generate(
                **batch, max_new_tokens=NEW_TOK, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        return list(tokenizer.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True))

    return run


def row(
    took: Sequence[Took], ours: Sequence[Took], texts: Sequence[str], reference: Sequence[str]
) -> dict[str, Any]:
    return {
        "wall_s": median(one.wall_s for one in took), "cpu_s": median(one.cpu_s for one in took),
        "ratio_wall": median(a.wall_s / b.wall_s for a, b in zip(took, ours, strict=True)),
        "ratio_cpu": median(a.cpu_s / b.cpu_s for a, b in zip(took, ours, strict=True)),
        "same_text": sum(one.strip() == other.strip() for one, other in zip(texts, reference, strict=True)),
    }  # fmt: skip


def profile(run: Way) -> dict[str, float]:
    """Shares of one run: the native decode, the choice of tokens, building batches, and the rest."""
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    profiler.runcall(run)
    found: Any = pstats.Stats(profiler)
    parts = {"decode": 0.0, "choice": 0.0, "batches": 0.0}
    for (file, _, name), (_, _, own_s, all_s, _) in found.stats.items():
        match Path(file).name, name:
            case "gguf_api.py", "decode" | "_logits":
                parts["decode"] += own_s  # what native code takes counts as its caller's own
            case "gguf_api.py", "_batch":
                parts["batches"] += all_s
            case "continuation.py", "extend":
                parts["choice"] += all_s
    return {name: seconds / found.total_tt for name, seconds in parts.items()}


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "# Writing answers on a GGUF", "",
        f"{report['date']}. {report['items']} prompts, {report['new_tok']} new tokens at most, "
        f"{report['written_tok']:,} in all, greedy; median of {report['repeats']} repetitions, ratios within a "
        f"repetition. Target against one by one: {report['target']:g}. {place(report['machine'])}", "",
        "| way | s | CPU s | tokens/s | ratio, clock | ratio, CPU | same text as ours |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {name} | {way['wall_s']:.1f} | {way['cpu_s']:.1f} | {report['written_tok'] / way['wall_s']:.0f} | "
        f"{way['ratio_wall']:.2f} | {way['ratio_cpu']:.2f} | {way['same_text']} of {report['items']} |"
        for name, way in report["ways"].items()
    ]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in report["profile"].items())
    return (
        "\n".join([*lines, "", f"Where ours spends its time: {shares}; the rest is Python around them."])
        + "\n"
    )


if __name__ == "__main__":
    main()
