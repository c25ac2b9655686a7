"""The models that judge answers, opened when the first answer needs one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.models.base import Model
from harness.specs.suite import Suite


class Judges:
    """One model a reference; what each said is kept in `answers`, where that is given."""

    def __init__(
        self, *, answers: Path | None = None, on_progress: Callable[[str], None] | None = None
    ) -> None:
        self._answers, self._on_progress = answers, on_progress
        self._open: dict[str, Model] = {}

    def of(self, suite: Suite) -> Model | None:
        """The suite's judge, open; None where it names none.

        Raises:
            ModelError: it can't be opened.
        """
        if suite.judge is None:
            return None
        if suite.judge not in self._open:
            from harness.models.load import open_model

            self._open[suite.judge] = open_model(
                suite.judge, answers=self._answers, on_progress=self._on_progress
            )
        return self._open[suite.judge]

    def close(self) -> None:
        """Gives their memory back; a later `of` opens them again."""
        while self._open:
            self._open.popitem()[1].close()
