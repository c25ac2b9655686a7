"""The quantized files of a candidate, from the largest to the smallest: written, and measured before they are judged.

Nothing here looks at the records that gate. Importances come from the training split, and whether they help, which
tensors hurt and how far each file is from the 16-bit one is measured on the development split.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.files import read_json, sha256_file, sha256_text, write_json
from harness.jobs.candidate import Candidate

if TYPE_CHECKING:
    from harness.export.divergence import Reference
    from harness.export.fidelity import Fidelity
    from harness.export.quantize import Override, QuantReport
    from harness.train.batches import Example

FIDELITY_ITEMS = 64
"""Conversations that fidelity is measured on, at most."""
FIDELITY_TOK = 1536
"""Positions that distributions are compared at: the mean is known to a few per cent, in seconds a file."""
IMATRIX_ITEMS = 2048
MIB = 2**20


class Texts(NamedTuple):
    """Conversations that measure, and others that importances come from: never the same ones."""

    measured: list[Example]
    weighed: list[Example]
    names: str
    """Which splits, as `measured` and `weighed`."""


def texts_of(of: Candidate) -> Texts:
    """The development split measures and the training split weighs; without the former the latter is halved."""
    train, dev = of.examples("train"), of.examples("dev")
    weighed = sorted(train, key=lambda example: sha256_text(example.id))  # files are often sorted by label
    if dev:
        return Texts(dev[:FIDELITY_ITEMS], weighed[:IMATRIX_ITEMS], "dev and train")
    measured = train[: max(1, min(FIDELITY_ITEMS, len(train) // 2))]
    kept = {example.id for example in measured}
    rest = [example for example in weighed if example.id not in kept]
    return Texts(measured, rest[:IMATRIX_ITEMS], "two parts of train")


class Attempt(NamedTuple):
    """One way to round a file, tried."""

    variant: str
    """`plain`, `imatrix`, and `+types` where groups got better ones."""
    path: Path
    report: QuantReport
    fidelity: Fidelity


class Ladder:
    """Writes the files that the recipe names; what is there already is not written again."""

    def __init__(self, of: Candidate) -> None:
        self._of = of
        self._export = of.loaded.recipe.export
        self._path = of.artifacts / "ladder.json"
        self._source = of.artifacts / "model-f16.gguf"
        self._imatrix: Path | None = None
        self._costs: list[Any] = []

    def build(self) -> bool:
        """Writes and measures every file; whether all of it was there.

        Raises:
            ModelError: llama.cpp refuses a quant, or can't load what it wrote.
        """
        from harness.export.divergence import Reference
        from harness.export.forward import Source

        document: dict[str, Any] = read_json(self._path) if self._path.exists() else {"rows": {}}
        missing = [quant for quant in self._export.quants if not self._is_there(quant, document)]
        if not missing:
            return True
        texts = texts_of(self._of)
        self._imatrix = self._weigh(texts, document)
        self._tell_sizes()
        scratch = self._of.artifacts / "parent.logits"
        with Reference(
            Source(self._source), texts.measured, scratch, threads=self._of.threads, max_tok=FIDELITY_TOK
        ) as reference:
            self._scan(reference, texts, document)
            for done, quant in enumerate(missing):
                self._of.progress.move(done, len(missing), "files", quant)
                document["rows"][quant] = self._build(quant, reference, texts)
                write_json(self._path, document)
        shutil.rmtree(self._of.artifacts / "variants", ignore_errors=True)
        return False

    def _is_there(self, quant: str, document: dict[str, Any]) -> bool:
        target, fidelity = self._target(quant), self._fidelity_path(quant)
        if quant not in document["rows"] or not target.exists() or not fidelity.exists():
            return False
        from harness.models.identity import gguf_identity

        return bool(read_json(fidelity)["identity"] == gguf_identity(target).digest)

    def _target(self, quant: str) -> Path:
        return self._of.artifacts / f"model-{quant}.gguf"

    def _fidelity_path(self, quant: str) -> Path:
        return self._of.folder / "stages" / quant / "fidelity.json"

    def _weigh(self, texts: Texts, document: dict[str, Any]) -> Path | None:
        """The importance matrix on disk; None where the recipe wants none."""
        from harness.export.forward import Source
        from harness.export.imatrix import collect_imatrix, write_imatrix
        from harness.export.parity import read_conversations

        if self._export.imatrix is False:
            return None
        path = self._of.artifacts / "imatrix.gguf"
        if not path.exists():
            read = read_conversations(Source(self._source), texts.weighed).ids
            matrix = collect_imatrix(
                self._source, [ids for ids in read if ids is not None], checkpoint=self._merged(),
                threads=self._of.threads,
                on_progress=lambda done, total: self._of.progress.move(done, total, "tokens", "weighed"),
            )  # fmt: skip
            write_imatrix(matrix, path, dataset=f"{self._of.loaded.recipe.recipe}, {texts.names}")
            document["imatrix"] = {
                "sha256": sha256_file(path), "tokens": matrix.tokens, "method": matrix.method,
                "texts": texts.names,
            }  # fmt: skip
            write_json(self._path, document)
            self._of.progress.note(
                f"importances from {matrix.tokens:,} tokens ({matrix.method}); measured and weighed: {texts.names}"
            )
        return path

    def _merged(self) -> Path | None:
        found = self._of.artifacts / "merge.json"
        folder = self._of.artifacts / str(read_json(found)["kept"]) if found.exists() else None
        return folder if folder and folder.is_dir() else None

    def _tell_sizes(self) -> None:
        """What the files will be, before the first is written."""
        from harness.export.quantize import dry_run

        plans = dry_run(self._source, self._export.quants, imatrix=self._imatrix, threads=self._of.threads)
        told = ", ".join(f"{plan.quant} {plan.bytes / MIB:,.0f} MiB" for plan in plans)
        self._of.progress.note(f"sizes to come: {told}")
        over = [plan for plan in plans if plan.bytes / MIB > self._of.loaded.recipe.device.memory_mb]
        if over:
            names = ", ".join(plan.quant for plan in over)
            self._of.progress.note(f"larger than the device's memory: {names}", "warning")

    def _scan(self, reference: Reference, texts: Texts, document: dict[str, Any]) -> None:
        """What each group of tensors costs in the smallest file."""
        from harness.export.forward import Source
        from harness.export.quantize import dry_run
        from harness.export.sensitivity import Cost, Group, groups_of, scan

        if not self._export.sensitivity:
            return
        if known := document.get("sensitivity"):
            self._costs = [Cost(Group(*row["group"]), row["mean_kl"]) for row in known["costs"]]
            return
        plans = dry_run(self._source, self._export.quants, imatrix=self._imatrix, threads=self._of.threads)
        smallest = min(plans, key=lambda plan: plan.bytes)
        groups = groups_of(smallest.table, self._export.sensitivity)
        self._costs = scan(
            self._source, smallest.quant, groups,
            lambda path: reference.divergence(Source(path), threads=self._of.threads).mean_kl,
            self._of.artifacts / "scan.gguf", imatrix=self._imatrix, threads=self._of.threads,
            on_progress=lambda done, total: self._of.progress.move(done, total, "groups", "rounded alone"),
        )  # fmt: skip
        rows = [{"group": list(cost.group), "mean_kl": cost.mean_kl} for cost in self._costs]
        document["sensitivity"] = {"quant": smallest.quant, "texts": texts.names, "costs": rows}
        write_json(self._path, document)
        worst = sorted(self._costs, key=lambda cost: -cost.mean_kl)[:3]
        told = ", ".join(f"{cost.group.name} {cost.mean_kl:.2g}" for cost in worst)
        self._of.progress.note(f"{smallest.quant} hurts most in: {told} nats a token, each rounded alone")

    def _build(self, quant: str, reference: Reference, texts: Texts) -> dict[str, Any]:
        """Writes the file in each way that the recipe asks for and keeps the one nearest to its parent."""
        tried = [self._try(quant, weighed, [], reference, texts) for weighed in self._ways(quant)]
        best = min(tried, key=lambda one: one.fidelity.divergence.mean_kl)
        if better := self._better(quant, best):
            tried.append(self._try(quant, best.variant.startswith("imatrix"), better, reference, texts))
            best = min(tried, key=lambda one: one.fidelity.divergence.mean_kl)
        self._keep(quant, best)
        self._tell(quant, tried, best)
        for one in tried:
            one.path.unlink(missing_ok=True)
        return {
            "variant": best.variant, "texts": texts.names,
            "tried": [
                {"variant": one.variant, "bytes": one.report.bytes, "mean_kl": one.fidelity.divergence.mean_kl,
                 "top1": one.fidelity.divergence.top1, "seconds": round(one.report.seconds, 2)}
                for one in tried
            ],
        }  # fmt: skip

    def _ways(self, quant: str) -> list[bool]:
        """With importances, without, or both."""
        from harness.export.quantize import IGNORES_IMATRIX
        from harness.specs.recipe import NEED_IMATRIX

        if self._imatrix is None or quant in IGNORES_IMATRIX:
            return [False]
        return [True] if self._export.imatrix is True or quant in NEED_IMATRIX else [False, True]

    def _better(self, quant: str, best: Attempt) -> list[Override]:
        from harness.export.sensitivity import better_types

        if not self._costs:
            return []
        return better_types(
            self._source, quant, self._costs, budget_frac=self._export.sensitivity_budget_frac,
            imatrix=self._imatrix if best.variant.startswith("imatrix") else None, threads=self._of.threads,
        )  # fmt: skip

    def _try(
        self, quant: str, is_weighed: bool, overrides: Sequence[Override], reference: Reference, texts: Texts
    ) -> Attempt:
        from harness.export.fidelity import compare_with
        from harness.export.quantize import quantize

        variant = ("imatrix" if is_weighed else "plain") + ("+types" if overrides else "")
        path = self._of.artifacts / "variants" / f"{quant}-{variant}.gguf"
        report = quantize(
            self._source, path, quant, imatrix=self._imatrix if is_weighed else None, overrides=overrides,
            threads=self._of.threads,
        )  # fmt: skip
        found = compare_with(reference, path, texts.measured, threads=self._of.threads)
        return Attempt(variant, path, report, found)

    def _keep(self, quant: str, best: Attempt) -> None:
        from harness.export.forward import measure_speed
        from harness.models.identity import gguf_identity

        target = self._target(quant)
        best.path.replace(target)
        speed = measure_speed(target, threads=self._of.threads)
        document = {"identity": gguf_identity(target).digest, **best.fidelity.to_json()}
        document |= {
            "variant": best.variant,
            **{name: round(value, 3) for name, value in speed._asdict().items()},
        }
        self._fidelity_path(quant).parent.mkdir(parents=True, exist_ok=True)
        write_json(self._fidelity_path(quant), document)
        self._of.progress.event(
            "artifact", name=quant, path=str(target), bytes=target.stat().st_size, digest=sha256_file(target)
        )

    def _tell(self, quant: str, tried: Sequence[Attempt], best: Attempt) -> None:
        if best.report.warning:
            self._of.progress.note(best.report.warning, "warning")
        if len(tried) > 1:
            told = ", ".join(f"{one.variant} {one.fidelity.divergence.mean_kl:.3g}" for one in tried)
            is_hurt = "imatrix" in {one.variant for one in tried} and not best.variant.startswith("imatrix")
            hurt = "; imatrix hurt" if is_hurt else ""
            self._of.progress.note(f"{quant}: mean KL {told}; {best.variant} is kept{hurt}")
