"""Sets of questions with options: TruthfulQA, BBQ, MMLU, PubMedQA."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data.originals.base import Draft, list_at, object_at, rows_of, text_at, whole_json
from harness.errors import DataError

Files = Mapping[str, Sequence[Path]]
LETTERS = "ABCD"
MOST_WRONG = 4
"""Wrong options of a TruthfulQA question that are shown."""
UNKNOWN = "unknown"
_AGES = {
    "Infant": "child", "Child": "child", "Adolescent": "adolescent", "Adult": "adult", "Middle Aged": "adult",
    "Aged": "aged",
}  # fmt: skip
_AREAS = {
    "STEM": "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science "
    "college_mathematics college_physics computer_security conceptual_physics electrical_engineering "
    "elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science "
    "high_school_mathematics high_school_physics high_school_statistics machine_learning",
    "humanities": "formal_logic high_school_european_history high_school_us_history high_school_world_history "
    "international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory "
    "professional_law world_religions",
    "social sciences": "econometrics high_school_geography high_school_government_and_politics "
    "high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality "
    "professional_psychology public_relations security_studies sociology us_foreign_policy",
}
AREA_OF = {subject: area for area, subjects in _AREAS.items() for subject in subjects.split()}
"""MMLU's areas by subject, as its paper groups them; every other subject is `other`."""


def truthfulqa(files: Files) -> Iterator[Draft]:
    """`Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source` a row, lists with semicolons."""
    for path, line, row in rows_of(files["questions"]):
        where = f"{path}:{line}"
        plain = {key.casefold().replace(" ", "_"): value for key, value in row.items()}
        question, best = text_at(where, plain, "question"), text_at(where, plain, "best_answer")
        correct = _texts(plain.get("correct_answers"))
        wrong = [text for text in _texts(plain.get("incorrect_answers")) if text != best]
        if not wrong:
            raise DataError(f"{where}: no incorrect answers")
        options = _shuffled([best, *wrong[:MOST_WRONG]], question)
        record = {
            "task": "truthful_qa", "input": question, "options": options,
            "target": {"label": best, "index": options.index(best),
                       "correct": list(dict.fromkeys([best, *correct])), "incorrect": wrong},
            "slices": {"category": str(plain.get("category") or "none"), "type": str(plain.get("type") or "none")},
            "meta": {"citation": str(plain.get("source") or "")},
        }  # fmt: skip
        yield Draft(question.casefold(), record)


def bbq(files: Files) -> Iterator[Draft]:
    """One object a line, with three answers of which one says that it can't be known. A template stays in one split."""
    for path, line, row in rows_of(files["questions"]):
        where = f"{path}:{line}"
        info, options = (
            object_at(where, row, "answer_info"),
            [text_at(where, row, f"ans{at}") for at in range(3)],
        )
        groups = [[str(part) for part in list_at(where, info, f"ans{at}")] for at in range(3)]
        gold = row.get("label")
        if isinstance(gold, bool) or gold not in (0, 1, 2):
            raise DataError(f"{where}: label {gold!r}, wanted 0, 1 or 2")
        unknown = next((at for at in range(3) if groups[at][-1:] == [UNKNOWN]), None)
        if unknown is None:
            raise DataError(f"{where}: none of the answers is marked as {UNKNOWN}")
        is_negative = text_at(where, row, "question_polarity") == "neg"
        named = [
            str(one) for one in object_at(where, row, "additional_metadata").get("stereotyped_groups", [])
        ]
        stereotyped = _stereotyped(named, groups, unknown)
        category = text_at(where, row, "category")
        is_ambiguous = text_at(where, row, "context_condition") == "ambig"
        record = {
            "task": "bias_qa", "input": text_at(where, row, "question"), "context": text_at(where, row, "context"),
            "options": options,
            "target": {"label": "ABC"[gold], "index": gold, "unknown_index": unknown, "stereotyped_index": stereotyped,
                       "biased_index": _biased(stereotyped, unknown, is_negative=is_negative)},
            "slices": {
                "category": category, "context": "ambiguous" if is_ambiguous else "disambiguated",
                "polarity": "negative" if is_negative else "non-negative",
                "groups": sorted(groups[at][-1] for at in range(3) if at != unknown and groups[at]),
            },
            "meta": {"example_id": row.get("example_id"), "question_index": str(row.get("question_index")),
                     "stereotyped_groups": named},
        }  # fmt: skip
        yield Draft(f"{category} {row.get('question_index')}", record)


def mmlu(files: Files) -> Iterator[Draft]:
    """`question,subject,choices,answer` a row; or, as first published, CSV files without a header, named by subject."""
    for path in files["questions"]:
        for line, subject, question, options, gold in _mmlu_rows(path):
            if len(set(options)) < len(LETTERS) or not all(options) or gold not in range(len(LETTERS)):
                continue  # an empty or doubled option: there is no telling which one is meant
            record = {
                "task": "multiple_choice", "input": question, "options": options,
                "target": {"label": LETTERS[gold], "index": gold},
                "slices": {"subject": subject, "area": AREA_OF.get(subject, "other"), "domain": "general"},
                "meta": {"line": line},
            }  # fmt: skip
            yield Draft(question.casefold(), record)


def pubmedqa(files: Files) -> Iterator[Draft]:
    """One object by PubMed id, each with its question, the abstract's parts and the decision."""
    for path in files["questions"]:
        for pmid, row in whole_json(path, dict).items():
            where = f"{path}: {pmid}"
            if not isinstance(row, dict):
                raise DataError(f"{where}: no object")
            labels = list_at(where, row, "LABELS") if "LABELS" in row else []
            parts = [str(part) for part in list_at(where, row, "CONTEXTS")]
            headed = [f"[{label}] {part}" for label, part in zip(labels, parts, strict=False)]
            year = str(row.get("YEAR") or "")
            meta = {"pmid": pmid, "year": int(year)} if year.isdigit() else {"pmid": pmid}
            record = {
                "task": "biomedical_qa", "input": text_at(where, row, "QUESTION"),
                "context": "\n".join(headed or parts), "options": ["yes", "no", "maybe"],
                "target": {"label": text_at(where, row, "final_decision"),
                           "long_answer": str(row.get("LONG_ANSWER") or "")},
                "slices": {**_studied(row.get("MESHES")), "decade": f"{year[:3]}0s" if year.isdigit() else "unknown"},
                "meta": meta,
            }  # fmt: skip
            yield Draft(pmid, record)


def _texts(value: Any) -> list[str]:
    """The texts of a list, or of a cell that separates them by semicolons."""
    parts = value if isinstance(value, list) else str(value or "").split(";")
    return list(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))


def _shuffled(options: Sequence[str], seed: str) -> list[str]:
    """The options in an order that the question fixes."""
    return sorted(options, key=lambda option: hashlib.sha256(f"{seed}\n{option}".encode()).digest())


def _stereotyped(named: Sequence[str], groups: Sequence[Sequence[str]], unknown: int) -> int | None:
    """The one answer about a stereotyped group; None where none, or more than one, is."""
    wanted = [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE) for name in named if name.strip()]
    found = [
        at
        for at in range(len(groups))
        if at != unknown and any(name.search(part) for name in wanted for part in groups[at])
    ]
    return found[0] if len(found) == 1 else None


def _biased(stereotyped: int | None, unknown: int, *, is_negative: bool) -> int | None:
    """The answer in line with the stereotype: of a negative question the stereotyped group, else the other one."""
    if stereotyped is None or is_negative:
        return stereotyped
    return next(at for at in range(3) if at not in (stereotyped, unknown))


def _mmlu_rows(path: Path) -> Iterator[tuple[int, str, str, list[str], int]]:
    """(line, subject, question, options, place of the right one)."""
    if path.suffix == ".csv":
        subject = re.sub(r"_(test|val|dev)$", "", path.stem)
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, cells in enumerate(csv.reader(file), 1):
                if len(cells) != 6:
                    raise DataError(
                        f"{path}:{line}: {len(cells)} cells, wanted question, four options, letter"
                    )
                yield (
                    line,
                    subject,
                    cells[0].strip(),
                    [cell.strip() for cell in cells[1:5]],
                    LETTERS.find(cells[5]),
                )
        return
    for _, line, row in rows_of([path]):
        where = f"{path}:{line}"
        options = [str(option).strip() for option in list_at(where, row, "choices")]
        gold = row.get("answer")
        place = gold if isinstance(gold, int) and not isinstance(gold, bool) else LETTERS.find(str(gold))
        yield line, text_at(where, row, "subject"), text_at(where, row, "question"), options, place


def _studied(meshes: Any) -> dict[str, Any]:
    """Sexes and ages that the study's MeSH terms name."""
    terms = {str(term) for term in meshes} if isinstance(meshes, list) else set()
    sexes = [name for name in ("Female", "Male") if name in terms]
    ages = list(dict.fromkeys(age for term, age in _AGES.items() if term in terms))
    sex = "both" if len(sexes) == 2 else sexes[0].casefold() if sexes else "unknown"
    return {"study_sex": sex, "study_age": ages or ["not stated"]}
