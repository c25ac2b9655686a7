"""How fast the edge engine answers with SmolLM2 as Q4_0 and Q4_K_M, as ratios to llama.cpp's own loop and to itself.

    python benchmarks/edge_latency.py                       some minutes on 2 quiet cores
    python benchmarks/edge_latency.py --quants q4_0 --rounds 2 --json

Measured, each repetition in turn, medians over repetitions in several pairs of fresh processes, since where the weights
came to lie in memory makes one process some per cent faster than another for as long as it lives:

- first token with a shared prefix of 400 tokens at hand, over the first token of a prompt as long that shares nothing;
- a classification answer (8 labels by log-probability) after that prefix, 95th percentile in ms;
- tokens a second, prompt and decode, over what a plain loop of `llama_decode` (`llama_loop.py`) reaches in a process of
  its own: the same library, file, threads and lengths, as llama-bench measures;
- eight answers side by side over the same eight one after another, in tokens a second; the same of the plain loop: it
  says what the library gains with the file's type; and the engine's eight over the plain loop's eight;
- an adapter of rank 16 on all matrices put in place while the base stays loaded, in ms.

Files are made once and kept in the cache folder. What several rows at once gain is up to llama.cpp's kernels for the
file's type: most with Q4_0 and F16, less with Q4_K_M and Q8_0, little with the embedded Q4_1 (`--model`). The engine's
process and the plain loop's are in sessions of their own, so that the kernel shares the cores out to them alike.

Writes benchmarks/results/edge_latency.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from harness.edge.base import Ask, Done
from harness.edge.bench import LABELS, ask_all, filler, machine
from harness.edge.engine import EdgeEngine
from harness.edge.process import environment
from harness.files import sha256_file
from harness.models.base import Message
from harness.models.embedded import cache_folder, embedded_checkpoint
from harness.stats.quantiles import quantile

RESULTS = Path(__file__).parent / "results"
LOOP = Path(__file__).parent / "llama_loop.py"
SHARED_TOK = 400
NEW_TOK = 64
PROMPT_WORDS = 440
SWAP_RANK = 16
QUANTS = ("q4_0", "q4_k_m")


class Lengths(NamedTuple):
    """What the plain loop is given, in tokens."""

    prompt: int
    shared: int
    tail: int
    new: int


class Target(NamedTuple):
    """A promise: `figure` at least or at most `bound`."""

    figure: str
    bound: float
    is_most: bool
    unit: str

    def holds(self, value: float) -> bool:
        return value <= self.bound if self.is_most else value >= self.bound


TARGETS = (
    Target("first_token_cached_over_uncached", 0.25, True, "×"),
    Target("label_answer_p95_ms", 200.0, True, "ms"),
    Target("decode_over_plain_loop", 0.95, False, "×"),
    Target("prompt_over_plain_loop", 0.95, False, "×"),
    Target("eight_side_by_side_over_one_by_one", 2.0, False, "×"),
    Target("eight_over_plain_loop", 0.95, False, "×"),
    Target("adapter_swap_ms", 100.0, True, "ms"),
)


def main() -> None:
    """Measures, prints the ratios and writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="pairs of fresh processes")
    parser.add_argument("--repeats", type=int, default=2, help="in each pair")
    parser.add_argument("--labels", type=int, default=60, help="classification answers in all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--model", type=Path, help="a GGUF; SmolLM2 by default")
    parser.add_argument("--quants", nargs="+", default=QUANTS, help="of SmolLM2, where no file is given")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    paths = [options.model] if options.model else [smollm(quant) for quant in options.quants]
    document = {
        "what": "edge latency", "when": datetime.now(UTC).isoformat(timespec="seconds"), **machine(),
        "load_1m": os.getloadavg()[0], "threads": options.threads, "rounds": options.rounds,
        "repeats": options.repeats,
        "llama_cpp_python": version("llama-cpp-python"),
        "files": [
            measure(path, options.threads, options.rounds, options.repeats, options.labels) for path in paths
        ],
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    text = table(document)
    (RESULTS / "edge_latency.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "edge_latency.md").write_text(text + "\n")
    print(json.dumps(document, indent=1) if options.json else text)


def smollm(quant: str) -> Path:
    """SmolLM2 so quantized, converted and quantized by the harness."""
    from harness.export.gguf import convert
    from harness.export.quantize import quantize

    folder = cache_folder() / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    wide, small = folder / "smollm2-f16.gguf", folder / f"smollm2-{quant}.gguf"
    if not wide.exists():
        convert(embedded_checkpoint("smollm2-135m"), wide, metadata={})
    if not small.exists():
        quantize(wide, small, quant)
    return small


def measure(path: Path, threads: int, rounds: int, repeats: int, labels: int) -> dict[str, Any]:
    """All figures."""
    found = [one_round(path, threads, f"p{at}", repeats, -(-labels // rounds)) for at in range(rounds)]
    rows = [row for one in found for row in one.rows]
    middle = {name: median(row[name] for row in rows) for name in rows[0]}
    p95 = quantile([ms for one in found for ms in one.label_ms], 0.95)
    assert p95 is not None
    figures = {
        "first_token_cached_over_uncached": median(row["cached_ms"] / row["uncached_ms"] for row in rows),
        "label_answer_p95_ms": p95,
        "decode_over_plain_loop": median(row["decode_tok_s"] / row["plain_decode_tok_s"] for row in rows),
        "prompt_over_plain_loop": median(row["prompt_tok_s"] / row["plain_prompt_tok_s"] for row in rows),
        "eight_side_by_side_over_one_by_one": median(row["eight_tok_s"] / row["one_tok_s"] for row in rows),
        "plain_eight_over_one": median(row["plain_eight_tok_s"] / row["plain_one_tok_s"] for row in rows),
        "eight_over_plain_loop": median(row["eight_tok_s"] / row["plain_eight_tok_s"] for row in rows),
        "adapter_swap_ms": median(ms for one in found for ms in one.swap_ms),
    }
    return {
        "model": path.name, "lengths": found[0].lengths._asdict(),
        "label_answers": sum(len(one.label_ms) for one in found), "medians": middle, "rows": rows, "figures": figures,
        "holds": {target.figure: target.holds(figures[target.figure]) for target in TARGETS},
    }  # fmt: skip


class Round(NamedTuple):
    """What one pair of processes gave."""

    rows: list[dict[str, float]]
    label_ms: list[float]
    swap_ms: list[float]
    lengths: Lengths


def one_round(path: Path, threads: int, name: str, repeats: int, labels: int) -> Round:
    """A fresh engine beside a fresh plain loop."""
    engine = EdgeEngine(path, sha256_file(path), threads=threads, slots=8)
    rows: list[dict[str, float]] = []
    answers: list[float] = []
    try:
        ask_all(engine, [shared_ask("warm", 1)], 1)
        (again,) = ask_all(engine, [shared_ask("again", 1)], 1)
        (long,) = ask_all(engine, [long_ask("length")], 1)
        lengths = Lengths(long.prompt_tok, again.cached_tok, again.prompt_tok - again.cached_tok, NEW_TOK)
        with Plain(path, threads, lengths) as plain:
            for at in range(repeats):
                rows.append(repetition(engine, plain, f"{name}r{at}"))
                asks = [shared_ask(f"label-{at}-{one}", 1, LABELS) for one in range(-(-labels // repeats))]
                answers += [done.total_ms for done in ask_all(engine, asks, 1)]
        with tempfile.TemporaryDirectory() as folder:
            return Round(rows, answers, adapter_swaps(engine, path, Path(folder), repeats), lengths)
    finally:
        engine.close()


def repetition(engine: EdgeEngine, plain: Plain, name: str) -> dict[str, float]:
    """One time each, one after another."""
    (uncached,) = ask_all(engine, [lone_ask(f"{name}-cold")], 1)
    (cached,) = ask_all(engine, [shared_ask(f"{name}-warm", 1)], 1)
    (long,) = ask_all(engine, [long_ask(name)], 1)
    loop = plain.tok_s()
    (alone,) = ask_all(engine, [shared_ask(f"{name}-written", NEW_TOK)], 1)
    asks = [shared_ask(f"{name}-{{}}-{at}", NEW_TOK) for at in range(8)]
    one_s, one_tok = timed(engine, [renamed(ask, "one") for ask in asks], 1)
    eight_s, eight_tok = timed(engine, [renamed(ask, "eight") for ask in asks], 8)
    return {
        "uncached_ms": first_ms(uncached), "cached_ms": first_ms(cached),
        "prompt_tok_s": 1e3 * long.prompt_tok / first_ms(long),
        "plain_prompt_tok_s": loop["prompt"],
        "decode_tok_s": 1e3 * (alone.output_tok - 1) / (alone.total_ms - first_ms(alone)),
        "plain_decode_tok_s": loop["decode"],
        "one_tok_s": one_tok / one_s, "eight_tok_s": eight_tok / eight_s,
        "plain_one_tok_s": loop["one"], "plain_eight_tok_s": loop["eight"],
    }  # fmt: skip


def timed(engine: EdgeEngine, asks: Sequence[Ask], clients: int) -> tuple[float, int]:
    """Seconds for all of them, and the tokens that were written."""
    began = time.perf_counter()
    answers = ask_all(engine, asks, clients)
    return time.perf_counter() - began, sum(one.output_tok for one in answers)


def renamed(ask: Ask, how: str) -> Ask:
    """The same request under another id and with another nonce of the same length."""
    from dataclasses import replace

    own = ask.messages[1]._replace(content=ask.messages[1].content.replace("{}", f"{how:<5}"))
    return replace(ask, id=ask.id.replace("{}", how), messages=(ask.messages[0], own))


def first_ms(done: Done) -> float:
    assert done.first_ms is not None
    return done.first_ms


def shared_ask(name: str, new_tok: int, labels: tuple[str, ...] = ()) -> Ask:
    """A request after the prefix that all of these share."""
    system = filler(SHARED_TOK - 30, 0)
    own = f"Case {name}: write a long story about the {filler(12, len(name))}."
    return Ask(name, (Message("system", system), Message("user", own)), max_new_tokens=new_tok, labels=labels)


def lone_ask(name: str) -> Ask:
    """As long, and sharing nothing with any other."""
    asked = shared_ask(name, 1)
    system = asked.messages[0]._replace(content=f"{name} {asked.messages[0].content}")
    return Ask(name, (system, asked.messages[1]), max_new_tokens=1)


def long_ask(name: str) -> Ask:
    """One prompt of about 512 tokens, all of them new."""
    return Ask(f"long-{name}", (Message("user", f"{name} {filler(PROMPT_WORDS, 3)}"),), max_new_tokens=1)


class Plain:
    """The plain loop in a process of its own; it waits, without a thread that spins, while others are measured."""

    def __init__(self, path: Path, threads: int, lengths: Lengths) -> None:
        sizes = [part for name, size in lengths._asdict().items() for part in (f"--{name}", str(size))]
        self._child = subprocess.Popen(
            [sys.executable, str(LOOP), str(path), "--threads", str(threads), *sizes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(threads),
            start_new_session=True,
        )  # fmt: skip
        self.tok_s()  # the first warms up

    def tok_s(self) -> dict[str, float]:
        """Tokens a second, by part."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        found: dict[str, float] = json.loads(self._child.stdout.readline())
        return found

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.communicate()


def adapter_swaps(engine: EdgeEngine, path: Path, folder: Path, repeats: int) -> list[float]:
    """Milliseconds from the order to the place of adapters with random weights, another one each time."""
    return [swapped_ms(engine, write_adapter(path, folder / f"{at}.gguf", at)) for at in range(repeats)]


def swapped_ms(engine: EdgeEngine, adapter: Path) -> float:
    sha256 = sha256_file(adapter)
    began = time.perf_counter()
    engine.load_adapter("tenant", adapter, sha256)
    return (time.perf_counter() - began) * 1e3


def write_adapter(path: Path, out: Path, seed: int) -> Path:
    """A LoRA of rank 16 on every matrix of every layer."""
    import numpy as np
    from gguf import GGUFReader, GGUFWriter

    rng = np.random.default_rng(seed)
    writer = GGUFWriter(out, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(SWAP_RANK))
    for name, columns, rows in matrices(GGUFReader(path)):
        for side, shape in (("a", (SWAP_RANK, columns)), ("b", (rows, SWAP_RANK))):
            writer.add_tensor(f"{name}.lora_{side}", rng.normal(0, 0.01, shape).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def matrices(reader: Any) -> Iterator[tuple[str, int, int]]:
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            columns, rows = (int(size) for size in tensor.shape)
            yield tensor.name, columns, rows


def table(document: dict[str, Any]) -> str:
    """The figures beside their targets, as Markdown; a part for each file."""
    head = (
        f"Edge latency: {document['cpu']}, {document['threads']} threads, load {document['load_1m']:.1f},"
        f" {document['rounds']} pairs of processes, {document['repeats']} times each, {document['when']}"
    )
    return "\n".join([head, *(line for file in document["files"] for line in file_lines(file))])


def file_lines(file: dict[str, Any]) -> Iterator[str]:
    figures = file["figures"]
    yield from ("", f"## {file['model']}", "", "| figure | found | target | holds |", "|---|---|---|---|")
    for target in TARGETS:
        bound = "at most" if target.is_most else "at least"
        holds = "yes" if file["holds"][target.figure] else "no"
        name, found = target.figure.replace("_", " "), figures[target.figure]
        yield f"| {name} | {found:.3g} {target.unit} | {bound} {target.bound:g} {target.unit} | {holds} |"
    yield f"| the plain loop's own eight over one | {figures['plain_eight_over_one']:.3g} × | | |"
    yield from ("", "| median | value |", "|---|---|")
    yield from (f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in file["medians"].items())


if __name__ == "__main__":
    main()
