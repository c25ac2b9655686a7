"""`harness review`: people judge answers, here or on the terminal's review screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli_options import Json, RunName
from harness.errors import DataError

if TYPE_CHECKING:
    from harness.review.corrected import CorrectedRate
    from harness.review.outcome import Outcome

Stage = Annotated[str | None, typer.Option(help="A stage of the run; the last one scored by default.")]
SuiteName = Annotated[str | None, typer.Option("--suite", help="One suite; the first by default.")]
By = Annotated[
    str | None, typer.Option("--by", help="Who judges; $HARNESS_REVIEWER or the account's name by default.")
]


def add_review(app: typer.Typer) -> None:
    """Gives the command line its review command."""
    app.command()(review)


def review(
    run: RunName = "last", stage: Stage = None, suite: SuiteName = None, by: By = None,
    answer: Annotated[str | None, typer.Option(help="A sample's id: judges its answer.")] = None,
    judgement: Annotated[
        str | None, typer.Option(help="right, wrong, unclear, skipped, bad item, or undone.")
    ] = None,
    why: Annotated[str, typer.Option(help="A reason, kept with the judgement.")] = "",
    correction: Annotated[str | None, typer.Option(help="What the right answer would have been.")] = None,
    adjudicate: Annotated[bool, typer.Option("--adjudicate", help="The last word on a disputed answer.")] = False,
    disputed: Annotated[bool, typer.Option("--disputed", help="List answers on which reviewers disagree.")] = False,
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what stands as records, JSONL.")
    ] = None,
    corrected: Annotated[
        int | None,
        typer.Option(metavar="N", help="Correct the scorer by people's words on N random answers; lists them."),
    ] = None,
    json_out: Json = False,
) -> None:  # fmt: skip
    """People judge answers; how well they agree.

    With each other and with the suite's scorer. The terminal's review screen (7) shows the answers one by one.

    Example: harness review last --stage q4_k_m --answer legal-clause-0007 --judgement wrong --why "other party"
    """
    source = _source(run, stage, suite)
    if answer is not None:
        _judge(source, answer, judgement, by, why, correction, adjudicate)
    elif judgement is not None:
        raise DataError("--judgement needs --answer ID", hint="harness review --help")
    found = _outcome(source)
    if records is not None:
        _write_records(source, found, records)
    _print(source, found, disputed=disputed, corrected=corrected, json_out=json_out)


class _Source:
    """The answers that are reviewed, and where the reviews are kept."""

    def __init__(self, folder: Path, stage: str, suite: str, home: Path) -> None:
        from harness.evals.samples import read_samples
        from harness.review.answers import read_reviews, review_path

        self.folder, self.stage, self.suite = folder, stage, suite
        self.samples = [
            one.to_json() for one in read_samples(folder / "stages" / stage / suite / "samples.jsonl")
        ]
        self.path = review_path(home, folder.name, stage, suite)
        self.reviews = read_reviews(self.path)


def _source(run: str, stage: str | None, suite: str | None) -> _Source:
    from harness.jobs.store import find_run, home_folder
    from harness.jobs.verdicts import sampled_stages

    folder = find_run(home_folder(), run)
    stages = sampled_stages(folder)
    chosen = stage or (stages[-1] if stages else None)
    if chosen not in stages:
        scored = ", ".join(stages) or "no stage"
        raise DataError(f"{folder.name} has no samples at stage {chosen!r}; it was scored at {scored}")
    suites = sorted(path.parent.name for path in (folder / "stages" / chosen).glob("*/samples.jsonl"))
    if suite is not None and suite not in suites:
        raise DataError(f"{folder.name} at {chosen} was not scored on {suite!r}, but on {', '.join(suites)}")
    return _Source(folder, chosen, suite or suites[0], home_folder())


def _judge(
    source: _Source, answer: str, judgement: str | None, by: str | None, why: str, correction: str | None,
    adjudicate: bool,
) -> None:  # fmt: skip
    from harness.review.answers import Judgement, read_reviews, reviewer, say

    sample = next((one for one in source.samples if one["id"] == answer), None)
    if sample is None:
        raise DataError(f"{source.folder.name} at {source.stage} has no sample {answer!r}")
    words = [one.value for one in Judgement]
    if judgement not in words:
        raise DataError(f"--judgement is {judgement!r}, wanted one of {', '.join(words)}")
    say(
        source.path, sample, by or reviewer(), Judgement(judgement), why=why, correction=correction,
        is_adjudication=adjudicate,
    )  # fmt: skip
    source.reviews = read_reviews(source.path)


def _outcome(source: _Source) -> Any:
    from harness.review.outcome import outcome_of

    return outcome_of(source.samples, source.reviews)


def _write_records(source: _Source, found: Any, path: Path) -> None:
    from harness.files import read_json, write_atomic
    from harness.review.outcome import to_records
    from harness.tui.inputs import read_inputs

    inputs = {
        id_: text
        for (suite, id_), text in read_inputs(read_json(source.folder / "manifest.json")).items()
        if suite == source.suite
    }
    made = list(to_records(source.samples, found, inputs, run=source.folder.name, stage=source.stage))
    write_atomic(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made))
    typer.echo(f"{len(made)} records in {path}", err=True)


def _print(source: _Source, found: Any, *, disputed: bool, corrected: int | None, json_out: bool) -> None:
    rate = _corrected(source, found, corrected) if corrected is not None else None
    document = {
        "run": source.folder.name, "stage": source.stage, "suite": source.suite, "path": str(source.path),
        "settled": {id_: one.judgement.value for id_, one in found.settled.items()},
        "disputed": list(found.disputed), "outdated": list(found.outdated), "reviewers": found.n_by_reviewer,
        "agreement": [{"a": a, "b": b, **one._asdict()} for (a, b), one in found.between.items()]
        + [{"a": "scorer", "b": name, **one._asdict()} for name, one in found.with_scorer.items()],
        **({"corrected": rate._asdict() | {"interval": rate.interval and rate.interval._asdict()}} if rate else {}),
    }  # fmt: skip
    if json_out:
        typer.echo(json.dumps(document, ensure_ascii=False, indent=1))
        return
    from harness.text import visible

    typer.echo(f"{source.folder.name} · {source.stage} × {source.suite}")
    for name, n in found.n_by_reviewer.items():
        typer.echo(visible(f"  {name}: {n} judged"))
    for row in document["agreement"]:
        typer.echo(visible(f"  {row['a']} and {row['b']}: {_kappa(row)} on {row['n']} answers"))
    typer.echo(
        f"  {len(found.settled)} settled, {len(found.disputed)} disputed, {len(found.outdated)} outdated"
    )
    for id_ in found.disputed if disputed else ():
        typer.echo(visible(f"  disputed: {id_}", keep_newlines=False))
    if rate:
        _print_corrected(rate)


def _corrected(source: _Source, found: Outcome, n: int) -> CorrectedRate:
    from harness.review.corrected import corrected_rate

    return corrected_rate(source.samples, found, n=n)


def _print_corrected(rate: CorrectedRate) -> None:
    from harness.text import visible

    if rate.rate is None or rate.interval is None:
        typer.echo(f"  no corrected rate: {rate.reason}")
    else:
        typer.echo(
            f"  right as people judge: {rate.rate:.3f} [{rate.interval.low:.3f}, {rate.interval.high:.3f}], by the "
            f"scorer {rate.scorer:.3f}; people on {rate.n} of {rate.of}, worth {rate.worth:.0f}"
        )
    for id_ in rate.waiting:
        typer.echo(visible(f"  to judge: {id_}", keep_newlines=False))


def _kappa(row: dict[str, Any]) -> str:
    if row["kappa"] is None:
        return "kappa not defined"
    bounds = f" [{row['low']:.2f}, {row['high']:.2f}]" if row["low"] is not None else ""
    return f"kappa {row['kappa']:.2f}{bounds}"
