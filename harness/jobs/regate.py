"""A finished run judged once more, from the samples on its disk: with its own rules, or with those of a file."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import DataError
from harness.evals.calibrate import needs_calibration
from harness.evals.gate import BASELINE, Evidence, Planned, applies, combine, judge, stale
from harness.evals.ledger import METRIC as ATTEMPT_METRIC
from harness.evals.ledger import Attempt
from harness.evals.results import RuleVerdict, Sample, Verdict
from harness.evals.samples import read_header, read_samples
from harness.evals.waivers import apply_waivers, read_waivers
from harness.files import read_json
from harness.specs.gate import Gate

if TYPE_CHECKING:
    from harness.evals.calibrate import Calibration
    from harness.evals.repeat import Noise

CALIBRATION, PLAN = "calibration.json", "plan.json"
"""Beside a suite's samples: what its calibration split gave, and the items that a watched run was planned to score."""
_DEFAULT_MAX_ERROR_FRAC = 0.02


class Rules(NamedTuple):
    """What a run is held to."""

    gates: tuple[Gate, ...]
    only: str
    """The suite that rules without a suite read."""


class Judged(NamedTuple):
    """A stage's verdict, and what is wrong with the one on disk."""

    verdict: Verdict
    """With what is waived today."""
    measured: Verdict
    """Without waivers."""
    samples: dict[str, list[Sample]]
    """By suite."""
    kept: tuple[str, ...]
    """Rules that were taken over from the verdict on disk, as their evidence is more than samples."""
    is_same: bool | None
    """Whether the verdict on disk has the same numbers; None where there is none, or other rules were asked."""
    has_same_states: bool | None = None
    """Whether it says the same of each rule and slice."""


def rules_of(folder: Path) -> Rules | None:
    """The rules that the run itself was held to; None for a run that was only scored.

    Raises:
        DataError: the manifest can't be read.
    """
    document = read_json(folder / "manifest.json").get("document") or {}
    if "recipe" not in document:
        return None
    gates = tuple(Gate.model_validate(gate) for gate in document["recipe"]["gates"])
    return Rules(gates, next(iter(document["suites"])))


def judge_again(
    folder: Path, stage: str, *, rules: Rules | None = None, baseline: tuple[Path, str] | None = None
) -> Judged:
    """What the rules say of the stage's samples as they are now.

    Without `rules`, those of the run itself, held to the attempt that its verdict names. `baseline` is another run's
    folder with its stage.

    Raises:
        DataError: no samples, or no rules.
    """
    with _collector_paused():
        return _judge_again(folder, stage, rules, baseline)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without the garbage collector: samples by the ten thousand hold no cycles, and cost it a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _judge_again(folder: Path, stage: str, rules: Rules | None, baseline: tuple[Path, str] | None) -> Judged:
    own = rules_of(folder) if rules is None else None
    asked = rules or own
    if asked is None:
        raise DataError(
            f"{folder.name} was scored and not gated: it has no rules of its own",
            hint="--gates FILE names some",
        )
    samples = _samples(folder, stage)
    disk = _verdict_on_disk(folder, stage) if own else None
    gates = _held(asked.gates, disk, folder, stage)
    evidence = {
        suite: _evidence(folder, stage, suite, found, gates, baseline) for suite, found in samples.items()
    }
    lock = str(read_json(folder / "manifest.json").get("lock", ""))
    # The suite's own name in a run of one suite that another file's rules don't know.
    only = asked.only if asked.only in samples else next(iter(samples))
    judged = judge(stage, _identity(folder, stage, samples), lock, gates, evidence, only)
    measured, kept = _completed(
        judged, disk, [gate for gate in gates if not _can_judge(gate, evidence, only)], gates
    )
    waivable = [gate.name for gate in gates if not gate.binding]
    verdict = apply_waivers(measured, read_waivers(folder), waivable, combine)
    if disk is None:
        return Judged(verdict, measured, samples, kept, None)
    is_same = disk.verdict is measured.verdict and _numbers(disk.rules) == _numbers(measured.rules)
    return Judged(verdict, measured, samples, kept, is_same, _states(disk.rules) == _states(measured.rules))


def _samples(folder: Path, stage: str) -> dict[str, list[Sample]]:
    paths = sorted((folder / "stages" / stage).glob("*/samples.jsonl"))
    if not paths:
        raise DataError(
            f"{folder.name} has no samples of stage {stage!r}", hint=f"harness show {folder.name}"
        )
    return {path.parent.name: read_samples(path) for path in paths}


def _verdict_on_disk(folder: Path, stage: str) -> Verdict | None:
    path = folder / "stages" / stage / "verdict.json"
    return Verdict.from_json(read_json(path)) if path.exists() else None


def _held(gates: tuple[Gate, ...], disk: Verdict | None, folder: Path, stage: str) -> tuple[Gate, ...]:
    """The rules at the alpha that the candidate's attempt may spend; the verdict on disk names the attempt."""
    named = next((rule for rule in disk.rules if rule.metric == ATTEMPT_METRIC), None) if disk else None
    if named is None or stage == "base":
        return gates
    recipe = read_json(folder / "manifest.json")["document"]["recipe"]
    return Attempt(named.n, "", "", recipe.get("attempts", "spend") == "spend").hold(gates)


def _evidence(
    folder: Path, stage: str, suite: str, samples: list[Sample], gates: Sequence[Gate],
    baseline: tuple[Path, str] | None,
) -> Evidence:  # fmt: skip
    here = folder / "stages"
    asked = {gate.versus for gate in gates if gate.versus and applies(gate, stage)}
    earlier = {
        name: read_samples(here / name / suite / "samples.jsonl") for name in asked if name != BASELINE
    }
    if baseline is not None and BASELINE in asked:
        run, its_stage = baseline
        earlier[BASELINE] = read_samples(run / "stages" / its_stage / suite / "samples.jsonl")
    latency, noise = here / stage / "latency.json", here / stage / suite / "noise.json"
    return Evidence(
        samples, _max_error_frac(folder, suite),
        latencies_ms=[float(ms) for ms in read_json(latency)["ms"]] if latency.exists() else (),
        size_bytes=_size_bytes(folder, stage), earlier=earlier, memory_mb=_memory_mb(folder, stage),
        planned=_planned(here / stage / suite / PLAN), calibration=_calibration(here / stage / suite / CALIBRATION),
        noise=_noise(noise),
    )  # fmt: skip


def _planned(path: Path) -> list[Planned]:
    """The items that a run which could stop early was planned to score; empty for any other."""
    found = read_json(path) if path.exists() else []
    return [Planned(id_, unit, tuple(gold), slices) for id_, unit, gold, slices in found]


def _calibration(path: Path) -> Calibration | None:
    if not path.exists():
        return None
    from harness.evals.calibrate import Calibration

    return Calibration.from_json(read_json(path))


def _memory_mb(folder: Path, stage: str) -> float | None:
    """What was measured of the file that the verdict on disk is about."""
    path, disk = folder / "stages" / stage / "fidelity.json", _verdict_on_disk(folder, stage)
    found = read_json(path) if path.exists() else {}
    is_it = disk is not None and found.get("identity") == disk.identity
    return float(found["child_peak_mb"]) if is_it else None


def _noise(path: Path) -> Noise | None:
    if not path.exists():
        return None
    from harness.evals.repeat import Noise

    return Noise(**read_json(path))


def _max_error_frac(folder: Path, suite: str) -> float:
    document = read_json(folder / "manifest.json").get("document") or {}
    suites = {**(document.get("suites") or {}), suite: document.get("suite") or {}}
    found = (document.get("suites") or suites).get(suite) or {}
    return float(found.get("max_error_frac", _DEFAULT_MAX_ERROR_FRAC))


def _size_bytes(folder: Path, stage: str) -> int | None:
    path = folder / "artifacts" / f"model-{stage}.gguf"
    return path.stat().st_size if path.exists() else None


def _identity(folder: Path, stage: str, samples: Mapping[str, Any]) -> str:
    headers = [read_header(folder / "stages" / stage / suite / "samples.jsonl") for suite in samples]
    return next((header.identity for header in headers if header), "")


def _completed(
    judged: Verdict, disk: Verdict | None, not_here: Sequence[Gate], gates: Sequence[Gate]
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict with what only the run itself could judge, in the order of the verdict on disk."""
    if disk is None:
        return judged, ()
    here = {rule.rule for rule in judged.rules} - {gate.name for gate in not_here}
    over = [rule for rule in disk.rules if rule.rule not in here]
    order = {(rule.suite, rule.rule, rule.slice): place for place, rule in enumerate(disk.rules)}
    rules = sorted(
        (*(rule for rule in judged.rules if rule.rule in here), *over),
        key=lambda rule: order.get((rule.suite, rule.rule, rule.slice), len(order)),
    )
    whole = replace(
        judged, identity=disk.identity, lock=disk.lock, rules=tuple(rules), verdict=combine(rules)
    )
    named = {gate.name for gate in gates}
    kept = dict.fromkeys(rule.rule for rule in over if rule.rule in named)
    return stale(whole, judged.identity or disk.identity, disk.lock), tuple(kept)


def _can_judge(gate: Gate, evidence: Mapping[str, Evidence], only: str) -> bool:
    """Whether all that the rule needs is on disk; the records of a frozen suite are not."""
    shown = evidence.get(gate.suite or only)
    if shown is None or gate.population == "frozen":
        return gate.population != "frozen"
    needs = (
        (gate.design == "sequential", bool(shown.planned)),
        (needs_calibration([gate]), shown.calibration is not None),
        (gate.metric == "memory_mb", shown.memory_mb is not None),
        (gate.versus is not None, bool(shown.earlier.get(gate.versus or ""))),
    )
    return all(is_there for is_asked, is_there in needs if is_asked)


def _numbers(rules: Sequence[RuleVerdict]) -> set[tuple[Any, ...]]:
    return {
        (
            rule.suite,
            rule.rule,
            rule.slice,
            rule.n,
            rule.verdict,
            *(_short(x) for x in (rule.score, rule.low, rule.high)),
        )
        for rule in rules
    }


def _states(rules: Sequence[RuleVerdict]) -> set[tuple[str, ...]]:
    return {(rule.suite, rule.rule, rule.slice, rule.verdict) for rule in rules}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 9)
