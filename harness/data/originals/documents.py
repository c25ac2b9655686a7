"""Sets that stand on longer texts: CUAD, TAT-QA, SciFact, SciTLDR."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data.originals.base import Draft, list_at, object_at, rows_of, text_at, whole_json
from harness.errors import DataError

Files = Mapping[str, Sequence[Path]]
NO_CLAUSES = ("Filename", "Document Name", "Parties", "Agreement Date")
"""Columns of CUAD's table that hold no clauses."""
_ANSWER = re.compile(r"\s*-\s*Answer$")
_GROUPS = {
    "oversight": "Audit Rights",
    "money": "Revenue/Profit Sharing|Minimum Commitment|Volume Restriction|Price Restrictions",
    "liability": "Liquidated Damages|Insurance|Cap On Liability|Covenant Not To Sue|Warranty Duration|"
    "Uncapped Liability",
    "intellectual property": "Ip Ownership Assignment|Joint Ip Ownership|License Grant|Non-Transferable License|"
    "Source Code Escrow|Affiliate License-Licensee|Affiliate License-Licensor|Irrevocable Or Perpetual License|"
    "Unlimited/All-You-Can-Eat-License",
    "competition": "Exclusivity|Non-Disparagement|Most Favored Nation|Non-Compete|No-Solicit Of Employees|"
    "No-Solicit Of Customers|Competitive Restriction Exception",
    "term": "Post-Termination Services|Expiration Date|Termination For Convenience|Effective Date|Renewal Term|"
    "Notice Period To Terminate Renewal",
    "control": "Change Of Control|Anti-Assignment|Rofr/Rofo/Rofn",
}
GROUP_OF = {kind: group for group, kinds in _GROUPS.items() for kind in kinds.split("|")}
"""Clause groups by type; every other type is `general`."""
CONTRACT_TYPES = (
    "affiliate", "agency", "co-branding", "collaboration", "consulting", "development", "distributor", "endorsement",
    "franchise", "hosting", "joint venture", "license", "maintenance", "marketing", "non-compete", "outsourcing",
    "promotion", "reseller", "service", "sponsorship", "strategic alliance", "supply", "transportation",
)  # fmt: skip
"""Looked for in a contract's file name; the first that stands there counts, else `other`."""
LABELS = {"SUPPORT": "SUPPORTED", "CONTRADICT": "REFUTED"}
LONG_WORDS = 50
"""Words of evidence from which it is long."""


def cuad(files: Files) -> Iterator[Draft]:
    """A contract a row, with the clauses of each type in a column and the answer to them in the next."""
    for path, line, row in rows_of(files["clauses"]):
        contract = text_at(f"{path}:{line}", row, "Filename")
        kinds = [key for key in row if key not in NO_CLAUSES and not _ANSWER.search(key)]
        labels: dict[str, list[str]] = {}
        for kind in kinds:
            for clause in _listed(f"{path}:{line}", kind, row[kind]):
                labels.setdefault(clause, []).append(kind)
        answers = {_ANSWER.sub("", key): value for key, value in row.items() if _ANSWER.search(key)}
        for clause, named in labels.items():
            said = {kind: answers[kind] for kind in named if answers.get(kind, "") not in ("", "Yes", "No")}
            slices = {
                "clause_group": sorted({GROUP_OF.get(kind, "general") for kind in named}),
                "contract_type": _contract_type(contract),
            }
            target = {"label": "+".join(named), "labels": named, "answers": said}
            record = {"task": "clause_classification", "input": clause, "target": target, "slices": slices,
                      "meta": {"contract": contract}}  # fmt: skip
            yield Draft(contract, record)


def tatqa(files: Files) -> Iterator[Draft]:
    """A list of reports, each a table, its paragraphs, and questions. A report stays in one split."""
    for path in files["reports"]:
        for at, report in enumerate(whole_json(path, list)):
            where = f"{path}: report {at}"
            if not isinstance(report, dict):
                raise DataError(f"{where}: no object")
            table = object_at(where, report, "table")
            doc_id = f"tatqa-{text_at(where, table, 'uid')}"
            document = _report_text(where, table, report)
            for row in list_at(where, report, "questions"):
                yield Draft(doc_id, _tatqa_record(where, row, doc_id), document)


def scifact(files: Files) -> Iterator[Draft]:
    """Claims with evidence by abstract; the sentences named as evidence are the context.

    Claims that share an abstract, and abstracts that share a claim, stay in one split.
    """
    abstracts = {
        text_at(f"{path}:{line}", row, "doc_id"): list_at(f"{path}:{line}", row, "abstract")
        for path, line, row in rows_of(files["corpus"])
    }
    claims = [(f"{path}:{line}", row) for path, line, row in rows_of(files["claims"])]
    group_of = _linked(list(row.get("evidence") or {}) for _, row in claims)
    for where, row in claims:
        for doc_id, found in (row.get("evidence") or {}).items():
            if doc_id not in abstracts:
                raise DataError(f"{where}: abstract {doc_id} is not in the corpus")
            yield Draft(group_of[doc_id], _scifact_record(where, row, doc_id, found, abstracts[doc_id]))


def scitldr(files: Files) -> Iterator[Draft]:
    """A paper a line: the abstract's sentences in `source`, one-sentence summaries in `target`."""
    for path, line, row in rows_of(files["papers"]):
        where = f"{path}:{line}"
        summaries = [str(one).strip() for one in list_at(where, row, "target") if str(one).strip()]
        paper = text_at(where, row, "paper_id")
        record = {
            "task": "scientific_summarization",
            "input": " ".join(str(one).strip() for one in list_at(where, row, "source")),
            "target": {"summaries": summaries},
            "slices": {"references": "one" if len(summaries) == 1 else "several"},
            "meta": {"paper_id": paper, "title": str(row.get("title") or ""), "official_split": path.stem},
        }  # fmt: skip
        yield Draft(paper, record)


def _scifact_record(
    where: str,
    row: Mapping[str, Any],
    doc_id: str,
    found: Sequence[Mapping[str, Any]],
    abstract: Sequence[Any],
) -> dict[str, Any]:
    label = str(found[0].get("label"))
    if label not in LABELS:
        raise DataError(f"{where}: label {label!r}, wanted {' or '.join(LABELS)}")
    places = sorted({place for one in found for place in one["sentences"]})
    context = " ".join(str(abstract[place]).strip() for place in places)
    return {
        "task": "claim_verification", "input": text_at(where, row, "claim"), "context": context,
        "options": list(LABELS.values()), "target": {"label": LABELS[label]},
        "slices": {"evidence_length": "long" if len(context.split()) >= LONG_WORDS else "short"},
        "meta": {"claim": row.get("id"), "abstract": doc_id},
    }  # fmt: skip


def _linked(together: Iterable[Sequence[str]]) -> dict[str, str]:
    """One name for all that are linked, whether in one list or through others."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for names in together:
        for name in names:
            first, other = sorted((root(names[0]), root(name)))
            parent[other] = first
    return {name: root(name) for name in parent}


def _listed(where: str, kind: str, cell: Any) -> list[str]:
    """The clauses of a cell, which spells a list of texts."""
    try:
        found = ast.literal_eval(str(cell))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise DataError(f"{where}: {kind}: no list of clauses") from None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise DataError(f"{where}: {kind}: no list of clauses")
    return [one.strip() for one in found if one.strip()]


def _contract_type(name: str) -> str:
    plain = re.sub(r"[-_\s]+", " ", name.casefold())
    return next((kind for kind in CONTRACT_TYPES if kind.replace("-", " ") in plain), "other")


def _report_text(where: str, table: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The table, a row a line with cells between vertical bars, then the numbered paragraphs."""
    rows = [" | ".join(str(cell) for cell in row) for row in list_at(where, table, "table")]
    paragraphs = sorted(list_at(where, report, "paragraphs"), key=lambda one: int(one.get("order", 0)))
    return (
        "\n".join(rows) + "\n\n" + "\n".join(f"[{one.get('order')}] {one.get('text')}" for one in paragraphs)
    )


def _tatqa_record(where: str, row: Mapping[str, Any], doc_id: str) -> dict[str, Any]:
    answer = row.get("answer")
    if not isinstance(answer, str | int | float | list):
        raise DataError(f"{where}: a question without an answer")
    kind, scale = text_at(where, row, "answer_type"), str(row.get("scale") or "none")
    target = {
        "answer": answer,
        "answer_type": kind,
        "scale": scale,
        "derivation": str(row.get("derivation") or ""),
    }
    slices = {
        "answer_type": kind, "answer_from": text_at(where, row, "answer_from"), "scale": scale,
        "comparison": bool(row.get("req_comparison")),
    }  # fmt: skip
    return {
        "task": "numeric_qa", "input": text_at(where, row, "question"), "doc_id": doc_id, "target": target,
        "slices": slices, "meta": {"paragraphs": [str(one) for one in row.get("rel_paragraphs") or []]},
    }  # fmt: skip
