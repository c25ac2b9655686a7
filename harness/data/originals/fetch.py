"""From an original to `folder/name/{train,eval}.jsonl`, as suites on public data read it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.originals.base import Draft, Original
from harness.data.originals.sets import ORIGINALS
from harness.errors import DataError
from harness.files import file_written_whole, sha256_file, write_atomic
from harness.text import nearest, visible

HUB = "hub:"
EVAL_FRAC = 0.4
"""Share of the groups that evaluate."""


class Fetched(NamedTuple):
    """What was written."""

    folder: Path
    train: int
    eval: int
    documents: int
    repeated: int
    """Records left out, as their text was there already."""


def fetch(name: str, source: str, target: Path, *, eval_frac: float = EVAL_FRAC) -> Fetched:
    """Writes the set's train.jsonl, eval.jsonl, documents.jsonl where it has documents, and DATA.md below `target`.

    `source` is a folder or a file with the originals, or `hub:owner/name` for a data set in the local hub cache;
    nothing is downloaded. Whole groups (contracts, papers, templates) go to one split, in the order of the sha256 of
    name and group; a text that occurs twice is kept once. Ids follow from what a record says, so they stay the same.

    Raises:
        DataError: no such set, files that are missing or of another form, or a folder that holds the set already.
    """
    original = find_original(name)
    if not 0.0 < eval_frac < 1.0:
        raise DataError(f"the share that evaluates is {eval_frac:g}, wanted between 0 and 1")
    folder = target / original.name
    if folder.exists():
        raise DataError(f"{folder}: is there", hint="name another folder, or remove this one")
    files = find_files(original, source)
    drafts, repeated = _once(_drafts(original, files))
    parts = _split(original.name, drafts, eval_frac)
    if not all(parts.values()):
        raise DataError(
            f"{original.name}: {len(drafts)} records make no two splits", hint="is the original whole?"
        )
    for split, rows in parts.items():
        _write(folder / f"{split}.jsonl", (_record(original.name, draft) for draft in rows))
    documents = {str(d.record["doc_id"]): d.document for d in drafts if d.document is not None}
    if documents:
        _write(folder / "documents.jsonl", ({"doc_id": key, "text": text} for key, text in documents.items()))
    write_atomic(folder / "DATA.md", _card(original, files, folder).encode("utf-8"))
    return Fetched(folder, len(parts["train"]), len(parts["eval"]), len(documents), repeated)


def find_original(name: str) -> Original:
    """The original by `folder/name`, or by its name alone.

    Raises:
        DataError: there is none.
    """
    by_name = {one.rpartition("/")[2]: one for one in ORIGINALS}
    if found := ORIGINALS.get(by_name.get(name, name)):
        return found
    close = nearest(name, [*ORIGINALS, *by_name])
    hint = f"nearest: {close}" if close else f"there are {', '.join(sorted(ORIGINALS))}"
    raise DataError(
        f"no original is called {visible(name, keep_newlines=False, limit_chars=80)!r}", hint=hint
    )


def find_files(original: Original, source: str) -> dict[str, list[Path]]:
    """The original's files below the source, by what they are; of several patterns, those of the first that is met.

    Raises:
        DataError: the source is not there, or has none of some kind.
    """
    root = _root(source)
    found = {kind: _met(root, patterns) for kind, patterns in original.files.items()}
    missing = [" or ".join(original.files[kind]) for kind, paths in found.items() if not paths]
    if missing:
        raise DataError(
            f"{source}: no {'; no '.join(missing)}", hint=f"{original.name} is published at {original.origin}"
        )
    return found


def _root(source: str) -> Path:
    if not source.startswith(HUB):
        path = Path(source).expanduser()
        if not path.exists():
            raise DataError(f"{source}: no such file or folder", hint="--from FOLDER, FILE or hub:owner/name")
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name = source.removeprefix(HUB)
    try:
        return Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        get = f"hf download --repo-type dataset {name}"
        raise DataError(f"{source}: not in the local hub cache", hint=f"with a network: {get}") from error


def _met(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Files that meet the patterns. Plain names are all taken; of patterns with a star, those of the first with any."""
    if root.is_file():
        return [root] if any(root.match(pattern) for pattern in patterns) else []
    plain = [path for name in patterns if "*" not in name for path in sorted(root.rglob(name))]
    starred = (sorted(root.rglob(pattern)) for pattern in patterns if "*" in pattern)
    return next((paths for paths in starred if paths), []) or plain


def _drafts(original: Original, files: Mapping[str, Sequence[Path]]) -> Iterator[Draft]:
    try:
        yield from original.normalise(files)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{original.name}: not the original's form: {error}") from error
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        hint = f"is this what is published at {original.origin}?"
        raise DataError(f"{original.name}: not the original's form: {error!r}", hint=hint) from error


def _once(drafts: Iterable[Draft]) -> tuple[list[Draft], int]:
    """Each text once, the first that came; and how many went."""
    found: dict[str, Draft] = {}
    repeated = 0
    for draft in drafts:
        repeated += found.setdefault(_key(draft.record), draft) is not draft
    return list(found.values()), repeated


def _key(record: Mapping[str, Any]) -> str:
    shown = [record["input"], record.get("context"), record.get("doc_id"), record.get("options")]
    return hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _split(name: str, drafts: Sequence[Draft], eval_frac: float) -> dict[str, list[Draft]]:
    """The drafts by split, in the order of their groups' digests; the first groups evaluate."""
    rank = {group: _digest(name, group) for group in {draft.group for draft in drafts}}
    order = sorted(rank, key=lambda group: (rank[group], group))
    judging = set(order[: round(eval_frac * len(order))])
    ranked = sorted(drafts, key=lambda draft: (rank[draft.group], draft.group))
    return {
        "train": [draft for draft in ranked if draft.group not in judging],
        "eval": [draft for draft in ranked if draft.group in judging],
    }


def _digest(name: str, group: str) -> str:
    return hashlib.sha256(f"{name}:{group}".encode("utf-8", "surrogatepass")).hexdigest()


def _record(name: str, draft: Draft) -> dict[str, Any]:
    short = name.rpartition("/")[2]
    return {"id": f"{short}-{_key(draft.record)[:12]}", **draft.record}


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_written_whole(path) as file:
        file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8") for row in rows)


def _card(original: Original, files: Mapping[str, Sequence[Path]], folder: Path) -> str:
    """Where the records come from, under which licence, and the digests of what was read and written."""
    read = [path for paths in files.values() for path in paths]
    made = sorted(folder.glob("*.jsonl"))
    lines = [
        f"# {original.name}", "", f"Source: {original.origin}. Licence: {original.licence}.", "",
        "| file | bytes | sha256 |", "|---|---|---|",
        *(f"| {path.name} | {path.stat().st_size} | {sha256_file(path)} |" for path in [*read, *made]), "",
        "Whole groups (document, contract, template) are in one split, in the order of sha256(name:group); a text that",
        "occurs twice is kept once. Slices of length, clause group and contract type are the harness's own.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
