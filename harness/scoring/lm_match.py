"""`exact_match` of lm-evaluation-harness, with the steps that it takes from an output to an answer.

Follows `exact_match_hf_evaluate` in `lm_eval/api/metrics.py` and `lm_eval/filters` (0.4.13), Python's `re`
included: the same number must come out, and other engines read the same pattern differently.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from typing import Any

from harness.scoring.item import Item, Score

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_DIGITS = str.maketrans("", "", string.digits)


def lm_eval_match(item: Item) -> Score:
    """1 if the answer is a gold text after the steps, up to what the settings ignore.

    Settings: `steps` (each a JSON object of a filter's step), `ignore_case`, `ignore_punctuation`,
    `ignore_numbers`, `regexes_to_ignore`.
    """
    if item.answer is None:
        return Score(0.0)
    answer = item.answer
    for step in item.settings.get("steps", ()):
        answer = _stepped(answer, json.loads(step))
    wanted = {_plain(text, item.settings) for text in item.targets}
    return Score(float(_plain(answer, item.settings) in wanted), note=answer)


def _stepped(text: str, step: Mapping[str, Any]) -> str:
    match step["function"]:
        case "regex":
            return _extracted(text, step)
        case "remove_whitespace":
            return text.strip()
        case "lowercase":
            return text.lower()
        case "uppercase":
            return text.upper()
    return text


def _extracted(text: str, step: Mapping[str, Any]) -> str:
    """The match that the step selects, of several groups the first that is not empty."""
    fallback = str(step["fallback"])
    found = re.findall(step["regex_pattern"], text)
    if not found or not -len(found) <= step["group_select"] < len(found):
        return fallback
    chosen = found[step["group_select"]]
    if isinstance(chosen, tuple):
        chosen = next((group for group in chosen if group), fallback)
    return str(chosen).strip()


def _plain(text: str, settings: Mapping[str, Any]) -> str:
    for pattern in settings.get("regexes_to_ignore", ()):
        text = re.sub(pattern, "", text)
    if settings.get("ignore_case"):
        text = text.lower()
    if settings.get("ignore_punctuation"):
        text = text.translate(_NO_PUNCTUATION)
    return text.translate(_NO_DIGITS) if settings.get("ignore_numbers") else text
