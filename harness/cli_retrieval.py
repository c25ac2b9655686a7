"""The commands about documents that answers stand on: index them, look into an index, search it, measure the search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli_options import Data, Json
from harness.errors import ExitCode, HarnessError

if TYPE_CHECKING:
    from harness.retrieval.index import Flagged, Index

Source = Annotated[
    Path,
    typer.Argument(help="A folder of .md and .txt files, a JSONL file, or an index.", show_default=False),
]
Words = Annotated[int, typer.Option("--words", min=10, max=2000, help="Words of a chunk, at most.")]
SUFFIX = ".index"
MAX_TEXT = 400
"""Characters of a passage that a search shows; `--json` has all."""
index_app = typer.Typer(
    no_args_is_help=True, help="Documents that answers stand on: index, show, search, measure."
)


def add_retrieval(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    for command in (build, show, search, measure):
        index_app.command()(command)
    app.add_typer(index_app, name="index")


def build(
    source: Source,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; SOURCE.index by default.")] = None,
    words: Words = 120,
    flagged: Annotated[
        str, typer.Option("--flagged", help="Chunks that read like orders to a model: keep, leave_out or refuse.")
    ] = "keep",
    json_out: Json = False,
) -> None:  # fmt: skip
    """Writes an index of documents as one file.

    The same documents give the same bytes. Chunks that read like orders to a model are named.

    Example: harness index build suites/support/articles --flagged leave_out
    """
    from harness.retrieval.documents import read_documents
    from harness.retrieval.index import build_index

    index = build_index(read_documents(source), words=words, flagged=_flagged(flagged))
    path = out or source.with_name(source.name + SUFFIX)
    index.write(path)
    if json_out:
        typer.echo(json.dumps({"file": str(path), **_facts(index)}, ensure_ascii=False))
        return
    typer.echo(f"{path}: {_told(index)}")
    _tell_flags(index)


def show(
    source: Source,
    words: Words = 120,
    limit: Annotated[
        int | None, typer.Option("--max", min=0, help="More flagged chunks than this are a failure.")
    ] = None,
    json_out: Json = False,
) -> None:  # fmt: skip
    """What is in an index, or would be in that of a folder: documents, chunks, snapshot, flags.

    Exit code 1 where more chunks than --max are flagged.

    Example: harness index show suites/support/articles --max 0
    """
    index = _index(source, words)
    chunks = {name: sum(chunk.document == name for chunk in index.chunks) for name in index.documents}
    if json_out:
        typer.echo(json.dumps({**_facts(index), "documents": chunks}, ensure_ascii=False))
    else:
        typer.echo(f"{source}: {_told(index)}\nsnapshot {index.snapshot}")
        _tell_flags(index)
    flagged = len({flag.chunk for flag in index.flags})
    raise typer.Exit(ExitCode.GATE_FAILED if limit is not None and flagged > limit else ExitCode.DONE)


def search(
    source: Source,
    query: Annotated[str, typer.Argument(help="What is looked for.", show_default=False)],
    k: Annotated[int, typer.Option("-k", min=1, max=50, help="Passages.")] = 3,
    words: Words = 120,
    json_out: Json = False,
) -> None:  # fmt: skip
    """The best passages for a question, with their places.

    Example: harness index search suites/support/articles "what does evening delivery cost?"
    """
    from harness.text import visible

    index = _index(source, words)
    hits = index.search(query, k)
    if json_out:
        found = [{**hit.chunk._asdict(), "digest": hit.chunk.digest, "score": hit.score} for hit in hits]
        typer.echo(
            json.dumps({"snapshot": index.snapshot, "query": query, "hits": found}, ensure_ascii=False)
        )
        return
    for hit in hits:
        place = f"{visible(hit.chunk.document, keep_newlines=False)}, characters {hit.chunk.start}-{hit.chunk.end}"
        typer.echo(f"[{hit.chunk.id}]  {hit.score:.2f}  {place}")
        typer.echo(f"  {visible(hit.chunk.text, keep_newlines=False, limit_chars=MAX_TEXT)}")
    if not hits:
        typer.echo("nothing found: no passage shares a word with it", err=True)


def measure(
    suite: Annotated[Path, typer.Argument(help="A suite with `retrieval` and scorers of it.", show_default=False)],
    data: Data = None,
    json_out: Json = False,
) -> None:  # fmt: skip
    """What the search of a suite finds: recall@k and MRR over its evaluation records, without any model.

    Example: harness index measure suites/support/retrieval.yaml
    """
    from harness.evals.retrieval import measure_retrieval

    found = measure_retrieval(suite, data)
    if json_out:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    typer.echo(f"{found.suite}: {found.n:,} records, {found.k} passages each, snapshot {found.snapshot[:16]}")
    for name, reading in found.scores.items():
        typer.echo(f"  {name:<28} {reading.mean:.3f}  {_interval(reading)}")
    for name, missed in found.missed.items():
        typer.echo(f"  missed by {name}: {', '.join(missed[:10])}{' …' if len(missed) > 10 else ''}")


def _interval(reading: Any) -> str:
    return "" if reading.low is None else f"[{reading.low:.3f}, {reading.high:.3f}]"


def _index(source: Path, words: int) -> Index:
    from harness.retrieval.documents import read_documents
    from harness.retrieval.index import build_index, open_index

    if source.suffix == SUFFIX and source.is_file():
        return open_index(source)
    return build_index(read_documents(source), words=words)


def _flagged(given: str) -> Flagged:
    if given not in ("keep", "leave_out", "refuse"):
        raise HarnessError(f"--flagged {given}: no such way", hint="one of keep, leave_out, refuse")
    return given  # type: ignore[return-value]


def _facts(index: Index) -> dict[str, Any]:
    return {
        "snapshot": index.snapshot, "n_documents": len(index.documents), "n_chunks": len(index.chunks),
        "flags": [flag._asdict() for flag in index.flags],
    }  # fmt: skip


def _told(index: Index) -> str:
    flagged = len({flag.chunk for flag in index.flags})
    return f"{len(index.documents):,} documents, {len(index.chunks):,} chunks, {flagged:,} flagged"


def _tell_flags(index: Index) -> None:
    from harness.retrieval.index import describe_flags

    if index.flags:
        typer.echo(describe_flags(index.flags))
