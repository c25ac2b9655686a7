"""The screen from which jobs are started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.tui.context import START, Context
from harness.tui.screens.base import Effect, Screen
from harness.tui.views.cells import Line
from harness.tui.views.documents import DocumentInfo, documents, holds
from harness.tui.views.start import MODEL, start_body


class StartScreen(Screen):
    """Recipes and suites; a key starts what its command would start."""

    name = START

    def forget(self) -> None:
        self._found: list[DocumentInfo] = getattr(self, "_found", [])
        self.cursor: int = getattr(self, "cursor", 0)
        self.model: str = getattr(self, "model", MODEL)
        self.words: str = getattr(self, "words", "")
        self._is_finding = False

    def enter(self) -> None:
        self._found = documents(Path())
        self.move(0)

    @property
    def listed(self) -> list[DocumentInfo]:
        """Those that hold every word that was asked for."""
        return [info for info in self._found if holds(info, self.words)]

    def _here(self) -> DocumentInfo | None:
        listed = self.listed
        return listed[self.cursor] if self.cursor < len(listed) else None

    def context(self, common: Context) -> Context:
        here = self._here()
        return replace(
            common, document=here.path if here else None, kind=here.kind if here else None, model=self.model
        )

    def crumbs(self) -> tuple[str, ...]:
        here = self._here()
        return (here.name,) if here else ()

    def body(self, cells: int, rows: int) -> list[Line]:
        return start_body(self.listed, self.cursor, self.model, cells, rows, words=self.words)

    def move(self, by: int) -> None:
        self.cursor = max(0, min(self.cursor + by, len(self.listed) - 1))

    def back(self) -> bool:
        was_narrowed = bool(self.words)
        self.words = ""
        return was_narrowed

    def do_open(self) -> None:
        """Releases the recipe, or scores the suite."""
        here = self._here()
        if here is not None:
            self._start(
                ["release", here.path]
                if here.kind == "recipe"
                else ["eval", here.path, "--model", self.model]
            )

    def do_start_train(self) -> None:
        self._start(["train", str(self.desk.context().document)])

    def do_start_export(self) -> None:
        self._start(["export", str(self.desk.context().document)])

    def do_check(self) -> None:
        self.desk.command(
            ["check", str(self.desk.context().document)], f"checking {self.desk.context().document} …"
        )

    def _start(self, words: Sequence[str]) -> None:
        self.desk.command([*words, "--detach", "--json"], f"starting: harness {' '.join(words)} …")

    def do_find(self) -> Effect:
        self._is_finding = True
        return Effect(prompt=self.words, hint="words, such as suite legal; empty shows all")

    def do_model(self) -> Effect:
        self._is_finding = False
        return Effect(
            prompt=self.model, hint=f"embedded:NAME, a folder, a GGUF or owner/name; empty is {MODEL}"
        )

    def submitted(self, text: str) -> None:
        if self._is_finding:
            self.words, self.cursor = text.strip(), 0
        else:
            self.model = text.strip() or MODEL
