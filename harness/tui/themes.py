"""Style names → how the terminal draws them; without colour, weight and reverse say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rich.style import Style


class Theme(NamedTuple):
    """Colours for every style name."""

    name: str
    paper: str
    """The background, as CSS and Rich both spell it."""
    styles: dict[str, Style]


@dataclass(frozen=True, slots=True)
class _Inks:
    """The few colours that a theme is made of."""

    paper: str
    ink: str
    bright: str
    """Titles and what is chosen."""
    soft: str
    off: str
    line: str
    accent: str
    code: str
    warm: str
    cool: str
    good: str
    bad: str
    unsure: str
    shade: str
    """Behind what is chosen."""


_DARK = _Inks(
    paper="#14171c", ink="#d7dae0", bright="#ffffff", soft="#8f98a6", off="#7d8694", line="#3a414c",
    accent="#9cc4ff", code="#c8d3a5", warm="#ffb454", cool="#6fc3df", good="#8fd694", bad="#ff7b72", unsure="#ffd866",
    shade="#2a3340",
)  # fmt: skip
_LIGHT = _Inks(
    paper="#fafafa", ink="#24292f", bright="#000000", soft="#57606a", off="#6a737d", line="#c4ccd4",
    accent="#0550ae", code="#3f5a1c", warm="#9a4b00", cool="#0b6078", good="#116329", bad="#b3121d", unsure="#7d5500",
    shade="#dbe6f4",
)  # fmt: skip
_ANSI = _Inks(
    paper="default", ink="default", bright="default", soft="default", off="bright_black", line="bright_black",
    accent="blue", code="cyan", warm="yellow", cool="cyan", good="green", bad="red", unsure="yellow", shade="default",
)  # fmt: skip
_REVERSED = {"fail", "tab", "selected"}
_BOLD = {
    "title", "head", "strong", "key", "cursor", "running", "gate", "pass", "fail", "fail-text", "unsure", "tab",
}  # fmt: skip
_FAINT = {"faint", "off", "rule"}


def theme(name: str, *, is_monochrome: bool) -> Theme:
    """The theme of that name; in black and white it is one of two greys."""
    inks = {"dark": _DARK, "light": _LIGHT, "ansi": _ANSI}[name]
    if is_monochrome:
        ink, paper = ("#f2f4f7", "#14171c") if name != "light" else ("#14171c", "#f2f4f7")
        return Theme(name, paper, {style: _grey(style, ink, paper) for style in _specs(inks)})
    found = {
        style: Style.parse(spec if " on " in spec else f"{spec} on {inks.paper}")
        for style, spec in _specs(inks).items()
    }
    return Theme(name, "ansi_default" if name == "ansi" else inks.paper, found)


NAMES = ("dark", "light", "ansi")


def _specs(inks: _Inks) -> dict[str, str]:
    fail = f"bold reverse {inks.bad}" if inks.paper == "default" else f"bold {inks.paper} on {inks.bad}"
    return {
        "": inks.ink, "title": f"bold {inks.bright}", "tab": f"bold {inks.bright}", "head": f"bold {inks.accent}",
        "strong": f"bold {inks.bright}", "dim": inks.soft, "faint": inks.line, "off": inks.off, "rule": inks.line,
        "key": f"bold {inks.accent}", "code": inks.code, "cursor": f"bold {inks.warm}",
        "selected": f"bold {inks.bright} on {inks.shade}", "running": f"bold {inks.cool}", "progress": inks.cool,
        "gate": f"bold {inks.bright}", "curve": inks.cool, "curve-2": f"bold {inks.warm}", "warning": inks.warm,
        "pass": f"bold {inks.good}", "pass-text": inks.good, "pass-bar": inks.good,
        "fail": fail, "fail-text": f"bold {inks.bad}", "fail-bar": inks.bad,
        "unsure": f"bold {inks.unsure}", "unsure-text": inks.unsure, "unsure-bar": inks.unsure,
        "dim-text": inks.soft, "dim-bar": inks.soft,
    }  # fmt: skip


def _grey(name: str, ink: str, paper: str) -> Style:
    if name in _REVERSED:
        ink, paper = paper, ink
    elif name in _FAINT:
        ink = "#9a9a9a" if ink == "#f2f4f7" else "#5f5f5f"
    return Style(color=ink, bgcolor=paper, bold=name in _BOLD)
