"""How long multiple choice by log-probability takes on a GGUF, beside llama-cpp-python's own class.

    python benchmarks/gguf_choices.py --data ../shared/data                     some minutes
    python benchmarks/gguf_choices.py --items 2 --repeats 5 --json

Questions of `uncertainty/mmlu` with the embedded model as F16 and Q8_0, four choices each: the letters, asked as
lm-evaluation-harness does, or (`--style text`) the options' own words. The ways, on the same questions:

- ours: one decode for a prompt and all its choices;
- echo: `Llama(logits_all=True)`, `create_completion(prompt + choice, echo=True, logprobs=1)` for each choice, as people
  do and as lm-evaluation-harness asks a GGUF server, here without the server between;
- scores: the same class by hand, `eval` and then `scores` for each choice. The fastest honest way through that class,
  though no tool of note takes it.

Every repetition runs all ways, in turn first, and ratios are taken within a repetition. The values are held against
Transformers in float32. Writes benchmarks/results/gguf_choices.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from harness.models.base import ChoiceRequest, Prompt
from harness.models.embedded import cache_folder, embedded_checkpoint
from harness.models.gguf import GgufModel
from harness.models.gguf_probe import needs_plain_buffers

RESULTS = Path(__file__).parent / "results"
TARGET = 20.0
CONTEXT_TOK = 2048
LETTERS = ("A", "B", "C", "D")

Values = list[tuple[float, ...]]
Way = Callable[[Sequence[ChoiceRequest]], Values]


class Took(NamedTuple):
    """By the clock, and of the processor."""

    wall_s: float
    cpu_s: float


def main() -> None:
    """Times all ways on both files, prints the figures and writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get("HARNESS_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder that holds uncertainty/mmlu")
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--style", choices=("letters", "text"), default="letters")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    source = options.data / "uncertainty" / "mmlu" / "eval.jsonl"
    if not source.is_file():
        print(f"not run: {options.data} holds no uncertainty/mmlu; name the folder with --data")
        return
    requests = read_requests(source, options.items, options.style)
    reference = reference_values(requests, options.threads)
    report = {
        "date": datetime.now(UTC).date().isoformat(), "machine": machine(options.threads), "style": options.style,
        "items": options.items, "repeats": options.repeats, "target": TARGET,
        "files": [measure(path, requests, reference, options) for path in embedded_files().values()],
    }  # fmt: skip
    write(report, page(report), options.out, "gguf_choices", is_json=options.json)


def read_requests(source: Path, items: int, style: str) -> list[ChoiceRequest]:
    """The first questions, as raw text."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()[:items]]
    return [letters(row) if style == "letters" else own_words(row) for row in rows]


def letters(row: Mapping[str, Any]) -> ChoiceRequest:
    shown = "\n".join(f"{name}. {option}" for name, option in zip(LETTERS, row["options"], strict=True))
    prompt = Prompt((), text=f"{row['input'].strip()}\n{shown}\nAnswer:")
    return ChoiceRequest(row["id"], prompt, tuple(f" {name}" for name in LETTERS), is_open=True)


def own_words(row: Mapping[str, Any]) -> ChoiceRequest:
    prompt = Prompt((), text=f"Question: {row['input'].strip()}\nAnswer:")
    return ChoiceRequest(row["id"], prompt, tuple(f" {option}" for option in row["options"]), is_open=True)


def embedded_files() -> dict[str, Path]:
    """The embedded model as F16 and Q8_0, made once."""
    from harness.export.gguf import convert
    from harness.export.quantize import quantize

    folder = cache_folder() / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"f16": folder / "smollm2-f16.gguf", "q8_0": folder / "smollm2-q8_0.gguf"}
    if not files["f16"].exists():
        convert(embedded_checkpoint("smollm2-135m"), files["f16"], metadata={})
    if not files["q8_0"].exists():
        quantize(files["f16"], files["q8_0"], "q8_0")
    return files


def reference_values(requests: Sequence[ChoiceRequest], threads: int) -> Values:
    """The same requests through Transformers in float32."""
    from harness.models.transformers import TransformersModel

    network = TransformersModel(
        embedded_checkpoint("smollm2-135m"), dtype="float32", device="cpu", threads=threads
    )
    found = [answer.choice_logprobs or () for answer in network.score_choices(requests)]
    network.close()
    return found


def measure(
    path: Path, requests: Sequence[ChoiceRequest], reference: Values, options: argparse.Namespace
) -> dict[str, Any]:
    """One file: times, ratios within repetitions, and how far the values are from the reference."""
    ways: dict[str, Way] = {"ours": ours(path, options.threads)}
    if needs_plain_buffers(path, is_quantized="q8" in path.name):
        print(f"{path.name}: llama-cpp-python's class would crash on this processor, so it is not run")
    else:
        ways |= peers(path, options.threads)
    times: dict[str, list[Took]] = {name: [] for name in ways}
    values: dict[str, Values] = {}
    for turn in range(options.repeats):
        names = [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]
        for name in names:
            wall, cpu = time.perf_counter(), time.process_time()
            values[name] = ways[name](requests)
            times[name].append(Took(time.perf_counter() - wall, time.process_time() - cpu))
    return {
        "file": path.stem, "bytes": path.stat().st_size,
        "ways": {name: row(times[name], times["ours"], values[name], reference) for name in ways},
    }  # fmt: skip


def row(took: Sequence[Took], ours: Sequence[Took], values: Values, reference: Values) -> dict[str, Any]:
    distances = [
        abs(a - b)
        for one, other in zip(values, reference, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    same = sum(best(one) == best(other) for one, other in zip(values, reference, strict=True))
    return {
        "wall_s": median(one.wall_s for one in took), "cpu_s": median(one.cpu_s for one in took),
        "ratio_wall": median(a.wall_s / b.wall_s for a, b in zip(took, ours, strict=True)),
        "ratio_cpu": median(a.cpu_s / b.cpu_s for a, b in zip(took, ours, strict=True)),
        "mean_distance": fmean(distances), "largest_distance": max(distances), "same_choice": same,
    }  # fmt: skip


def best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def ours(path: Path, threads: int) -> Way:
    model = GgufModel(path, threads=threads, exact=True)

    def run(requests: Sequence[ChoiceRequest]) -> Values:
        model.plan(requests)
        return [answer.choice_logprobs or () for answer in model.score_choices(requests)]

    return run


def peers(path: Path, threads: int) -> dict[str, Way]:
    """Both ways through llama-cpp-python's class."""
    import llama_cpp

    llama = llama_cpp.Llama(
        str(path),
        n_ctx=CONTEXT_TOK,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        verbose=False,
    )

    def echo(prompt: str, choice: str) -> float:
        found: Any = llama.create_completion(
            prompt + choice, max_tokens=1, temperature=0.0, echo=True, logprobs=1
        )
        places = found["choices"][0]["logprobs"]
        kept = [
            value for value, at in zip(places["token_logprobs"], places["text_offset"], strict=True)
            if value is not None and len(prompt) <= at < len(prompt + choice)
        ]  # fmt: skip
        return math.fsum(kept)

    def scores(prompt: str, choice: str) -> float:
        before = len(llama.tokenize(prompt.encode(), add_bos=False, special=True))
        ids = llama.tokenize((prompt + choice).encode(), add_bos=False, special=True)
        llama.reset()
        llama.eval(ids)
        lines = llama.logits_to_logprobs(llama.scores[before - 1 : len(ids) - 1])
        return math.fsum(float(line[token]) for line, token in zip(lines, ids[before:], strict=True))

    def each(score: Callable[[str, str], float]) -> Way:
        return lambda requests: [
            tuple(score(request.prompt.text or "", choice) for choice in request.choices)
            for request in requests
        ]

    return {"echo": each(echo), "scores": each(scores)}


def machine(threads: int) -> dict[str, Any]:
    """Where this was measured, with what, and how busy it was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    libraries = ("llama-cpp-python", "transformers", "torch", "numpy")
    return {
        "processor": name, "cpus": os.cpu_count(), "threads": threads, "python": platform.python_version(),
        "versions": {library: version(library) for library in libraries},
        "load_1_min": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def place(found: Mapping[str, Any]) -> str:
    """The machine in a line."""
    versions = ", ".join(f"{library} {number}" for library, number in found["versions"].items())
    return (
        f"{found['threads']} threads on {found['cpus']} cores of {found['processor']}, Python {found['python']}, "
        f"{versions}; load {found['load_1_min']} at the start."
    )


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "# Multiple choice on a GGUF", "",
        f"{report['date']}. {report['items']} questions of MMLU, four choices each ({report['style']}), median of "
        f"{report['repeats']} repetitions; ratios within a repetition. Target against `echo`: {report['target']:g}. "
        f"Distances are of log-probabilities from Transformers in float32. {place(report['machine'])}", "",
        "| file | way | s | CPU s | ratio, clock | ratio, CPU | mean distance | largest | same choice |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for found in report["files"]:
        lines += [
            f"| {found['file']} | {name} | {way['wall_s']:.2f} | {way['cpu_s']:.2f} | {way['ratio_wall']:.1f} | "
            f"{way['ratio_cpu']:.1f} | {way['mean_distance']:.3f} | {way['largest_distance']:.3f} | "
            f"{way['same_choice']} of {report['items']} |"
            for name, way in found["ways"].items()
        ]
    return "\n".join(lines) + "\n"


def write(report: Mapping[str, Any], text: str, out: Path, name: str, *, is_json: bool) -> None:
    """Both forms into the folder, one of them onto the screen."""
    out.mkdir(exist_ok=True, parents=True)
    (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / f"{name}.md").write_text(text)
    print(json.dumps(report) if is_json else text)


if __name__ == "__main__":
    main()
