"""One run of a recipe: what all its steps stand on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.records import Record
from harness.errors import DataError
from harness.evals.gate import CHAIN
from harness.evals.run import make_prompt
from harness.evals.scorecard import find_reading
from harness.evals.tasks import example_answer
from harness.jobs.orders import Loaded
from harness.jobs.progress import Progress
from harness.jobs.stages import Stages
from harness.models.base import Model
from harness.specs.suite import Split

if TYPE_CHECKING:
    from harness.models.chat import Chat
    from harness.train.batches import Example
    from harness.train.plan import TrainPlan
    from harness.train.selection import Scorer


@dataclass(frozen=True)
class Candidate:
    """A recipe's run folder with its documents, records, stages and models."""

    folder: Path
    loaded: Loaded
    options: dict[str, Any]
    progress: Progress
    stages: Stages

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def stage_names(self) -> list[str]:
        """All stages that the recipe can come to, in the order of the chain."""
        return [*CHAIN, *self.loaded.recipe.export.quants]

    @property
    def threads(self) -> int:
        return self.loaded.recipe.device.threads

    @property
    def data_root(self) -> Path | None:
        found = self.options["data_root"]
        return Path(found) if found else None

    @cached_property
    def base(self) -> Path:
        """The base as a Transformers checkpoint."""
        from harness.models.load import resolve_base

        return resolve_base(self.loaded.recipe.base, on_progress=self.progress.note)

    def open(self, reference: Path, *, adapter: Path | None = None, nf4: bool = False) -> Model:
        from harness.models.load import open_model

        began = time.monotonic()
        model = open_model(str(reference), adapter=adapter, nf4=nf4, threads=self.threads)
        self.progress.note(f"{reference.name} opened in {time.monotonic() - began:.1f} s")
        return model

    def chat(self) -> Chat:
        from harness.models.chat import load_chat

        return load_chat(self.base)

    def examples(self, split: Split) -> list[Example]:
        """The first suite's records of a split, as conversations with their answers."""
        return examples_of(self.loaded, split)

    def dev_scorer(self) -> Scorer | None:
        """Scores checkpoints on the development splits that `tune.gates` names; None where it asks for none.

        Each checkpoint is opened from its files, as its stage will be, beside the model in training: what is
        scored is what would leave, and nothing that scoring does to a model can reach the one that trains.

        Raises:
            DataError: a suite is unknown, or has no development records.
        """
        from harness.train.selection import Scores

        gates = self.loaded.recipe.tune.gates
        if gates is None:
            return None
        domain = gates.suites or (self.loaded.first,)
        suites = [*domain, *([gates.forgetting] if gates.forgetting else [])]
        for suite in suites:
            self._require_dev(suite)

        def score(checkpoint: Path, name: str) -> Scores:
            model = self.open(self.base, adapter=checkpoint, nf4=self.loaded.recipe.tune.is_nf4)
            try:
                cards = {
                    suite: self.stages.dev_scorecard(name, suite, model) for suite in dict.fromkeys(suites)
                }
            finally:
                model.close()
            found = {suite: find_reading(card, gates.metric) for suite, card in cards.items()}
            values = {suite: reading.score if reading else None for suite, reading in found.items()}
            known = [value for suite in domain if (value := values[suite]) is not None]
            mean = sum(known) / len(known) if len(known) == len(domain) else None
            kept = values[gates.forgetting] if gates.forgetting else None
            return Scores(sum(cards[suite].n for suite in domain), mean, kept)

        return score

    def _require_dev(self, suite: str) -> None:
        if suite not in self.loaded.splits:
            known = ", ".join(self.loaded.splits)
            raise DataError(
                f"tune.gates names {suite}, and the recipe has no such suite", hint=f"one of {known}"
            )
        if not self.loaded.splits[suite]["dev"]:
            raise DataError(
                f"tune.gates scores checkpoints on {suite}, which has no development records",
                hint=f"give suite {suite} a `dev` split, or leave tune.gates out",
            )


def examples_of(loaded: Loaded, split: Split) -> list[Example]:
    """What trains or is looked at while training: the recipe's own files, or the first suite's records of a split."""
    if split != "train" or not loaded.data:
        return _suite_examples(loaded, split)
    gone = set(left_out(loaded))
    return [example for example in _own_examples(loaded) if example.id not in gone]


def left_out(loaded: Loaded) -> tuple[str, ...]:
    """Ids of what could have taught, and that the gate judges with or nearly, where the recipe drops that."""
    from harness.train.preflight import shared_with_gate

    if loaded.recipe.preflight.overlaps == "refuse" or not loaded.data:
        return loaded.left_out
    found = shared_with_gate(list(_own_examples(loaded)), gate_records(loaded))
    return tuple(dict.fromkeys([*(left for left, _ in found), *loaded.left_out]))


def gate_records(loaded: Loaded) -> list[Record]:
    """What the trained model is judged with, of all suites."""
    return [record for by_split in loaded.splits.values() for record in by_split["eval"]]


def _suite_examples(loaded: Loaded, split: Split) -> list[Example]:
    from harness.train.batches import Example

    first = loaded.first
    suite, labels = loaded.suites[first], loaded.labels[first]
    return [
        Example(
            record.id,
            make_prompt(suite, record, labels),
            example_answer(suite, record),
            text=record.input,
            context="" if record.retrieved else record.context,
            unit=record.unit,
        )
        for record in loaded.splits[first][split]
    ]


def _own_examples(loaded: Loaded) -> Iterator[Example]:
    from harness.train.formats import read_examples

    seen: dict[str, Path] = {}
    for path, file in zip(loaded.data, loaded.recipe.data, strict=True):
        for example in read_examples(path, kind=file.kind, over_length=file.over_length):
            if example.id in seen:
                raise DataError(
                    f"{path}: id {example.id} is in {seen[example.id]} too", hint="give it another"
                )
            seen[example.id] = path
            yield example


def train_plan(loaded: Loaded, base: Path) -> TrainPlan:
    """What the recipe trains.

    Raises:
        DataError: it trains nothing.
    """
    if not loaded.recipe.tune.trains:
        raise DataError(
            "tune.method none trains nothing", hint="harness release gates and exports the base itself"
        )
    from harness.train.plan import TrainPlan

    recipe = loaded.recipe
    train = examples_of(loaded, "train")
    # A suite's records have one answer each, so they are no preferences to be held out.
    dev = [] if recipe.tune.objective == "dpo" else examples_of(loaded, "dev")
    return TrainPlan(base, train, dev, recipe.tune, recipe.device.threads)
