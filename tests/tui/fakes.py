"""A run folder as a worker leaves it, written step by step through the contract's classes."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

from harness.evals.results import Reading, RuleVerdict, Sample, Scorecard, State, Verdict
from harness.files import write_json
from harness.jobs.journal import Journal

LABELS = (
    "Governing Law", "Termination", "Confidentiality", "Indemnification", "Assignment", "Payment Terms",
    "Limitation of Liability", "Audit Rights",
)  # fmt: skip
CONTRACTS = ("license", "services", "supply")
STAGES = {
    "base": 0.16, "adapter": 0.93, "merged": 0.93, "f16": 0.93, "q8_0": 0.925, "q5_k_m": 0.91, "q4_0": 0.79,
}  # fmt: skip
SUITE = "legal-clauses"
GATES = [
    {"metric": "accuracy", "at_least": 0.8, "per": None},
    {"metric": "recall", "at_least": 0.6, "per": "label"},
    {"metric": "accuracy", "at_least": 0.7, "per": "contract"},
    {"metric": "accuracy", "versus": "base", "better_than": 0.0, "per": None},
]
TUNE = {
    "method": "qlora", "rank": 16, "alpha": 32.0, "batch": 8, "learning_rate": 5e-4, "schedule": "cosine",
    "max_tokens": 176, "seed": 17,
}  # fmt: skip
FILES = {"f16": 269_000_000, "q8_0": 143_000_000, "q5_k_m": 112_000_000, "q4_0": 92_000_000}
STEPS = [
    "prepare",
    "base",
    "preflight",
    "train",
    "adapter",
    "export",
    "merged",
    "f16",
    "q8_0",
    "q5_k_m",
    "q4_0",
    "release",
]
BATCH = 32


class FakeRun:
    """A release that can be stopped after any event."""

    def __init__(
        self, home: Path, run: str = "legal-demo-3f9c1e2a", *, n: int = 640, train_steps: int = 60
    ) -> None:
        self.folder = home / "runs" / run
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run = run
        self.n = n
        self.train_steps = train_steps
        self._draw = random.Random(7)
        self.write_manifest()
        self.journal = Journal(self.folder / "events.jsonl")

    def write_manifest(
        self, title: str = "release legal-demo", created: str = "2026-11-22T09:00:00+00:00"
    ) -> None:
        recipe = {
            "recipe": "legal-demo", "base": "embedded:smollm2-135m", "tune": TUNE, "gates": GATES,
            "export": {"quants": ["q8_0", "q5_k_m", "q4_0"], "max_mean_kl": 0.5},
            "device": {"name": "laptop-cpu", "threads": 2, "memory_mb": 250},
        }  # fmt: skip
        write_json(
            self.folder / "manifest.json",
            {
                "format": 1, "run": self.run, "job": "release", "title": title,
                "command": ["harness", "release", "recipes/demo.yaml"], "created": created,
                "document": {"recipe": recipe}, "lock": "5" * 64, "options": {"until": "release"}, "harness": "0.1.0",
            },
        )  # fmt: skip

    def events(self) -> Iterator[str]:
        """Does the next thing, and says which event it wrote."""
        write = self.journal.write
        write(
            "run.start",
            run=self.run,
            job="release",
            title="release legal-demo",
            pid=4121,
            steps=STEPS,
            resumed=False,
        )
        yield "run.start"
        for index, step in enumerate(STEPS, start=1):
            write(
                "step.start", step=step, title=TITLES.get(step, f"score {step}"), index=index, of=len(STEPS)
            )
            yield "step.start"
            yield from self._work(step)
            write("step.done", step=step, seconds=3.0 + index, reused=step == "prepare")
            yield "step.done"
        result = {
            "verdict": "PASS",
            "release": "releases/legal-demo",
            "picked": "q5_k_m",
            "seconds": 401.0,
            "stages": [],
        }
        write_json(self.folder / "result.json", result)
        write("run.done", verdict="PASS", exit_code=0, release="releases/legal-demo", seconds=401.0)
        yield "run.done"

    def until(self, event: str, times: int = 1) -> FakeRun:
        """Goes on until the event has come so often."""
        for name in self.events():
            times -= name == event
            if not times:
                return self
        raise AssertionError(f"no {event} came")

    def to_the_end(self) -> FakeRun:
        return self.until("run.done")

    def _work(self, step: str) -> Iterator[str]:
        if step in STAGES:
            yield from self.evaluate(step, STAGES[step])
        elif step == "train":
            yield from self._train()
        elif step == "export":
            for name, size in FILES.items():
                self.journal.write(
                    "artifact", name=name, path=f"artifacts/{name}.gguf", bytes=size, digest="a" * 64
                )
                yield "artifact"
        elif step == "release":
            rows = [
                {"quant": name, "bytes": size, "is_picked": name == "q5_k_m", "reason": REASONS[name]}
                for name, size in FILES.items()
                if name in REASONS
            ]
            write_json(self.folder / "pick.json", {"picked": "q5_k_m", "rows": rows})
        elif step == "preflight":
            write_json(self.folder / "preflight.json", PREFLIGHT)
            self.journal.write("note", level="warning", text="2 answers stand within 8 tokens of max_tokens")
            yield "note"

    def _train(self) -> Iterator[str]:
        self.journal.write("train.estimate", **MEMORY)
        for step in range(1, self.train_steps + 1):
            share = step / self.train_steps
            loss = 0.35 + 2.1 * math.exp(-4 * share) + 0.12 * self._draw.random()
            self.journal.write(
                "train.step", step=step, of=self.train_steps, loss=round(loss, 4), lr=5e-4 * (1 - share / 2),
                grad_norm=1.4, tok_s=1240.0, supervised_tok=410,
                eta_s=(self.train_steps - step) * 1.31, memory_mb=2210.0,
            )  # fmt: skip
            self._progress("train", step, self.train_steps, "steps", 0.76, f"loss {loss:.2f}")
            yield "train.step"
            if step % 20 == 0:
                self.journal.write("train.held_out", step=step, loss=round(loss + 0.09, 4))
                self.journal.write(
                    "train.checkpoint", step=step, path=f"train/checkpoint-{step}", digest="b" * 64
                )
                yield "train.checkpoint"
                self._gate(step)
        self.journal.write(
            "train.actual", expected=MEMORY, actual={**MEMORY, "total_mb": 2210.4, "seconds": 79.0}
        )

    def _gate(self, step: int) -> None:
        """The second gate finds nothing better, the third that too much was forgotten."""
        score, kept, failed = {
            20: (0.62, 0.31, ""), 40: (0.61, 0.30, "accuracy 0.610 after 0.620 at step 20"),
            60: (0.91, 0.12, "general fell from 0.310 to 0.120"),
        }[step]  # fmt: skip
        self.journal.write(
            "train.gate", step=step, checkpoint=f"step-{step:07d}", n=60, score=score, kept=kept, failed=failed,
            is_vetoed=step == 60, is_best=step == 20, action="continue",
        )  # fmt: skip

    def _progress(self, step: str, done: int, total: int, unit: str, rate: float, note: str = "") -> None:
        self.journal.write(
            "step.progress",
            step=step,
            done=done,
            total=total,
            unit=unit,
            rate=rate,
            eta_s=(total - done) / rate,
            note=note,
        )

    def evaluate(self, stage: str, accuracy: float) -> Iterator[str]:
        """Scores the suite at a stage, batch by batch, then sums up and judges."""
        samples: list[Sample] = []
        folder = self.folder / "stages" / stage / SUITE
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "samples.jsonl").open("a") as file:
            file.write(json.dumps({"header": {"identity": "c" * 64, "requests": "d" * 64}}) + "\n")
            for number in range(math.ceil(self.n / BATCH)):
                batch = [
                    self.sample(i, accuracy) for i in range(number * BATCH, min(self.n, (number + 1) * BATCH))
                ]
                samples += batch
                file.writelines(json.dumps(sample.to_json()) + "\n" for sample in batch)
                file.write(json.dumps({"batch": number, "n": len(batch)}) + "\n")
                file.flush()
                self._batch(stage, samples)
                yield "eval.batch"
        card = scorecard(stage, samples)
        write_json(folder / "scorecard.json", card.to_json())
        if stage in FILES:
            kl = 0.3 * (FILES["f16"] / FILES[stage] - 1) ** 2 / 4
            found = {
                "mean_kl": kl,
                "top1": 1 - kl / 2,
                "token_parity": True,
                "child_peak_mb": FILES[stage] / 5e5,
            }
            write_json(self.folder / "stages" / stage / "fidelity.json", found)
        head = card.readings[0]
        self.journal.write(
            "scorecard", stage=stage, suite=SUITE, n=head.n, score=head.score, low=head.low, high=head.high,
            path=f"stages/{stage}/{SUITE}/scorecard.json",
        )  # fmt: skip
        yield "scorecard"
        verdict = judge(stage, card)
        write_json(self.folder / "stages" / stage / "verdict.json", verdict.to_json())
        worst = next((rule for rule in verdict.rules if rule.verdict is verdict.verdict), verdict.rules[0])
        self.journal.write(
            "verdict", stage=stage, verdict=str(verdict.verdict), worst={"rule": worst.rule, "slice": worst.slice},
            path=f"stages/{stage}/verdict.json",
        )  # fmt: skip
        yield "verdict"

    def _batch(self, stage: str, samples: list[Sample]) -> None:
        slices: dict[str, list[float]] = {}
        for sample in samples:
            counts = slices.setdefault(f"contract={sample.slices['contract']}", [0, 0])
            counts[0] += 1
            counts[1] += sample.score
        correct = sum(sample.score == 1.0 for sample in samples)
        self.journal.write(
            "eval.batch", stage=stage, suite=SUITE, done=len(samples), total=self.n, correct=correct,
            errors=sum(sample.error is not None for sample in samples), slices=slices,
        )  # fmt: skip
        self._progress(stage, len(samples), self.n, "samples", 21.5, f"{correct} right")

    def sample(self, index: int, accuracy: float) -> Sample:
        """One sample; Audit Rights is the hard label."""
        gold = LABELS[index % len(LABELS)]
        chance = accuracy - (0.12 if gold == "Audit Rights" and accuracy > 0.5 else 0.0)
        is_right = self._draw.random() < chance
        answer = gold if is_right else LABELS[(index + 1 + self._draw.randrange(6)) % len(LABELS)]
        confidence = (
            round(0.55 + 0.4 * self._draw.random(), 4)
            if is_right
            else round(0.3 + 0.3 * self._draw.random(), 4)
        )
        rest = (1 - confidence) / (len(LABELS) - 1)
        return Sample(
            id=f"clause-{index:04d}", gold=(gold,), answer=answer, score=float(is_right),
            slices={"contract": CONTRACTS[index % 3], "style": ["plain", "dense"] if index % 5 == 0 else "plain"},
            unit=f"contract-{index // 4:03d}", confidence=confidence,
            label_probs={label: confidence if label == answer else round(rest, 4) for label in LABELS}, output=answer,
            prompt_digest=f"{index:064x}", prompt_tok=180 + index % 90, output_tok=4, latency_ms=40.0 + index % 17,
        )  # fmt: skip


MEMORY = {
    "weights_mb": 270.4, "adapters_mb": 9.3, "gradients_mb": 9.3, "optimizer_mb": 18.6, "activations_mb": 1400.0,
    "logits_mb": 421.0, "total_mb": 2128.6, "available_mb": 5120.0, "fits": True, "recomputes": False,
    "tokens": 41_200, "seconds": 80.0, "energy_wh": None, "cost": None, "currency": "EUR",
}  # fmt: skip
REASONS = {
    "q8_0": "passes, and is 28% larger than q5_k_m", "q5_k_m": "passes every rule and is the smallest that does",
    "q4_0": "INCONCLUSIVE: accuracy at least 0.8",
}  # fmt: skip
PREFLIGHT = {
    "examples": 480, "trained": 480, "tokens": 41_200, "supervised_tok": 2_100, "longest_tok": 171,
    "findings": [{"check": "overlaps", "what": "shared", "ids": [], "limit": 0, "fix": "", "is_fatal": False}],
}  # fmt: skip
TITLES = {
    "prepare": "prepare the base model", "preflight": "check the training data", "train": "train with QLoRA",
    "export": "merge and quantize", "release": "write the release",
}  # fmt: skip


def wilson(hits: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The score interval, written out here so that the fixtures need no other room."""
    share, extra = hits / n, z * z / n
    middle, half = share + extra / 2, z * math.sqrt(share * (1 - share) / n + extra / (4 * n))
    return (middle - half) / (1 + extra), (middle + half) / (1 + extra)


def scorecard(stage: str, samples: list[Sample]) -> Scorecard:
    groups: dict[tuple[str, str], list[float]] = {("accuracy", "all"): []}
    wrong: dict[tuple[str, str], int] = {}
    for sample in samples:
        groups["accuracy", "all"].append(sample.score)
        groups.setdefault(("accuracy", f"contract={sample.slices['contract']}"), []).append(sample.score)
        groups.setdefault(("recall", f"label={sample.gold[0]}"), []).append(sample.score)
        if sample.score < 1:
            key = (sample.gold[0], str(sample.answer))
            wrong[key] = wrong.get(key, 0) + 1
    readings = []
    for (metric, name), scores in groups.items():
        low, high = wilson(sum(scores), len(scores))
        readings.append(
            Reading(metric, name, len(scores), round(sum(scores)), sum(scores) / len(scores), low, high)
        )
    most = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:20]
    return Scorecard(
        SUITE,
        stage,
        "c" * 64,
        len(samples),
        0,
        0,
        tuple(readings),
        tuple((g, a, count) for (g, a), count in most),
    )


def judge(stage: str, card: Scorecard) -> Verdict:
    """The gates of the fake recipe on the card."""
    rules = []
    for gate in GATES:
        if gate.get("versus"):
            head = card.readings[0]
            assert head.score is not None
            assert head.low is not None
            assert head.high is not None
            if stage != "base":
                shift = [value - STAGES["base"] for value in (head.low, head.score, head.high)]
                rules.append(_rule("accuracy better than base by 0", "accuracy", "all", head.n, shift, 0.0))
            continue
        per = str(gate["per"] or "all")
        name = f"{gate['metric']}{f' per {per}' if gate['per'] else ''} at least {gate['at_least']}"
        for reading in card.readings:
            if reading.metric == gate["metric"] and reading.slice.partition("=")[0] == per:
                values = [reading.low or 0.0, reading.score or 0.0, reading.high or 0.0]
                rules.append(
                    _rule(
                        name, reading.metric, reading.slice, reading.n, values, float(str(gate["at_least"]))
                    )
                )
    order = (State.FAIL, State.INCONCLUSIVE, State.PASS)
    overall = min((rule.verdict for rule in rules), key=order.index)
    return Verdict(stage, "c" * 64, "5" * 64, overall, tuple(rules))


def _rule(name: str, metric: str, where: str, n: int, values: list[float], threshold: float) -> RuleVerdict:
    low, score, high = values
    if low >= threshold:
        state, reason, needed = State.PASS, f"lower bound {low:.3f} reaches {threshold:g}", None
    elif high < threshold:
        state, reason, needed = State.FAIL, f"upper bound {high:.3f} stays under {threshold:g}", None
    else:
        state, reason, needed = (
            State.INCONCLUSIVE,
            f"bounds {low:.3f} to {high:.3f} straddle {threshold:g}",
            3 * n,
        )
    return RuleVerdict(name, SUITE, metric, where, n, score, low, high, threshold, state, reason, needed)
