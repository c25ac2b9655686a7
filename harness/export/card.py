"""The model card: what a person must know before running the file, with what failed left in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.evals.results import Reading, RuleVerdict, State
from harness.export.modelfile import llama_server
from harness.text import visible

if TYPE_CHECKING:
    from harness.export.release import ReleaseContents

_ESCAPES = str.maketrans({char: f"\\{char}" for char in "\\`*[]<>|"})


def model_card(model_file: str, contents: ReleaseContents) -> str:
    """The card in Markdown."""
    sections = (
        _about(contents), _use(contents), _notes(contents), _waived(contents), _deviations(contents),
        _rules(contents), _slices(contents), _stages(contents), _files(contents), _fidelity(contents),
        _lineage(contents), _running(model_file),
    )  # fmt: skip
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section))) + "\n"


def _about(contents: ReleaseContents) -> Iterator[str]:
    recipe, verdict = contents.recipe, contents.verdicts[contents.picked]
    yield f"# {_inline(recipe['recipe'])} · {contents.picked}"
    yield ""
    if recipe.get("description"):
        yield f"{_inline(recipe['description'])}\n"
    yield f"- verdict: **{verdict.verdict}** on exactly these bytes, sha256 `{contents.gguf_sha256}`"
    yield f"- version: {recipe.get('version', 1)}, domain: {_inline(recipe.get('domain', 'not said'))}"
    yield f"- gate lock: `{contents.lock['digest']}`"


def _use(contents: ReleaseContents) -> Iterator[str]:
    suites = sorted({rule.suite for rule in contents.verdicts[contents.picked].rules})
    yield "## Intended use"
    yield ""
    yield f"What the suites below measure, on text like theirs: {', '.join(map(_inline, suites))}."
    yield "Nothing else was shown. Slices with too few items were reported, not judged: see below."


def _notes(contents: ReleaseContents) -> Iterator[str]:
    if contents.notes:
        yield "## Notes"
        yield ""
        yield from (f"- {_inline(note)}" for note in contents.notes)


def _waived(contents: ReleaseContents) -> Iterator[str]:
    """What a person answers for, before anything that passed."""
    rules = contents.verdicts[contents.picked].rules
    waived = [(rule, rule.waiver) for rule in rules if rule.waiver is not None]
    if waived:
        yield "## Waived: these rules did not pass"
        yield ""
        yield from _table(
            ("rule", "suite", "slice", "it was", "score", "threshold", "who answers", "until", "why"),
            (
                (rule.rule, rule.suite, rule.slice, str(rule.waived or "unknown"), _number(rule.score),
                 _number(rule.threshold), waiver.who, waiver.expires, waiver.why)
                for rule, waiver in waived
            ),
        )  # fmt: skip


def _deviations(contents: ReleaseContents) -> Iterator[str]:
    """What the domain or the constraints oblige and the recipe does not do."""
    deviations = contents.recipe.get("deviations") or ()
    if deviations:
        yield "## Deviations: obliged, and not done"
        yield ""
        yield from _table(("obligation", "why not"), ((one["from"], one["because"]) for one in deviations))


def _rules(contents: ReleaseContents) -> Iterator[str]:
    yield "## What it passed"
    yield ""
    yield from _rule_table(contents.verdicts[contents.picked].rules)


def _rule_table(rules: Iterable[RuleVerdict]) -> Iterator[str]:
    yield from _table(
        ("rule", "suite", "slice", "n", "score", "bounds", "threshold", "verdict", "reason"),
        (
            (rule.rule, rule.suite, rule.slice, str(rule.n), _number(rule.score),
             f"{_number(rule.low)} to {_number(rule.high)}", _number(rule.threshold), str(rule.verdict),
             rule.reason)
            for rule in rules
        ),
    )  # fmt: skip


def _slices(contents: ReleaseContents) -> Iterator[str]:
    for suite, card in contents.scorecards.get(contents.picked, {}).items():
        yield f"## Slices of {_inline(suite)}"
        yield ""
        yield f"{card.n} items, {card.n_errors} errors, {card.n_truncated} cut to their budget. Intervals: 95 %."
        yield ""
        yield from _table(("metric", "slice", "n", "score", "interval"), map(_reading, card.readings))


def _reading(reading: Reading) -> tuple[str, ...]:
    interval = f"{_number(reading.low)} to {_number(reading.high)}"
    return reading.metric, reading.slice, str(reading.n), _number(reading.score), interval


def _stages(contents: ReleaseContents) -> Iterator[str]:
    """Each stage's verdict, and every rule that any stage did not pass."""
    yield "## The path, with what failed"
    yield ""
    states = [f"{stage} {verdict.verdict}" for stage, verdict in contents.verdicts.items()]
    yield " → ".join(states)
    for stage, verdict in contents.verdicts.items():
        open_ones = [rule for rule in verdict.rules if rule.verdict in (State.FAIL, State.INCONCLUSIVE)]
        if open_ones:
            yield f"\n### {stage}\n"
            yield from _rule_table(open_ones)


def _files(contents: ReleaseContents) -> Iterator[str]:
    rows = contents.pick.get("rows", ())
    if rows:
        yield "## Why this file"
        yield ""
        yield from _table(
            ("file", "MB", "", "why"),
            (
                (
                    row["quant"],
                    f"{row['bytes'] / 1e6:.1f}",
                    "picked" if row["is_picked"] else "",
                    row["reason"],
                )
                for row in rows
            ),
        )


def _fidelity(contents: ReleaseContents) -> Iterator[str]:
    if contents.fidelity:
        yield "## Distance of each stage from its parent"
        yield ""
        yield from _table(
            ("stage", "tokens", "mean KL, nats", "max KL", "same top token", "same token ids"),
            (_fidelity_row(stage, found) for stage, found in contents.fidelity.items()),
        )


def _fidelity_row(stage: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    parity = {True: "yes", False: "NO"}.get(found.get("token_parity", "unknown"), "not measured")
    numbers = (_number(found.get(key)) for key in ("n_tok", "mean_kl", "max_kl", "top1"))
    return (stage, *numbers, parity)


def _lineage(contents: ReleaseContents) -> Iterator[str]:
    yield "## Made of"
    yield ""
    for key, value in contents.lineage.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
        yield f"- {_inline(key)}: {_inline(text)}"


def _running(model_file: str) -> Iterator[str]:
    yield "## Running it"
    yield ""
    yield "```sh"
    yield "harness verify . --signed                             # before anything else"
    yield llama_server(model_file)
    yield "ollama create my-model -f Modelfile && ollama run my-model"
    yield "```"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(_inline(cell) for cell in row)} |" for row in rows)


def _inline(text: Any) -> str:
    """Text that stays in its line and its cell, and can't become markup."""
    shown = visible(str(text), keep_newlines=False, limit_chars=500)
    return shown.translate(_ESCAPES)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
