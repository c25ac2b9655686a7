"""The commands about what answers on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli_options import Json
from harness.errors import HarnessError


def add_edge(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    app.command()(bench)


def bench(
    target: Annotated[Path, typer.Argument(help="A release folder or a GGUF.", show_default=False)],
    device: Annotated[str, typer.Option(help="The device's name; the release's, or this machine's, by default.")] = "",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads; the release's device's, or all cores, by default.")
    ] = None,
    concurrency: Annotated[str, typer.Option(help="Clients at a time, in the order of the runs.")] = "1,2,4,8",
    requests: Annotated[int, typer.Option(min=1, help="Requests of each run.")] = 20,
    new_tok: Annotated[int, typer.Option("--new-tok", min=1, help="Tokens of each written answer.")] = 32,
    kv: Annotated[str, typer.Option(help="Type of the key-value cache: f16 or q8_0.")] = "f16",
    out: Annotated[Path | None, typer.Option(help="Also write the JSON document to this file.")] = None,
    json_out: Json = False,
) -> None:  # fmt: skip
    """Measures how fast a file answers on this device.

    Time to first token, per token and per answer under each number of clients, cold and with a shared beginning
    at hand; memory; energy where the processor tells.

    Example: harness bench releases/demo-1a2b3c4d --device kiosk --json
    """
    from harness.edge.bench import Load, find_target
    from harness.edge.bench import bench as run_bench
    from harness.files import write_json
    from harness.models.network import usable_threads

    if kv not in ("f16", "q8_0"):
        raise HarnessError(f"--kv {kv}: no such type", hint="f16 or q8_0")
    found = find_target(target)
    load = Load(concurrency=_clients(concurrency), requests=requests, new_tok=new_tok)
    document = run_bench(
        found, load, threads=threads or found.threads or usable_threads(), slots=max(load.concurrency),
        kv="q8_0" if kv == "q8_0" else "f16", device=device,
        on_run=lambda run: typer.echo(_row(run.to_json()), err=True),
    )  # fmt: skip
    if out is not None:
        write_json(out, document)
    typer.echo(json.dumps(document, ensure_ascii=False, indent=1) if json_out else _table(document))


def _clients(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(1 <= clients <= 64 for clients in found):
        raise HarnessError(f"--concurrency {text}: no list of numbers from 1 to 64", hint="such as 1,2,4,8")
    return found


def _table(document: dict[str, Any]) -> str:
    from harness.text import visible

    device, start, peak = document["device"], document["start"], document["memory_peak_mb"]
    name = visible(str(device["name"]), keep_newlines=False)
    lines = [
        f"{name}: {device['cpu']}, {device['threads']} threads, {document['model']['file']}",
        f"ready in {start['ready_ms']:.0f} ms · peak memory {'unknown' if peak is None else f'{peak:.0f} MB'}",
        "kind   state  clients   first p50    p95    p99   token p50    p95   answer p95   tokens/s      joules",
        *map(_row, document["runs"]),
    ]  # fmt: skip
    return "\n".join(lines)


def _row(run: dict[str, Any]) -> str:
    first, token, total = run["first_ms"] or {}, run["per_token_ms"] or {}, run["total_ms"] or {}
    cells = [
        *(_number(first.get(name), 7) for name in ("p50", "p95", "p99")),
        *(_number(token.get(name), 7, 1) for name in ("p50", "p95")),
        _number(total.get("p95"), 10), _number(run["output_tok_s"], 10, 1), _number(run["energy_j_per_answer"], 10, 2),
    ]  # fmt: skip
    return f"{run['kind']:<6} {run['state']:<6} {run['concurrency']:>5}   {' '.join(cells)}"


def _number(value: float | None, width: int, digits: int = 0) -> str:
    return f"{'–' if value is None else f'{value:.{digits}f}':>{width}}"
