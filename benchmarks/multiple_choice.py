"""Multiple choice with full-text options: ours beside lm-evaluation-harness, on the same items and threads.

    python benchmarks/multiple_choice.py                      makes the peer's environment when it is missing
    python benchmarks/multiple_choice.py --items 40 --repeats 5
    python benchmarks/multiple_choice.py --agreement --items 200

SmolLM2-135M-Instruct in float32 on `uncertainty/mmlu`: raw text without a chat template, the log-likelihood of each
option's whole text after the question, 0-shot and 5-shot (the examples of the question's subject, as MMLU asks it; and
one set of examples for all). lm-evaluation-harness runs as `hf` through its Python interface in an environment of its
own, at the batch size that was the fastest of a few on a part of the same items. Both load once; then the two take
turns, so that each pair of runs shares what else the machine does. Timed is all from texts to log-likelihoods,
tokenizing included, with nothing kept from the run before. The ratio is the median over pairs.

Writes benchmarks/results/multiple_choice.json and .md, or agreement.json: numbers only. The exit code is 1 where a
target is missed or the two disagree on a log-likelihood by more than 1e-3.

Another system joins with a `System` of its own: `measure([ours(), ..., mine], ...)`, its process built on `serve`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PEER = ("lm-eval==0.4.13", "torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0")
MODEL = "embedded:smollm2-135m"
SHOTS, SEED = 5, 17
TARGETS = {"0-shot": 1.5, "5-shot": 3.0, "5-shot, one set": 3.0}
"""How many times faster than the peer ours has to be."""
AGREEMENT = 1e-3
BATCH_SIZES = (1, 4, 8, 16)
"""That the peer is tried with; larger ones need gigabytes for logits at the longest questions."""
TUNING_ITEMS = 6


class Question(NamedTuple):
    """A prompt, its options as continuations, and which is right."""

    prompt: str
    choices: tuple[str, ...]
    gold: int


class System(NamedTuple):
    """Something that scores choices, in a process of its own that speaks `serve`'s lines."""

    name: str
    command: tuple[str, ...]
    batch_sizes: tuple[int, ...] = ()
    """To choose the fastest from; empty where it chooses by itself."""


class Run(NamedTuple):
    """One timed pass over all questions."""

    seconds: float
    logprobs: list[list[float]]


Score = Callable[[list[Question], int | None], list[list[float]]]
"""Questions and a batch size → the log-likelihood of each option."""


def main() -> int:
    """Measures all settings, prints and writes the table; 1 where a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds uncertainty/mmlu")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--settings", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument(
        "--agreement",
        action="store_true",
        help="no timing: compare log-likelihoods, 0-shot, into agreement.json",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(our_score(options.serve, options.threads))
        return 0
    root = options.data or default_root()
    if not (root / "uncertainty/mmlu").is_dir():
        print(f"{root}/uncertainty/mmlu is not there: give --data or HARNESS_DATA", file=sys.stderr)
        return 2 if options.data else 0
    systems = [ours(options.threads), lm_eval(options.threads)]
    options.out.mkdir(exist_ok=True, parents=True)
    if options.agreement:
        found = agreement(systems, questions(root, "0-shot", options.items), options.threads)
        (options.out / "agreement.json").write_text(
            json.dumps({**found, "peer": list(PEER)}, indent=1) + "\n"
        )
        print(json.dumps(found))
        return 0 if found["largest_difference"] <= AGREEMENT else 1
    settings = {name: questions(root, name, options.items) for name in options.settings}
    report = {
        "model": MODEL, "dtype": "float32", "items": options.items, "repeats": options.repeats,
        "threads": options.threads, "peer": list(PEER), "machine": machine(),
        "settings": measure(systems, settings, options.repeats, options.threads),
    }  # fmt: skip
    (options.out / "multiple_choice.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "multiple_choice.md").write_text(page(report))
    print(json.dumps(report) if options.json else page(report))
    return 0 if all(row["is_met"] and row["agrees"] for row in judged(report)) else 1


def default_root() -> Path:
    return Path(os.environ.get("HARNESS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def questions(root: Path, setting: str, items: int) -> list[Question]:
    """A fixed random sample of the eval file, with the setting's examples before each question."""
    records = read(root, "eval")
    chosen = random.Random(SEED).sample(records, min(items, len(records)))
    shots = examples(read(root, "train")) if setting != "0-shot" else {}
    return [
        Question(
            "".join(shots.get(record["slices"]["subject"] if setting == "5-shot" else "", ())) + asked(record),
            tuple(" " + option for option in record["options"]),
            record["target"]["index"],
        )
        for record in chosen
    ]  # fmt: skip


def examples(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Five solved questions for each subject, and under "" five of unlike subjects; others' where it has fewer."""
    solved: dict[str, list[str]] = defaultdict(list)
    for record in records:
        right = record["options"][record["target"]["index"]]
        solved[record["slices"]["subject"]].append(f"{asked(record)} {right}\n\n")
    mixed = [texts[0] for _, texts in sorted(solved.items())]
    random.Random(SEED).shuffle(mixed)
    found = {subject: (texts + mixed)[:SHOTS] for subject, texts in solved.items()}
    return {**found, "": mixed[:SHOTS]}


def asked(record: Mapping[str, Any]) -> str:
    return f"Question: {record['input'].strip()}\nAnswer:"


def read(root: Path, split: str) -> list[dict[str, Any]]:
    lines = (root / "uncertainty/mmlu" / f"{split}.jsonl").read_text("utf-8").splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda record: str(record["id"]))


def serve(score: Score) -> None:
    """Answers lines of JSON, {"questions", "batch_size"} → {"seconds", "logprobs"}, until the input ends.

    stdout is kept for the answers: what libraries print there goes to stderr.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked_for = json.loads(line)
        batch = [Question(prompt, tuple(choices), gold) for prompt, choices, gold in asked_for["questions"]]
        began = time.perf_counter()
        logprobs = score(batch, asked_for["batch_size"])
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "logprobs": logprobs}), file=answers, flush=True)


def our_score(folder: str, threads: int) -> Score:
    """The scoring of the harness, with nothing kept between two calls."""
    from harness.models.base import ChoiceRequest, Prompt
    from harness.models.transformers import TransformersModel

    model = TransformersModel(Path(folder), dtype="float32", device="cpu", threads=threads)

    def score(batch: list[Question], _: int | None) -> list[list[float]]:
        model.forget()
        requests = [
            ChoiceRequest(str(at), Prompt((), text=one.prompt), one.choices, is_open=True)
            for at, one in enumerate(batch)
        ]
        found: dict[str, list[float]] = {}
        for indices in model.plan(requests):
            for answer in model.score_choices([requests[at] for at in indices]):
                assert answer.choice_logprobs is not None, answer.error
                found[answer.id] = list(answer.choice_logprobs)
        return [found[request.id] for request in requests]

    return score


def ours(threads: int) -> System:
    """The harness with Transformers."""
    command = (sys.executable, __file__, "--serve", str(checkpoint()), "--threads", str(threads))
    return System("ours (Transformers)", command)


def lm_eval(threads: int) -> System:
    """lm-evaluation-harness `hf`, in its own environment."""
    python = peer_python("lm-eval", PEER)
    script = HERE / "peers" / "lm_eval_hf.py"
    command = (str(python), str(script), str(checkpoint()), str(threads))
    return System("lm-evaluation-harness hf", command, BATCH_SIZES)


def checkpoint() -> Path:
    from harness.models.load import resolve_base

    return resolve_base(MODEL)


def peer_python(name: str, packages: Sequence[str]) -> Path:
    """The Python of a peer's own environment below `$HARNESS_PEERS`, with the pinned packages in it."""
    folder = Path(os.environ.get("HARNESS_PEERS", "~/.cache/dragongate/peers")).expanduser() / name
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    found = subprocess.run([str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
    have = {line.replace("_", "-").partition("+")[0].lower() for line in found.stdout.splitlines()}
    if missing := [package for package in packages if package not in have]:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *missing], check=True)
    return python


def measure(
    systems: Sequence[System], settings: Mapping[str, list[Question]], repeats: int, threads: int
) -> dict[str, Any]:
    """For each setting: each system's times, in turns, and its accuracy; ratios to the first system."""
    with ExitStack() as stack:
        children = [stack.enter_context(started(system, threads)) for system in systems]
        return {name: compare(systems, children, asked, repeats) for name, asked in settings.items()}


@contextmanager
def started(system: System, threads: int) -> Iterator[Child]:
    """The system's process, ended with the block."""
    limits = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "true"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    with subprocess.Popen(
        system.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **limits, **offline},
    ) as process:  # fmt: skip
        yield Child(process)
        assert process.stdin is not None
        process.stdin.close()


class Child:
    """A system's process, asked over its standard streams."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, asked_for: list[Question], batch_size: int | None = None) -> Run:
        """One pass over the questions."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"questions": asked_for, "batch_size": batch_size})
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return Run(**json.loads(answer))


def compare(
    systems: Sequence[System], children: Sequence[Child], asked_for: list[Question], repeats: int
) -> dict[str, Any]:
    """One setting: tuning, then the systems in turns."""
    sizes = [tuned(system, child, asked_for) for system, child in zip(systems, children, strict=True)]
    runs: list[list[Run]] = [[] for _ in systems]
    for _ in range(repeats):
        for at, child in enumerate(children):
            runs[at].append(child.run(asked_for, sizes[at]))
            print(f"{systems[at].name}: {runs[at][-1].seconds:.2f} s", file=sys.stderr, flush=True)
    first = runs[0]
    return {
        system.name: {
            "seconds": [run.seconds for run in found],
            "median_s": median(run.seconds for run in found),
            "batch_size": size,
            "accuracy": accuracy(asked_for, found[0].logprobs),
            "slower_than_ours": median(
                theirs.seconds / mine.seconds for mine, theirs in zip(first, found, strict=True)
            ),
            "largest_difference": largest_difference(first[0].logprobs, found[0].logprobs),
        }
        for system, size, found in zip(systems, sizes, runs, strict=True)
    }


def agreement(systems: Sequence[System], asked_for: list[Question], threads: int) -> dict[str, Any]:
    """How far two systems' log-likelihoods of the same options are apart, and both accuracies; untimed."""
    with ExitStack() as stack:
        children = [stack.enter_context(started(system, threads)) for system in systems]
        one, other = (
            child.run(asked_for, min(system.batch_sizes, default=None)).logprobs
            for system, child in zip(systems, children, strict=True)
        )
    return {
        "items": len(asked_for),
        "choices": sum(len(row) for row in one),
        "largest_difference": largest_difference(one, other),
        "accuracy": [accuracy(asked_for, one), accuracy(asked_for, other)],
    }


def tuned(system: System, child: Child, asked_for: list[Question]) -> int | None:
    """The batch size that is fastest on a part of the questions; also warms the process up."""
    part = asked_for[:TUNING_ITEMS]
    child.run(part, system.batch_sizes[0] if system.batch_sizes else None)
    if not system.batch_sizes:
        return None
    return min(system.batch_sizes, key=lambda size: child.run(part, size).seconds)


def accuracy(asked_for: Sequence[Question], logprobs: Sequence[Sequence[float]]) -> float:
    """Share of questions whose right option has the highest log-likelihood."""
    hits = [row.index(max(row)) == one.gold for one, row in zip(asked_for, logprobs, strict=True)]
    return sum(hits) / len(hits)


def largest_difference(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """Between the log-likelihoods of the same options, in nats."""
    return max(
        abs(a - b) for row, twin in zip(one, other, strict=True) for a, b in zip(row, twin, strict=True)
    )


def machine() -> dict[str, Any]:
    """Where this was measured, and how busy it was."""
    models = Counter(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "cpu": ", ".join(models), "cpus": os.cpu_count(), "arch": platform.machine(),
        "python": platform.python_version(), "load_1_min": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def judged(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each setting's peer against its target."""
    return [
        {
            "setting": name, "ratio": row["slower_than_ours"], "target": TARGETS[name],
            "is_met": row["slower_than_ours"] >= TARGETS[name], "agrees": row["largest_difference"] <= AGREEMENT,
        }
        for name, systems in report["settings"].items()
        for system, row in systems.items()
        if system.startswith("lm-evaluation-harness")
    ]  # fmt: skip


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    rows = [
        f"| {name} | {system} | {row['median_s']:.2f} | {report['items'] / row['median_s']:.1f} | "
        f"{row['batch_size'] or 'by itself'} | {row['slower_than_ours']:.2f} | {row['accuracy']:.3f} | "
        f"{row['largest_difference']:.1e} |\n"
        for name, systems in report["settings"].items()
        for system, row in systems.items()
    ]
    verdicts = [
        f"- {row['setting']}: {row['ratio']:.2f} times as fast, target {row['target']:g}: "
        f"{'met' if row['is_met'] else '**missed**'}.\n"
        for row in judged(report)
    ]
    return (
        "# Multiple choice with full-text options\n\n"
        f"{report['model']} in {report['dtype']}, {report['items']} questions of MMLU, {report['threads']} threads, "
        f"{report['repeats']} runs each in turns. Written by `benchmarks/multiple_choice.py`.\n\n"
        "| setting | system | median, s | questions/s | batch size | time over ours | accuracy | "
        "largest difference, nats |\n|---|---|---|---|---|---|---|---|\n"
        + "".join(rows)
        + "\n"
        + "".join(verdicts)
        + f"\nMachine: {report['machine']['cpu']}, {report['machine']['cpus']} CPUs, load "
        f"{report['machine']['load_1_min']} at the start. Peer: {', '.join(report['peer'])}.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
