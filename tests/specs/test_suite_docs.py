"""The examples of docs/suites.md are suites, and its table names the tasks that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from harness.data.template import template_problems
from harness.specs.load import load_suite
from harness.specs.suite import Task

PAGE = (Path(__file__).parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split()[1])
def test_an_example_is_a_suite(tmp_path: Path, text: str) -> None:
    (tmp_path / "suite.yaml").write_text(text)

    suite = load_suite(tmp_path / "suite.yaml")

    assert template_problems(suite.prompt.user) == ()


def test_every_task_is_in_the_table() -> None:
    first_cells = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))

    assert set(get_args(Task)) <= set(re.findall(r"`(\w+)`", first_cells))
