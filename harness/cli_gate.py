"""The commands about rules: look at them before a run, freeze them, ask them, answer for one that blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli_options import Data, Json, RunName
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.jobs.gating import Standing
    from harness.jobs.regate import Rules


def add_commands(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    for command in (check, lock, gate, waive):
        app.command()(command)


def check(
    documents: Annotated[list[Path], typer.Argument(help="Recipes and suites.", show_default=False)],
    data: Data = None, json_out: Json = False,
    show: Annotated[
        int, typer.Option("--show", min=0, help="Training examples shown token by token, with what carries loss.")
    ] = 0,
) -> None:  # fmt: skip
    """Finds all problems of recipes and suites at once.

    With file and line, and what each rule of a recipe can see on its records; loads no model, and for `--show`
    a tokenizer alone.

    Example: harness check recipes/*.yaml
    """
    from harness.data.check import check as find_problems
    from harness.errors import SpecError
    from harness.jobs.curves import curves_of

    problems = find_problems(documents, data_root=data)
    if problems:
        raise SpecError(problems)
    curves, shown = curves_of(documents, data), {}
    if show:
        from harness.jobs.showing import shown_by_recipe

        shown = shown_by_recipe(documents, data, show)
    if json_out:
        found = {recipe: [curve.to_json() for curve in rules] for recipe, rules in curves.items()}
        more = (
            {"examples": {name: [one._asdict() for one in some] for name, some in shown.items()}}
            if show
            else {}
        )
        typer.echo(json.dumps({"problems": [], "curves": found, **more}, ensure_ascii=False))
        return
    from harness.console import stdout_console
    from harness.console_gate import print_curves
    from harness.console_show import print_shown

    for recipe, rules in curves.items():
        print_curves(stdout_console(), recipe, rules)
    for recipe, examples in shown.items():
        print_shown(stdout_console(), recipe, examples)
    typer.echo(f"{len(documents)} document{'s' if len(documents) > 1 else ''} without problems")


def lock(
    document: Annotated[Path, typer.Argument(help="A recipe or a suite.", show_default=False)],
    only_check: Annotated[bool, typer.Option("--check", help="Look only whether anything has changed.")] = False,
    data: Data = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Freezes what a gate stands on.

    Thresholds, data, template, scorers and calibration, in a lock file beside the document.

    Every run of it must then stand on what was frozen.

    Example: harness lock recipes/demo.yaml
    """
    from harness.evals.lock import lock_file_of, require_frozen, write_lock_file
    from harness.jobs.freezing import lock_of
    from harness.specs.load import find_document

    path = find_document(document)
    found = lock_of(path, data)
    if only_check:
        if not lock_file_of(path).exists():
            raise HarnessError(f"{lock_file_of(path)}: no such file", hint=f"harness lock {document}")
        require_frozen(path, found)
    else:
        write_lock_file(path, found)
    if json_out:
        typer.echo(json.dumps({"file": str(lock_file_of(path)), "lock": found}))
    else:
        said = "nothing has changed" if only_check else "frozen"
        typer.echo(f"{lock_file_of(path)}: {said}, {found['digest'][:16]}…")


def gate(
    run: RunName = "last",
    stage: Annotated[str | None, typer.Option(help="A stage of the run; the last one judged by default.")] = None,
    rules: Annotated[
        Path | None, typer.Option("--gates", "--recipe", help="Ask the rules of this recipe or file of `gates`.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="Compare with this run; rules may say `versus: baseline`.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show where the wrong items are.")] = False,
    json_out: Json = False,
    junit: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write all stages, or --stage, as JUnit XML; - is stdout."),
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write them as a pull-request comment; - is stdout.")
    ] = None,
) -> None:  # fmt: skip
    """What the rules say today; the exit code is the verdict.

    Judged again from the samples.

    Example: harness gate last --stage q4_k_m --junit gate.xml --markdown comment.md
    """
    from harness.jobs.gating import file_rules, stand
    from harness.jobs.store import find_run, home_folder

    folder = find_run(home_folder(), run)
    asked = None if rules is None else file_rules(folder, rules)
    other = None if baseline is None else find_run(home_folder(), baseline)
    found: Standing | None = None
    try:
        found = stand(folder, stage, rules=asked, baseline=other, explains=explain or json_out)
    finally:  # a run without a verdict is an error in its reports
        _write_reports(folder, stage, found, asked, junit=junit, markdown=markdown, json_out=json_out)
    if json_out:
        typer.echo(json.dumps(_document(found), ensure_ascii=False, indent=1))
    elif "-" not in (junit, markdown):
        from harness.console import stdout_console
        from harness.console_gate import print_standing

        print_standing(stdout_console(), _document(found), found, explain=explain)
    raise typer.Exit(found.exit_code)


def waive(
    run: RunName,
    rule: Annotated[str, typer.Argument(help="The rule's name, as `harness gate` shows it.", show_default=False)],
    who: Annotated[str, typer.Option(help="Who answers for it, by name.", show_default=False)],
    why: Annotated[str, typer.Option(help="Why the run may go on without it.", show_default=False)],
    until: Annotated[str, typer.Option(metavar="DATE", help="The last day on which it holds.", show_default=False)],
    suite: Annotated[str | None, typer.Option(help="The rule's suite, where several have it.")] = None,
    slice_name: Annotated[str | None, typer.Option("--slice", help="One slice; all of them by default.")] = None,
    json_out: Json = False,
) -> None:  # fmt: skip
    """Lets a run go on without a rule, by name.

    In sight of everybody, until a date; never a rule that is binding.

    Example: harness waive last "accuracy per style at least 0.5" --who "A. Lee" --why "20 contracts" --until 2027-01-31
    """
    from harness.evals.results import Waiver
    from harness.evals.waivers import add_waiver, describe_waiver, require_waivable
    from harness.jobs.gating import waivable_rules
    from harness.jobs.regate import rules_of
    from harness.jobs.store import find_run, home_folder

    folder = find_run(home_folder(), run)
    own = rules_of(folder)
    gates = own.gates if own else ()
    require_waivable(rule, [gate.name for gate in gates if gate.binding], [gate.name for gate in gates])
    blocking = waivable_rules(folder)
    named = suite or next((found.suite for found in blocking if found.rule == rule), own.only if own else "")
    waiver = Waiver(rule, named, slice_name, who, why, until)
    add_waiver(folder, waiver, waivable=blocking)
    said = describe_waiver(waiver)
    typer.echo(json.dumps({"run": folder.name, "text": said}, ensure_ascii=False) if json_out else said)


def _document(found: Standing) -> dict[str, Any]:
    from harness.jobs.verdicts import stage_document, whole_stage

    suites = dict.fromkeys(rule.suite for rule in found.verdict.rules)
    documents = [stage_document(found.verdict, suite) for suite in suites]
    return {**whole_stage(documents), **found.to_json()}


def _write_reports(
    folder: Path, stage: str | None, found: Standing | None, asked: Rules | None, *, junit: str | None,
    markdown: str | None, json_out: bool,
) -> None:  # fmt: skip
    """Writes the reports that were asked for; also for a run without a verdict, which is an error in them."""
    from harness.formats.report import STDOUT, deliver
    from harness.jobs.verdicts import report_of

    if [junit, markdown].count(STDOUT) + json_out > 1:
        raise HarnessError("stdout can take one document, and is asked to take several", hint="name a file")
    if junit is None and markdown is None:
        return
    from harness.formats.junit import junit as junit_text
    from harness.formats.markdown import markdown as markdown_text

    report = report_of(folder, stage, today=found.verdict if found else None, only_today=asked is not None)
    for target, text_of in ((junit, junit_text), (markdown, markdown_text)):
        if target is not None:
            deliver(text_of(report), target)
