"""What a run folder says of its stages and samples, as documents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.evals.gate import CHAIN
from harness.evals.results import Verdict
from harness.evals.samples import read_samples
from harness.files import read_json
from harness.formats.report import Report
from harness.jobs.store import RunState, last_event, run_state

DEVELOPMENT = "dev"
"""Holds the samples of the development split, which choose between merges and are never gated."""


def stage_order(folder: Path, names: Collection[str]) -> list[str]:
    """The names in the order of the chain: base to f16, quants as the recipe lists them, then what else there is."""
    try:
        quants = read_json(folder / "manifest.json")["document"]["recipe"]["export"]["quants"]
    except (DataError, KeyError, TypeError):
        quants = []
    known = [name for name in (*CHAIN, *quants) if name in names]
    return known + sorted(set(names) - set(known))


def stage_verdicts(folder: Path) -> list[Verdict]:
    """The verdicts of the stages that have one, in the order of the chain."""
    found = {path.parent.name: path for path in (folder / "stages").glob("*/verdict.json")}
    return [Verdict.from_json(read_json(found[name])) for name in stage_order(folder, found)]


def report_of(
    folder: Path, stage: str | None = None, *, today: Verdict | None = None, only_today: bool = False
) -> Report:
    """What other tools are told of the run: all stages, or one.

    `today` is what is said of its stage now, instead of what is on disk; `only_today` leaves the others out.
    """
    found = [] if only_today else stage_verdicts(folder)
    if today is not None:
        found = [today if one.stage == today.stage else one for one in found] or [today]
    verdicts = [verdict for verdict in found if stage in (None, verdict.stage)]
    result = folder / "result.json"
    picked = read_json(result).get("picked") if result.exists() else None
    return Report(folder.name, tuple(verdicts), error=why_stopped(folder), picked=picked)


def why_stopped(folder: Path) -> str | None:
    """Why the run ended before its work was done; None where it was done or goes on."""
    state, last = run_state(folder), last_event(folder)
    said = last.data if last else {}
    if state is RunState.DIED:
        return "the worker died without a last word; the same command resumes the run"
    if state is RunState.FAILED:
        return str(said.get("error") or "the run failed")
    return str(said.get("text") or "the run was cancelled") if state is RunState.CANCELLED else None


def stage_documents(folder: Path) -> list[dict[str, Any]]:
    """One document a stage and suite that has a verdict, in the order of the chain."""
    return [
        stage_document(verdict, suite)
        for verdict in stage_verdicts(folder)
        for suite in dict.fromkeys(rule.suite for rule in verdict.rules)
    ]


def stage_document(verdict: Verdict, suite: str) -> dict[str, Any]:
    """What `--json` says of one stage on one suite."""
    rules = [rule for rule in verdict.rules if rule.suite == suite]
    keys = ("rule", "metric", "slice", "n", "score", "low", "high", "threshold", "reason", "needed")
    return {
        "stage": verdict.stage,
        "identity": verdict.identity,
        "suite": suite,
        "n": max((rule.n for rule in rules if rule.metric == "error_rate"), default=0),
        "verdict": verdict.verdict.value,
        "rules": [
            {**{key: getattr(rule, key) for key in keys}, "verdict": rule.verdict.value} for rule in rules
        ],
    }


def sampled_stages(folder: Path) -> list[str]:
    """The stages that were scored on gated items, in the order of the chain."""
    found = {path.parent.parent.name for path in (folder / "stages").glob("*/*/samples.jsonl")}
    return stage_order(folder, found - {DEVELOPMENT})


def stages_to_compare(a: Path, b: Path, stage_a: str | None, stage_b: str | None) -> tuple[str, str]:
    """The stages that are meant: without a name the last one that both runs have, else each run's last one.

    Raises:
        DataError: a run has no such stage, or both sides would be the same samples.
    """
    of_a, of_b = (_require_stages(folder, wanted) for folder, wanted in ((a, stage_a), (b, stage_b)))
    common = [stage for stage in of_a if stage in of_b]
    first = stage_a or (common[-1] if common and not stage_b else of_a[-1])
    second = stage_b or (first if first in of_b else of_b[-1])
    if (a, first) == (b, second):
        raise DataError(
            f"{a.name} at {first} would be compared with itself; it was scored at {', '.join(of_a)}",
            hint=f"harness compare {a.name} {b.name} --stage {of_a[0]} --stage-b {of_a[-1]}",
        )
    return first, second


def _require_stages(folder: Path, wanted: str | None) -> list[str]:
    stages = sampled_stages(folder)
    if not stages or (wanted and wanted not in stages):
        raise DataError(
            f"{folder.name} has no samples{f' at stage {wanted!r}' if wanted else ''}; "
            f"it was scored at {', '.join(stages) or 'no stage'}",
            hint=f"harness show {folder.name}",
        )
    return stages


def whole_stage(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document of one stage's documents: a verdict is about all suites, so all their rules are shown.

    With several suites, `suite` and each rule's `rule` name them.
    """
    if len(documents) == 1:
        return documents[0]
    rules = [
        {**rule, "suite": document["suite"], "rule": f"{document['suite']}: {rule['rule']}"}
        for document in documents
        for rule in document["rules"]
    ]
    suites = ", ".join(document["suite"] for document in documents)
    return {
        **documents[0],
        "suite": suites,
        "n": sum(document["n"] for document in documents),
        "rules": rules,
    }


def sample_documents(folder: Path, sample_id: str) -> list[Mapping[str, Any]]:
    """The sample at every stage that scored it.

    Raises:
        DataError: no stage has.
    """
    found: list[Mapping[str, Any]] = []
    stages = {path.parent.parent.name for path in (folder / "stages").glob("*/*/samples.jsonl")}
    for stage in stage_order(folder, stages):
        for path in sorted((folder / "stages" / stage).glob("*/samples.jsonl")):
            same = [sample for sample in read_samples(path) if sample.id == sample_id]
            found += [{"stage": stage, "suite": path.parent.name, **sample.to_json()} for sample in same]
    if not found:
        raise DataError(f"{folder.name} has no sample {sample_id!r}", hint=f"harness show {folder.name}")
    return found
