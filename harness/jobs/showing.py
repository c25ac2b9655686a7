"""The first training examples of recipes, as tokens; loads a tokenizer and no weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from harness.jobs.candidate import examples_of
from harness.jobs.orders import load_order
from harness.specs.load import find_document
from harness.specs.yaml import read_yaml

if TYPE_CHECKING:
    from harness.train.show import Shown


def shown_by_recipe(documents: Sequence[Path], data_root: Path | None, count: int) -> dict[str, list[Shown]]:
    """By recipe file, its first `count` training examples; documents that are no recipe are left out.

    Raises:
        DataError: records that can't be read.
        ModelError: the base or its tokenizer is not there.
    """
    from harness.models.chat import load_chat
    from harness.models.load import resolve_base
    from harness.train.show import show

    found: dict[str, list[Shown]] = {}
    for path in map(find_document, documents):
        if "recipe" not in read_yaml(path).data:
            continue
        loaded = load_order(path, data_root)
        chat = load_chat(resolve_base(loaded.recipe.base))
        found[str(path)] = show(list(islice(examples_of(loaded, "train"), count)), chat, loaded.recipe.tune)
    return found
