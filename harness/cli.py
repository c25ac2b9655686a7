"""The commands. Each is thin: what it needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness.cli_data import add_data
from harness.cli_edge import add_edge
from harness.cli_gate import add_commands
from harness.cli_interop import add_interop
from harness.cli_options import Data, Fresh, Json, RecipeFile, twin
from harness.cli_plan import add_plan
from harness.cli_release import add_release
from harness.cli_retrieval import add_retrieval
from harness.cli_review import add_review
from harness.cli_runs import add_runs, open_board
from harness.cli_serve import add_serve
from harness.errors import ExitCode, HarnessError, RunDiedError

app = typer.Typer(
    name="harness", no_args_is_help=False, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 pass or done, 1 a gate fails, 2 bad input, 3 inconclusive, 4 the run died, 130 interrupted",
)  # fmt: skip

Detach = Annotated[
    bool, typer.Option("--detach", help="Start the job and return; `harness attach` shows it.")
]
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
        open_board(None, plain=not (sys.stdin.isatty() and sys.stdout.isatty()), ascii_only=ascii_only)


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
        limit=Limit(n=limit, seed=seed) if limit else None, repeat=repeat, cache=cache, command=twin(),
    )  # fmt: skip
    work(folder, json_out=json_out, detach=detach, baseline=before)


add_runs(app)
add_interop(app)
add_commands(app)
add_release(app)
add_edge(app)
add_serve(app)
add_review(app)
add_data(app)
add_retrieval(app)
add_plan(app)


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
        command=command or twin(),
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
