"""The whole path of a candidate: baseline, training, export, gates at every stage, release folder.

Each step looks first whether its result is there already, so the same job can be killed and started
again at any moment and ends the same way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import ExitCode, IntegrityError, RefusedError
from harness.evals.gate import CHAIN
from harness.evals.ledger import Ledger, sealed_digest
from harness.evals.lock import check_lock
from harness.evals.results import State, Verdict
from harness.files import read_json, write_json
from harness.jobs.candidate import Candidate, gate_records, left_out, train_plan
from harness.jobs.exporting import Exporter
from harness.jobs.journal import Journal, read_events
from harness.jobs.orders import Loaded, Until, load_order
from harness.jobs.progress import Progress
from harness.jobs.reuse import (
    ADAPTER,
    adapter_digest,
    besides_documents,
    facts_for_reuse,
    find_trained,
    take_over,
)
from harness.jobs.stages import Stages, worst_rule
from harness.jobs.verdicts import stage_documents

EXIT_CODES = {
    State.PASS: ExitCode.DONE, State.FAIL: ExitCode.GATE_FAILED, State.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
}  # fmt: skip
HOPEFUL = (State.PASS, State.INCONCLUSIVE, State.FAIL)
"""From the best verdict to the worst."""


class Ending(NamedTuple):
    """How a run came out."""

    verdict: Verdict
    picked: str | None = None
    release: Path | None = None


def run_release(folder: Path, journal: Journal) -> dict[str, Any]:
    """What `run.done` says: verdict, exit code, release folder. `result.json` holds the whole document."""
    options = read_json(folder / "manifest.json")["options"]
    loaded = load_order(Path(options["recipe"]), Path(options["data_root"]) if options["data_root"] else None)
    return ReleaseRun(folder, journal, loaded, options).run()


def plan_steps(quants: Sequence[str], until: Until, *, trains: bool = True) -> list[tuple[str, str]]:
    """Names and titles of the steps, in their order."""
    steps = [("prepare", "read and check the data, unpack the base"), ("base", "gate the base model")]
    if trains:
        steps += [("train", "train the adapter"), ("adapter", "gate the trained adapter")]
    if until != "train":
        if trains:
            steps += [
                ("merge", "merge the adapter both ways, keep the better"),
                ("merged", "gate the merged model"),
            ]
        steps += [
            ("f16", "write the 16-bit GGUF and gate it"),
            ("ladder", "write the quantized files and measure each"),
            *((quant, f"gate the {quant} file") for quant in quants),
        ]
    return steps + ([("release", "pick a file and write the release")] if until == "release" else [])


class ReleaseRun:
    """One run of a recipe."""

    def __init__(self, folder: Path, journal: Journal, loaded: Loaded, options: dict[str, Any]) -> None:
        self._until: Until = options["until"]
        self._steps = plan_steps(loaded.recipe.export.quants, self._until, trains=loaded.recipe.tune.trains)
        self._journal = journal
        self._progress = Progress(journal, folder, self._steps)
        self._recipe = loaded.recipe
        self._folder = folder
        self._of = Candidate(folder, loaded, options, self._progress, Stages(folder, loaded, self._progress))

    def run(self) -> dict[str, Any]:
        """Runs all steps that the verdicts let through."""
        has_begun = any(event.name == "step.done" for event in read_events(self._folder / "events.jsonl"))
        self._journal.write(
            "run.start", sync=True, run=self._folder.name, job="release", title=f"{self._until} {self._recipe.recipe}",
            pid=os.getpid(), steps=[name for name, _ in self._steps], resumed=has_begun,
        )  # fmt: skip
        self._prepare()
        adapter, ending = None, Ending(self._gate_base())
        if self._recipe.tune.trains:
            adapter = self._train()
            ending = Ending(self._gate_adapter(adapter))
        if self._until != "train" and ending.verdict.verdict is State.PASS:
            ending = self._export(adapter)
        self._check_lock()
        return self._finish(ending)

    def _prepare(self) -> None:
        from harness.train.preflight import preflight

        with self._progress.step("prepare"):
            self._take_lock()
            if not self._recipe.tune.trains:
                self._progress.note("tune.method none: the base itself is gated and exported")
                return
            report = preflight(
                self._of.examples("train"),
                gate_records(self._of.loaded),
                self._of.chat(),
                self._recipe.tune,
                self._recipe.preflight,
            )
            gone = left_out(self._of.loaded)
            write_json(self._folder / "preflight.json", {**report.to_json(), "left_out": list(gone)})
            report.raise_if_refused()
            if gone:
                self._progress.note(f"{len(gone):,} records left out: the gate judges with their like")
            self._progress.note(report.summary())

    def _take_lock(self) -> None:
        path = self._folder / "lock.json"
        if path.exists():
            check_lock(read_json(path), self._of.loaded.lock)
            return
        ordered = read_json(self._folder / "manifest.json")["lock"]
        if ordered != self._of.loaded.lock["digest"]:
            raise IntegrityError(
                "TAMPERED: documents, records or code changed between the order and its start",
                hint="give the command again: it makes a run of what is there now",
            )
        write_json(path, self._of.loaded.lock)

    def _check_lock(self) -> None:
        """Looks once more at all that the gate stands on: documents, records and deciding code, as they are now."""
        now = load_order(Path(self._of.options["recipe"]), self._of.data_root).lock
        check_lock(read_json(self._folder / "lock.json"), now)

    def _gate_base(self) -> Verdict:
        from harness.models.identity import checkpoint_identity

        with self._progress.step("base") as outcome:
            identity = checkpoint_identity(self._of.base)
            write_json(self._folder / "base.json", identity._asdict())
            verdict, outcome["reused"] = self._of.stages.run(
                "base", identity.digest, lambda: self._of.open(self._of.base)
            )
            if verdict.verdict is State.PASS and self._recipe.tune.trains:
                self._progress.note("the base passes every rule by itself: does it need tuning?", "warning")
        return verdict

    def _train(self) -> Path:
        from harness.train.launching import train_in_processes

        if self._of.stages.verdict("base") is None:
            raise RefusedError("training needs a baseline: the base has no verdict on the locked suites")
        identity = str(read_json(self._folder / "base.json")["digest"])
        key = besides_documents(self._of.loaded, self._of.base, identity)
        with self._progress.step("train") as outcome:
            if key is not None and (taken := self._take_over(key)) is not None:
                outcome["reused"] = True
                return taken
            result = train_in_processes(
                train_plan(self._of.loaded, self._of.base),
                self._folder / "train",
                on_event=self._progress.event,
                should_stop=self._progress.should_stop,
                scorer=self._of.dev_scorer(),
            )
        facts = {} if key is None else facts_for_reuse(self._of.loaded, key, result.adapter)
        write_json(self._folder / "train.json", {**asdict(result), "adapter": result.adapter.name, **facts})
        return result.adapter

    def _take_over(self, key: str) -> Path | None:
        """The adapter of an earlier run that differs in documents alone, copied here; None where there is none.

        A run that was asked for anew, or that has begun to train, trains.
        """
        path, adapter = self._folder / "train.json", self._folder / ADAPTER
        kept = read_json(path) if path.exists() else {}
        if "reused_from" in kept and adapter_digest(adapter) == kept["adapter_sha256"]:
            return adapter
        has_begun = (self._folder / "train").exists()
        if has_begun or self._of.options.get("fresh"):
            return None
        found = find_trained(self._folder.parent, key, but=self._folder.name)
        if found is None:
            return None
        origin = found.facts.get("reused_from", found.run)
        write_json(path, {**found.facts, "reused_from": origin})
        taken = take_over(found, self._folder)
        self._progress.note(f"only documents changed: the adapter of {origin} is judged on the new ones")
        return taken

    def _gate_adapter(self, adapter: Path) -> Verdict:
        from harness.models.identity import checkpoint_identity

        nf4, is_whole = self._recipe.tune.is_nf4, self._recipe.tune.method == "full"
        # Where all weights were trained, what training wrote is a model by itself.
        base, on_it = (adapter, None) if is_whole else (self._of.base, adapter)
        with self._progress.step("adapter") as outcome:
            identity = checkpoint_identity(base, adapter=on_it, quantization="nf4" if nf4 else "").digest
            self._count_attempt(identity)
            verdict, outcome["reused"] = self._of.stages.run(
                "adapter", identity, lambda: self._of.open(base, adapter=on_it, nf4=nf4), parent="base"
            )
        return verdict

    def _count_attempt(self, identity: str) -> None:
        """Writes the candidate down before its first answer: a look that a crash cut short was a look."""
        items = sealed_digest({name: splits["eval"] for name, splits in self._of.loaded.splits.items()})
        home = self._folder.parent.parent
        spend = self._recipe.attempts == "spend"
        self._of.stages.hold(Ledger(home).enter(items, identity, self._folder.name, spend=spend))

    def _export(self, adapter: Path | None) -> Ending:
        """Exports and gates, then picks and packs what passed."""
        if adapter is None:
            # Only now does the base become a candidate, whose files may ship.
            self._count_attempt(str(read_json(self._folder / "base.json")["digest"]))
        last = Exporter(self._of).run(adapter)
        if last.stage in CHAIN and last.verdict is not State.PASS:
            return Ending(last)
        found = {name: verdict for name in self._of.stage_names if (verdict := self._of.stages.verdict(name))}
        return self._pick({quant: found.get(quant) for quant in self._recipe.export.quants}, found)

    def _pick(self, judged: Mapping[str, Verdict | None], all_verdicts: dict[str, Verdict]) -> Ending:
        from harness.jobs.packing import endorse, pack, pick_quant

        choice = pick_quant(self._folder, self._of.loaded, judged)
        if choice.picked:
            choice = replace(choice, caches=Exporter(self._of).judge_caches(choice.picked))
        write_json(self._folder / "pick.json", choice.to_json())
        if choice.picked is None:
            quants = [verdict for verdict in judged.values() if verdict]
            return Ending(self._none_picked(quants or [all_verdicts["f16"]]))
        verdict = all_verdicts[choice.picked]
        if self._until != "release":
            return Ending(verdict, choice.picked)
        with self._progress.step("release"):
            # Before anything is on disk that could be shipped.
            self._check_lock()
            release = pack(self._folder, self._of.loaded, self._of.options, choice, all_verdicts)
            said = endorse(release)
            self._progress.note(said, "warning" if said.startswith("UNSIGNED") else "info")
        return Ending(verdict, choice.picked, release)

    def _none_picked(self, judged: Sequence[Verdict]) -> Verdict:
        """The best verdict among the files; FAIL where they pass their rules and none may ship all the same."""
        best = min(judged, key=lambda verdict: HOPEFUL.index(verdict.verdict))
        worst = worst_rule(best)
        why = worst.reason if worst else "none is near enough to the 16-bit file and fits the device"
        self._progress.note(f"no file may ship: {why}", "warning")
        return replace(best, verdict=State.FAIL) if best.verdict is State.PASS else best

    def _finish(self, ending: Ending) -> dict[str, Any]:
        events = read_events(self._folder / "events.jsonl")
        seconds = sum(event.data["seconds"] for event in events if event.name == "step.done")
        state, release = ending.verdict.verdict, str(ending.release) if ending.release else None
        document = {
            "verdict": state.value, "release": release, "picked": ending.picked, "seconds": round(seconds, 1),
            "stages": stage_documents(self._folder), "why": self._why(),
        }  # fmt: skip
        write_json(self._folder / "result.json", document)
        return {"verdict": state.value, "exit_code": int(EXIT_CODES[state]), "release": release}

    def _why(self) -> dict[str, str]:
        """For each quant that was judged, why it was picked or not."""
        path = self._folder / "pick.json"
        return {row["quant"]: row["reason"] for row in read_json(path)["rows"]} if path.exists() else {}
