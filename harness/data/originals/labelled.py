"""Sets of short texts with a label: Banking77, CLINC150, HateCheck, XSTest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.data.originals.base import Draft, rows_of, text_at, whole_json
from harness.errors import DataError

Files = Mapping[str, Sequence[Path]]
OUT_OF_SCOPE = "out of scope"
LONG_WORDS, SHORT_WORDS = 20, 8
"""Words of a message from which it is long, and up to which it is short."""


def banking77(files: Files) -> Iterator[Draft]:
    """`text,category` a row."""
    for path, line, row in rows_of(files["messages"]):
        where = f"{path}:{line}"
        text = text_at(where, row, "text")
        record = {
            "task": "intent_classification", "input": text, "target": {"label": text_at(where, row, "category")},
            "slices": {"length": _length(text)}, "meta": {"official_split": path.stem},
        }  # fmt: skip
        yield Draft(text.casefold(), record)


def clinc150(files: Files) -> Iterator[Draft]:
    """One object of splits, each a list of `[text, intent]`, and one of domains with their intents."""
    domains = whole_json(files["domains"][0], dict)
    domain_of = {
        intent: domain.replace("_", " ") for domain, intents in domains.items() for intent in intents
    }
    path = files["requests"][0]
    for split, pairs in whole_json(path, dict).items():
        for at, pair in enumerate(pairs):
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
                raise DataError(f"{path}: {split}[{at}] is no pair of request and intent")
            text, intent = pair
            is_known = intent != "oos"
            slices = {"domain": domain_of.get(intent, OUT_OF_SCOPE), "in_scope": is_known}
            record = {
                "task": "intent_classification", "input": text, "target": {"label": intent}, "slices": slices,
                "meta": {"official_split": split},
            }  # fmt: skip
            yield Draft(text.casefold(), record)


def hatecheck(files: Files) -> Iterator[Draft]:
    """`functionality,test_case,label_gold,target_ident,direction,templ_id` a row. A template stays in one split."""
    for path, line, row in rows_of(files["cases"]):
        where = f"{path}:{line}"
        template = text_at(where, row, "templ_id")
        record = {
            "task": "moderation", "input": text_at(where, row, "test_case"),
            "target": {"label": text_at(where, row, "label_gold")},
            "slices": {
                "target_group": str(row.get("target_ident") or "none"),
                "functionality": text_at(where, row, "functionality"), "direction": str(row.get("direction") or "-"),
            },
            "meta": {"template": template},
        }  # fmt: skip
        yield Draft(template, record)


def xstest(files: Files) -> Iterator[Draft]:
    """`prompt,type` a row, in later versions `label`; contrasts are the unsafe ones. A focus stays in one split."""
    for path, line, row in rows_of(files["prompts"]):
        where = f"{path}:{line}"
        prompt, kind = text_at(where, row, "prompt"), text_at(where, row, "type")
        label = str(row.get("label") or ("unsafe" if kind.startswith("contrast_") else "safe"))
        if label not in ("safe", "unsafe"):
            raise DataError(f"{where}: label {label!r}, wanted safe or unsafe")
        focus = str(row.get("focus") or "")
        record = {
            "task": "refusal_calibration", "input": prompt, "target": {"label": label},
            "slices": {"type": kind, "note": str(row.get("note") or "none")}, "meta": {"focus": focus},
        }  # fmt: skip
        yield Draft(focus.casefold() or prompt.casefold(), record)


def _length(text: str) -> str:
    words = len(text.split())
    return "short" if words <= SHORT_WORDS else "long" if words > LONG_WORDS else "medium"
