"""An adapter that an earlier run trained, where nothing that trains has changed but documents.

Knowledge that changes is in documents, and an adapter learns how to answer from passages. When documents are swapped,
the gates run anew on the new snapshot, and the adapter is the one that there is: its training passages were those of
the earlier snapshot, which the release says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.lineage import snapshot_of_records
from harness.errors import HarnessError
from harness.evals.lock import code_digest
from harness.files import digest_json, folder_written_whole, read_json, sha256_file
from harness.jobs.candidate import train_plan
from harness.jobs.orders import MAKING_ROOMS, Loaded
from harness.train.plan import plan_digest

ADAPTER = Path("train") / "adapter"


class Trained(NamedTuple):
    """A finished training of an earlier run."""

    run: str
    folder: Path
    """Of the adapter."""
    facts: dict[str, Any]
    """Its train.json."""


def besides_documents(loaded: Loaded, base: Path, base_identity: str) -> str | None:
    """The digest of all that training depends on but for retrieved passages; None where the first suite retrieves none.

    Base, settings, examples without their context, the recipe's own files, and the code that makes things.
    """
    first = loaded.first
    if loaded.suites[first].retrieval is None or not loaded.recipe.tune.trains:
        return None
    bare = {
        split: [replace(record, context="", retrieved=None) for record in records]
        for split, records in loaded.splits[first].items()
    }
    plan = train_plan(loaded._replace(splits={**loaded.splits, first: bare}), base)
    return digest_json([plan_digest(plan, base_identity), code_digest(MAKING_ROOMS)])


def find_trained(runs: Path, key: str, *, but: str) -> Trained | None:
    """The newest earlier training with this key whose adapter is, byte for byte, what it wrote; None for none.

    One that a person steered is left out: the recipe alone does not give its adapter.
    """
    found = [one for one in _finished(runs, key) if one.run != but and not one.facts.get("orders")]
    newest = sorted(found, key=lambda one: _created(runs / one.run), reverse=True)
    return next((one for one in newest if adapter_digest(one.folder) == one.facts["adapter_sha256"]), None)


def take_over(found: Trained, run: Path) -> Path:
    """The adapter, copied whole into the run."""
    target = run / ADAPTER
    with folder_written_whole(target) as part:
        shutil.copytree(found.folder, part, dirs_exist_ok=True)
    return target


def facts_for_reuse(loaded: Loaded, key: str, adapter: Path) -> dict[str, Any]:
    """What a training run writes down so that a later one can take its adapter over."""
    snapshot = snapshot_of_records({split: loaded.splits[loaded.first][split] for split in ("train", "dev")})
    return {
        "besides_documents": key, "adapter_sha256": adapter_digest(adapter), "documents_snapshot": snapshot,
    }  # fmt: skip


def adapter_digest(folder: Path) -> str | None:
    """The digest of the folder's files, by name and bytes; None where there is no such folder."""
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_json([[str(path.relative_to(folder)), sha256_file(path)] for path in files])


def _finished(runs: Path, key: str) -> Iterator[Trained]:
    for path in runs.glob("*/train.json"):
        try:
            facts = read_json(path)
        except HarnessError:
            continue  # a run that was damaged is none to build on
        if isinstance(facts, dict) and facts.get("besides_documents") == key:
            yield Trained(path.parent.name, path.parent / ADAPTER, facts)


def _created(run: Path) -> str:
    try:
        return str(read_json(run / "manifest.json").get("created", ""))
    except HarnessError:
        return ""
