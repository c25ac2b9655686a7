"""The commands about data in files: personal data found, replaced, put back; public sets brought into place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli_options import Data, Json
from harness.errors import ExitCode, HarnessError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.data.originals.base import Original
    from harness.privacy.scan import Scan

MAX_PLACES = 40
"""Places that a scan lists; `--json` has all."""

Names = Annotated[
    bool | None,
    typer.Option(
        "--names/--no-names", help="Look for names and addresses too; default: where the extra `pii` is."
    ),
]
KeyFile = Annotated[
    Path, typer.Option("--key-file", help="The key, as `harness data key` writes it.", show_default=False)
]
data_app = typer.Typer(
    no_args_is_help=True, help="Personal data: find, replace, restore; public sets: fetch."
)


def add_data(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    for command in (scan, pseudonymise, restore, key, canaries, fetch):
        data_app.command()(command)
    app.add_typer(data_app, name="data")


def scan(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders or suites.", show_default=False)],
    limit: Annotated[int, typer.Option("--max", min=0, help="More than this is a failure.")] = 0,
    show: Annotated[bool, typer.Option("--show", help="Show what it is, not only where.")] = False,
    names: Names = None, data: Data = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Where personal data is, by kind, file and line.

    Values are shown with --show alone. Exit code 1 where there is more than --max.

    Example: harness data scan suites/support/train.jsonl --max 3
    """
    from harness.privacy.find import finder, finders_used, has_names
    from harness.privacy.scan import scan as find_places

    uses_names = has_names() if names is None else names
    found = find_places(_scanned(paths, data), finder(names=uses_names))
    if json_out:
        document = {
            "files": list(found.files), "n": len(found.places), "kinds": found.kinds, "max": limit,
            "finders": finders_used(names=uses_names),
            "places": [place.to_json(shows=show) for place in found.places],
        }  # fmt: skip
        typer.echo(json.dumps(document, ensure_ascii=False))
    else:
        _print_scan(found, shows=show, uses_names=uses_names)
    raise typer.Exit(ExitCode.GATE_FAILED if len(found.places) > limit else ExitCode.DONE)


def pseudonymise(
    source: Annotated[Path, typer.Argument(help="JSONL, CSV, TSV or text.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    key_file: KeyFile,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="PATH=KIND", help="A field that is personal as a whole, such as name=person."),
    ] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="The way back; OUT.map by default. Files that share one agree.")
    ] = None,
    one_way: Annotated[bool, typer.Option("--one-way", help="Keep no way back, not even for the key.")] = False,
    names: Names = None, json_out: Json = False,
) -> None:  # fmt: skip
    """Puts stand-ins in the place of personal data.

    The same value has the same stand-in everywhere, under the same key. Beside OUT: the report of what was replaced,
    in numbers, and the encrypted map. All else stays as it was, byte for byte.

    Example: harness data pseudonymise tickets.jsonl train.jsonl --key-file ~/tickets.key --field meta.name=person
    """
    from harness.privacy.find import finder, finders_used, has_names
    from harness.privacy.rewrite import map_path
    from harness.privacy.rewrite import pseudonymise as rewrite

    if one_way and map_file is not None:
        raise HarnessError("--one-way keeps no map, and --map names one")
    uses_names = has_names() if names is None else names
    report = rewrite(
        source, out, _key(key_file), finder(names=uses_names), finders=finders_used(names=uses_names),
        fields=_fields(fields or []), way_back=None if one_way else map_file or map_path(out),
    )  # fmt: skip
    if json_out:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    typer.echo(f"{out}: {report['records_changed']:,} of {report['records']:,} records changed")
    for kind, counts in report["kinds"].items():
        typer.echo(f"  {kind:<16} {counts['replaced']:>8,} replaced  {counts['distinct']:>8,} distinct")
    if not uses_names:
        typer.echo("names of people were not looked for: pip install 'dragongate[pii]', or --field", err=True)


def restore(
    pseudonymised: Annotated[Path, typer.Argument(help="What has stand-ins.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    key_file: KeyFile,
    map_file: Annotated[Path | None, typer.Option("--map", help="The way back; FILE.map by default.")] = None,
    json_out: Json = False,
) -> None:  # fmt: skip
    """The file as it was before; needs the key and the map.

    Of another text, such as a model's answers, stand-ins are put back as far as they can be recognised.

    Example: harness data restore train.jsonl tickets.jsonl --key-file ~/tickets.key
    """
    from harness.privacy.rewrite import map_path
    from harness.privacy.rewrite import restore as put_back

    is_whole = put_back(pseudonymised, out, map_file or map_path(pseudonymised), _key(key_file))
    said = (
        "the source, byte for byte"
        if is_whole
        else "another text than the map's: stand-ins put back by the table"
    )
    typer.echo(json.dumps({"out": str(out), "is_source": is_whole}) if json_out else f"{out}: {said}")


def key(
    path: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    json_out: Json = False,
) -> None:
    """Writes a random key that only you can read.

    Who has it and the map can go back; without it nobody can. Keep it away from both.

    Example: harness data key ~/tickets.key
    """
    from harness.privacy.keys import read_key, write_key

    write_key(path)
    made = read_key(path)
    typer.echo(json.dumps({"file": str(path), "key": made.id}) if json_out else f"{path}: key {made.id}")


def canaries(
    source: Annotated[Path, typer.Argument(help="Training records as JSONL.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The training file to write.", show_default=False)],
    suite: Annotated[Path, typer.Option("--suite", help="The suite to write, with its records beside it.")],
    n: Annotated[int, typer.Option("--n", min=1, max=1000, help="Canaries to plant.")] = 8,
    copies: Annotated[int, typer.Option(min=1, max=100, help="Times that each is planted.")] = 1,
    seed: Annotated[int, typer.Option(help="Of what they say and where they stand.")] = 17,
    json_out: Json = False,
) -> None:  # fmt: skip
    """Plants secrets in training data, and writes the suite that asks the tuned model for them.

    What it gives away of them, it gives away of your records.

    Example: harness data canaries train.jsonl planted.jsonl --suite suites/canaries.yaml
    """
    from harness.privacy.canaries import plant

    planted = plant(source, out, suite, n=n, copies=copies, seed=seed)
    if json_out:
        typer.echo(json.dumps(planted._asdict() | {"out": str(out), "suite": str(suite)}))
        return
    typer.echo(f"{out}: {planted.records:,} records, {planted.planted} of them planted ({n} secrets)")
    typer.echo(f"{suite}: asks for each; gate it with {{metric: score, score: keeps_secrets, at_least: …}}")


def fetch(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[SET]", help="Such as legal/cuad_clauses; none lists them.", show_default=False),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="PATH", help="The originals, or hub:owner/name in the local cache.")
    ] = None,
    target: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="What --data will name.")] = None,
    eval_frac: Annotated[float, typer.Option(help="Share of contracts, papers, templates … that evaluate.")] = 0.4,
    json_out: Json = False,
) -> None:  # fmt: skip
    """Writes a public set, from what its authors publish, where suites look for it.

    Nothing is downloaded: without a set it says where each is published, and which files are meant.

    Example: harness data fetch support/banking77 --from banking_data --to data
    """
    from harness.data.originals.fetch import fetch as write_set
    from harness.data.originals.sets import ORIGINALS

    if name is None:
        _print_originals(ORIGINALS, json_out=json_out)
        return
    if source is None or target is None:
        raise HarnessError("a set needs --from, where its originals are, and --to, the folder to write to")
    made = write_set(name, source, target, eval_frac=eval_frac)
    if json_out:
        typer.echo(json.dumps(made._asdict() | {"folder": str(made.folder)}))
        return
    typer.echo(
        f"{made.folder}: {made.train:,} records train, {made.eval:,} evaluate; {made.repeated:,} were repeated"
    )


def _print_originals(originals: Mapping[str, Original], *, json_out: bool) -> None:
    rows = [
        {"set": one.name, "origin": one.origin, "licence": one.licence, "files": one.files}
        for one in originals.values()
    ]
    if json_out:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['set']}: {row['origin']} ({row['licence']})")


def _scanned(paths: list[Path], data_root: Path | None) -> list[Path]:
    """The paths; a suite stands for its files."""
    from harness.data.sources import files_of
    from harness.specs.load import as_suite
    from harness.specs.yaml import read_yaml

    found: list[Path] = []
    for path in paths:
        yaml = read_yaml(path) if path.suffix in (".yaml", ".yml") and path.is_file() else None
        if yaml is None or "suite" not in yaml.data:
            found.append(path)
            continue
        suite = as_suite(yaml)
        if suite.records.public is not None and data_root is None:
            raise HarnessError(
                f"{path}: records of {suite.records.public}", hint="--data FOLDER says where they are"
            )
        found += [one for one in files_of(suite, suite_path=path, data_root=data_root) if one.is_file()]
    return found


def _print_scan(found: Scan, *, shows: bool, uses_names: bool) -> None:
    from harness.text import visible

    for place in found.places[:MAX_PLACES]:
        where = f"{visible(place.file)}:{place.line}"
        field = f" {visible(place.field, keep_newlines=False)}" if place.field else ""
        what = f" {visible(place.text, keep_newlines=False, limit_chars=80)}" if shows else ""
        typer.echo(f"{where}{field}: {place.kind}{what}")
    if len(found.places) > MAX_PLACES:
        typer.echo(f"… and {len(found.places) - MAX_PLACES:,} more: --json has all")
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in found.kinds.items()) or "nothing"
    looked = "by pattern and by model" if uses_names else "by pattern; names were not looked for"
    typer.echo(f"{len(found.files)} file{'s' if len(found.files) != 1 else ''}: {kinds} ({looked})")


def _key(path: Path) -> Any:
    from harness.jobs.store import home_folder
    from harness.privacy.keys import read_key

    return read_key(path.expanduser(), keep_out=home_folder())


def _fields(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        path, separator, kind = one.partition("=")
        if not separator or not path or not kind.isidentifier():
            raise HarnessError(f"--field {one}: wanted PATH=KIND", hint="such as --field meta.name=person")
        found[path] = kind
    return found
