"""The whole path of a candidate: baseline, training, export, gates at every stage, release folder.

Each step looks first whether its result is there already, so the same job can be killed and started
again at any moment and ends the same way.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import ExitCode, RefusedError
from harness.evals.gate import CHAIN
from harness.evals.lock import check_lock
from harness.evals.results import RuleVerdict, State, Verdict
from harness.evals.run import make_prompt
from harness.files import read_json, sha256_file, write_json
from harness.jobs.journal import Journal, read_events
from harness.jobs.orders import Loaded, Until, load_order
from harness.jobs.progress import Progress
from harness.jobs.stages import Stages, worst_rule
from harness.jobs.verdicts import stage_documents
from harness.models.base import Model

EXIT_CODES = {
    State.PASS: ExitCode.DONE, State.FAIL: ExitCode.GATE_FAILED, State.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
}  # fmt: skip
DEV_ITEMS = 64
"""Development items that fidelity is measured on, at most."""
FIDELITY_TOK = 1536
"""Positions that distributions are compared at: the mean is known to a few per cent, in seconds a file."""


def run_release(folder: Path, journal: Journal) -> dict[str, Any]:
    """What `run.done` says: verdict, exit code, release folder. `result.json` holds the whole document."""
    options = read_json(folder / "manifest.json")["options"]
    loaded = load_order(Path(options["recipe"]), Path(options["data_root"]) if options["data_root"] else None)
    return ReleaseRun(folder, journal, loaded, options).run()


def plan_steps(quants: Sequence[str], until: Until) -> list[tuple[str, str]]:
    """Names and titles of the steps, in their order."""
    steps = [
        ("prepare", "read and check the data, unpack the base"),
        ("base", "gate the base model"),
        ("train", "train the adapter"),
        ("adapter", "gate the trained adapter"),
    ]
    if until != "train":
        steps += [
            ("merge", "merge the adapter both ways, keep the better"),
            ("merged", "gate the merged model"),
            ("f16", "write the 16-bit GGUF and gate it"),
            *((quant, f"quantize to {quant} and gate the file") for quant in quants),
        ]
    return steps + ([("release", "pick a file and write the release")] if until == "release" else [])


class ReleaseRun:
    """One run of a recipe."""

    def __init__(self, folder: Path, journal: Journal, loaded: Loaded, options: dict[str, Any]) -> None:
        self.folder, self.loaded, self.options = folder, loaded, options
        self.recipe = loaded.recipe
        self.until: Until = options["until"]
        self.steps = plan_steps(self.recipe.export.quants, self.until)
        self.artifacts = folder / "artifacts"
        self._journal = journal
        self.progress = Progress(journal, folder, self.steps)
        self.stages = Stages(folder, loaded, self.progress)

    def run(self) -> dict[str, Any]:
        """Runs all steps that the verdicts let through."""
        import os

        self._journal.write(
            "run.start", sync=True, run=self.folder.name, job="release", title=f"{self.until} {self.recipe.recipe}",
            pid=os.getpid(), steps=[name for name, _ in self.steps], resumed=self._has_begun(),
        )  # fmt: skip
        self._prepare()
        self._gate_base()
        adapter = self._train()
        verdict = self._gate_adapter(adapter)
        picked, release = None, None
        if self.until != "train" and verdict.verdict is State.PASS:
            verdict, picked, release = self._export(adapter)
        check_lock(read_json(self.folder / "lock.json"), self._lock_now())
        return self._finish(verdict, picked, release)

    # What the steps stand on

    @property
    def _stage_names(self) -> list[str]:
        return [*CHAIN, *self.recipe.export.quants]

    @cached_property
    def base(self) -> Path:
        from harness.models.load import resolve_base

        return resolve_base(self.recipe.base, on_progress=self.progress.note)

    def _has_begun(self) -> bool:
        return any(event.name == "step.done" for event in read_events(self.folder / "events.jsonl"))

    def _lock_now(self) -> dict[str, Any]:
        data_root = self.options["data_root"]
        return load_order(Path(self.options["recipe"]), Path(data_root) if data_root else None).lock

    # Steps

    def _prepare(self) -> None:
        from harness.train.preflight import preflight

        with self.progress.step("prepare"):
            path = self.folder / "lock.json"
            if path.exists():
                check_lock(read_json(path), self.loaded.lock)
            else:
                write_json(path, self.loaded.lock)
            report = preflight(
                self._examples("train"),
                self._gate_records(),
                self._chat(),
                self.recipe.tune,
                self.recipe.preflight,
            )
            write_json(self.folder / "preflight.json", report.to_json())
            report.raise_if_refused()
            self.progress.note(report.summary())

    def _gate_base(self) -> None:
        from harness.models.identity import checkpoint_identity

        with self.progress.step("base") as outcome:
            identity = checkpoint_identity(self.base)
            write_json(self.folder / "base.json", identity._asdict())
            verdict, outcome["reused"] = self.stages.run(
                "base", identity.digest, lambda: self._open(str(self.base))
            )
            if verdict.verdict is State.PASS:
                self.progress.note(
                    "the base passes every rule by itself: ask whether it needs tuning", "warning"
                )

    def _train(self) -> Path:
        from harness.train.sft import TrainPlan, train

        if self.stages.verdict("base") is None:
            raise RefusedError(
                "training needs a baseline: the base has no verdict on the locked suites",
                hint=f"harness release {self.options['recipe']}",
            )
        with self.progress.step("train"):
            plan = TrainPlan(
                base=self.base,
                examples=self._examples("train"),
                held_out=self._examples("dev"),
                tune=self.recipe.tune,
            )
            result = train(
                plan,
                self.folder / "train",
                on_event=self.progress.event,
                should_stop=self.progress.should_stop,
            )
        write_json(self.folder / "train.json", {**asdict(result), "adapter": result.adapter.name})
        return result.adapter

    def _gate_adapter(self, adapter: Path) -> Verdict:
        from harness.models.identity import checkpoint_identity

        nf4 = self.recipe.tune.method == "qlora"
        with self.progress.step("adapter") as outcome:
            identity = checkpoint_identity(
                self.base, adapter=adapter, quantization="nf4" if nf4 else ""
            ).digest
            verdict, outcome["reused"] = self.stages.run(
                "adapter",
                identity,
                lambda: self._open(str(self.base), adapter=adapter, nf4=nf4),
                parent="base",
            )
        return verdict

    def _export(self, adapter: Path) -> tuple[Verdict, str | None, Path | None]:
        merged = self._merge(adapter)
        for stage in (self._gate_merged, self._gate_f16):
            verdict = stage(merged)
            if verdict.verdict is not State.PASS:
                self.progress.note(f"export stops: {verdict.stage} is {verdict.verdict}", "warning")
                return verdict, None, None
        for quant in self.recipe.export.quants:
            self._gate_quant(quant)
        return self._pick_and_pack()

    def _merge(self, adapter: Path) -> Path:
        from harness.export.merge import merge

        ways = ("16bit", "nf4") if self.recipe.tune.method == "qlora" else ("16bit",)
        with self.progress.step("merge") as outcome:
            path = self.artifacts / "merge.json"
            if path.exists():
                outcome["reused"] = True
                return self.artifacts / str(read_json(path)["kept"])
            scores = {}
            for done, way in enumerate(ways):
                self.progress.move(done, len(ways), "merges", f"onto {way}")
                target = self.artifacts / f"merged-{way}"
                if not target.exists():
                    merge(self.base, adapter, target, onto=way)  # type: ignore[arg-type]
                scores[way] = self._score_merge(way, target)
            kept = max(ways, key=lambda way: scores[way])
            told = ", ".join(
                f"{way}: dev accuracy {s[0]:.3f}, gold probability {s[1]:.4f}" for way, s in scores.items()
            )
            self.progress.note(f"merged into {told}; {kept} is kept")
            write_json(path, {"kept": f"merged-{kept}", "dev": scores})
            for way in ways:
                if way != kept:
                    shutil.rmtree(self.artifacts / f"merged-{way}", ignore_errors=True)
        return self.artifacts / f"merged-{kept}"

    def _score_merge(self, way: str, target: Path) -> tuple[float, float]:
        model = self._open(str(target))
        try:
            return self.stages.score_dev(f"merged-{way}", model)
        finally:
            model.close()

    def _gate_merged(self, merged: Path) -> Verdict:
        from harness.models.identity import checkpoint_identity

        with self.progress.step("merged") as outcome:
            verdict, outcome["reused"] = self.stages.run(
                "merged",
                checkpoint_identity(merged).digest,
                lambda: self._open(str(merged)),
                parent="adapter",
            )
        return verdict

    def _gate_f16(self, merged: Path) -> Verdict:
        from harness.export.gguf import convert

        with self.progress.step("f16") as outcome:
            target = self.artifacts / "model-f16.gguf"
            if not target.exists():
                convert(merged, target, metadata=self._metadata())
                self._tell_artifact("f16", target)
            verdict, outcome["reused"] = self._gate_file("f16", target, "merged", merged)
        return verdict

    def _gate_quant(self, quant: str) -> Verdict:
        from harness.export.quantize import quantize

        with self.progress.step(quant) as outcome:
            target = self.artifacts / f"model-{quant}.gguf"
            source = self.artifacts / "model-f16.gguf"
            if not target.exists():
                report = quantize(
                    source, target, quant, threads=self.recipe.device.threads, on_progress=self._tensors
                )
                self._tell_artifact(quant, target)
                if report.warning:
                    self.progress.note(report.warning, "warning")
            verdict, outcome["reused"] = self._gate_file(quant, target, "f16", source)
        return verdict

    def _gate_file(self, stage: str, target: Path, parent: str, parent_file: Path) -> tuple[Verdict, bool]:
        from harness.models.identity import gguf_identity

        return self.stages.run(
            stage, gguf_identity(target).digest, lambda: self._open(str(target)), parent=parent,
            size_bytes=target.stat().st_size,
            extra_rules=lambda: self._fidelity_rule(stage, target, parent, parent_file),
        )  # fmt: skip

    def _fidelity_rule(self, stage: str, target: Path, parent: str, parent_file: Path) -> list[RuleVerdict]:
        """Measures how far the file's next-token distributions are from its parent's, and judges the mean."""
        from harness.export.fidelity import compare

        path = self.folder / "stages" / stage / "fidelity.json"
        if path.exists():
            found = read_json(path)
        else:
            found = compare(
                parent_file,
                target,
                self._dev_texts(),
                threads=self.recipe.device.threads,
                max_tok=FIDELITY_TOK,
            ).to_json()
            write_json(path, found)
        self.progress.event(
            "fidelity", stage=stage, parent=parent, mean_kl=found["mean_kl"], top1=found["top1"],
            token_parity=found["token_parity"],
        )  # fmt: skip
        limit = self.recipe.export.max_mean_kl
        state = State.PASS if found["mean_kl"] <= limit and found["token_parity"] else State.FAIL
        return [
            RuleVerdict(
                rule=f"mean KL from {parent} at most {limit:g}", suite=self.loaded.first, metric="mean_kl", slice="all",
                n=found["n_tok"], score=found["mean_kl"], low=None, high=None, threshold=limit, verdict=state,
                reason=f"KL {found['mean_kl']:.2g} nats a token, top-1 agreement {found['top1']:.2%}",
            )
        ]  # fmt: skip

    def _pick_and_pack(self) -> tuple[Verdict, str | None, Path | None]:
        from harness.jobs.packing import pack, pick_quant

        verdicts: dict[str, Verdict] = {
            stage: found for stage in self._stage_names if (found := self.stages.verdict(stage))
        }
        judged: dict[str, Verdict] = {quant: verdicts[quant] for quant in self.recipe.export.quants}
        choice = pick_quant(self.folder, self.loaded, judged)
        write_json(self.folder / "pick.json", choice.to_json())
        if choice.picked is None:
            return self._none_picked(judged), None, None
        if self.until != "release":
            return judged[choice.picked], choice.picked, None
        with self.progress.step("release"):
            release = pack(self.folder, self.loaded, self.options, choice, verdicts)
        return judged[choice.picked], choice.picked, release

    def _none_picked(self, judged: dict[str, Verdict]) -> Verdict:
        """The best verdict among the quants; FAIL where files pass their rules and none fits the device."""
        hopeful = [State.PASS, State.INCONCLUSIVE, State.FAIL]
        best = min(judged.values(), key=lambda verdict: hopeful.index(verdict.verdict))
        worst = worst_rule(best)
        self.progress.note(
            f"no file may ship: {worst.reason if worst else 'none fits the device'}", "warning"
        )
        return replace(best, verdict=State.FAIL) if best.verdict is State.PASS else best

    # The end

    def _finish(self, verdict: Verdict, picked: str | None, release: Path | None) -> dict[str, Any]:
        created = read_events(self.folder / "events.jsonl")
        seconds = sum(event.data["seconds"] for event in created if event.name == "step.done")
        document = {
            "verdict": verdict.verdict.value,
            "release": str(release) if release else None,
            "picked": picked,
            "seconds": round(seconds, 1),
            "stages": stage_documents(self.folder, self._stage_names),
            "why": self._why() if picked else {},
        }
        write_json(self.folder / "result.json", document)
        return {
            "verdict": verdict.verdict.value, "exit_code": int(EXIT_CODES[verdict.verdict]),
            "release": document["release"],
        }  # fmt: skip

    def _why(self) -> dict[str, str]:
        """For each quant, why it was picked or not."""
        return {row["quant"]: row["reason"] for row in read_json(self.folder / "pick.json")["rows"]}

    # Small things

    def _open(self, reference: str, *, adapter: Path | None = None, nf4: bool = False) -> Model:
        from harness.models.load import open_model

        began = time.monotonic()
        model = open_model(reference, adapter=adapter, nf4=nf4, threads=self.recipe.device.threads)
        self.progress.event("note", level="info", text=f"model opened in {time.monotonic() - began:.1f} s")
        return model

    def _chat(self) -> Any:
        from harness.models.chat import load_chat

        return load_chat(self.base)

    def _examples(self, split: str) -> list[Any]:
        from harness.train.batches import Example

        first = self.loaded.first
        suite, labels = self.loaded.suites[first], self.loaded.labels[first]
        records = self.loaded.splits[first][split]  # type: ignore[index]
        return [
            Example(record.id, make_prompt(suite, record, labels), record.targets[0]) for record in records
        ]

    def _gate_records(self) -> list[Any]:
        return [record for splits in self.loaded.splits.values() for record in splits["eval"]]

    def _dev_texts(self) -> list[Any]:
        return self._examples("dev")[:DEV_ITEMS]

    def _metadata(self) -> dict[str, str]:
        return {
            "recipe": self.recipe.recipe, "lock": self.loaded.lock["digest"], "run": self.folder.name,
            "base": self.options["base"],
        }  # fmt: skip

    def _tensors(self, done: int, total: int) -> None:
        self.progress.move(done, total, "tensors")

    def _tell_artifact(self, name: str, path: Path) -> None:
        self.progress.event(
            "artifact", name=name, path=str(path), bytes=path.stat().st_size, digest=sha256_file(path)
        )  # fmt: skip
