"""The commands. Each is thin: what it needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness.cli_gate import add_commands
from harness.cli_options import Data, Json, RecipeFile, RunName
from harness.cli_release import add_release
from harness.cli_review import add_review
from harness.errors import ExitCode, HarnessError, RunDiedError

app = typer.Typer(
    name="harness", no_args_is_help=False, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 pass or done, 1 a gate fails, 2 bad input, 3 inconclusive, 4 the run died, 130 interrupted",
)  # fmt: skip

Detach = Annotated[
    bool, typer.Option("--detach", help="Start the job and return; `harness attach` shows it.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming the same job.")]
Out = Annotated[Path, typer.Option("--out", help="Folder that releases are written to.")]


@app.callback(invoke_without_command=True)
def home(
    context: typer.Context,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters only.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """No model reaches an edge device without statistical proof, on the very file that ships.

    Without a command it opens the terminal. Example: harness release recipes/demo.yaml
    """
    if version:
        from harness import __version__

        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        _open_board(None, plain=not (sys.stdin.isatty() and sys.stdout.isatty()), ascii_only=ascii_only)


@app.command()
def demo(
    json_out: Json = False, detach: Detach = False, fresh: Fresh = False, out: Out = Path("releases")
) -> None:
    """From data to a gated GGUF in minutes.

    Base fails, adapter passes, the same items judge every quant, the smallest that passes is released.

    Example: harness demo
    """
    from harness.specs.load import find_document

    recipe = find_document("recipes/demo.yaml")
    _release(
        recipe,
        None,
        "release",
        out,
        json_out=json_out,
        detach=detach,
        fresh=fresh,
        command=["harness", "demo"],
    )


@app.command()
def release(
    recipe: RecipeFile, data: Data = None, json_out: Json = False, detach: Detach = False, fresh: Fresh = False,
    out: Out = Path("releases"),
) -> None:  # fmt: skip
    """From a recipe to a release folder, gated at every stage.

    Baseline, training, merge, 16-bit GGUF, quants. The same command resumes what was interrupted.

    Example: harness release recipes/legal-cuad.yaml --data ../data
    """
    _release(recipe, data, "release", out, json_out=json_out, detach=detach, fresh=fresh)


@app.command()
def train(
    recipe: RecipeFile,
    data: Data = None,
    json_out: Json = False,
    detach: Detach = False,
    fresh: Fresh = False,
    prove_resume: Annotated[
        int | None,
        typer.Option(
            metavar="STEP", min=1, help="Kill training after this step, resume it, compare every bit."
        ),
    ] = None,
) -> None:
    """The same path up to the gate on the trained adapter.

    `export` and `release` go on from there.

    Example: harness train recipes/demo.yaml --prove-resume 7
    """
    if prove_resume is not None:
        _prove_resume(recipe, data, prove_resume, json_out=json_out)
        return
    _release(recipe, data, "train", Path("releases"), json_out=json_out, detach=detach, fresh=fresh)


def _prove_resume(recipe: Path, data: Path | None, step: int, *, json_out: bool) -> None:
    import tempfile

    from harness.jobs.candidate import train_plan
    from harness.jobs.orders import load_order
    from harness.models.load import resolve_base
    from harness.train.prove import prove_resume

    def note(text: str) -> None:
        typer.echo(text, err=True)

    loaded = load_order(recipe, data)
    plan = train_plan(loaded, resolve_base(loaded.recipe.base, on_progress=note))
    with tempfile.TemporaryDirectory() as scratch:
        proof = prove_resume(plan, step, Path(scratch), note=note)
    if json_out:
        typer.echo(json.dumps(proof.to_json(), indent=1))
    else:
        for check in proof.checks:
            differ = f": {', '.join(check.differ)}" if check.differ else ""
            typer.echo(f"{'✓' if check.is_same else '✗'} {check.what:<17} {check.compared} compared{differ}")
        at = f"epoch {proof.epoch}, batch {proof.batch}, {proof.micro_batches} micro-batches a step"
        typer.echo(f"killed after step {proof.killed_at} ({at}), resumed from step {proof.resumed_from}")
    raise typer.Exit(ExitCode.DONE if proof.is_same else ExitCode.GATE_FAILED)


@app.command()
def export(
    recipe: RecipeFile,
    data: Data = None,
    json_out: Json = False,
    detach: Detach = False,
    fresh: Fresh = False,
) -> None:
    """The same path up to the gated quants.

    Example: harness export recipes/demo.yaml
    """
    _release(recipe, data, "export", Path("releases"), json_out=json_out, detach=detach, fresh=fresh)


@app.command("eval")
def evaluate(
    suite: Annotated[Path, typer.Argument(help="A suite, such as suites/legal/clauses.yaml.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", help="`embedded:…`, a hub id, a checkpoint folder, a GGUF, `openai:URL#NAME`.")
    ],
    split: Annotated[str, typer.Option(help="train, dev, calibration or eval.")] = "eval",
    limit: Annotated[int | None, typer.Option(min=1, help="Only this many records, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw that --limit makes.")] = 17,
    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="Compare with this run on the same items at the end.")
    ] = None,
    repeat: Annotated[
        bool, typer.Option("--repeat/--no-repeat", help="Answer some items again, to measure the noise floor.")
    ] = True,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take answers that the same bytes gave before.")
    ] = True,
    data: Data = None, json_out: Json = False, detach: Detach = False, fresh: Fresh = False,
) -> None:  # fmt: skip
    """Scores one model on one suite.

    Example: harness eval suites/legal/clauses.yaml --model embedded:smollm2-135m --limit 40 --baseline last
    """
    from harness.jobs.orders import SPLITS, order_eval
    from harness.jobs.store import find_run, home_folder
    from harness.specs.suite import Limit
    from harness.watch import work

    if split not in SPLITS:
        raise HarnessError(f"--split {split}: no such split", hint=f"one of {', '.join(SPLITS)}")
    if baseline and detach:
        raise HarnessError("--baseline compares when the run has ended, and --detach does not wait for it")
    before = find_run(home_folder(), baseline) if baseline else None
    folder = order_eval(
        home_folder(), suite, model=model, data_root=data, split=split, fresh=fresh,
        limit=Limit(n=limit, seed=seed) if limit else None, repeat=repeat, cache=cache, command=_twin(),
    )  # fmt: skip
    work(folder, json_out=json_out, detach=detach, baseline=before)


@app.command()
def runs(json_out: Json = False) -> None:
    """All runs, newest first.

    Example: harness runs
    """
    from harness.jobs.store import home_folder, list_runs

    found = list_runs(home_folder())
    if json_out:
        typer.echo(json.dumps([{**info._asdict(), "folder": str(info.folder)} for info in found], indent=1))
        return
    from harness.text import visible

    for info in found:
        row = f"{info.created}  {info.state:<9} {info.verdict or '—':<13} {info.run}"
        typer.echo(visible(row, keep_newlines=False))
    if not found:
        typer.echo(f"no runs in {home_folder()}; start with: harness demo", err=True)


@app.command()
def show(
    run: RunName = "last",
    sample: Annotated[
        str | None, typer.Argument(help="A sample's id, to see its answers at every stage.")
    ] = None,
    json_out: Json = False,
) -> None:
    """What a run, or one sample at each stage, shows.

    Example: harness show last legal-clause-0007
    """
    from harness.jobs.gating import notes_of
    from harness.jobs.store import describe_run, find_run, home_folder
    from harness.jobs.verdicts import sample_documents, stage_documents

    folder = find_run(home_folder(), run)
    if sample:
        answers = sample_documents(folder, sample)
        if json_out:
            typer.echo(json.dumps(answers, ensure_ascii=False, indent=1))
        else:
            from harness.console import print_sample, stdout_console

            print_sample(stdout_console(), answers)
        return
    info = describe_run(folder)
    result = folder / "result.json"
    document = json.loads(result.read_text()) if result.exists() else {"stages": stage_documents(folder)}
    notes = notes_of(folder)
    if json_out:
        shown = {"run": folder.name, "state": info and info.state, **document, "notes": notes}
        typer.echo(json.dumps(shown, indent=1))
    else:
        from harness.console import print_path, stdout_console
        from harness.text import visible

        typer.echo(f"{folder.name}: {info.state if info else 'unreadable'}")
        print_path(stdout_console(), document)
        for note in notes:
            typer.echo(visible(note))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="The baseline: a run's name, its unique beginning, or `last`.")],
    b: Annotated[str, typer.Argument(help="The candidate, named the same way; it may be the same run.")],
    stage: Annotated[str | None, typer.Option(help="A's stage; the last that both have by default.")] = None,
    stage_b: Annotated[str | None, typer.Option(help="B's stage; the same as A's by default.")] = None,
    suite: Annotated[str | None, typer.Option(help="One suite; all that both have by default.")] = None,
    json_out: Json = False,
) -> None:
    """Two runs, or two stages of one, on the same items.

    What was gained and lost, where, whether chance explains it, and what else changed.

    Example: harness compare last last --stage base --stage-b adapter
    """
    from harness.evals.compare import compare as compare_stages
    from harness.jobs.store import find_run, home_folder
    from harness.jobs.verdicts import stages_to_compare

    folders = find_run(home_folder(), a), find_run(home_folder(), b)
    stages = stages_to_compare(*folders, stage, stage_b)
    found = compare_stages(*folders, *stages, suite=suite)
    if json_out:
        typer.echo(json.dumps(found.to_json(), indent=1))
    else:
        from harness.console import stdout_console
        from harness.console_compare import print_comparison

        print_comparison(stdout_console(), found)


@app.command("import")
def import_results(
    files: Annotated[
        list[Path],
        typer.Argument(help="inspect's .eval or .json; lm-eval's results_*.json, samples_*.jsonl.", show_default=False),
    ],
    suite: Annotated[
        Path | None, typer.Option(help="The suite whose items these are: its golds, slices and units count.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The suite's name in the run; by default the task's.")] = None,
    metric: Annotated[str | None, typer.Option(help="The score that counts; by default the first.")] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="Path into a document that becomes a slice; repeatable.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Path to what is independent, such as the patient; by default the item.")
    ] = None,
    data: Data = None, json_out: Json = False, fresh: Fresh = False,
) -> None:  # fmt: skip
    """Results of other tools as a run to show, compare and gate.

    No release can rest on it: a log proves nothing of a model's bytes.

    Example: harness import logs/2026-11-22_task.eval --slice subject
    """
    from harness.formats.log import Wanted
    from harness.jobs.importing import import_files
    from harness.jobs.store import home_folder, read_result

    wanted = Wanted(metric, tuple(slices or ()), unit)
    folder = import_files(
        home_folder(), files, wanted, suite=suite, name=name, data_root=data, command=_twin(), fresh=fresh
    )
    document = read_result(folder)
    if json_out:
        typer.echo(json.dumps({"run": folder.name, **document}, ensure_ascii=False, indent=1))
        return
    from harness.console import print_readings, stdout_console

    for card in document["scorecards"]:
        print_readings(stdout_console(), card)
    typer.echo(folder.name)


@app.command()
def convert(
    run: RunName = "last",
    to: Annotated[str, typer.Option(help="inspect, lm-eval, csv or parquet.")] = "inspect",
    out: Annotated[Path, typer.Option(help="Folder that the files are written to.")] = Path("converted"),
    stage: Annotated[str | None, typer.Option(help="A stage of the run; all by default.")] = None,
    suite: Annotated[str | None, typer.Option(help="A suite of the run; all by default.")] = None,
    json_out: Json = False,
) -> None:
    """A run's samples in the formats of other tools.

    Example: harness convert last --to inspect --out logs
    """
    from harness.jobs.converting import FORMATS
    from harness.jobs.converting import convert as write_files
    from harness.jobs.store import find_run, home_folder

    form = next((known for known in FORMATS if known == to), None)
    if form is None:
        raise HarnessError(f"--to {to}: no such format", hint=f"one of {', '.join(FORMATS)}")
    paths = [
        str(path) for path in write_files(find_run(home_folder(), run), form, out, stage=stage, suite=suite)
    ]
    typer.echo(json.dumps({"files": paths}, ensure_ascii=False) if json_out else "\n".join(paths))


@app.command()
def attach(run: RunName = "last", json_out: Json = False) -> None:
    """Watches a run that works in the background.

    Example: harness attach last
    """
    from harness.jobs.store import find_run, home_folder
    from harness.watch import watch

    watch(find_run(home_folder(), run), json_out=json_out)


@app.command()
def cancel(
    run: RunName = "last",
    now: Annotated[bool, typer.Option("--now", help="Kill it at once instead of after this batch.")] = False,
    json_out: Json = False,
) -> None:
    """Stops a run; what is finished is kept.

    Example: harness cancel last --now
    """
    from harness.jobs import launch
    from harness.jobs.store import find_run, home_folder

    folder = find_run(home_folder(), run)
    said = launch.cancel(folder, now=now)
    typer.echo(json.dumps({"run": folder.name, "now": now, "text": said}) if json_out else said)


@app.command()
def board(
    run: Annotated[str | None, typer.Argument(help="A run's name; all runs by default.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Print the board as text.")] = False,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters only.")] = False,
) -> None:
    """The board of runs and verdicts.

    Example: harness board --plain
    """
    _open_board(run, plain=plain, ascii_only=ascii_only)


def _open_board(run: str | None, *, plain: bool, ascii_only: bool) -> None:
    from harness.jobs.store import find_run, home_folder

    if plain:
        from harness.tui.plain import board as board_text

        name = find_run(home_folder(), run).name if run else None
        typer.echo(board_text(home_folder(), run=name, ascii=ascii_only))
    else:
        from harness.tui.app import run as open_terminal

        open_terminal(home_folder(), ascii=ascii_only)


@app.command()
def web(
    port: Annotated[int, typer.Option(help="A port of the loopback; 0 takes a free one.")] = 0,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters only.")] = False,
) -> None:
    """The terminal in a browser on this machine.

    It answers on the loopback alone, and only who has the token that is in the printed address. From
    another machine: ssh -L PORT:127.0.0.1:PORT HOST

    Example: harness web --port 8300
    """
    from harness.web import serve

    serve(port, ascii_only=ascii_only, say=lambda url: typer.echo(url))


@app.command()
def doctor(json_out: Json = False) -> None:
    """What this machine can do, and what is broken.

    Example: harness doctor
    """
    from harness.doctor import examine

    findings = examine()
    if json_out:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for finding in findings:
            typer.echo(f"{'✓' if finding.is_ok else '✗'} {finding.what:<18} {finding.found}")
            if finding.hint:
                typer.echo(f"  {finding.hint}")
    if not all(finding.is_ok for finding in findings):
        raise typer.Exit(ExitCode.GATE_FAILED)


add_commands(app)
add_release(app)
add_review(app)


def main() -> NoReturn:
    """Runs the command line; errors that a person can mend are shown without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without ✓ shows \\u2713
    try:
        code = app(prog_name="harness", standalone_mode=False)
    except HarnessError as error:
        code = _complain(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _complain(HarnessError(f"{where}{error.strerror or error}"))
    except Exception as error:
        code = _misused(error) if hasattr(error, "format_message") else _broken(error)
    sys.exit(code or ExitCode.DONE)


def _misused(error: Any) -> int:
    """What typer says of a wrong option; its exception class has no public name."""
    context = getattr(error, "ctx", None)
    return _complain(
        HarnessError(error.format_message(), hint=f"{context.command_path} -h" if context else "")
    )


def _broken(error: Exception) -> int:
    """A defect of this program must not look like a gate that fails."""
    import traceback

    traceback.print_exc()
    broken = RunDiedError(f"{type(error).__name__}: {error}", hint="a defect of harness: please report it")
    return _complain(broken)


def _release(
    recipe: Path, data: Path | None, until: Any, out: Path, *, json_out: bool, detach: bool, fresh: bool,
    command: list[str] | None = None,
) -> None:  # fmt: skip
    from harness.data.check import check as find_problems
    from harness.errors import SpecError
    from harness.jobs.orders import order_release
    from harness.jobs.store import home_folder
    from harness.specs.load import find_document
    from harness.watch import work

    if problems := find_problems([recipe], data_root=data):
        raise SpecError(problems)
    folder = order_release(
        home_folder(), find_document(recipe), data_root=data, until=until, out=out, fresh=fresh,
        command=command or _twin(),
    )  # fmt: skip
    work(folder, json_out=json_out, detach=detach)


def _complain(error: HarnessError) -> int:
    """Shows the error, as a document too where one was asked for; its exit code."""
    from harness.errors import SpecError
    from harness.text import visible

    if "--json" in sys.argv:
        problems = [problem._asdict() for problem in error.problems] if isinstance(error, SpecError) else None
        document = {"error": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
        typer.echo(
            json.dumps({**document, **({"problems": problems} if problems else {})}, ensure_ascii=False)
        )
    typer.echo(f"harness: {visible(error.message)}", err=True)
    if error.hint:
        typer.echo(f"  {visible(error.hint)}", err=True)
    return error.exit_code


def _twin() -> list[str]:
    return ["harness", *sys.argv[1:]]
