"""From a trained adapter to files for the edge: merge, convert, quantize, and the gate on each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import ModelError
from harness.evals.results import RuleVerdict, State, Verdict
from harness.export.pick import CacheRow
from harness.files import read_json, sha256_file, write_json
from harness.jobs.candidate import Candidate
from harness.jobs.ladder import FIDELITY_TOK, Ladder, texts_of
from harness.jobs.packing import candidates_of
from harness.jobs.stages import worst_rule

if TYPE_CHECKING:
    from harness.export.forward import Source


class Exporter:
    """The export steps of one candidate; each looks first for what is there already."""

    def __init__(self, candidate: Candidate) -> None:
        self._of = candidate
        self._recipe = candidate.loaded.recipe

    def run(self, adapter: Path | None) -> Verdict:
        """The verdict of the stage that stopped the export, or of the last file that was judged.

        Without an adapter the base is what is exported: its 16-bit file follows on the base.

        Files are judged from the largest to the smallest, and none after the first that does not pass: it could not
        be picked any more (`harness.export.pick`).
        """
        if adapter is None:
            verdict = self._gate_f16(self._of.base, "base")
        else:
            merged = self._merge(adapter)
            verdict = self._gate_merged(merged)
            if verdict.verdict is State.PASS:
                verdict = self._gate_f16(merged, "merged")
        if verdict.verdict is not State.PASS:
            self._of.progress.note(f"export stops: {verdict.stage} is {verdict.verdict}", "warning")
            return verdict
        return self.judge_files() or verdict

    def judge_files(self) -> Verdict | None:
        """The verdict of the last file that was judged, once all are written; None where none could ship."""
        verdict = None
        with self._of.progress.step("ladder") as outcome:
            outcome["reused"] = Ladder(self._of).build()
        for quant in self._tried():
            verdict = self._gate_quant(quant)
            if verdict.verdict is not State.PASS:
                self._of.progress.note(
                    f"{quant} is {verdict.verdict}: no smaller file is tried, none could be picked", "warning"
                )
                break
        return verdict

    def judge_caches(self, quant: str) -> tuple[CacheRow, ...]:
        """What the picked file does with each type of keys and values that the recipe names."""
        from harness.models.gguf_api import Weights

        target = self._of.artifacts / f"model-{quant}.gguf"
        with Weights(target) as weights:
            values = weights.cache_values
        kl = candidates_of(self._of.folder, {quant: None})[0].mean_kl
        rows = [CacheRow("f16", 2.0 * values, kl, str(State.PASS), "judged with it")]
        if "q8_0" in self._recipe.export.caches:
            rows.append(self._judge_8_bit(quant, target, 34 / 32 * values))
        return tuple(rows)

    def _judge_8_bit(self, quant: str, target: Path, bytes_per_tok: float) -> CacheRow:
        from harness.export.forward import Source
        from harness.models.gguf import CACHE_8_BIT, GgufModel, changed
        from harness.models.identity import gguf_identity

        stage, identity = f"{quant}-kv-q8_0", changed(gguf_identity(target), CACHE_8_BIT).digest
        source = self._of.artifacts / "model-f16.gguf"
        try:
            found = self._fidelity(stage, identity, Source(target, cache="q8_0"), source)
        except ModelError as error:
            self._of.progress.note(f"no 8-bit cache: {error.message}", "warning")
            return CacheRow("q8_0", bytes_per_tok, None, None, error.message)
        verdict, _ = self._of.stages.run(
            stage, identity, lambda: GgufModel(target, threads=self._of.threads, is_cache_8_bit=True),
            parent=quant, size_bytes=target.stat().st_size,
            extra_rules=lambda: [self._kl_rule("f16", found)],
        )  # fmt: skip
        worst = worst_rule(verdict)
        reason = f"{worst.rule}: {worst.reason}" if worst else "passes every rule"
        self._of.progress.note(f"{quant} with an 8-bit cache is {verdict.verdict}: {reason}")
        return CacheRow("q8_0", bytes_per_tok, found["mean_kl"], str(verdict.verdict), reason)

    def _tried(self) -> list[str]:
        """The files that could ship, from the largest to the smallest."""
        from harness.export.pick import sequence

        export = self._recipe.export
        found = candidates_of(self._of.folder, dict.fromkeys(export.quants))
        tried = sequence(found, self._recipe.device, export.max_mean_kl)
        left_out = [one.quant for one in found if one not in tried]
        if left_out:
            self._of.progress.note(
                f"not judged: {', '.join(left_out)}; too far from the 16-bit file, or too large for the device",
                "warning",
            )
        return [one.quant for one in tried]

    def _merge(self, adapter: Path) -> Path:
        """The merge that is better on the development split; what was measured is in `merge.json`.

        Without such a split nothing can be compared: then the one that computes what was trained is kept.
        """
        path = self._of.artifacts / "merge.json"
        with self._of.progress.step("merge") as outcome:
            if path.exists():
                outcome["reused"] = True
            else:
                scores = self._score_merges(adapter)
                kept = max(scores, key=lambda way: scores[way], default=self._ways[-1])
                told = [
                    f"{way}: dev accuracy {s[0]:.3f}, gold probability {s[1]:.4f}"
                    for way, s in scores.items()
                ]
                why = "; ".join(told) or "no development split to compare merges on"
                self._of.progress.note(f"{why}; {kept} is kept")
                write_json(path, {"kept": f"merged-{kept}", "dev": scores})
            kept_folder = self._of.artifacts / str(read_json(path)["kept"])
            for other in self._of.artifacts.glob("merged-*"):
                if other != kept_folder:
                    shutil.rmtree(other, ignore_errors=True)
        return kept_folder

    @property
    def _ways(self) -> tuple[Literal["16bit", "nf4"], ...]:
        """What the adapter is merged onto; the last one computes what was trained."""
        return ("16bit", "nf4") if self._recipe.tune.is_nf4 else ("16bit",)

    def _score_merges(self, adapter: Path) -> dict[str, tuple[float, float]]:
        from harness.export.merge import merge

        can_compare = bool(self._of.examples("dev"))
        ways = self._ways if can_compare else self._ways[-1:]
        scores: dict[str, tuple[float, float]] = {}
        for done, way in enumerate(ways):
            self._of.progress.move(done, len(ways), "merges", f"onto {way}")
            target = self._of.artifacts / f"merged-{way}"
            if not target.exists():
                merge(self._of.base, adapter, target, onto=way)
            if not can_compare:
                continue
            model = self._of.open(target)
            try:
                scores[way] = self._of.stages.score_dev(f"merged-{way}", model)
            finally:
                model.close()
        return scores

    def _gate_merged(self, merged: Path) -> Verdict:
        from harness.models.identity import checkpoint_identity

        with self._of.progress.step("merged") as outcome:
            identity = checkpoint_identity(merged).digest
            verdict, outcome["reused"] = self._of.stages.run(
                "merged", identity, lambda: self._of.open(merged), parent="adapter"
            )
        return verdict

    def _gate_f16(self, source: Path, parent: str) -> Verdict:
        from harness.export.gguf import convert

        target = self._of.artifacts / "model-f16.gguf"
        with self._of.progress.step("f16") as outcome:
            if not target.exists():
                convert(source, target, metadata=self._metadata())
                self._tell("f16", target)
            verdict, outcome["reused"] = self._gate_file("f16", target, parent, source)
        return verdict

    def _gate_quant(self, quant: str) -> Verdict:
        target, source = (self._of.artifacts / f"model-{name}.gguf" for name in (quant, "f16"))
        with self._of.progress.step(quant) as outcome:
            verdict, outcome["reused"] = self._gate_file(quant, target, "f16", source)
        return verdict

    def _gate_file(self, stage: str, target: Path, parent: str, parent_path: Path) -> tuple[Verdict, bool]:
        from harness.models.identity import gguf_identity

        identity = gguf_identity(target).digest
        return self._of.stages.run(
            stage, identity, lambda: self._of.open(target), parent=parent, size_bytes=target.stat().st_size,
            gguf=target, extra_rules=lambda: [self._fidelity_rule(stage, identity, parent, target, parent_path)],
        )  # fmt: skip

    def _fidelity_rule(
        self, stage: str, identity: str, parent: str, target: Path, parent_path: Path
    ) -> RuleVerdict:
        """Measures how far the file's next-token distributions are from its parent's, and judges the mean."""
        found = self._fidelity(stage, identity, target, parent_path)
        self._of.progress.event(
            "fidelity", stage=stage, parent=parent, mean_kl=found["mean_kl"], top1=found["top1"],
            token_parity=found["token_parity"],
        )  # fmt: skip
        return self._kl_rule(parent, found)

    def _kl_rule(self, parent: str, found: dict[str, Any]) -> RuleVerdict:
        limit = self._recipe.export.max_mean_kl
        state = State.PASS if found["mean_kl"] <= limit and found["token_parity"] else State.FAIL
        return RuleVerdict(
            rule=f"mean KL from {parent} at most {limit:g}", suite=self._of.loaded.first, metric="mean_kl",
            slice="all", n=found["n_tok"], score=found["mean_kl"], low=None, high=None, threshold=limit, verdict=state,
            reason=f"KL {found['mean_kl']:.2g} nats a token, top-1 agreement {found['top1']:.2%}",
        )  # fmt: skip

    def _fidelity(
        self, stage: str, identity: str, target: Path | Source, parent_path: Path
    ) -> dict[str, Any]:
        from harness.export.fidelity import compare

        path = self._of.folder / "stages" / stage / "fidelity.json"
        if path.exists() and (found := read_json(path))["identity"] == identity:
            return dict(found)
        items = texts_of(self._of).measured
        measured = compare(parent_path, target, items, threads=self._of.threads, max_tok=FIDELITY_TOK)
        document = {"identity": identity, **measured.to_json()}
        write_json(path, document)
        return document

    def _metadata(self) -> dict[str, str]:
        """Lineage that the file itself carries; no path of this machine."""
        reference, _, digest = str(self._of.options["base"]).partition("@")
        name = Path(reference).name if digest else reference
        return {
            "recipe": self._recipe.recipe, "lock": self._of.loaded.lock["digest"], "run": self._of.folder.name,
            "base": f"{name}@{digest}" if digest else name,
        }  # fmt: skip

    def _tell(self, name: str, path: Path) -> None:
        self._of.progress.event(
            "artifact", name=name, path=str(path), bytes=path.stat().st_size, digest=sha256_file(path)
        )
