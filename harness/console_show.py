"""What `harness check --show` draws: training examples token by token, with marks that need no colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from harness.train.show import Shown

BETWEEN = "·"
OPEN, CLOSE = "⟦", "⟧"
LEGEND = f"{OPEN}carries loss{CLOSE} the rest is context; tokens end at {BETWEEN}, line ends are ⏎"


def print_shown(console: Console, recipe: str, examples: Sequence[Shown]) -> None:
    from rich.text import Text

    console.print(Text(f"{visible(recipe)}: the first training examples; {LEGEND}"))
    for example in examples:
        console.print(draw(example))


def draw(example: Shown) -> Text:
    """The example's name and lengths, then its tokens."""
    from rich.text import Text

    note = f"; {example.note}" if example.note else ""
    counts = f"{example.supervised_tok:,} of {len(example.tokens):,} tokens carry loss"
    text = Text(f"\n{visible(example.id, keep_newlines=False)}: {counts}{visible(note)}\n", style="bold")
    was = False
    for token in example.tokens:
        if token.is_supervised != was:
            text.append(OPEN if token.is_supervised else CLOSE, style="bold green")
        was = token.is_supervised
        text.append(visible(token.text, keep_newlines=False), style="green" if was else "dim")
        text.append(f"{BETWEEN}\n" if token.text.endswith("\n") else BETWEEN, style="dim")
    if was:
        text.append(CLOSE, style="bold green")
    return text
