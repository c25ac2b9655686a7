"""Screen 6: the exported files of the chosen run."""

from __future__ import annotations

from dataclasses import replace

from harness.tui.context import EXPORT, Context
from harness.tui.screens.base import Screen
from harness.tui.views.cells import Line
from harness.tui.views.export import Variant, export_body, variants_of
from harness.tui.views.samples import Filter


class ExportScreen(Screen):
    """A cursor on the variants; it begins on the one that ships."""

    name = EXPORT

    def forget(self) -> None:
        self._cursor: int | None = None

    def _variants(self) -> list[Variant]:
        return variants_of(self.desk.folder) if self.desk.folder else []

    @property
    def cursor(self) -> int:
        variants = self._variants()
        shipped = next((at for at, one in enumerate(variants) if one.is_picked), 0)
        return min(shipped if self._cursor is None else self._cursor, max(0, len(variants) - 1))

    def context(self, common: Context) -> Context:
        variants = self._variants()
        sources = {stage for stage, _ in self.desk.folder.sources} if self.desk.folder else set()
        stage = variants[self.cursor].stage if variants else None
        return replace(common, stage=stage, n_sources=int(stage in sources))

    def crumbs(self) -> tuple[str, ...]:
        variants = self._variants()
        return (variants[self.cursor].stage,) if variants else ()

    def body(self, cells: int, rows: int) -> list[Line]:
        return export_body(self.desk.folder, self.cursor, cells, rows) if self.desk.folder else []

    def move(self, by: int) -> None:
        self._cursor = max(0, min(self.cursor + by, len(self._variants()) - 1))

    def do_open(self) -> None:
        """The failing samples of the variant."""
        folder, variants = self.desk.folder, self._variants()
        stage = variants[self.cursor].stage if variants else None
        source = next((one for one in folder.sources if one[0] == stage), None) if folder else None
        if source is not None:
            self.desk.samples.open(source, Filter(is_failures_only=True))
