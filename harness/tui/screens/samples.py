"""Screen 3: the samples of one stage, a filter, and the text of one sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.evals.results import Scorecard
from harness.tui.context import SAMPLES, Context
from harness.tui.screens.base import Effect, Screen
from harness.tui.views.cells import Line
from harness.tui.views.frame import CHROME_ROWS
from harness.tui.views.reader import SampleScreen, boxes, max_scroll, samples_body
from harness.tui.views.samples import Filter, SampleIndex, SampleList, text_of


class SamplesScreen(Screen):
    """A list of samples beside the text of the one under the cursor."""

    name = SAMPLES

    def forget(self) -> None:
        self.here = SampleScreen()
        self._list: SampleList | None = None
        self._indexes: dict[Path, SampleIndex] = getattr(self, "_indexes", {})

    def enter(self) -> None:
        self._open()

    def look(self) -> bool:
        return self._list.look() if self._list is not None else False

    def open(self, source: tuple[str, str], wanted: Filter, sample: str | None = None) -> None:
        """Shows the samples of a stage and suite that the filter lets through, on the one with this id."""
        self.desk.screen = SAMPLES
        self._open(source, wanted)
        self.desk.look()
        if sample is not None and self._list is not None:
            self._list.look_at_all()
            found = self._list.position_of(sample)
            self._go_to(found or 0)

    def _open(self, source: tuple[str, str] | None = None, wanted: Filter | None = None) -> None:
        folder = self.desk.folder
        sources = folder.sources if folder else []
        if folder is None or not sources:
            self._list = None
            return
        chosen = source or self.here.source
        if chosen not in sources:
            chosen = folder.newest_source or sources[-1]
        if chosen == self.here.source and wanted is None and self._list is not None:
            return
        path = folder.samples_path(chosen)
        index = self._indexes.setdefault(path, SampleIndex(path))
        self._list = SampleList(index, wanted or (self._list.wanted if self._list else Filter()))
        self.here = SampleScreen(source=chosen)

    def context(self, common: Context) -> Context:
        found = self._list
        sample = self._listed()
        return replace(
            common,
            stage=self.here.source[0] if self.here.source else common.stage,
            n_listed=len(found) if found else 0,
            n_failures=found.n_failures if found else 0,
            sample=None if sample is None else text_of(sample.get("id")),
            has_filter=bool(found and found.wanted.text),
            is_failures_only=bool(found and found.wanted.is_failures_only),
            is_reading=self.here.is_reading,
        )

    def crumbs(self) -> tuple[str, ...]:
        sample = self._listed()
        shown = () if sample is None else (text_of(sample.get("id")),)
        return (*self.here.source, *shown) if self.here.source else ()

    def body(self, cells: int, rows: int) -> list[Line]:
        return samples_body(self._list, self.here, self._card(), self._sample(), cells, rows)

    def _listed(self) -> dict[str, Any] | None:
        if self._list is None or not len(self._list):
            return None
        return self._list.index.data(self._list[self.here.position])

    def _sample(self) -> dict[str, Any] | None:
        """The sample under the cursor, with its input where that is known."""
        sample, folder, source = self._listed(), self.desk.folder, self.here.source
        if sample is None or folder is None or source is None or "input" in sample:
            return sample
        text = self.desk.inputs.find(folder, source[1], text_of(sample.get("id")))
        return sample if text is None else {"input": text, **sample}

    def _card(self) -> Scorecard | None:
        folder = self.desk.folder
        return folder.scorecards.get(self.here.source) if folder and self.here.source else None

    def back(self) -> bool:
        wanted = self._list.wanted if self._list else Filter()
        if self.here.is_reading:
            self.here = replace(self.here, is_reading=False, scroll=0)
        elif wanted != Filter():
            self._refilter(Filter())
        else:
            return False
        return True

    def move(self, by: int) -> None:
        if self._list is None:
            return
        if self.here.is_reading:
            self._scroll(by)
        else:
            self._go_to(self.here.position + by)

    def do_open(self) -> None:
        self.here = replace(self.here, is_reading=True, scroll=0)

    def submitted(self, text: str) -> None:
        """Lists the samples that hold all words of the text."""
        wanted = self._list.wanted if self._list else Filter()
        self._refilter(replace(wanted, text=text.strip()))

    def _refilter(self, wanted: Filter) -> None:
        if self._list is not None:
            self._list = SampleList(self._list.index, wanted)
            self.here = replace(self.here, position=0, scroll=0)
            self.desk.look()

    def do_failures(self) -> None:
        if self._list is not None:
            wanted = self._list.wanted
            self._refilter(replace(wanted, is_failures_only=not wanted.is_failures_only))

    def do_filter(self) -> Effect:
        text = self._list.wanted.text if self._list else ""
        return Effect(prompt=text, hint="words, key=value or label=value; empty shows all")

    def do_next_failure(self) -> None:
        self._next_failure(1)

    def do_previous_failure(self) -> None:
        self._next_failure(-1)

    def _next_failure(self, step: int) -> None:
        found = self._list.failure_from(self.here.position, step) if self._list else None
        if found is None:
            self.desk.say(f"no failure {'after' if step > 0 else 'before'} this one", "dim")
        else:
            self._go_to(found)

    def _go_to(self, position: int) -> None:
        last = len(self._list) - 1 if self._list else 0
        self.here = replace(self.here, position=max(0, min(position, last)), scroll=0)

    def do_next_source(self) -> None:
        self._turn_source(1)

    def do_previous_source(self) -> None:
        self._turn_source(-1)

    def _turn_source(self, by: int) -> None:
        sources = self.desk.folder.sources if self.desk.folder else []
        at = sources.index(self.here.source) if self.here.source in sources else 0
        self._open(sources[(at + by) % len(sources)])
        self.desk.look()

    def do_read_down(self) -> None:
        self._scroll(1)

    def do_read_up(self) -> None:
        self._scroll(-1)

    def _scroll(self, by: int) -> None:
        cells, rows = self.desk.size
        box = boxes(self.here, self._card(), cells, rows - CHROME_ROWS)
        room = max_scroll(self._sample(), self.here, box)
        self.here = replace(self.here, scroll=max(0, min(self.here.scroll + by, room)))

    def do_zoom(self) -> None:
        self.here = replace(self.here, is_reading=not self.here.is_reading, scroll=0)
