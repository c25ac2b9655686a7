"""Screen 3: the list of samples beside the text of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.evals.results import Scorecard
from harness.tui.views import numbers
from harness.tui.views.bars import progress_bar
from harness.tui.views.cells import (
    Line,
    Span,
    beside,
    between,
    exactly,
    fit,
    fit_line,
    line,
    rule,
    safe,
    width,
    wrap,
)
from harness.tui.views.matrix import window
from harness.tui.views.numbers import number
from harness.tui.views.samples import SampleList, text_of

TWO_COLUMNS = 90
MIN_ROWS_WITH_FOOT = 18
WRAPPED_ROWS = 400
"""Lines of one text that are kept for scrolling."""


@dataclass(frozen=True, slots=True)
class SampleScreen:
    """Where the person is in the samples."""

    source: tuple[str, str] | None = None
    """(stage, suite)."""
    position: int = 0
    scroll: int = 0
    """First shown line of the sample's text."""
    is_reading: bool = False


class Boxes(NamedTuple):
    """Where the list and the sample's text are."""

    list_cells: int
    list_rows: int
    text_cells: int
    text_rows: int
    is_beside: bool

    @classmethod
    def of(cls, cells: int, rows: int, *, is_reading: bool, has_foot: bool) -> Boxes:
        """In `rows` of a whole body; nothing takes no rows."""
        room = max(1, rows - 2 - (2 if has_foot else 0))
        if is_reading:
            return cls(0, 0, cells, room, False)
        if cells >= TWO_COLUMNS:
            list_cells = min(64, cells * 2 // 5)
            return cls(list_cells, room, cells - list_cells - 1, room, True)
        if rows < 24:
            return cls(cells, room, cells, 0, False)
        list_rows = room * 2 // 5
        return cls(cells, list_rows, cells, room - list_rows - 1, False)


def boxes(here: SampleScreen, card: Scorecard | None, cells: int, rows: int) -> Boxes:
    """Where the list and the text are on the sample screen."""
    return Boxes.of(cells, rows, is_reading=here.is_reading, has_foot=_has_foot(card, rows))


def _has_foot(card: Scorecard | None, rows: int) -> bool:
    return rows >= MIN_ROWS_WITH_FOOT and card is not None and bool(card.confusions)


def samples_body(
    found: SampleList | None,
    here: SampleScreen,
    card: Scorecard | None,
    sample: Mapping[str, Any] | None,
    cells: int,
    rows: int,
) -> list[Line]:
    """The sample screen between its frame's lines; `sample` is the one under the cursor, all that is known of it."""
    if found is None:
        words = " No samples yet: they appear when the first batch of an evaluation is finished."
        return [(), line(Span(words, "dim"))]
    box = boxes(here, card, cells, rows)
    listed = (
        exactly(list_lines(found, here, box.list_cells, box.list_rows), box.list_rows)
        if box.list_rows
        else []
    )
    text = exactly(_scrolled(sample, here, box), box.text_rows)
    foot = confusion_lines(card, cells) if _has_foot(card, rows) else []
    head = [_title(found, here, cells), rule(cells)]
    if box.is_beside:
        return [*head, *beside(listed, text, box.list_cells, cells), *foot]
    parting = [rule(cells)] if listed and text else []
    return [*head, *listed, *parting, *text, *foot]


def _title(found: SampleList, here: SampleScreen, cells: int) -> Line:
    stage, suite = here.source or ("?", "?")
    wanted = found.wanted
    shown = f"{len(found):,} of {len(found.index):,}"
    filters = ["failures only"] * wanted.is_failures_only + (
        [f"holding “{wanted.text}”"] if wanted.text else []
    )
    busy = "" if found.checked_frac >= 1.0 else f" · looking, {found.checked_frac:.0%}"
    left = line(
        Span(f" {stage}", "head"), Span(" × ", "dim"), Span(suite, "head"), Span(f"  {shown}"),
        Span(f"  {', '.join(filters) or 'all samples'}{busy}", "strong" if filters else "dim"),
    )  # fmt: skip
    return between(left, line(Span(f"{found.index.n_failures:,} fail ", "fail-text")), cells)


def list_lines(found: SampleList, here: SampleScreen, cells: int, rows: int) -> list[Line]:
    """The list around the cursor."""
    if not len(found):
        return [line(Span(" nothing is in this list: f or / change the filter", "dim"))]
    shown = rows - 2
    first = max(0, window(here.position, len(found), shown))
    positions = range(first, min(len(found), first + shown))
    samples = [found.index.data(found[position]) for position in positions]
    columns = _Columns.of(cells, max(width(safe(text_of(data.get("id"))[:64])) for data in samples))
    lines = [columns.header()]
    for position, data in zip(positions, samples, strict=True):
        is_failure = found.index.is_failure(found[position])
        lines.append(columns.row(data, is_failure, position == here.position))
    below = len(found) - first - shown
    more = f"  ▼ {below:,} more" if below > 0 else ""
    lines.append(line(Span(f" {here.position + 1:,}/{len(found):,}{more}", "dim")))
    return [fit_line(spans, cells) for spans in lines]


class _Columns(NamedTuple):
    """Widths of the list's columns."""

    id: int
    answer: int
    confidence: int

    @classmethod
    def of(cls, cells: int, id_cells: int) -> _Columns:
        confidence = 5 if cells >= 48 else 0
        wide = max(6, min(id_cells + 1, cells // 2))
        return cls(wide, cells - wide - confidence - 3, confidence)

    def header(self) -> Line:
        words = (
            fit("   id", self.id + 3) + fit("gold → answer", self.answer) + fit("conf", self.confidence, ">")
        )
        return (Span(words, "dim"),)

    def row(self, data: Mapping[str, Any], is_failure: bool, is_here: bool) -> Line:
        style = "strong" if is_here else ""
        confidence = number(data.get("confidence"))
        return (
            Span("▌" if is_here else " ", "cursor"), _mark(data, is_failure),
            Span(fit(text_of(data.get("id")), self.id - 1) + " ", style),
            Span(fit(_answer_words(data, is_failure), self.answer - 1) + " ", style),
            Span(fit("" if confidence is None else f"{confidence:.2f}", self.confidence, ">"), "dim"),
        )  # fmt: skip


def _mark(data: Mapping[str, Any], is_failure: bool) -> Span:
    if data.get("error"):
        return Span("! ", "warning")
    return Span("✗ ", "fail-text") if is_failure else Span("✓ ", "pass-text")


def _answer_words(data: Mapping[str, Any], is_failure: bool) -> str:
    gold, answer = text_of(data.get("gold")), data.get("answer")
    if not is_failure:
        return gold
    return f"{gold} → {'no answer' if answer is None else text_of(answer)}"


def _scrolled(sample: Mapping[str, Any] | None, here: SampleScreen, box: Boxes) -> list[Line]:
    if sample is None or not box.text_rows:
        return []
    text = sample_lines(sample, box.text_cells, is_whole=here.is_reading)
    first = min(here.scroll, max(0, len(text) - box.text_rows))
    shown = text[first : first + box.text_rows]
    if first + box.text_rows < len(text):
        shown[-1] = line(Span(f" ▼ {len(text) - first - box.text_rows + 1} more lines: J, K", "dim"))
    return shown


def max_scroll(sample: Mapping[str, Any] | None, here: SampleScreen, box: Boxes) -> int:
    """How far the sample's text can be moved."""
    if sample is None:
        return 0
    return max(0, len(sample_lines(sample, box.text_cells, is_whole=here.is_reading)) - box.text_rows)


def sample_lines(data: Mapping[str, Any], cells: int, *, is_whole: bool) -> list[Line]:
    """All that is known of a sample."""
    rows = WRAPPED_ROWS if is_whole else 12
    score = number(data.get("score"))
    is_right = score is not None and score >= 1.0
    mark = Span("✓ right", "pass") if is_right else Span(" ✗ FAIL ", "fail")
    lines: list[Line] = [
        between(line(" ", Span(fit(text_of(data.get("id")), cells // 2).rstrip(), "strong")),
                line(mark, Span(f"  score {numbers.score(score)} ", "dim")), cells),
    ]  # fmt: skip
    lines += _field("error", data.get("error"), cells, rows, "fail-text")
    lines += _field("input", text_of(data.get("input")), cells, rows if is_whole else 6)
    lines += _field("gold", text_of(data.get("gold")), cells, rows, "strong")
    answer = data.get("answer")
    lines += _field(
        "answer", "nothing could be read from the output" if answer is None else text_of(answer), cells, rows
    )
    lines += _field("why", text_of(data.get("error_class")), cells, 1, "warning")
    lines += _field("parsed", text_of(data.get("parsed")), cells, 3)
    lines += _field("scores", _numbers(data.get("scores")), cells, 2)
    lines += _confidence(data, cells)
    lines += _field("sure", _numbers(data.get("confidences")), cells, 2)
    if data.get("output") not in (None, data.get("answer")):
        lines += _field("output", text_of(data.get("output")), cells, rows)
    lines += _slices(data, cells)
    return lines + _provenance(data, cells)


def _numbers(found: Any) -> str:
    """Named numbers in one line; empty for one that says what the score says already."""
    if not isinstance(found, dict):
        return ""
    known = [(str(name), value) for name, one in found.items() if (value := number(one)) is not None]
    return " · ".join(f"{name} {value:.3f}" for name, value in known) if len(known) > 1 else ""


def _field(name: str, value: Any, cells: int, rows: int, style: str = "") -> list[Line]:
    if not value:
        return []
    label_cells = 12
    parts = wrap(text_of(value), cells - label_cells - 1, rows=rows)
    return [
        (Span(fit(f" {name.upper()}" if index == 0 else "", label_cells), "dim"), Span(part, style))
        for index, part in enumerate(parts)
    ]


def _confidence(data: Mapping[str, Any], cells: int) -> list[Line]:
    confidence, found = number(data.get("confidence")), data.get("label_probs")
    lines = _field("confidence", "" if confidence is None else f"{confidence:.3f}", cells, 1)
    if not isinstance(found, dict):
        return lines
    known = [(str(label), prob) for label, value in found.items() if (prob := number(value)) is not None]
    gold = [text_of(item) for item in data.get("gold") or ()]
    ranked = sorted(known, key=lambda item: -item[1])
    shown = ranked[:5] + [item for item in ranked[5:] if item[0] in gold]
    name_cells = min(30, cells // 2 - 8)
    for index, (label, prob) in enumerate(shown):
        bar = progress_bar(min(1.0, max(0.0, prob)), max(5, min(40, cells - name_cells - 26)))
        head = Span(fit(" LABELS" if index == 0 else "", 12), "dim")
        tag = Span(" gold" if label in gold else "", "strong")
        lines.append((head, Span(fit(label, name_cells) + " "), *bar, Span(f" {prob:.3f}"), tag))
    rest = len(ranked) - len(shown)
    return lines + ([line(Span(f"{'':12}and {rest} less likely labels", "dim"))] if rest > 0 else [])


def _slices(data: Mapping[str, Any], cells: int) -> list[Line]:
    slices = data.get("slices")
    if not isinstance(slices, dict) or not slices:
        return []
    return _field("slices", "  ".join(f"{key}={text_of(value)}" for key, value in slices.items()), cells, 4)


def _provenance(data: Mapping[str, Any], cells: int) -> list[Line]:
    prompt_tok, output_tok = number(data.get("prompt_tok")), number(data.get("output_tok"))
    latency = number(data.get("latency_ms"))
    cost = [
        f"{numbers.quantity(prompt_tok)} tokens in" + (", middle cut" if data.get("is_truncated") else ""),
        f"{numbers.quantity(output_tok)} out" if output_tok else "",
        f"{latency:.0f} ms" if latency is not None else "",
    ]
    digest = text_of(data.get("prompt_digest"))
    origin = [
        f"unit {text_of(data.get('unit'))}" if data.get("unit") else "",
        f"prompt {digest[:12]}" if digest else "",
    ]
    return [
        *_field("cost", " · ".join(filter(None, cost)), cells, 2),
        *_field("provenance", " · ".join(filter(None, origin)), cells, 2),
    ]


def confusion_lines(card: Scorecard | None, cells: int) -> list[Line]:
    """The most frequent mistakes of the whole stage, in one line."""
    found: Sequence[tuple[str, str, int]] = card.confusions if card else ()
    if not found:
        return []
    spans = [Span(" MISTAKES ", "head")]
    for gold, answer, count in found[:6]:
        spans += [
            Span(f" {fit(gold, 22).rstrip()} → {fit(answer, 22).rstrip()} "),
            Span(f"{count}", "strong"),
            Span(" ·", "dim"),
        ]
    return [rule(cells), fit_line(spans[:-1], cells)]
