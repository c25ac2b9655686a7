"""What `harness gate` says of a run: its verdict as it stands today, what has changed since, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, HarnessError
from harness.evals.explain import Explanation, explain, worst_decided
from harness.evals.gate import combine
from harness.evals.lock import DECIDING_ROOMS, check_lock, code_digest, lock_file_of, read_lock_file
from harness.evals.results import RuleVerdict, State, Verdict
from harness.evals.waivers import apply_waivers, describe_waiver, read_waivers
from harness.files import read_json
from harness.jobs.regate import Judged, Rules, judge_again, rules_of
from harness.jobs.seals import changed_sources, changes_since
from harness.jobs.verdicts import sampled_stages, stage_verdicts

if TYPE_CHECKING:
    from harness.evals.compare import Comparison

EXIT_CODES = {State.PASS: 0, State.WAIVED: 0, State.FAIL: 1}
"""Everything else is 3: it blocks, and more must be done to know."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A stage's verdict today."""

    verdict: Verdict
    stale: tuple[str, ...]
    """What has changed since the verdict was given; it then blocks."""
    waivers: tuple[str, ...]
    """All waivers of the run in words, the void ones too."""
    kept: tuple[str, ...]
    """Rules whose evidence is more than samples: shown as they were judged."""
    worst: RuleVerdict | None
    explanations: tuple[Explanation, ...]
    comparison: Comparison | None
    """With the baseline; None where none was named."""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES.get(self.verdict.verdict, 3)

    def to_json(self) -> dict[str, Any]:
        """What `--json` says beside the stage's document."""
        return {
            "stale": list(self.stale), "waivers": list(self.waivers), "as_judged": list(self.kept),
            "worst": None if self.worst is None else {
                key: getattr(self.worst, key) for key in ("suite", "rule", "slice", "n", "score", "reason", "needed")
            },
            "explanations": [one.to_json() for one in self.explanations],
            "baseline": None if self.comparison is None else self.comparison.to_json(),
        }  # fmt: skip


def stand(
    folder: Path, stage: str | None = None, *, rules: Rules | None = None, baseline: Path | None = None,
    explains: bool = False,
) -> Standing:  # fmt: skip
    """The stage's verdict, judged again from its samples; the last stage's without a name.

    `rules` are asked instead of the run's own; `baseline` is the folder of a run to compare with; wrong items are
    grouped where it `explains`.

    Raises:
        DataError: no such stage, or neither a verdict nor rules.
        IntegrityError: TAMPERED: the lock file beside the recipe is not what the run stands on.
    """
    name = _stage(folder, stage, is_judged=rules is None)
    check_lock_file(folder)
    base_stage = None if baseline is None else _stage(baseline, None, is_judged=False)
    pair = None if baseline is None or base_stage is None else (baseline, base_stage)
    judged = _judged(folder, name, rules, pair)
    stale = () if rules is not None else tuple(_what_changed(folder, name, judged))
    verdict = judged.verdict
    if stale and verdict.verdict is not State.FAIL:
        verdict = replace(verdict, verdict=State.STALE)
    return Standing(
        verdict, stale, tuple(map(describe_waiver, read_waivers(folder))), judged.kept, worst_decided(verdict),
        tuple(explain(suite, found) for suite, found in judged.samples.items() if explains),
        _compared(folder, name, pair),
    )  # fmt: skip


def file_rules(folder: Path, path: Path) -> Rules:
    """The rules of a file for the run; those without a suite read the run's first one.

    Raises:
        SpecError: all problems of the file.
    """
    from harness.specs.load import load_gates

    own = rules_of(folder)
    return Rules(load_gates(path), own.only if own else "")


def check_lock_file(folder: Path) -> None:
    """Returns when the run stands on the lock that was frozen beside its recipe, or none was.

    Raises:
        IntegrityError: TAMPERED, with the parts that differ.
    """
    recipe = (read_json(folder / "manifest.json").get("options") or {}).get("recipe")
    path = folder / "lock.json"
    if recipe is None or not path.exists() or not lock_file_of(Path(recipe)).exists():
        return
    check_lock(read_lock_file(Path(recipe)), read_json(path), where=lock_file_of(Path(recipe)))


def notes_of(folder: Path) -> list[str]:
    """What a reader of the run's verdicts must know: files that changed since, by stage, and all waivers."""
    stale = [
        f"{State.STALE} {verdict.stage}: {change}"
        for verdict in stage_verdicts(folder)
        for change in changes_since(folder, verdict.stage)
    ]
    return [*stale, *map(describe_waiver, read_waivers(folder))]


def waivable_rules(folder: Path) -> list[RuleVerdict]:
    """The rules that block any stage of the run as measured, and that a person may waive."""
    found = rules_of(folder)
    free = {gate.name for gate in found.gates if not gate.binding} if found else set()
    blocking = (State.FAIL, State.INCONCLUSIVE)
    return [
        rule
        for verdict in stage_verdicts(folder)
        for rule in verdict.rules
        if rule.verdict in blocking and rule.rule in free
    ]


def _stage(folder: Path, wanted: str | None, *, is_judged: bool) -> str:
    known = [verdict.stage for verdict in stage_verdicts(folder)] if is_judged else sampled_stages(folder)
    if not known and is_judged and sampled_stages(folder):
        raise DataError(
            f"{folder.name} was scored and not gated: it has no rules of its own",
            hint=f"harness gate {folder.name} --gates FILE",
        )
    if not known or wanted not in (None, *known):
        raise DataError(
            f"{folder.name} has no verdict for {wanted or 'any stage'}", hint=f"harness show {folder.name}"
        )
    return wanted or known[-1]


def _judged(folder: Path, stage: str, rules: Rules | None, baseline: tuple[Path, str] | None) -> Judged:
    """Judged again; where the samples are gone, the verdict on disk with what is waived today."""
    if any((folder / "stages" / stage).glob("*/samples.jsonl")):
        return judge_again(folder, stage, rules=rules, baseline=baseline)
    disk = next(verdict for verdict in stage_verdicts(folder) if verdict.stage == stage)
    own = rules_of(folder)
    waivable = [gate.name for gate in own.gates if not gate.binding] if own else []
    every = tuple(dict.fromkeys(rule.rule for rule in disk.rules))
    return Judged(apply_waivers(disk, read_waivers(folder), waivable, combine), disk, {}, every, None)


def _what_changed(folder: Path, stage: str, judged: Judged) -> list[str]:
    found = changes_since(folder, stage)
    if changed := changed_sources(folder, stage):
        found += _lock_changes(folder, changed)
    if judged.is_same is False:
        lock = folder / "lock.json"
        code = read_json(lock).get("code") if lock.exists() else None
        if code == code_digest(DECIDING_ROOMS):
            found.append("the verdict on disk does not follow from the samples")
        elif not judged.has_same_states:
            found.append("the deciding code is another one, and decides otherwise")
    return found


def _lock_changes(folder: Path, changed: Sequence[Path]) -> list[str]:
    """Sources whose bytes changed count only where what they mean did: a comment in a recipe changes nothing."""
    from harness.jobs.orders import load_order

    options = read_json(folder / "manifest.json")["options"]
    root = options.get("data_root")
    try:
        now = load_order(Path(options["recipe"]), Path(root) if root else None).lock
        taken = read_json(folder / "lock.json")
        # The code is looked at by what it decides.
        check_lock({**taken, "code": "", "digest": ""}, {**now, "code": "", "digest": ""})
    except HarnessError as error:
        return [f"{', '.join(map(str, changed))}: {error.message}"]
    return []


def _compared(folder: Path, stage: str, baseline: tuple[Path, str] | None) -> Comparison | None:
    if baseline is None:
        return None
    from harness.evals.compare import compare

    return compare(baseline[0], folder, baseline[1], stage)
