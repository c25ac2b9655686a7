"""Training speed: this loop beside TRL's SFTTrainer, on the same model, records, adapter and batches.

    python benchmarks/train_speed.py                        makes the peer's environment when it is missing
    python benchmarks/train_speed.py --methods lora --steps 8 --repeats 5
    python benchmarks/train_speed.py --device cuda          a random Llama of 1B under NF4, where there is a GPU

SmolLM2-135M-Instruct on the training records of `suites/legal/clauses.yaml`. Both start from one adapter (rank 16 on
all linear layers) and train the same token ids in the same batches, in the same precision, with AdamW at a constant
rate; the peer runs as a person would set it up, its gradient checkpointing off, because that is faster. Each run loads
the model afresh; the two take turns, so that each pair shares what else the machine does. Timed is each optimizer step,
the first ones of a run left out. The ratio is the median over pairs of the runs' median steps.

`lora` holds the base in 16 bits. `qlora` computes with NF4 weights: the peer with bitsandbytes' layers, which unpack
at every call; ours unpacks once on a processor, which gives the same products.

All of it twice. In float32 only a difference in what is computed can set the two loss curves apart: each step's losses
must be within 1 %. In bfloat16, over a bfloat16 base, they part, because PEFT adds an adapter's small part to a product
that is rounded already, where ours rounds the sum: there ours may not be more than 1 % above the peer's, on average,
and the distance of both from their float32 curves is printed.

Also measures what each lever of the loop gives, by leaving out one at a time; without `rows side by side` all that
needs them is out too, without `kept activations` they are computed again, without `eager layers` each layer is
compiled. Writes benchmarks/results/train_speed.json and .md: numbers only; what `--precisions` or `--levers` leaves out
stays as the last call of the same size measured it. The exit code is 1 where a target is missed or the curves are
further apart than 1 %. About 35 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
RESULTS = HERE / "results"
PEER = ("trl==1.16.0", "torch==2.13.0", "transformers==5.23.0", "peft==0.21.2", "bitsandbytes==0.50.2",
        "accelerate==1.15.0", "datasets==5.2.0")  # fmt: skip
MODEL = "embedded:smollm2-135m"
SUITE = "suites/legal/clauses.yaml"
TARGETS = {"cpu": 1.5, "cuda": 1.3}
"""How many times as fast as the peer; on a GPU in no more memory."""
AGREEMENT = 0.01
"""Largest relative distance of the two loss curves."""
WARM_UP = 2
BATCH, SEED, RANK = 8, 17, 16
PRECISIONS = ("float32", "bfloat16")
LEVERS = ("rows side by side", "lean layers", "lean blocks", "products together", "supervised logits only",
          "bucketed batches", "kept activations", "eager layers")  # fmt: skip


class Run(NamedTuple):
    """One training from the same start."""

    seconds: list[float]
    """Of each optimizer step."""
    losses: list[float]
    peak_mb: float | None
    """The most memory while it trained, of the GPU where one is used; None where it can't be read."""

    @property
    def step_s(self) -> float:
        return median(self.seconds[WARM_UP:])


def main() -> int:
    """Measures, prints and writes the tables; 1 where a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods", nargs="+", choices=["lora", "qlora"], default=None, help="on a GPU: qlora"
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lever-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches a step")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--levers",
        nargs="*",
        choices=LEVERS,
        default=list(LEVERS),
        help="to leave out, one at a time, in bfloat16",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--serve", metavar="JOB", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--without", choices=LEVERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(json.loads(options.serve.read_text()), options.threads, options.without)
        return 0
    if options.device == "cuda" and not has_cuda():
        print("not run: no CUDA device on this machine", file=sys.stderr)
        return 0
    options.methods = options.methods or (["qlora"] if options.device == "cuda" else ["lora", "qlora"])
    report = measured(options)
    options.out.mkdir(exist_ok=True, parents=True)
    (options.out / "train_speed.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "train_speed.md").write_text(page(report))
    print(json.dumps(report) if options.json else page(report))
    return 0 if all(row["is_met"] and row["agrees"] for row in report["rows"].values()) else 1


def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The whole report."""
    with tempfile.TemporaryDirectory() as scratch:
        rows = {
            f"{method}, {precision}": compared(options, Path(scratch), method, precision)
            for precision in options.precisions
            for method in options.methods
        }
        levers = left_out(options, Path(scratch)) if options.levers else {}
    setting = {
        "model": MODEL if options.device == "cpu" else "random Llama, 1B", "device": options.device,
        "steps": options.steps, "repeats": options.repeats,
        "lever_repeats": options.lever_repeats, "threads": options.threads, "batch": BATCH,
        "accumulate": options.accumulate, "rank": RANK, "peer": list(PEER),
    }  # fmt: skip
    known = known_report(options.out, setting)
    return {**setting, "rows": known.get("rows", {}) | rows, "levers": levers or known.get("levers", {})}


def known_report(folder: Path, setting: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier call measured in the same setting; empty where none did."""
    path = folder / "train_speed.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return report if {name: report.get(name) for name in setting} == setting else {}


def compared(options: argparse.Namespace, scratch: Path, method: str, precision: str) -> dict[str, Any]:
    """Ours and the peer in turns."""
    from multiple_choice import machine, peer_python

    job, about, is_bf16 = (
        make_job(options, scratch / f"{method}.json", method),
        machine(),
        precision == "bfloat16",
    )
    script = HERE / "peers" / "trl_train.py"
    peer = [str(peer_python("trl", PEER)), str(script), str(job), str(options.threads)]
    pairs = []
    with (
        started(ours(job, options.threads), options.threads) as mine,
        started(peer, options.threads) as theirs,
    ):
        for number in range(options.repeats):
            pairs.append((mine(options.steps, bf16=is_bf16), theirs(options.steps, bf16=is_bf16)))
            seconds = [f"{run.step_s:.2f} s" for run in pairs[-1]]
            print(
                f"{method}, {precision}, {number + 1}: {', peer '.join(seconds)}", file=sys.stderr, flush=True
            )
    return {**summed_up(json.loads(job.read_text()), pairs, is_bf16=is_bf16), "machine": about}


def summed_up(job: Mapping[str, Any], pairs: Sequence[tuple[Run, Run]], *, is_bf16: bool) -> dict[str, Any]:
    """Ratios, speeds, memory, and how far the loss curves are apart."""
    batches = job["batches"][WARM_UP : len(pairs[0][0].seconds)]
    tokens = sum(len(ids) for batch in batches for ids, _ in batch)
    supervised = sum(len(ids) - first for batch in batches for ids, first in batch)
    rows = {
        name: {
            "step_s": median(pair[at].step_s for pair in pairs),
            "tok_s": median(tokens / sum(pair[at].seconds[WARM_UP:]) for pair in pairs),
            "supervised_tok_s": median(supervised / sum(pair[at].seconds[WARM_UP:]) for pair in pairs),
            "peak_mb": largest([pair[at].peak_mb for pair in pairs]),
            "seconds": [pair[at].seconds for pair in pairs],
            "losses": pairs[0][at].losses,
        }
        for at, name in enumerate(("ours", "TRL"))
    }
    ratios, target = [theirs.step_s / mine.step_s for mine, theirs in pairs], TARGETS[job["device"]]
    excess = [a / b - 1 for mine, theirs in pairs for a, b in zip(mine.losses, theirs.losses, strict=True)]
    apart = [abs(one) for one in excess]
    is_lighter = job["device"] == "cpu" or rows["ours"]["peak_mb"] <= rows["TRL"]["peak_mb"]
    return {
        **rows, "ratios": ratios, "ratio": median(ratios), "target": target, "loss_excess": mean(excess),
        "largest_loss_distance": max(apart), "is_met": median(ratios) >= target and is_lighter,
        "agrees": (mean(excess) if is_bf16 else max(apart)) <= AGREEMENT,
    }  # fmt: skip


def largest(values: Sequence[float | None]) -> float | None:
    """None where one is unknown."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def left_out(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Each lever: the step without it over the step with it, median over pairs taken in turns."""
    job = make_job(options, scratch / "levers.json", "lora")
    loose = make_job(options, scratch / "loose.json", "lora", is_bucketed=False)
    with ExitStack() as stack:
        whole = stack.enter_context(started(ours(job, options.threads), options.threads))
        found = {}
        for lever in options.levers:
            other = loose if lever == "bucketed batches" else job
            with started(ours(other, options.threads, without=lever), options.threads) as without:
                pairs = [(whole(options.steps), without(options.steps)) for _ in range(options.lever_repeats)]
            speeds = [
                per_token(json.loads(other.read_text()), b) / per_token(json.loads(job.read_text()), a)
                for a, b in pairs
            ]
            found[lever] = {"ratios": speeds, "ratio": median(speeds)}
            print(f"without {lever}: {median(speeds):.2f} times the time", file=sys.stderr, flush=True)
    return found


def per_token(job: Mapping[str, Any], run: Run) -> float:
    """Seconds a token, the warm-up left out."""
    batches = job["batches"][WARM_UP : len(run.seconds)]
    return sum(run.seconds[WARM_UP:]) / sum(len(ids) for batch in batches for ids, _ in batch)


def make_job(options: argparse.Namespace, path: Path, method: str, *, is_bucketed: bool = True) -> Path:
    """What both train, as a file: base, adapter to start from, and batches of (ids, first supervised)."""
    from harness.train.batches import batches_of

    base = checkpoint(options, path.parent)
    rows = encoded(base)
    order = [] if is_bucketed else [tuple(range(at, at + BATCH)) for at in range(0, len(rows) - BATCH, BATCH)]
    for epoch in range(options.steps):
        if len(order) >= options.steps:
            break
        order += [
            batch for batch in batches_of(rows, batch=BATCH, seed=SEED, epoch=epoch) if len(batch) == BATCH
        ]
    batches = [
        [[list(rows[at].ids), rows[at].supervised_from] for at in batch] for batch in order[: options.steps]
    ]
    job = {
        "base": str(base), "adapter": str(path.with_suffix("")), "method": method, "device": options.device,
        "batch": BATCH, "accumulate": options.accumulate, "learning_rate": 2e-4, "clip_norm": 1.0,
        "bf16": computes_in_bf16(), "batches": batches,
    }  # fmt: skip
    path.write_text(json.dumps(job))
    loop = our_loop(job)
    loop.write_adapter(Path(job["adapter"]))
    return path


def computes_in_bf16() -> bool:
    import torch

    from harness.train.methods import compute_dtype

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return compute_dtype(device) is torch.bfloat16


def checkpoint(options: argparse.Namespace, scratch: Path) -> Path:
    """SmolLM2; for a GPU a random Llama in the shape of Llama 3.2 1B, with SmolLM2's tokenizer."""
    from harness.models.load import resolve_base

    base = resolve_base(MODEL)
    if options.device == "cpu":
        return base
    folder = scratch / "llama-1b"
    if folder.is_dir():
        return folder
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoded(base: Path) -> list[Any]:
    """The suite's training records as ids."""
    from harness.data.sources import load_split
    from harness.evals.run import make_prompt
    from harness.evals.tasks import example_answer
    from harness.jobs.orders import labels_of
    from harness.models.chat import load_chat
    from harness.specs.load import find_document, load_suite
    from harness.train.batches import Encoded, Example, encode_all

    path = find_document(SUITE)
    suite = load_suite(path)
    records = load_split(suite, "train", suite_path=path, data_root=None)
    labels = labels_of(suite, {"train": records})
    examples = [Example(r.id, make_prompt(suite, r, labels), example_answer(suite, r)) for r in records]
    rows, _ = encode_all(examples, load_chat(base), max_tokens=512)
    return [row for row in rows if isinstance(row, Encoded)]


def our_loop(job: Mapping[str, Any]) -> Any:
    """The product's own loop, its model loaded and its adapter fresh."""
    from harness.specs.tune import Tune
    from harness.train.loop import Loop, Work
    from harness.train.objectives import Supervised
    from harness.train.plan import TrainPlan
    from harness.train.ranks import Ranks

    tune = Tune(
        method=job["method"], rank=RANK, alpha=2.0 * RANK, batch=BATCH, micro_batch=BATCH // job["accumulate"],
        learning_rate=job["learning_rate"], schedule="constant", warmup_frac=0.0, clip_norm=job["clip_norm"],
        max_steps=len(job["batches"]), epochs=100, seed=SEED,
    )  # fmt: skip
    rows = [row for batch in job["batches"] for row in batch]
    work = Work(
        TrainPlan(Path(job["base"]), [], [], tune), Path(), Supervised(), rows, [], "benchmark", "", 0
    )
    loop = Loop(work, Ranks(), lambda *_: None, None)
    loop._prepare()
    return loop


def serve(job: Mapping[str, Any], threads: int, without: str | None) -> None:
    """Answers lines of JSON, {"steps", "bf16"} → a `Run`, until the input ends.

    stdout is kept for the answers: what libraries print there goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(threads)
    for line in sys.stdin:
        asked = json.loads(line)
        run = our_run({**job, "bf16": job["bf16"] and asked["bf16"]}, asked["steps"], without)
        print(json.dumps(run._asdict()), file=answers, flush=True)


def our_run(job: Mapping[str, Any], steps: int, without: str | None) -> Run:
    """One training from the job's adapter over its batches, in their order."""
    from harness.train.batches import Batch, Encoded, Position
    from harness.train.telemetry import peak_memory_mb, reset_peak_memory

    LEAVE_OUT.get(without or "", lambda: None)()
    loop = in_precision(job)
    loop.load_adapter(Path(job["adapter"]))
    if without in CHANGE:
        CHANGE[without](loop)
    reset_peak_memory()
    found = []
    for at, batch in enumerate(job["batches"][:steps]):
        rows = [
            Encoded(f"{at}-{place}", tuple(ids), first, False, False, True, len(ids) - first - 1)
            for place, (ids, first) in enumerate(batch)
        ]
        found.append(loop._step(Batch(Position(0, at), tuple(rows))))
    return Run([step.seconds for step in found], [step.loss for step in found], float(peak_memory_mb()))


def in_precision(job: Mapping[str, Any]) -> Any:
    """The loop, computing in the job's precision."""
    from unittest.mock import patch

    import torch

    from harness.train import methods

    dtype = torch.bfloat16 if job["bf16"] else torch.float32
    with patch.object(methods, "compute_dtype", lambda _: dtype):
        return our_loop(job)


def compile_layers(loop: Any) -> None:
    import torch

    torch._dynamo.config.cache_size_limit = 64
    for layer in loop.adapted.model.get_submodule(loop.adapted.model.base_model_prefix).layers:
        layer.compile(dynamic=True)


def compute_again(loop: Any) -> None:
    from harness.train.probe import recompute

    recompute(loop)


def without_packing() -> None:
    from harness.train import methods

    methods.can_pack = lambda *_: False  # type: ignore[assignment]


def without_lean_layers() -> None:
    from harness.train import lean

    lean.make_lean = lambda _: 0  # type: ignore[assignment]


def without_lean_blocks() -> None:
    from harness.train import lean

    lean.make_blocks_lean = lambda _: None  # type: ignore[assignment]


def one_product_at_a_time() -> None:
    from harness.train import lean

    together = lean._together
    lean._together = lambda x, modules: [together(x, [module])[0] for module in modules]  # type: ignore[assignment]


def with_all_logits() -> None:
    """Logits of every position, as a model's own forward computes them."""
    from harness.train import objectives

    def summed_loss(adapted: Any, rows: Any, *, pad_id: int) -> Any:
        import torch
        from torch.nn.functional import cross_entropy

        whole = [row._replace(supervised_from=1) for row in rows]
        hidden, targets = adapted.hidden_and_targets(whole, pad_id=pad_id)
        counted = [place >= row.supervised_from for row in rows for place in range(1, len(row.ids))]
        targets = targets.masked_fill(~torch.tensor(counted, device=targets.device), -100)
        logits = adapted.model.get_output_embeddings()(hidden).float()
        return cross_entropy(logits, targets, ignore_index=-100, reduction="sum")

    objectives.summed_loss = summed_loss  # type: ignore[assignment]


LEAVE_OUT: dict[str, Callable[[], None]] = {
    "rows side by side": without_packing,
    "lean layers": without_lean_layers,
    "lean blocks": without_lean_blocks,
    "products together": one_product_at_a_time,
    "supervised logits only": with_all_logits,
}


CHANGE: dict[str, Callable[[Any], None]] = {
    "kept activations": compute_again,
    "eager layers": compile_layers,
}


def ours(job: Path, threads: int, *, without: str | None = None) -> list[str]:
    command = [sys.executable, __file__, "--serve", str(job), "--threads", str(threads)]
    return [*command, "--without", without] if without else command


@contextmanager
def started(command: Sequence[str], threads: int) -> Iterator[Callable[..., Run]]:
    """The system's process, asked for a run of so many steps; it ends with the block."""
    limits = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
    }
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **limits, **offline}
    ) as process:  # fmt: skip

        def run(steps: int, *, bf16: bool = True) -> Run:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps({"steps": steps, "bf16": bf16}), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError(f"{command!r} ended with {process.wait()}")
            return Run(**json.loads(answer))

        yield run
        assert process.stdin is not None
        process.stdin.close()


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    rows = [
        f"| {what} | {name} | {found[name]['step_s']:.3f} | {found[name]['tok_s']:.0f} | "
        f"{found[name]['supervised_tok_s']:.1f} | {spelled(found[name]['peak_mb'])} | "
        f"{found['ratio'] if name == 'TRL' else 1:.2f} |\n"
        for what, found in report["rows"].items()
        for name in ("ours", "TRL")
    ]
    levers = [f"| {name} | {found['ratio']:.2f} |\n" for name, found in report["levers"].items()]
    abouts = {about(found["machine"]) for found in report["rows"].values()}
    return (
        "# Training speed\n\n"
        f"{report['model']} on {report['device']}, {report['batch']} records a step in {report['accumulate']} "
        f"micro-batches, rank {report['rank']}, {report['threads']} threads, {report['steps']} steps, "
        f"{report['repeats']} runs each in turns. Written by `benchmarks/train_speed.py`.\n\n"
        "| method | system | step, s | tokens/s | supervised tokens/s | peak, MB | time over ours |\n"
        "|---|---|---|---|---|---|---|\n"
        + "".join(rows) + "\n" + "".join(verdict(report["rows"], what) for what in report["rows"])
        + (LEVERS_HEAD if levers else "") + "".join(levers)
        + f"\nMachine: {'; '.join(sorted(abouts))}. Peer: {', '.join(report['peer'])}.\n"
    )  # fmt: skip


LEVERS_HEAD = """
Without one lever of the loop, LoRA in bfloat16:

| left out | time over ours |
|---|---|
"""


def verdict(rows: Mapping[str, Any], what: str) -> str:
    """A line on speed and loss; a bfloat16 row is also set beside the float32 row of its method."""
    found, exact = rows[what], rows.get(what.replace("bfloat16", "float32"), {})
    line = (
        f"- {what}: {found['ratio']:.2f} times as fast ({min(found['ratios']):.2f} to {max(found['ratios']):.2f}), "
        f"target {found['target']:g}: {'met' if found['is_met'] else '**missed**'}; losses at most "
        f"{found['largest_loss_distance']:.4%} apart, ours {found['loss_excess']:+.4%} beside TRL's on average"
    )
    if exact in ({}, found):
        return line + ".\n"
    apart = [f"{name} {distance(found[name], exact[name]):.2%}" for name in ("ours", "TRL")]
    return line + f". Mean distance from the float32 losses: {', '.join(apart)}.\n"


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The mean relative distance of two loss curves."""
    return mean(abs(float(a) / float(b) - 1) for a, b in zip(one["losses"], other["losses"], strict=True))


def about(machine: Mapping[str, Any]) -> str:
    return f"{machine['cpu']}, {machine['cpus']} CPUs, load {machine['load_1_min']} at the start"


def spelled(peak_mb: float | None) -> str:
    return "unknown" if peak_mb is None else f"{peak_mb:.0f}"


if __name__ == "__main__":
    sys.exit(main())
