"""The JSON Schemas on disk are those of the documents."""

from __future__ import annotations

import json
from pathlib import Path

from harness.specs.schemas import DOCUMENTS, drifted, main, write_schemas

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def test_the_schemas_on_disk_are_up_to_date() -> None:
    assert drifted(SCHEMAS) == []
    assert {path.stem for path in SCHEMAS.glob("*.json")} == set(DOCUMENTS)


def test_drift_is_named_and_mended_by_writing(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    (tmp_path / "gate.json").write_text("{}")
    (tmp_path / "suite.json").unlink()

    assert drifted(tmp_path) == ["suite.json", "gate.json"]
    assert main(["--check", str(tmp_path)]) == 1
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    assert main([]) == 2


def test_a_schema_explains_its_keys_and_forbids_others() -> None:
    schema = json.loads((SCHEMAS / "gate.json").read_text())

    assert schema["additionalProperties"] is False
    assert "lower confidence bound" in schema["properties"]["at_least"]["description"]
