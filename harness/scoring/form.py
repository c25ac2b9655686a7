"""Is an answer as long as it should be, and in the form that was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from harness.errors import StatsError
from harness.scoring.item import Item, Score

MAX_MATCHED_CHARS = 1_000_000
_BULLET = re.compile(r"^[ \t]*(?:[-*•–]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?。！？]+[\"'”’)\]]*(?=\s|$)")
_COUNTED: Mapping[str, Callable[[str], int]] = {
    "chars": len,
    "words": lambda text: len(text.split()),
    "sentences": lambda text: count_sentences(text),
    "lines": lambda text: sum(bool(line.strip()) for line in text.splitlines()),
    "bullets": lambda text: sum(1 for _ in _BULLET.finditer(text)),
}


def form(item: Item) -> Score:
    """1 if the answer keeps all that the settings ask; counts: kept and broken rules by their names.

    Settings: `min_` and `max_` of `chars`, `words`, `sentences`, `lines`, `bullets`; `matches`, a pattern that
    the whole answer fits (RE2, so in linear time); `banned` and `required` phrases, in any case; `example`, an
    answer that keeps them all and proves the scorer where `matches` is set.

    Raises:
        StatsError: no rule is set, or RE2 can't read the pattern.
    """
    if item.answer is None:
        return Score(0.0, error_class="no_answer")
    kept = dict(_rules(item.answer, item.settings))
    if not kept:
        raise StatsError(
            "scorer 'form' has no rule to check", hint="set max_words, matches, banned, … beside its name"
        )
    broken = [name for name, is_kept in kept.items() if not is_kept]
    counts = {name: (int(is_kept), 0, int(not is_kept)) for name, is_kept in kept.items()}
    return Score(float(not broken), counts, broken[0] if broken else None, ", ".join(broken))


def count_sentences(text: str) -> int:
    """Ends of sentences, and one more where the last has no end mark."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    rest = text[ends[-1] :] if ends else text
    return len(ends) + bool(rest.strip())


def keeping(settings: Mapping[str, Any]) -> str | None:
    """An answer that keeps the settings; None where only an example can tell."""
    if "example" in settings:
        return str(settings["example"])
    if "matches" in settings:
        return None
    floors = {name: int(settings.get(f"min_{name}", 0)) for name in _COUNTED}
    words = " ".join(["k"] * max(floors["words"] - len(_phrases(settings, "required")), 0))
    text = " ".join((*_phrases(settings, "required"), words)).strip() or "k"
    text += "." * (floors["sentences"] > 0) + " K." * max(floors["sentences"] - 1, 0)
    n_lines = max(floors["bullets"], floors["lines"])
    text += "".join(f"\n{'- ' if place < floors['bullets'] else ''}k" for place in range(n_lines))
    return text + " " + "k" * max(floors["chars"] - len(text) - 1, 0) if len(text) < floors["chars"] else text


def breaking(settings: Mapping[str, Any]) -> list[str]:
    """Answers that each break one rule of the settings."""
    found = [f"{phrase} {keeping(settings) or ''}" for phrase in _phrases(settings, "banned")[:5]]
    too_long = {"chars": "k", "words": "ok ", "sentences": "Ok. ", "lines": "ok\n", "bullets": "- ok\n"}
    found += [
        unit * (int(settings[f"max_{name}"]) + 1)
        for name, unit in too_long.items()
        if f"max_{name}" in settings
    ]
    if any(key.startswith("min_") and int(settings[key]) > 0 for key in settings) or "required" in settings:
        found.append("")
    return [*found, "\u2297\n\u2297"] if "matches" in settings else found


def _rules(text: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    for name, count in _COUNTED.items():
        if f"min_{name}" in settings:
            yield f"min_{name}", count(text) >= int(settings[f"min_{name}"])
        if f"max_{name}" in settings:
            yield f"max_{name}", count(text) <= int(settings[f"max_{name}"])
    folded = _folded(text)
    if "banned" in settings:
        yield "banned", not any(_folded(phrase) in folded for phrase in _phrases(settings, "banned"))
    if "required" in settings:
        yield "required", all(_folded(phrase) in folded for phrase in _phrases(settings, "required"))
    if "matches" in settings:
        yield "matches", len(text) <= MAX_MATCHED_CHARS and _fits(str(settings["matches"]), text)


def _phrases(settings: Mapping[str, Any], key: str) -> list[str]:
    value = settings.get(key, ())
    return [value] if isinstance(value, str) else [str(phrase) for phrase in value]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _fits(pattern: str, text: str) -> bool:
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return _compiled(pattern).fullmatch(clean.strip()) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise StatsError(
            f"scorer 'form': RE2 can't read the pattern {pattern!r}: {reason}",
            hint="RE2 has no look-around and no back-references: https://github.com/google/re2/wiki/Syntax",
        ) from error
