"""What a suite can name is what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from harness.scoring import scorers
from harness.scoring.judge import FACTORIES, Rubric
from harness.scoring.scorers import SCORERS, default_scorer
from harness.specs.load import load_suite
from harness.specs.scorers import JUDGES, KNOWN_SCORERS
from harness.specs.suite import Task

ROOM = Path(scorers.__file__).parent


def test_every_scorer_can_be_named_and_every_name_is_a_scorer() -> None:
    assert set(KNOWN_SCORERS) == {*SCORERS, *FACTORIES}
    assert set(JUDGES) == set(FACTORIES)


@pytest.mark.parametrize("task", get_args(Task))
def test_the_scorer_that_a_task_takes_by_itself_fits_it(task: str) -> None:
    assert task in KNOWN_SCORERS[default_scorer(task)].tasks


def test_every_setting_that_can_be_named_is_read_somewhere() -> None:
    source = "".join(path.read_text() for path in ROOM.glob("*.py"))
    named = {setting for use in KNOWN_SCORERS.values() for setting in use.settings}
    named -= set(Rubric.__dataclass_fields__)  # a judge takes what its rubric has, and refuses the rest

    unread = {setting for setting in named if not re.search(rf'"{setting}"', source)}

    assert {setting for setting in unread if not setting.startswith(("min_", "max_"))} == set()


def test_a_setting_that_is_a_list_is_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "suite: s\ndomain: shared\ntask: generate\nrecords: {eval: e.jsonl}\nprompt: {user: '{{ input }}'}\n"
        "scorers:\n  - {name: form, banned: [darn, heck]}\n"
    )

    (found,) = load_suite(tmp_path / "s.yaml").scorers

    assert found.settings == {"banned": ("darn", "heck")}
