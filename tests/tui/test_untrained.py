"""A run that trains nothing shows no stages that it will never come to."""

from __future__ import annotations

from typing import Any

import pytest

from harness.tui.views.matrix import planned_stages


@pytest.mark.parametrize(
    ("tune", "until", "stages"),
    [
        ({"method": "none"}, "release", ("base", "f16", "q8_0")),
        ({"method": "none"}, "train", ("base",)),
        ({"method": "lora"}, "release", ("base", "adapter", "merged", "f16", "q8_0")),
        (None, "train", ("base", "adapter")),
    ],
)
def test_the_stages_are_those_that_the_recipe_comes_to(
    tune: Any, until: str, stages: tuple[str, ...]
) -> None:
    recipe = {"tune": tune, "export": {"quants": ["q8_0"]}}
    manifest = {"job": "release", "document": {"recipe": recipe}, "options": {"until": until}}

    assert planned_stages(manifest) == stages
