"""The commands that look at runs: lists, samples, comparisons, the terminal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness.cli_options import Json, RunName
from harness.errors import ExitCode


def add_runs(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    for command in (runs, show, compare, attach, cancel, steer, board, monitor, web, doctor):
        app.command()(command)


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


def attach(run: RunName = "last", json_out: Json = False) -> None:
    """Watches a run that works in the background.

    Example: harness attach last
    """
    from harness.jobs.store import find_run, home_folder
    from harness.watch import watch

    watch(find_run(home_folder(), run), json_out=json_out)


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


def steer(
    run: RunName,
    order: Annotated[
        str, typer.Argument(help="pause, go-on, gate, roll-back, or finish: train no further, keep the best.")
    ],
    json_out: Json = False,
) -> None:
    """Tells a run that trains what to do after its step.

    What was asked stands in the journal, in train.json and in the release.

    Example: harness steer last pause
    """
    from harness.errors import DataError
    from harness.jobs.steering import Order
    from harness.jobs.steering import steer as steer_run
    from harness.jobs.store import find_run, home_folder

    if order not in list(Order):
        raise DataError(f"{order!r} is no order", hint=f"one of {', '.join(Order)}")
    folder = find_run(home_folder(), run)
    said = steer_run(folder, Order(order))
    typer.echo(json.dumps({"steered": folder.name, "order": order, "text": said}) if json_out else said)


def board(
    run: Annotated[str | None, typer.Argument(help="A run's name; all runs by default.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Print the board as text.")] = False,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters only.")] = False,
) -> None:
    """The board of runs and verdicts.

    Example: harness board --plain
    """
    open_board(run, plain=plain, ascii_only=ascii_only)


def monitor(
    device: Annotated[
        str | None, typer.Option(help="The device's folder, to show what is installed; $HARNESS_DEVICE.")
    ] = None,
    json_out: Json = False,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters only.")] = False,
) -> None:
    """What answers on this device: servers, requests, who answered, how long it took.

    Read from the request logs of `harness serve`; the terminal shows the same on screen 8.

    Example: harness monitor --device /srv/edge
    """
    import os
    import time

    from harness.jobs.store import home_folder

    if device is not None:
        os.environ["HARNESS_DEVICE"] = device
    if not json_out:
        from harness.tui.plain import monitor as monitor_text

        typer.echo(monitor_text(home_folder(), ascii=ascii_only), nl=False)
        return
    from harness.tui.screens.monitor import installed_on
    from harness.tui.views.monitor import services_of, summary_of

    served = []
    for one in services_of(home_folder()):
        about = {"service": one.folder.name, "release": one.release, "stage": one.stage}
        served.append({**about, **summary_of(one, time.time())._asdict()})
    installed = [one._asdict() for one in installed_on(os.environ.get("HARNESS_DEVICE"))]
    typer.echo(json.dumps({"served": served, "installed": installed}, indent=1))


def open_board(run: str | None, *, plain: bool, ascii_only: bool) -> None:
    from harness.jobs.store import find_run, home_folder

    if plain:
        from harness.tui.plain import board as board_text

        name = find_run(home_folder(), run).name if run else None
        typer.echo(board_text(home_folder(), run=name, ascii=ascii_only))
    else:
        from harness.tui.app import run as open_terminal

        open_terminal(home_folder(), ascii=ascii_only)


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
