"""Screen 7: people judge answers, by keyboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.review.answers import Judgement, Review, read_reviews, review_path, reviewer, say, standing
from harness.review.outcome import Outcome, outcome_of
from harness.review.queue import Item, make_queue
from harness.tui.context import REVIEW, Context
from harness.tui.screens.base import Effect, Screen
from harness.tui.views.cells import Line
from harness.tui.views.review import Desk as ReviewDesk
from harness.tui.views.review import review_body
from harness.tui.views.samples import Filter, SampleIndex, text_of

MAX_SAMPLES = 5000
"""Of a stage, from which a queue is made: more would keep the screen waiting."""


class ReviewScreen(Screen):
    """A queue of answers; each word is on disk before the next one is shown."""

    name = REVIEW

    def forget(self) -> None:
        self._source: tuple[str, str] | None = None
        self._samples: list[Mapping[str, Any]] = []
        self._queue: list[Item] = []
        self._reviews: list[Review] = []
        self._position = 0
        self._why = self._correction = ""
        self._is_correcting = False
        self._shown_s = 0.0
        self._is_adjudicating = False
        self.by: str = getattr(self, "by", reviewer())

    def enter(self) -> None:
        folder = self.desk.folder
        if folder is None or not folder.sources:
            return
        wanted = [source for source in folder.sources if source[0] == self.desk.board.stage]
        source = self._source or (wanted or [folder.newest_source or folder.sources[-1]])[0]
        self._open(source)

    def _open(self, source: tuple[str, str]) -> None:
        assert self.desk.folder is not None
        self._source = source
        index = SampleIndex(self.desk.folder.samples_path(source))
        while len(index) < MAX_SAMPLES and index.look():
            pass
        self._samples = [index.data(at) for at in range(min(len(index), MAX_SAMPLES))]
        self._read()
        self._queue = make_queue(self._samples)
        self._go_to_open()

    def _read(self) -> None:
        try:
            self._reviews = read_reviews(self._path())
        except HarnessError as error:
            self._reviews = []
            self.desk.say(error.message)

    def _path(self) -> Path:
        assert self.desk.info is not None
        assert self._source is not None
        return review_path(self.desk.home.home, self.desk.info.run, *self._source)

    def _mine(self) -> dict[str, Review]:
        return {
            sample: one
            for (by, sample), one in standing(self._reviews).items()
            if by == self.by and one.is_adjudication == self._is_adjudicating
        }

    def _go_to_open(self) -> None:
        """The first item that this person has said nothing of."""
        mine = self._mine()
        places = [at for at, item in enumerate(self._queue) if item.sample["id"] not in mine]
        self._show(places[0] if places else max(0, len(self._queue) - 1))

    def _show(self, position: int) -> None:
        self._position, self._why, self._correction = position, "", ""
        self._shown_s = self.desk.now()

    def _here(self) -> Item | None:
        return self._queue[self._position] if self._position < len(self._queue) else None

    def _outcome(self) -> Outcome:
        return outcome_of(self._samples, self._reviews)

    def context(self, common: Context) -> Context:
        here = self._here()
        mine = self._mine()
        return replace(
            common,
            stage=self._source[0] if self._source else common.stage,
            sample=text_of(here.sample.get("id")) if here else None,
            n_listed=len(self._queue),
            n_disputed=len(self._outcome().disputed) if self._samples else 0,
            has_said=bool(mine),
            why=self._why,
            correction=self._correction,
        )

    def crumbs(self) -> tuple[str, ...]:
        here = self._here()
        return (*(self._source or ()), *((text_of(here.sample.get("id")),) if here else ()))

    def body(self, cells: int, rows: int) -> list[Line]:
        here, source = self._here(), self._source or ("", "")
        folder = self.desk.folder
        id_ = text_of(here.sample.get("id")) if here else ""
        text = here.sample.get("input") if here else None
        if text is None and folder is not None:
            text = self.desk.inputs.find(folder, source[1], id_)
            if text is None and self.desk.inputs.has_read(folder):
                text = "(the data that this run was scored on are not there any more)"
        words = [
            one
            for (_, sample), one in standing(self._reviews).items()
            if sample == id_ and not one.is_adjudication
        ]
        return review_body(
            ReviewDesk(self._queue, self._position, self._mine(), self.by, *source, text, self._outcome(),
                       self._is_adjudicating, words, self._why, self._correction),
            cells, rows,
        )  # fmt: skip

    # What is done

    def move(self, by: int) -> None:
        self._show(max(0, min(self._position + by, len(self._queue) - 1)))

    def do_open(self) -> None:
        """The sample with all that is known of it; nobody who looks is blind any more."""
        here = self._here()
        if here is not None and self._source is not None:
            self.desk.samples.open(self._source, Filter(), text_of(here.sample.get("id")))

    def do_right(self) -> None:
        self._say(Judgement.RIGHT)

    def do_wrong(self) -> None:
        self._say(Judgement.WRONG)

    def do_unclear(self) -> None:
        self._say(Judgement.UNCLEAR)

    def do_skip(self) -> None:
        self._say(Judgement.SKIPPED)

    def do_bad_item(self) -> None:
        self._say(Judgement.BAD_ITEM)

    def _say(self, judgement: Judgement, at: int | None = None) -> None:
        item = self._queue[self._position if at is None else at]
        try:
            say(
                self._path(), item.sample, self.by, judgement, why=self._why, correction=self._correction or None,
                seconds=round(self.desk.now() - self._shown_s, 1), is_adjudication=self._is_adjudicating,
            )  # fmt: skip
        except (HarnessError, OSError) as error:
            self.desk.say(f"not saved: {error}", "fail-text")
            return
        self._read()
        if judgement is not Judgement.UNDONE:
            self._go_to_open()

    def do_undo(self) -> None:
        """Takes this person's newest word back, and shows its item."""
        mine = [
            one
            for one in self._mine().values()
            if any(item.sample["id"] == one.sample for item in self._queue)
        ]
        if mine:
            last = mine[-1]
            at = next(at for at, item in enumerate(self._queue) if item.sample["id"] == last.sample)
            self._say(Judgement.UNDONE, at)
            self._show(at)

    def do_comment(self) -> Effect:
        self._is_correcting = False
        return Effect(prompt=self._why, hint="why: kept with the word that you give next")

    def do_correct(self) -> Effect:
        self._is_correcting = True
        return Effect(prompt=self._correction, hint="the right answer: kept with the word that you give next")

    def submitted(self, text: str) -> None:
        if self._is_correcting:
            self._correction = text.strip()
        else:
            self._why = text.strip()

    def do_adjudicate(self) -> None:
        """Turns between the queue and the items on which reviewers disagree."""
        self._is_adjudicating = not self._is_adjudicating
        by_id = {str(sample["id"]): sample for sample in self._samples}
        disputed = [Item(by_id[id_], "reviewers disagree") for id_ in self._outcome().disputed]
        self._queue = disputed if self._is_adjudicating else make_queue(self._samples)
        self._go_to_open()
