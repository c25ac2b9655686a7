"""Style names → how the terminal draws them; without colour, weight and reverse say the same."""

from __future__ import annotations

from rich.style import Style

BACKGROUND = "#14171c"
FOREGROUND = "#d7dae0"

_COLOUR = {
    "": f"{FOREGROUND}",
    "title": "bold #ffffff",
    "tab": "bold #ffffff",
    "head": "bold #9cc4ff",
    "strong": "bold #ffffff",
    "dim": "#8f98a6",
    "faint": "#4a525e",
    "off": "#69727f",
    "rule": "#3a414c",
    "key": "bold #9cc4ff",
    "code": "#c8d3a5",
    "cursor": "bold #ffb454",
    "selected": "bold #ffffff on #2a3340",
    "running": "bold #6fc3df",
    "progress": "#6fc3df",
    "gate": "bold #ffffff",
    "curve": "#6fc3df",
    "curve-2": "bold #ffb454",
    "warning": "#ffb454",
    "pass": "bold #8fd694",
    "pass-text": "#8fd694",
    "pass-bar": "#8fd694",
    "fail": "bold #14171c on #ff7b72",
    "fail-text": "bold #ff7b72",
    "fail-bar": "#ff7b72",
    "unsure": "bold #ffd866",
    "unsure-text": "#ffd866",
    "unsure-bar": "#ffd866",
    "dim-text": "#8f98a6",
    "dim-bar": "#8f98a6",
}
_REVERSED = {"fail", "tab", "selected"}
_BOLD = {
    "title", "head", "strong", "key", "cursor", "running", "gate", "pass", "fail", "fail-text", "unsure", "tab",
}  # fmt: skip
_FAINT = {"faint", "off", "rule"}


def styles(*, is_monochrome: bool) -> dict[str, Style]:
    """The drawing style of every name."""
    if not is_monochrome:
        return {
            name: Style.parse(spec if " on " in spec else f"{spec} on {BACKGROUND}")
            for name, spec in _COLOUR.items()
        }
    return {name: _grey(name) for name in _COLOUR}


def _grey(name: str) -> Style:
    ink, paper = ("#14171c", "#f2f4f7") if name in _REVERSED else ("#f2f4f7", "#14171c")
    if name in _FAINT:
        ink = "#9a9a9a"
    return Style(color=ink, bgcolor=paper, bold=name in _BOLD)
