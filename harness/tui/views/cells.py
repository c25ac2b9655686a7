"""Lines of styled text measured in terminal cells, and the one way by which outside text gets into them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from unicodedata import category, combining

from rich.cells import cell_len

from harness.text import visible

MAX_SPAN_CHARS = 4096
"""No terminal shows more in one line; a longer text costs time for nothing."""

MAX_MARKS = 3
"""Combining marks on one character; more would draw over the lines above and below."""

_VARIATION = {code: f"\\u{{{code:04x}}}" for code in (*range(0xFE00, 0xFE10), 0x034F, 0x115F, 0x1160, 0x3164)}
_ASCII = str.maketrans(
    {
        "✓": "+", "✗": "x", "●": "*", "○": "o", "◉": "@", "┃": "|", "━": "=", "─": "-", "│": "|", "▌": ">",
        "·": ".", "█": "#", "░": "-", "▲": "^", "▼": "v", "⊘": "!", "Δ": "d", "≥": ">", "≤": "<", "…": "~",
        "›": ">", "‹": "<", "→": ">", "±": "~", "┄": "-", "┆": ":", "┤": "|", "└": "+", "┴": "+", "⏎": "/", "—": "-",
        "×": "x", "−": "-", "↑": "^", "↓": "v", "⠀": " ", "α": "a", "β": "b",
        "⇄": "=", "◀": "<", "┊": ":",
        "▁": "_", "▂": "_", "▃": "-", "▄": "-", "▅": "=", "▆": "=", "▇": "#",
        **{chr(0x2801 + bits): "*" for bits in range(255)},
    }
)  # fmt: skip


class Span(NamedTuple):
    """A piece of a line in one style; the styles' names are in `harness.tui.palette`."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def safe(text: str) -> str:
    """One line of text that no terminal obeys and whose width is what `width` says."""
    shown = visible(text[: MAX_SPAN_CHARS + 1], keep_newlines=False)
    if shown.isascii():
        return shown
    return _tamed(shown)


def _tamed(text: str) -> str:
    """The text without what reaches into its neighbours: width selectors, and towers of combining marks."""
    # A variation selector changes how many cells a terminal gives to the glyph before it.
    text = text.translate(_VARIATION)
    if not any(map(combining, text)):
        return text
    out, height = [], 0
    for char in text:
        height = height + 1 if combining(char) or category(char) in ("Mn", "Me") else 0
        out.append(char if height <= MAX_MARKS else f"\\u{{{ord(char):04x}}}")
    return "".join(out)


def width(text: str) -> int:
    """Terminal cells that the text takes."""
    return len(text) if text.isascii() else cell_len(text)


def fit(text: str, cells: int, align: str = "<") -> str:
    """The text made safe and exactly `cells` wide: cut with `…`, or padded on the side that `align` leaves."""
    if cells <= 0:
        return ""
    shown = cut(safe(text), cells)
    space = " " * (cells - width(shown))
    return space + shown if align == ">" else shown + space


def cut(text: str, cells: int) -> str:
    """The safe text, at most `cells` wide; a cut is marked with `…`."""
    if width(text) <= cells:
        return text
    return _crop(text, cells - 1) + "…" if cells > 0 else ""


def _crop(text: str, cells: int) -> str:
    if text.isascii():
        return text[:cells]
    used = 0
    for index, char in enumerate(text):
        used += width(char)
        if used > cells:
            return text[:index]
    return text


def line(*parts: str | Span) -> Line:
    """A line of the parts; a bare text has no style."""
    return tuple(part if isinstance(part, Span) else Span(part) for part in parts)


def line_width(spans: Line) -> int:
    """Terminal cells that the line takes."""
    return sum(width(span.text) for span in spans)


def fit_line(spans: Iterable[Span], cells: int) -> Line:
    """The line made safe and exactly `cells` wide, its styles kept."""
    out: list[Span] = []
    left = cells
    for span in spans:
        text = safe(span.text)
        size = width(text)
        if size > left:
            text = cut(text, left)
            size = width(text)
        if text:
            out.append(Span(text, span.style))
        left -= size
        if left <= 0:
            break
    if left > 0:
        out.append(Span(" " * left))
    return tuple(out)


def between(left: Line, right: Line, cells: int) -> Line:
    """Both ends of a line; the left one gives way where they meet."""
    room = max(0, cells - line_width(right) - 1)
    return fit_line((*fit_line(left, room), Span(" "), *right), cells)


def beside(left: Iterable[Line], right: Iterable[Line], left_cells: int, cells: int) -> list[Line]:
    """Two columns with a line between them, as long as the longer one."""
    a, b = list(left), list(right)
    rows = max(len(a), len(b))
    a += [()] * (rows - len(a))
    b += [()] * (rows - len(b))
    return [
        (*fit_line(one, left_cells), Span("│", "rule"), *fit_line(other, cells - left_cells - 1))
        for one, other in zip(a, b, strict=True)
    ]


def exactly(lines: list[Line], rows: int) -> list[Line]:
    """Cut or filled with empty lines to `rows`."""
    return lines[:rows] + [()] * max(0, rows - len(lines))


def rule(cells: int) -> Line:
    """A line across."""
    return (Span("─" * cells, "rule"),)


def plain(spans: Line) -> str:
    """The line's text, safe, without styles and trailing space."""
    return "".join(safe(span.text) for span in spans).rstrip()


def to_ascii(text: str) -> str:
    """The text with this program's glyphs written in ASCII, each in one cell."""
    return text if text.isascii() else text.translate(_ASCII)


def wrap(text: str, cells: int, *, rows: int) -> list[str]:
    """The outside text, safe, in lines of at most `cells`; the last of `rows` says when there is more."""
    shown = visible(text, limit_chars=max(1, rows) * max(1, cells))
    out: list[str] = []
    for paragraph in shown.split("\n"):
        out.extend(_wrap_one(paragraph if paragraph.isascii() else _tamed(paragraph), max(1, cells)))
        if len(out) > rows:
            return [*out[: rows - 1], cut("… more below: z shows the whole text", cells)]
    return out


def _wrap_one(text: str, cells: int) -> list[str]:
    out: list[str] = []
    start, reach = 0, (MAX_MARKS + 1) * cells + 1
    while True:
        # What can stand in one line, and a bit: the rest is not measured again for each line.
        ahead = text[start : start + reach]
        if start + len(ahead) == len(text) and width(ahead) <= cells:
            return [*out, ahead]
        head = _crop(ahead, cells) or ahead[:1]
        space = head.rfind(" ")
        if space > cells // 2:
            head = head[: space + 1]
        out.append(head.rstrip())
        start += len(head)
