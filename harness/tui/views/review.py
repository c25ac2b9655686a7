"""Screen 7: one answer at a time, judged without knowing what the scorer, the model or others said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.review.agreement import Agreement
from harness.review.answers import Judgement, Review
from harness.review.outcome import TRUSTED_KAPPA, Outcome
from harness.review.queue import Item
from harness.tui.views import numbers
from harness.tui.views.cells import Line, Span, between, exactly, fit, fit_line, line, rule, wrap
from harness.tui.views.samples import text_of

MARKS = {
    Judgement.RIGHT: ("✓ right", "pass"), Judgement.WRONG: ("✗ wrong", "fail-text"),
    Judgement.UNCLEAR: ("? unclear", "unsure"), Judgement.SKIPPED: ("· skipped", "dim"),
    Judgement.BAD_ITEM: ("! bad item", "warning"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Desk:
    """All that the screen shows."""

    queue: Sequence[Item]
    position: int
    mine: dict[str, Review]
    """The reviewer's standing words, by sample."""
    by: str
    stage: str
    suite: str
    input: str | None
    """The record's text; None while it is being read, or where the data are gone."""
    outcome: Outcome
    is_adjudicating: bool
    words: Sequence[Review]
    """In adjudication: what the reviewers said of this sample, without their names."""
    why: str
    correction: str


def review_body(desk: Desk, cells: int, rows: int) -> list[Line]:
    """The screen between its frame's lines."""
    if not desk.queue:
        words = (
            "Nobody disagrees: there is nothing to adjudicate."
            if desk.is_adjudicating
            else "No answers to judge yet."
        )
        return [(), line(Span(f" {words}", "dim"))]
    item = desk.queue[desk.position]
    head = [_head(desk, cells), line(Span(f" why this one: {item.reason}", "dim")), rule(cells)]
    foot = [rule(cells), *_state_lines(desk, cells), *_agreement_lines(desk, cells)]
    room = rows - len(head) - len(foot)
    answer_rows = max(3, room // 3)
    question = _block("QUESTION", desk.input or "… reading the record", cells, room - answer_rows - 1)
    sample = item.sample
    shown = sample.get("output") if sample.get("output") is not None else sample.get("answer")
    answer = _block("ANSWER", text_of(shown), cells, answer_rows)
    return [
        *head,
        *exactly(question, room - answer_rows - 1),
        rule(cells),
        *exactly(answer, answer_rows),
        *foot,
    ]


def _head(desk: Desk, cells: int) -> Line:
    done = sum(item.sample["id"] in desk.mine for item in desk.queue)
    kind = "ADJUDICATE" if desk.is_adjudicating else "REVIEW"
    left = line(
        Span(f" {kind}", "head"), Span(f"  {desk.stage} × {desk.suite}"),
        Span(f"  item {desk.position + 1}/{len(desk.queue)}", "strong"),
        Span(f"  {len(desk.queue) - done} left", "dim"),
    )  # fmt: skip
    return between(left, line(Span(f"you: {desk.by} (blind) ", "dim")), cells)


def _block(name: str, text: str, cells: int, rows: int) -> list[Line]:
    parts = wrap(text, cells - 3, rows=max(1, rows - 1))
    return [line(Span(f" {name}", "head")), *(line(Span(f"  {part}")) for part in parts)]


def _state_lines(desk: Desk, cells: int) -> list[Line]:
    sample = str(desk.queue[desk.position].sample["id"])
    mine = desk.mine.get(sample)
    if mine is None:
        said: Line = line(Span(" not judged yet", "dim"))
    else:
        word, style = MARKS[mine.judgement]
        right = f"  → {mine.correction}" if mine.correction else ""
        why = f"  {mine.why}" if mine.why else ""
        said = line(Span(" you said ", "dim"), Span(word, style), Span(right), Span(why))
    parts = [(" comment ", desk.why), (" right answer ", desk.correction)]
    spans = [span for name, text in parts if text for span in (Span(name, "dim"), Span(text))]
    comment = tuple(spans) or line(Span(" c adds a comment to the next word, e the right answer", "dim"))
    lines = [fit_line(said, cells), fit_line(comment, cells)]
    if desk.is_adjudicating:
        votes = [
            word
            for one in desk.words
            for word in (MARKS[one.judgement], (f" {one.why}  " if one.why else "  ", ""))
        ]
        lines.append(fit_line(line(Span(" others said ", "dim"), *(Span(*vote) for vote in votes)), cells))
    return lines


def _agreement_lines(desk: Desk, cells: int) -> list[Line]:
    """Only once the reviewer is through: before, it would tell what the scorer thinks."""
    left = sum(item.sample["id"] not in desk.mine for item in desk.queue)
    if left:
        return [line(Span(f" agreement is shown when the queue is done: {left} left", "dim"))]
    parts = [_kappa(f"scorer~{name}", found) for name, found in desk.outcome.with_scorer.items()]
    parts += [_kappa(f"{a}~{b}", found) for (a, b), found in desk.outcome.between.items()]
    mine = desk.outcome.with_scorer.get(desk.by)
    trusted = mine is not None and mine.low is not None and mine.low >= TRUSTED_KAPPA
    may = "may" if trusted else "may not yet"
    verdict = f"the scorer {may} stand for people: the lower bound of its κ must reach {TRUSTED_KAPPA:g}"
    disputed = f" · {len(desk.outcome.disputed)} disputed" if desk.outcome.disputed else ""
    return [
        fit_line(
            line(
                Span(" AGREEMENT ", "head"),
                Span(fit("  ".join(parts), max(10, cells - 30)).rstrip() + disputed),
            ),
            cells,
        ),
        fit_line(line(Span(f" {verdict}", "pass-text" if trusted else "dim")), cells),
    ]


def _kappa(name: str, found: Agreement) -> str:
    if found.kappa is None:
        return f"{name} κ {numbers.UNKNOWN} n={found.n}"
    bounds = (
        f" [{found.low:.2f}, {found.high:.2f}]" if found.low is not None and found.high is not None else ""
    )
    return f"{name} κ {found.kappa:.2f}{bounds} n={found.n}"
