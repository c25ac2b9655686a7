"""JSON Schemas of what a person writes, for editors that complete and check YAML.

`python -m harness.specs.schemas docs/schemas` writes them; with `--check` it only looks for drift.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness.specs.base import Document
from harness.specs.device import Device
from harness.specs.gate import Gate
from harness.specs.recipe import Recipe
from harness.specs.suite import Suite

DOCUMENTS: dict[str, type[Document]] = {"suite": Suite, "recipe": Recipe, "gate": Gate, "device": Device}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_text(name: str) -> str:
    """The schema of the document as the file spells it."""
    schema: dict[str, Any] = {"$schema": DIALECT, **DOCUMENTS[name].model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """The files written: one a document."""
    from harness.files import write_atomic

    paths = [folder / f"{name}.json" for name in DOCUMENTS]
    for name, path in zip(DOCUMENTS, paths, strict=True):
        write_atomic(path, schema_text(name))
    return paths


def drifted(folder: Path) -> list[str]:
    """The names of the files that are missing or say something else than the documents do."""
    found = []
    for name in DOCUMENTS:
        path = folder / f"{name}.json"
        if not path.is_file() or path.read_text(encoding="utf-8") != schema_text(name):
            found.append(path.name)
    return found


def main(arguments: list[str]) -> int:
    """0 when written or without drift, 1 with drift, 2 for a wrong call."""
    folders = [argument for argument in arguments if argument != "--check"]
    if len(folders) != 1 or folders[0].startswith("-"):
        sys.stderr.write("usage: python -m harness.specs.schemas [--check] FOLDER\n")
        return 2
    folder = Path(folders[0])
    if "--check" not in arguments:
        write_schemas(folder)
        return 0
    if names := drifted(folder):
        sys.stderr.write(
            f"{', '.join(names)}: drifted; write them with python -m harness.specs.schemas {folder}\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
