"""The bill of materials, held against CycloneDX's own schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.export.bom import BOM
from harness.export.release import ReleaseContents, write_release
from harness.files import sha256_file
from tests.export.releases import LINEAGE, make_contents

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib comes with the dev extra")


@pytest.fixture
def contents(tmp_path: Path) -> ReleaseContents:
    return make_contents(tmp_path)


def written(contents: ReleaseContents, folder: Path) -> dict[str, Any]:
    path = write_release(folder, contents).folder / BOM
    assert errors(path.read_text()) is None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def errors(text: str) -> object:
    """What the official JSON schema, in its strict form, finds wrong; None for nothing."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_it_is_valid_and_names_the_file_that_ships(contents: ReleaseContents, tmp_path: Path) -> None:
    bom = written(contents, tmp_path / "release")

    model = bom["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": sha256_file(contents.gguf)}]
    assert model["modelCard"]["modelParameters"]["modelArchitecture"] == "llama"
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics[0]["confidenceInterval"] == {"lowerBound": "0.85", "upperBound": "0.94"}


def test_data_base_and_libraries_are_components_that_the_model_depends_on(
    contents: ReleaseContents, tmp_path: Path
) -> None:
    bom = written(contents, tmp_path / "release")

    by_ref = {part["bom-ref"]: part for part in bom["components"]}
    assert by_ref["data:clauses/train.jsonl"]["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert by_ref["pkg:pypi/numpy@2.4.6"]["version"] == "2.4.6"
    assert by_ref["base"]["name"] == "tiny"
    depends = next(row for row in bom["dependencies"] if row["ref"] == "model")
    assert set(depends["dependsOn"]) == set(by_ref)


def test_hostile_text_is_valid_and_shows_as_text(contents: ReleaseContents, tmp_path: Path) -> None:
    recipe = {**contents.recipe, "description": "\x1b]0;owned\x07\u202e <script>"}
    lineage = {**LINEAGE, "base": {"reference": "\x1b[2J", "digest": "a" * 64}, "libraries": {"a b/c": "1?x"}}

    bom = written(replace(contents, recipe=recipe, lineage=lineage, notes=("\x9b2J",)), tmp_path / "release")

    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(json.dumps(bom, ensure_ascii=False))


def test_a_licence_is_stated_where_the_lineage_has_one_and_never_guessed(
    contents: ReleaseContents, tmp_path: Path
) -> None:
    assert "licenses" not in json.dumps(written(contents, tmp_path / "one"))
    base = {**LINEAGE["base"], "licence": "Apache-2.0"}  # type: ignore[dict-item]

    bom = written(replace(contents, lineage={**LINEAGE, "base": base}), tmp_path / "two")

    assert bom["components"][0]["licenses"] == [{"license": {"name": "Apache-2.0"}}]


def test_the_schema_would_notice_a_mistake(contents: ReleaseContents, tmp_path: Path) -> None:
    bom = written(contents, tmp_path / "release")
    bom["metadata"]["component"]["modelCard"]["owner"] = "me"

    assert errors(json.dumps(bom)) is not None
