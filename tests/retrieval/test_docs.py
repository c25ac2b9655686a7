"""The recipe of docs/retrieval.md is one that could run."""

from __future__ import annotations

import re
from pathlib import Path

from harness.data.check import check

ROOT = Path(__file__).parents[2]


def test_the_recipe_without_training_has_no_problem(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "retrieval.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(recipe: .*?)```", page, re.DOTALL)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "suites").symlink_to(ROOT / "suites")
    (tmp_path / "recipes" / "r.yaml").write_text(text)

    assert check([tmp_path / "recipes" / "r.yaml"]) == []
