"""Screen 4: the candidate against a baseline, item by item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.tui.comparisons import Comparisons, Sides
from harness.tui.context import DIFF, Context
from harness.tui.screens.base import Screen
from harness.tui.views.cells import Line
from harness.tui.views.diff import KINDS, DiffHere, Flip, Pair, diff_body, flips_of, rows_of, suites_of
from harness.tui.views.folders import CHAIN, RunFolder
from harness.tui.views.samples import Filter, SampleIndex


class DiffScreen(Screen):
    """A is the baseline: the run that was marked, else the chosen run's first stage. B is the chosen run."""

    name = DIFF

    def forget(self) -> None:
        self.here = DiffHere()
        self._stage_a: str | None = None
        self._stage_b: str | None = None
        self._baseline: str | None = getattr(self, "_baseline", None)
        self._indexes: dict[Path, SampleIndex] = getattr(self, "_indexes", {})
        self.comparisons = getattr(self, "comparisons", None) or Comparisons(self.desk.home.home)

    def enter(self) -> None:
        stage = self.desk.board.stage
        if self._stage_b is None and stage in self._stages(self._run_b()):
            self._stage_b = stage

    # Which two stages

    def mark_baseline(self, run: str) -> None:
        """Takes the run as A from now on."""
        self._baseline, self._stage_a = run, None

    def _run_b(self) -> str | None:
        return self.desk.info.run if self.desk.info else None

    def _run_a(self) -> str | None:
        names = [info.run for info in self.desk.home.runs]
        return self._baseline if self._baseline in names else self._run_b()

    def _folder(self, run: str | None) -> RunFolder | None:
        info = next((one for one in self.desk.home.runs if one.run == run), None)
        if info is None:
            return None
        folder = self.desk.home.folder(info)
        if not folder.sources:
            folder.look()
        return folder

    def _stages(self, run: str | None) -> list[str]:
        """The stages of the run that have samples and belong to its chain."""
        folder = self._folder(run)
        found = dict.fromkeys(stage for stage, _ in folder.sources) if folder else {}
        return [stage for stage in found if stage in CHAIN] or list(found)

    def sides(self) -> Sides | None:
        """What is compared; None where there are not two different stages with samples."""
        run_a, run_b = self._run_a(), self._run_b()
        of_a, of_b = self._stages(run_a), self._stages(run_b)
        if run_a is None or run_b is None or not of_a or not of_b:
            return None
        stage_b = self._stage_b if self._stage_b in of_b else of_b[-1]
        default = stage_b if run_a != run_b and stage_b in of_a else of_a[0]
        stage_a = self._stage_a if self._stage_a in of_a else default
        if (run_a, stage_a) == (run_b, stage_b):
            others = [stage for stage in of_b if stage != stage_a]
            if not others:
                return None
            stage_b = others[-1]
        return Sides(run_a, stage_a, run_b, stage_b)

    # What is shown

    def _document(self) -> Mapping[str, Any] | None:
        sides = self.sides()
        answer = self.comparisons.find(sides) if sides else None
        return answer.document if answer else None

    def _said(self) -> str:
        sides = self.sides()
        if sides is None:
            return "Two stages with samples are needed: m on the board takes a run as the baseline."
        answer = self.comparisons.find(sides)
        return "comparing …" if answer is None else answer.error or "no suite in common"

    def _suite(self) -> Mapping[str, Any] | None:
        suites = suites_of(self._document())
        return suites[min(self.here.suite, len(suites) - 1)] if suites else None

    def _flips(self) -> list[Flip]:
        suite = self._suite()
        return flips_of(suite, self.here.kind) if suite else []

    def _flip(self) -> Flip | None:
        flips = self._flips()
        return flips[min(self.here.flip, len(flips) - 1)] if flips else None

    def context(self, common: Context) -> Context:
        flip, sides = self._flip(), self.sides()
        return replace(
            common,
            stage=sides.stage_b if sides else common.stage,
            sample=flip.id if flip else None,
            n_listed=len(self._flips()),
            n_suites=len(suites_of(self._document())),
            comparison=tuple(sides.words) if sides else None,
        )

    def crumbs(self) -> tuple[str, ...]:
        flip = self._flip()
        return (flip.id,) if flip else ()

    def body(self, cells: int, rows: int) -> list[Line]:
        sides = self.sides()
        shown = (
            (f"{sides.run_a} · {sides.stage_a}", f"{sides.run_b} · {sides.stage_b}") if sides else ("?", "?")
        )
        return diff_body(
            self._document(),
            self.here,
            sides=shown,
            said=self._said(),
            pair=self._pair(),
            cells=cells,
            rows=rows,
        )

    def _pair(self) -> Pair:
        sides, flip, suite = self.sides(), self._flip(), self._suite()
        if sides is None or flip is None or suite is None:
            return Pair(None, None)
        name = str(suite.get("suite"))
        return Pair(
            self._sample(sides.run_a, (sides.stage_a, name), flip.id),
            self._sample(sides.run_b, (sides.stage_b, name), flip.id),
        )

    def _sample(self, run: str, source: tuple[str, str], sample: str) -> Mapping[str, Any] | None:
        folder = self._folder(run)
        if folder is None:
            return None
        path = folder.samples_path(source)
        index = self._indexes.setdefault(path, SampleIndex(path))
        while index.look():
            pass
        at = index.find(sample)
        return None if at is None else index.data(at)

    # What is done

    def move(self, by: int) -> None:
        if self.here.pane == "slices":
            suite = self._suite()
            last = len(rows_of(suite)) - 1 if suite else 0
            self.here = replace(self.here, slice=max(0, min(self.here.slice + by, last)))
        else:
            last = max(0, len(self._flips()) - 1)
            self.here = replace(self.here, flip=max(0, min(self.here.flip + by, last)))

    def do_pane(self) -> None:
        self.here = replace(self.here, pane="slices" if self.here.pane == "flips" else "flips")

    def do_open(self) -> None:
        """The candidate's sample, with all that is known of it."""
        sides, flip, suite = self.sides(), self._flip(), self._suite()
        if sides and flip and suite:
            self.desk.samples.open((sides.stage_b, str(suite.get("suite"))), Filter(), flip.id)

    def do_flips(self) -> None:
        kind = KINDS[(KINDS.index(self.here.kind) + 1) % len(KINDS)]
        self.here = replace(self.here, kind=kind, flip=0)

    def do_next_suite(self) -> None:
        count = max(1, len(suites_of(self._document())))
        self.here = DiffHere(suite=(self.here.suite + 1) % count, pane=self.here.pane)

    def do_stage_a(self) -> None:
        self._turn("a")

    def do_stage_b(self) -> None:
        self._turn("b")

    def _turn(self, side: str) -> None:
        """The side's next stage that is not what the other side shows."""
        sides = self.sides()
        if sides is None:
            return
        run, stage = (sides.run_a, sides.stage_a) if side == "a" else (sides.run_b, sides.stage_b)
        other = (sides.run_b, sides.stage_b) if side == "a" else (sides.run_a, sides.stage_a)
        stages = self._stages(run)
        at = stages.index(stage)
        turned = [one for one in stages[at + 1 :] + stages[:at] if (run, one) != other]
        if turned and side == "a":
            self._stage_a, self._stage_b = turned[0], sides.stage_b
        elif turned:
            self._stage_a, self._stage_b = sides.stage_a, turned[0]
        self.here = DiffHere(suite=self.here.suite, kind=self.here.kind)
