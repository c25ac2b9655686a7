"""The commands that let a release answer: behind a socket, and once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli_options import Json
from harness.errors import DataError, ExitCode

if TYPE_CHECKING:
    from harness.edge.served import Release
    from harness.edge.server import Started
    from harness.export.keys import Trust

Served = Annotated[Path, typer.Argument(help="A release folder, or a device's folder.", show_default=False)]
OnDevice = Annotated[
    str | None, typer.Option("--name", help="The model's name on the device, where there are several.")
]
Signer = Annotated[
    Path | None, typer.Option("--key", help="A public key in PEM, which must have signed the release.")
]
Signed = Annotated[bool, typer.Option("--signed", help="Refuse what no key of the trust store signed.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Threads; those of the recipe's device by default.")
]
Kv = Annotated[
    str, typer.Option(metavar="TYPE", help="Key-value cache: f16, or q8_0 where the release passed with it.")
]


def add_serve(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    for command in (serve, ask):
        app.command()(command)


def serve(
    release: Served,
    name: OnDevice = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API key; else $HARNESS_SERVE_KEY, else one is made up and shown."),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the key for /admin; else $HARNESS_ADMIN_KEY, else /admin is closed."),
    ] = None,
    escalate: Annotated[
        str | None,
        typer.Option(metavar="openai:URL#NAME", help="Who is asked what the device is not sure of."),
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(help="A guard for chats: pii, numbers, names, quotes. May be given again."),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A LoRA GGUF, asked for as model NAME. May be given again."),
    ] = None,
    threads: Threads = None,
    context: Annotated[int | None, typer.Option(min=64, help="Tokens that one request may take.")] = None,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Requests computed side by side.")] = 8,
    waiting: Annotated[int, typer.Option(min=0, max=4096, help="Requests that may wait for a slot.")] = 56,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens that a request may ask for.")] = 1024,
    max_body: Annotated[int, typer.Option(min=1024, help="Most bytes of a request's body.")] = 2**20,
    seconds: Annotated[float, typer.Option(min=0.1, help="Most time for one answer.")] = 60.0,
    drain: Annotated[float, typer.Option(min=0.0, help="Seconds that running answers get at the end.")] = 30.0,
    kv: Kv = "f16",
    log_text: Annotated[
        bool, typer.Option("--log-text", help="Log questions and answers, with personal data masked.")
    ] = False,
    key: Signer = None,
    signed: Signed = False,
    json_out: Json = False,
) -> None:  # fmt: skip
    """Serves a verified release: OpenAI's API, the suites' own questions, metrics.

    What the device is not sure of, or what a guard holds back, goes to the server model or to people. A device's folder
    is followed: `harness install` and `harness rollback` switch what is served, and no request is dropped.

    Example: harness serve releases/demo-1a2b3c4d --port 8080
    """
    from harness.edge.limits import Limits
    from harness.edge.opening import engine_opener, read_adapters
    from harness.edge.server import ADMIN_VARIABLE, KEY_VARIABLE, Options, read_key
    from harness.edge.server import serve as run_server
    from harness.jobs.store import home_folder

    home = home_folder()
    limits = Limits(
        body_bytes=max_body, new_tok=max_tokens, default_new_tok=min(256, max_tokens), running=slots,
        waiting=waiting, request_s=seconds,
    )  # fmt: skip
    options = Options(
        folder=release, trust=_trust(key, signed), home=home, name=name, host=host, port=port,
        key=read_key(key_file, KEY_VARIABLE), admin_key=read_key(admin_key_file, ADMIN_VARIABLE), escalate=escalate,
        guards=tuple(guard or ()), has_text=log_text, limits=limits, drain_s=drain,
    )  # fmt: skip
    opener = engine_opener(
        threads=threads, slots=slots, context_tok=context, kv=_kv(kv), prefixes=home / "serving" / "prefixes",
        adapters=read_adapters(_pairs(adapter or [])), note=_note,
    )  # fmt: skip
    run_server(options, opener, lambda started: _tell_started(started, json_out))


def ask(
    release: Served,
    text: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    suite: Annotated[str | None, typer.Option(help="Ask as this suite of the release asks.")] = None,
    context: Annotated[
        Path | None, typer.Option(help="With --suite: a file with the text that the answer must stand on.")
    ] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", metavar="KEY=VALUE", help="With --suite. May be given again.")
    ] = None,
    system: Annotated[str, typer.Option(help="Without --suite: the system message.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, max=8192, help="Most tokens of the answer.")] = 256,
    name: OnDevice = None,
    threads: Threads = None,
    kv: Kv = "f16",
    key: Signer = None,
    signed: Signed = False,
    json_out: Json = False,
) -> None:  # fmt: skip
    """Asks a verified release once.

    Exits with 3 where the answer was held back: the model is not sure enough, or a guard stands in the way.

    Example: harness ask releases/demo-1a2b3c4d "Either party may end this on 30 days' notice." --suite legal-clauses
    """
    from harness.edge.asked_once import ask_once
    from harness.edge.opening import engine_opener
    from harness.text import visible

    opener = engine_opener(threads=threads, slots=1, kv=_kv(kv), note=_note)
    found = ask_once(
        _look(release, name, _trust(key, signed)), opener, text, suite=suite, system=system,
        context=context.read_text(encoding="utf-8") if context else "",
        slices=_split(slices or [], "--slice"), max_new_tokens=max_tokens,
    )  # fmt: skip
    if json_out:
        typer.echo(json.dumps(found.document, ensure_ascii=False, indent=1))
    else:
        typer.echo(visible(found.text), err=not found.is_given)
        typer.echo(_facts_row(found.document), err=True)
    raise typer.Exit(ExitCode.DONE if found.is_given else ExitCode.INCONCLUSIVE)


def _look(folder: Path, name: str | None, trust: Trust) -> Release:
    from harness.edge.served import is_device, open_installed, open_release

    return open_installed(folder, trust, name=name) if is_device(folder) else open_release(folder, trust)


def _trust(pem: Path | None, is_demanded: bool) -> Trust:
    from harness.export.keys import KeyStore, trust_of

    return trust_of(KeyStore(), pem, is_demanded=is_demanded)


def _kv(kv: str) -> Literal["f16", "q8_0"]:
    if kv not in ("f16", "q8_0"):
        raise DataError(f"--kv {kv}: no such type", hint="f16 or q8_0")
    return "q8_0" if kv == "q8_0" else "f16"


def _split(pairs: list[str], option: str) -> dict[str, str]:
    found = dict(pair.partition("=")[::2] for pair in pairs)
    if len(found) < len(pairs) or not all(name and value for name, value in found.items()):
        raise DataError(f"{option}: wanted NAME=VALUE, each name once", hint=f"{option} NAME=VALUE")
    return found


def _pairs(adapters: list[str]) -> dict[str, Path]:
    return {name: Path(path) for name, path in _split(adapters, "--adapter").items()}


def _note(text: str) -> None:
    from harness.text import visible

    typer.echo(visible(text, keep_newlines=False), err=True)


def _tell_started(started: Started, json_out: bool) -> None:
    from harness.text import visible

    release = started.release
    facts = {
        "url": started.url, "key": started.key, "recipe": release.recipe, **release.source(),
        "signature": release.signature, "suites": sorted(release.questions),
    }  # fmt: skip
    if json_out:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    typer.echo(f"{started.url}  {release.recipe} {release.stage}, release {release.digest[:16]}…")
    typer.echo(visible(release.signature, keep_newlines=False))
    typer.echo(f"suites: {', '.join(sorted(release.questions)) or 'none in this release'}")
    if started.key is not None:
        typer.echo(f"API key, shown this once: {started.key}")


def _facts_row(document: dict[str, object]) -> str:
    shown = (
        "band",
        "confidence",
        "set",
        "reason",
        "guard",
        "route",
        "stage",
        "prompt_tok",
        "output_tok",
        "total_ms",
    )
    cells = [(key, document.get(key)) for key in shown]
    return " · ".join(f"{key} {_short(value)}" for key, value in cells if value is not None)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
