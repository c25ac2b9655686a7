"""The model card says what was obliged and not done."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness.export.card import model_card
from tests.export.releases import make_contents


def test_the_card_names_each_deviation_with_its_reason(tmp_path: Path) -> None:
    contents = make_contents(tmp_path)
    reason = "nobody acts | on <the> answers"
    recipe = {**contents.recipe, "deviations": [{"from": "coverage", "because": reason}]}

    card = model_card("model.gguf", dataclasses.replace(contents, recipe=recipe))

    assert "## Deviations: obliged, and not done" in card
    assert "| coverage | nobody acts \\| on \\<the\\> answers |" in card


def test_a_card_without_deviations_has_no_such_section(tmp_path: Path) -> None:
    assert "Deviations" not in model_card("model.gguf", make_contents(tmp_path))
