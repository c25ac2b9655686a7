"""Screen 4: two stages on the same items: what was gained and lost, where, and what else changed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.tui.views import numbers
from harness.tui.views.bars import Axis, axis_for, axis_title, interval_bar
from harness.tui.views.cells import Line, Span, between, exactly, fit, fit_line, line, rule, wrap
from harness.tui.views.matrix import mark, window
from harness.tui.views.numbers import count, number
from harness.tui.views.samples import text_of

LEVEL = 0.05
KINDS = ("all", "lost", "gained")
MIN_ROWS_WITH_TEXT = 24
MAX_COMPARED_CHARS = 4000
"""Word by word, longer texts take longer than a key may."""


@dataclass(frozen=True, slots=True)
class DiffHere:
    """Where the person is on the screen."""

    suite: int = 0
    pane: str = "flips"
    """`slices` or `flips`."""
    slice: int = 0
    flip: int = 0
    kind: str = "all"
    """Which flips are listed."""


class Flip(NamedTuple):
    """One item that turned."""

    id: str
    kind: str
    """`lost` or `gained`."""
    gold: str
    answer: str | None
    """The wrong one of the two answers."""


class Pair(NamedTuple):
    """The samples of one item on both sides, where they could be read."""

    a: Mapping[str, Any] | None
    b: Mapping[str, Any] | None


def suites_of(document: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """What the comparison says of each suite."""
    found = (document or {}).get("suites")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def flips_of(suite: Mapping[str, Any], kind: str) -> list[Flip]:
    """The suite's items that turned: what was lost first, the most frequent mistakes first."""
    return [flip for one in ("lost", "gained") if kind in ("all", one) for flip in _flips(suite, one)]


def _flips(suite: Mapping[str, Any], kind: str) -> Iterator[Flip]:
    for group in suite.get(kind) or ():
        answer = group.get("answer")
        for id_ in group.get("ids") or ():
            yield Flip(
                str(id_), kind, text_of(group.get("gold")), None if answer is None else text_of(answer)
            )


def rows_of(suite: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All items first, then the slices, what was lost most first."""
    parts = sorted(
        suite.get("parts") or (), key=lambda part: (number(part.get("delta")) or 0.0, str(part.get("slice")))
    )
    overall = suite.get("overall")
    return [*([overall] if overall else []), *parts]


def diff_body(
    document: Mapping[str, Any] | None,
    here: DiffHere,
    *,
    sides: Sequence[str],
    said: str,
    pair: Pair,
    cells: int,
    rows: int,
) -> list[Line]:
    """The screen between its frame's lines. `sides` names A and B; `said` is shown while there is no document."""
    head = [_sides_line(sides, document, here, cells)]
    suites = suites_of(document)
    if not suites:
        return [*head, rule(cells), line(Span(f" {said}", "dim"))]
    suite = suites[min(here.suite, len(suites) - 1)]
    head += [*_overall_lines(suite, cells), rule(cells)]
    text_rows = 5 if rows >= MIN_ROWS_WITH_TEXT else 0
    foot = _changes_lines(document or {}, cells)
    room = rows - len(head) - len(foot) - text_rows - 2
    slice_rows = min(len(rows_of(suite)) + 1, max(3, room // 2))
    body = [*head, *exactly(_slice_lines(suite, here, cells, slice_rows), slice_rows), rule(cells)]
    flip_rows = room - slice_rows
    body += exactly(_flip_lines(suite, here, cells, flip_rows), flip_rows)
    if text_rows:
        body += [rule(cells), *exactly(_text_lines(pair, cells, text_rows - 1), text_rows - 1)]
    return [*body, rule(cells), *foot]


def _sides_line(sides: Sequence[str], document: Mapping[str, Any] | None, here: DiffHere, cells: int) -> Line:
    left = line(
        Span(" A ", "head"),
        Span(sides[0]),
        Span("  ⇄  ", "dim"),
        Span("B ", "head"),
        Span(sides[1], "strong"),
    )
    suites = suites_of(document)
    many = f"suite {min(here.suite, len(suites) - 1) + 1}/{len(suites)} " if len(suites) > 1 else ""
    return between(left, line(Span(many, "dim")), cells)


def _overall_lines(suite: Mapping[str, Any], cells: int) -> list[Line]:
    name = Span(f" {suite.get('suite')}", "head")
    overall, unmatched = suite.get("overall"), suite.get("unmatched") or {}
    left_out = sum(len(unmatched.get(key) or ()) for key in ("only_a", "only_b", "other_gold"))
    if not overall:
        return [line(name, Span("  no item in common", "warning"))]
    bounds = f" [{numbers.signed(number(overall.get('low')))}, {numbers.signed(number(overall.get('high')))}]"
    word, style = direction(overall)
    first = between(
        line(name, Span(f"  A {numbers.score(number(overall.get('a')))}   B {numbers.score(number(overall.get('b')))}"),
             Span(f"   Δ {numbers.signed(number(overall.get('delta')))}", "strong"), Span(bounds)),
        line(Span(word + " ", style)), cells,
    )  # fmt: skip
    facts = [
        f"paired on {numbers.amount(count(overall.get('n')))} items",
        f"{left_out} not comparable" if left_out else "all of both",
        f"lost {overall.get('lost')}, gained {overall.get('gained')}",
        f"McNemar p = {_p(overall.get('p'))}",
        f"worth {number(overall.get('worth')) or 0:.0f} independent items",
    ]
    return [first, line(Span("  " + " · ".join(facts), "dim"))]


def direction(part: Mapping[str, Any]) -> tuple[str, str]:
    """`better` or `worse` where chance does not explain the difference at 5 %, with its style."""
    p = number(part.get("p") if part.get("p_holm") is None else part.get("p_holm"))
    delta = number(part.get("delta")) or 0.0
    if p is None or p > LEVEL or delta == 0.0:
        return "· can't tell", "dim"
    return ("▲ better", "pass") if delta > 0 else ("▼ WORSE", "fail-text")


def _p(value: Any) -> str:
    p = number(value)
    return numbers.UNKNOWN if p is None else "1" if p >= 0.995 else f"{p:.2g}"


def _slice_lines(suite: Mapping[str, Any], here: DiffHere, cells: int, rows: int) -> list[Line]:
    parts = rows_of(suite)
    name_cells = max(16, cells // 4)
    bar_cells = max(10, cells - name_cells - 54)
    axis = axis_for([number(part.get("delta")) for part in parts], is_difference=True)
    columns = fit("n", 6, ">") + fit("A", 7, ">") + fit("B", 7, ">") + fit("Δ", 8, ">") + " "
    title = (
        Span(fit(" slice", name_cells) + columns, "dim"),
        Span(axis_title(axis, bar_cells, "B − A, 95%", "B − A"), "dim"),
        Span(fit("Holm p", 9, ">") + "  flips", "dim"),
    )
    first = window(here.slice, len(parts), rows - 1)
    shown = list(enumerate(parts))[first : first + rows - 1]
    return [
        title,
        *(_slice_line(part, at == here.slice, here, axis, name_cells, bar_cells) for at, part in shown),
    ]


def _slice_line(
    part: Mapping[str, Any], is_here: bool, here: DiffHere, axis: Axis, name_cells: int, bar_cells: int
) -> Line:
    name = str(part.get("slice")).replace("label=", "recall ")
    delta, low, high = (number(part.get(key)) for key in ("delta", "low", "high"))
    _, style = direction(part)
    bar_style = {"pass": "pass-bar", "fail-text": "fail-bar"}.get(style, "progress")
    bar = interval_bar(axis, bar_cells, score=delta, low=low, high=high, gate=0.0, style=bar_style)
    p = part.get("p") if part.get("p_holm") is None else part.get("p_holm")
    return (
        mark(is_here, here.pane == "slices"), Span(fit(name, name_cells - 1), "strong" if name == "all" else ""),
        Span(fit(numbers.amount(count(part.get("n"))), 6, ">"), "dim"),
        Span(fit(numbers.score(number(part.get("a"))), 7, ">") + fit(numbers.score(number(part.get("b"))), 7, ">")),
        Span(fit(numbers.signed(delta), 8, ">") + " ", style if style != "dim" else ""), *bar,
        Span(fit(_p(p), 9, ">"), "dim"), Span(f"  {part.get('lost')}↓ {part.get('gained')}↑", "dim"),
    )  # fmt: skip


def _flip_lines(suite: Mapping[str, Any], here: DiffHere, cells: int, rows: int) -> list[Line]:
    flips = flips_of(suite, here.kind)
    lost, gained = (len(flips_of(suite, kind)) for kind in ("lost", "gained"))
    otherwise = count(suite.get("n_wrong_otherwise")) or 0
    title = between(
        line(Span(" TURNED", "head"), Span(f"  right→wrong {lost}", "fail-text" if lost else "dim"),
             Span(f"  wrong→right {gained}", "pass-text" if gained else "dim"),
             Span(f"  otherwise wrong {otherwise}", "dim")),
        line(Span(f"{'both ways' if here.kind == 'all' else here.kind + ' only'} ", "dim")), cells,
    )  # fmt: skip
    if not flips:
        return [title, line(Span(" nothing turned this way", "dim"))]
    first = window(here.flip, len(flips), rows - 1)
    shown = list(enumerate(flips))[first : first + rows - 1]
    return [title, *(_flip_line(flip, at == here.flip, here.pane == "flips", cells) for at, flip in shown)]


def _flip_line(flip: Flip, is_here: bool, is_focused: bool, cells: int) -> Line:
    wrong = flip.answer if flip.answer is not None else "no answer"
    is_lost = flip.kind == "lost"
    id_cells = max(12, cells // 5)
    sides = (flip.gold, wrong) if is_lost else (wrong, flip.gold)
    room = cells - id_cells - 6
    return (
        mark(is_here, is_focused), Span("↓ " if is_lost else "↑ ", "fail-text" if is_lost else "pass-text"),
        Span(fit(flip.id, id_cells), "strong" if is_here else ""),
        Span(fit(f"A {sides[0]}", room // 2), "" if is_lost else "dim"), Span(" "),
        Span(fit(f"B {sides[1]}", room - room // 2), "dim" if is_lost else ""),
    )  # fmt: skip


def _text_lines(pair: Pair, cells: int, rows: int) -> list[Line]:
    """Both answers word by word; what only one of them says stands out."""
    if pair.a is None and pair.b is None:
        return []
    texts = [_said(sample)[:MAX_COMPARED_CHARS] for sample in pair]
    each = max(1, rows // 2)
    return [
        *_side_lines("−", texts[0], texts[1], pair.a, cells, each, "fail-text"),
        *_side_lines("+", texts[1], texts[0], pair.b, cells, each, "pass-text"),
    ]


def _said(sample: Mapping[str, Any] | None) -> str:
    if sample is None:
        return "not read"
    return (
        text_of(sample.get("output") or sample.get("answer")) or text_of(sample.get("error")) or "no answer"
    )


def _side_lines(
    sign: str, text: str, other: str, sample: Mapping[str, Any] | None, cells: int, rows: int, style: str
) -> list[Line]:
    confidence = number((sample or {}).get("confidence"))
    tail = f"  {confidence:.3f}" if confidence is not None else ""
    lines = []
    for index, part in enumerate(wrap(text, cells - 12, rows=rows)):
        head = Span(f" {sign} " if index == 0 else "   ", style)
        words = _changed_words(part, other, style)
        lines.append(
            between(fit_line((head, *words), cells - 8), line(Span(tail if index == 0 else "", "dim")), cells)
        )
    return lines


def _changed_words(text: str, other: str, style: str) -> list[Span]:
    """The text's words, those that the other text does not have in this order marked."""
    mine, theirs = text.split(" "), other.replace("\n", " ").split(" ")
    blocks = difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks()
    same = {at for block in blocks for at in range(block.a, block.a + block.size)}
    return [Span(word + " ", "" if at in same else style) for at, word in enumerate(mine)]


def _changes_lines(document: Mapping[str, Any], cells: int) -> list[Line]:
    changes = [one for one in document.get("changes") or () if isinstance(one, dict)]
    if not changes:
        return [line(Span(" CHANGED", "head"), Span("  nothing else that is on record", "dim"))]
    words = [" ".join(filter(None, (str(one.get("part")), str(one.get("key") or "")))) for one in changes]
    found = [line(Span(" CHANGED", "head"), Span(f"  {' · '.join(dict.fromkeys(words))}"))]
    if len(set(words)) > 1:
        note = f"  ▲ {len(set(words))} things differ: a difference can't be put down to one of them alone"
        found.append(line(Span(note, "warning")))
    return [fit_line(spans, cells) for spans in found]
