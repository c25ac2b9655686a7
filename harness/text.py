"""Text that came from outside, made safe to show."""

from __future__ import annotations

import unicodedata


def visible(text: str, *, keep_newlines: bool = True, limit_chars: int | None = None) -> str:
    """The text with everything that a terminal would obey turned into something a person can see.

    Control characters (C0, C1), escape sequences, bidirectional overrides, zero-width and other
    format characters, lone surrogates and private-use characters become `\\xNN` or `\\u{NNNN}`;
    a tab becomes four spaces, any other space one. Line feeds stay unless `keep_newlines` is false (then `⏎`). With
    `limit_chars`, longer text is cut and says how many characters were left out.
    """
    left_out = 0
    if limit_chars is not None and len(text) > limit_chars:
        left_out = len(text) - limit_chars
        text = text[:limit_chars]
    if text.isascii() and text.isprintable():
        shown = text
    else:
        shown = "".join(_shown(char, keep_newlines) for char in text)
    return f"{shown}… ({left_out:,} more characters)" if left_out else shown


def _shown(char: str, keep_newlines: bool) -> str:
    if char == "\n":
        return "\n" if keep_newlines else "⏎"
    if char == "\t":
        return "    "
    if char.isprintable():
        return char
    if unicodedata.category(char) == "Zs":
        return " "
    code = ord(char)
    return f"\\x{code:02x}" if code < 0xA0 else f"\\u{{{code:04x}}}"


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that a person most likely meant, or None."""
    import difflib

    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return found[0] if found else None
