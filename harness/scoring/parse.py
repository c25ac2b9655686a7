"""How an output becomes an answer: labels, an object, spans, a number, or the text itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import DataError
from harness.files import parse_json
from harness.scoring.numbers import read_quantities
from harness.scoring.quotes import place_quotes

MAX_JSON_CHARS = 256 * 1024
MAX_JSON_DEPTH = 16
MAX_SPANS = 500
"""More spans than this in one answer are cut."""

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w+-]*[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,3}[.)])\s+")
_NOTHING = {"none", "no labels", "no label", "n/a", "nothing", "no spans", "not mentioned"}
_MARKERS = re.compile(r"\\boxed\{|####|\banswer\s{0,4}(?:is|:|=)", re.IGNORECASE)


def read_answer(
    task: str,
    text: str | None,
    *,
    labels: Sequence[str] = (),
    source: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Any | None:
    """What the text says, as JSON: by task a list of known labels, an object, a list of
    `{label?, text, start, end}`, `{number, scale, is_percent, unit, decimals}`, or the text. None where it
    can't be read.

    `labels` are what may be said (or the record's options); `source` is where quotes are looked for.
    Takes about a second for a megabyte of anything.
    """
    settings = settings or {}
    if text is None:
        return None
    if task == "multi_label":
        return read_labels(text, labels)
    if task == "extract":
        return read_object(text)
    if task == "spans":
        return read_spans(text, source)
    if task == "number":
        return read_number(text, settings)
    if task in ("classify", "verify", "choice"):
        found = read_labels(text, labels)
        return found[0] if found else None
    return text


def read_labels(text: str, labels: Sequence[str]) -> list[str] | None:
    """The known labels in a JSON list, lines, or text with commas, each once; [] for "none" or an empty list.

    None where it holds none of them, and nothing that says so. Case and white space don't matter.
    """
    known = {_key(label): label for label in labels}
    value = read_json(text)
    if isinstance(value, Mapping) and len(value) == 1:
        value = next(iter(value.values()))
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        parts = [part for part in value if isinstance(part, str)]
        if not value:
            return []
    else:
        parts = _parts(_unfenced(text), known)
    found = list(dict.fromkeys(known[_key(part)] for part in parts if _key(part) in known))
    return found or ([] if len(parts) == 1 and _key(parts[0]) in _NOTHING else None)


def read_object(text: str) -> dict[str, Any] | None:
    """The one JSON object of the text, alone or in one code fence; strict inside.

    None for anything else: other text around it, doubled keys, NaN, half of a surrogate pair, more than
    256 KiB, deeper than 16.
    """
    value = read_json(text)
    return value if isinstance(value, dict) else None


def read_json(text: str) -> Any | None:
    """The JSON list, object or string of the text, as `read_object`; None for anything else."""
    body = _unfenced(text).strip()
    if len(body) > MAX_JSON_CHARS or body[:1] not in ("{", "[", '"') or _depth(body) > MAX_JSON_DEPTH:
        return None
    try:
        value = parse_json(body)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (DataError, UnicodeEncodeError):
        return None
    return None if _has_infinity(value) else value


def read_spans(text: str, source: str) -> list[dict[str, Any]] | None:
    """Spans from a JSON list of quotes or objects, else from lines and quotation marks; placed in the source.

    `start` and `end` are None where the source does not hold the quote, and `n_places` says where it holds it
    more than once. [] for an empty list or "none".
    """
    value = read_json(text)
    if isinstance(value, Mapping):
        value = _span_list(value)
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        spans = [span for part in value[:MAX_SPANS] if (span := _span(part, source)) is not None]
        return place_quotes(spans, source) if spans or not value else None
    lines = [_BULLET.sub("", line).strip() for line in _unfenced(text).splitlines() if line.strip()]
    if not lines or (len(lines) == 1 and _key(lines[0]) in _NOTHING):
        return [] if lines else None
    return place_quotes([{"text": _unquoted(line)} for line in lines[:MAX_SPANS]], source)


def read_number(text: str, settings: Mapping[str, Any]) -> Any | None:
    """The quantity that the text gives as its answer.

    It is the first one after the last "answer is", "####" or "\\boxed{"; without such words the only one,
    else by the setting `pick` the `last` (unless told) or the `first`. With the setting `list`, all of them.
    """
    mark = str(settings.get("decimal_mark", "."))
    if settings.get("list"):
        found = read_quantities(text, decimal_mark=mark)
        return [quantity.to_json() for quantity in found] or None
    ends = [marker.end() for marker in _MARKERS.finditer(text)]
    after = read_quantities(text[ends[-1] :], decimal_mark=mark) if ends else []
    if after:
        return after[0].to_json()
    found = read_quantities(text, decimal_mark=mark)
    if not found:
        return None
    return found[0 if settings.get("pick") == "first" else -1].to_json()


def _key(text: str) -> str:
    return " ".join(text.casefold().strip(" \t\n\r\"'`.*_").split())


def _unfenced(text: str) -> str:
    """What stands in the only code fence; the whole text where there is none, or more than one."""
    fences = list(_FENCE.finditer(text))
    return text[fences[0].end() : fences[1].start()] if len(fences) == 2 else text


def _depth(text: str) -> int:
    """How deep brackets nest, those inside strings too: a bound that needs no parser to hold."""
    depth = deepest = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        char = match.group()
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _has_infinity(value: Any) -> bool:
    """Whether a number overflowed: `1e999` is JSON, and no number that can be compared."""
    if isinstance(value, dict):
        return any(_has_infinity(part) for part in value.values())
    if isinstance(value, list):
        return any(_has_infinity(part) for part in value)
    return isinstance(value, float) and value in (float("inf"), float("-inf"))


def _parts(text: str, known: Mapping[str, str]) -> list[str]:
    """The text's labels, line by line, then between commas; a label may hold commas itself."""
    longest = max((label.count(",") for label in known), default=0) + 1
    parts: list[str] = []
    for line in text.splitlines():
        line = _BULLET.sub("", line)
        if _key(line) in known:
            parts.append(line)
            continue
        _, colon, rest = line.partition(":")
        parts += _split(rest if colon and _key(line) not in known else line, known, longest)
    return parts


def _split(line: str, known: Mapping[str, str], longest: int) -> list[str]:
    pieces = [piece for piece in re.split(r"[,;]", line) if piece.strip()]
    parts, at = [], 0
    while at < len(pieces):
        sizes = range(min(longest, len(pieces) - at), 0, -1)
        size = next((n for n in sizes if _key(",".join(pieces[at : at + n])) in known), 1)
        parts.append(",".join(pieces[at : at + size]))
        at += size
    return parts


def _span_list(value: Mapping[str, Any]) -> list[Any]:
    """The spans of an object: its only list, or by label `{label: [quotes]}`."""
    if set(value) & {"text", "quote", "start"}:
        return [value]
    if len(value) == 1 and isinstance(only := next(iter(value.values())), list):
        key = next(iter(value))
        is_wrapper = _key(key) in ("spans", "quotes", "evidence", "entities", "answer")
        return (
            only if is_wrapper else [{"label": key, "text": part} for part in only if isinstance(part, str)]
        )
    return [
        {"label": label, "text": part}
        for label, parts in value.items()
        for part in (parts if isinstance(parts, list) else [parts])
        if isinstance(part, str)
    ]


def _span(part: Any, source: str) -> dict[str, Any] | None:
    """One span as said; offsets only where they are whole, in order and inside the source."""
    if isinstance(part, str):
        return {"text": part}
    if not isinstance(part, Mapping):
        return None
    quote = part.get("text", part.get("quote"))
    start, end = part.get("start"), part.get("end")
    span: dict[str, Any] = {"label": part["label"]} if isinstance(part.get("label"), str) else {}
    is_placed = type(start) is int and type(end) is int and 0 <= start < end <= len(source)
    if is_placed and not isinstance(quote, str):
        return {**span, "text": source[start:end], "start": start, "end": end}
    if not isinstance(quote, str):
        return None
    return {**span, "text": quote, **({"start": start, "end": end} if is_placed else {})}


def _unquoted(line: str) -> str:
    pairs = (('"', '"'), ("“", "”"), ("«", "»"), ("„", "“"))
    for before, after in pairs:
        if len(line) > 1 and line.startswith(before) and line.endswith(after):
            return line[1:-1]
    return line
