"""What `harness compare` draws: both sides, where they differ, which items turned, what else changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from harness.evals.changes import Change
from harness.evals.compare import Comparison, Delta, Flip, SuiteComparison
from harness.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LEVEL = 0.05
LEAST_SLICE_WIDTH = 20
LEAST_TABLE_WIDTH = 100
MOST_FLIPS = 12
MOST_IDS = 4
MOST_CHANGES = 24
GLYPHS = {"better": "▲ better", "worse": "▼ worse", "": "· can't tell"}
STYLES = {"better": "green", "worse": "bold red", "": "dim"}


def print_comparison(console: Console, found: Comparison) -> None:
    """All of it; `--json` has the ids and changes that are left out here."""
    for letter, side in (("A", found.a), ("B", found.b)):
        _say(console, f"{letter}  {side.run} · {side.stage}")
    for suite in found.suites:
        _say(console, "")
        _print_suite(console, suite)
    _say(console, "")
    _print_changes(console, found.changes)


def direction(delta: Delta) -> str:
    """`better` or `worse` where chance does not explain the difference at 5 %, else nothing."""
    p = delta.p if delta.p_holm is None else delta.p_holm
    if p > LEVEL or delta.delta == 0.0:
        return ""
    return "better" if delta.delta > 0.0 else "worse"


def _print_suite(console: Console, suite: SuiteComparison) -> None:
    _say(console, _matched(suite))
    if suite.overall is None:
        return
    # A narrow terminal breaks the lines; cropped or squeezed, the name or the verdict would be gone.
    table = _delta_table([suite.overall, *suite.parts])
    table.width = LEAST_TABLE_WIDTH if console.width < LEAST_TABLE_WIDTH else None
    console.print(table, soft_wrap=True)
    _say(
        console,
        "accuracy, of a label its recall; p is exact McNemar, below the first line Holm's for all at once",
    )
    _print_flips(console, "right → wrong", suite.lost)
    _print_flips(console, "wrong → right", suite.gained)
    if suite.n_wrong_otherwise:
        _say(console, f"wrong in both, with another answer: {suite.n_wrong_otherwise}")


def _matched(suite: SuiteComparison) -> str:
    n = suite.overall.n if suite.overall else 0
    parts = [f"{suite.suite}: {n} items in common, {suite.n_same_prompt} of them with the same token ids"]
    for ids, what in (
        (suite.unmatched.only_a, "only in A"),
        (suite.unmatched.only_b, "only in B"),
        (suite.unmatched.other_gold, "left out because their gold changed"),
    ):
        parts += [f"{len(ids)} {what}"] if ids else []
    return "; ".join(parts)


def _delta_table(deltas: Sequence[Delta]) -> Table:
    from rich.text import Text

    table = _table(["slice", "n (worth)", "A", "B", "B − A, 95 % bounds", "turned", "p", ""], folded="slice")
    for delta in deltas:
        where = direction(delta)
        p = delta.p if delta.p_holm is None else delta.p_holm
        table.add_row(
            _text(delta.slice), f"{delta.n} ({delta.worth:.0f})", f"{delta.a:.3f}", f"{delta.b:.3f}",
            _difference(delta), f"−{delta.lost} +{delta.gained}", _chance(p),
            Text(GLYPHS[where], style=STYLES[where]),
        )  # fmt: skip
    for column in table.columns:
        longest = max(len(str(cell)) for cell in column.cells)
        column.min_width = min(longest, LEAST_SLICE_WIDTH) if column.header == "slice" else longest
    return table


def _difference(delta: Delta) -> str:
    if delta.low is None or delta.high is None:
        return f"{delta.delta:+.3f}"
    return f"{delta.delta:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}]"


def _chance(p: float) -> str:
    return "< .0001" if p < 0.0001 else f"{p:.4f}"


def _print_flips(console: Console, title: str, flips: Sequence[Flip]) -> None:
    _say(console, "")
    _say(console, f"{title}: {sum(len(flip.ids) for flip in flips)}")
    if not flips:
        return
    table = _table(["items", "gold", "wrong answer", "ids"])
    for flip in flips[:MOST_FLIPS]:
        table.add_row(
            str(len(flip.ids)), _text(" or ".join(flip.gold)),
            _text(flip.answer if flip.answer is not None else "(none)"), _text(_some(flip.ids)),
        )  # fmt: skip
    console.print(table)
    _say_left_out(console, len(flips) - MOST_FLIPS, "groups")


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else ""
    return ", ".join(ids[:MOST_IDS]) + more


def _print_changes(console: Console, changes: Sequence[Change]) -> None:
    _say(console, "what else changed" if changes else "nothing else changed: same model, lock and options")
    if not changes:
        return
    table = _table(["part", "what", "A", "B"])
    for _, group in groupby(changes[:MOST_CHANGES], key=lambda change: change.part):
        for number, change in enumerate(group):
            part = change.part if number == 0 else ""
            table.add_row(part, _text(change.key), _text(_value(change.a)), _text(_value(change.b)))
    console.print(table)
    _say_left_out(console, len(changes) - MOST_CHANGES, "changes")


def _value(value: Any) -> str:
    """The value in few characters: a digest by its beginning."""
    if value is None:
        return "—"
    text = str(value)
    is_digest = len(text) == 64 and all(char in "0123456789abcdef" for char in text)
    return text[:12] if is_digest else text


def _say_left_out(console: Console, count: int, what: str) -> None:
    if count > 0:
        _say(console, f"and {count} more {what}: --json has them all")


def _table(names: Sequence[str], *, folded: str = "") -> Table:
    """A table whose columns keep their lines whole, but for `folded`; without it all columns may fold."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=bool(folded) and name != folded)
    return table


def _text(value: str) -> Any:
    from rich.text import Text

    return Text(visible(value, keep_newlines=False, limit_chars=120))


def _say(console: Console, text: str) -> None:
    console.print(visible(text, keep_newlines=False), markup=False, highlight=False)
