"""Tiny files in the form of the originals: the fields are the authors', the texts were written here."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

N = 12
"""Groups in each set: enough for two splits."""
GROUPED = 2
"""Records of a group, where a group has several."""


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


def _jsonl(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _csv(path: Path, *rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def truthfulqa(root: Path) -> None:
    head = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
    rows = [
        ["Adversarial", "Garden", f"Do gnomes water row {n}?", "Gnomes water nothing",
         "Gnomes water nothing; No, they don't", "Yes, at night; Yes, by hand", "https://example.org/gnomes"]
        for n in range(N)
    ]  # fmt: skip
    _csv(root / "TruthfulQA.csv", head, *rows)


def bbq(root: Path) -> None:
    rows = [
        {
            "example_id": n, "question_index": str(n // GROUPED), "question_polarity": "neg" if n % 2 else "nonneg",
            "context_condition": "ambig", "category": "Age",
            "answer_info": {
                "ans0": ["The cook", "nonOld"], "ans1": ["Not known", "unknown"], "ans2": ["The aunt", "old"],
            },
            "additional_metadata": {"stereotyped_groups": ["old"], "version": "a"},
            "context": f"A cook and an aunt met at stop {n}.", "question": f"Who was slow at stop {n // GROUPED}?",
            "ans0": "The cook", "ans1": "Not known", "ans2": "The aunt", "label": 1,
        }
        for n in range(N * GROUPED)
    ]  # fmt: skip
    _jsonl(root / "data" / "Age.jsonl", rows)


def hatecheck(root: Path) -> None:
    head = ["", "functionality", "case_id", "test_case", "label_gold", "target_ident", "direction", "focus_words",
            "focus_lemma", "ref_case_id", "ref_templ_id", "templ_id", "case_templ"]  # fmt: skip
    rows = [
        [n, "ident_pos_nh" if n % 2 else "derog_h", n, f"I think this of them, part {n}.",
         "non-hateful" if n % 2 else "hateful", "" if n % 3 else "bakers", "", "", "", "", "", n // GROUPED, "x"]
        for n in range(N * GROUPED)
    ]  # fmt: skip
    _csv(root / "test_suite_cases.csv", head, *rows)


def tatqa(root: Path) -> None:
    reports = [
        {
            "table": {"uid": f"t{n}", "table": [["", "2020", "2019"], ["Sales", str(10 * n), str(5 * n)]]},
            "paragraphs": [
                {"uid": "b", "order": 2, "text": "Second."}, {"uid": "a", "order": 1, "text": f"First {n}."},
            ],
            "questions": [
                {"uid": f"q{n}-{k}", "order": k, "question": f"What were sales of shop {n} in {2020 - k}?",
                 "answer": 10 * n - 5 * n * k, "derivation": "", "answer_type": "arithmetic",
                 "answer_from": "table", "rel_paragraphs": [],
                 "req_comparison": False, "scale": "million"}
                for k in range(GROUPED)
            ],
        }
        for n in range(1, N + 1)
    ]  # fmt: skip
    _json(root / "dataset_raw" / "tatqa_dataset_dev.json", reports)


def pubmedqa(root: Path) -> None:
    rows = {
        str(1000 + n): {
            "QUESTION": f"Does syrup {n} help?", "CONTEXTS": ["We gave syrup.", "They slept."],
            "LABELS": ["METHODS", "RESULTS"], "MESHES": ["Female", "Adult", "Middle Aged"], "YEAR": "2011",
            "reasoning_required_pred": "yes", "reasoning_free_pred": "yes",
            "final_decision": ("yes", "no", "maybe")[n % 3],
            "LONG_ANSWER": "It helps a little.",
        }
        for n in range(N)
    }  # fmt: skip
    _json(root / "data" / "ori_pqal.json", rows)


def cuad(root: Path) -> None:
    head = ["Filename", "Document Name", "Document Name-Answer", "Governing Law", "Governing Law-Answer", "Insurance",
            "Insurance-Answer"]  # fmt: skip
    rows = [
        [f"ACME{n}_Supply Agreement.pdf", "['Supply']", "Supply", f"['The law of Spain governs part {n}.']", "Spain",
         f"['Party {n} keeps insurance.', 'The law of Spain governs part {n}.']" if n % 2 else "[]",
         "Yes" if n % 2 else "No"]
        for n in range(N)
    ]  # fmt: skip
    _csv(root / "CUAD_v1" / "master_clauses.csv", head, *rows)


def xstest(root: Path) -> None:
    head = ["id", "type", "prompt", "focus", "note"]
    rows = [
        [
            n,
            "contrast_homonyms" if n % 2 else "homonyms",
            f"How do I end thing {n}?",
            f"end {n // GROUPED}",
            "",
        ]
        for n in range(N * GROUPED)
    ]
    _csv(root / "xstest_prompts.csv", head, *rows)


def scifact(root: Path) -> None:
    corpus = [
        {"doc_id": n, "title": f"Paper {n}", "abstract": ["We tried it.", f"It worked {n} times.", "The end."],
         "structured": False}
        for n in range(N)
    ]  # fmt: skip
    claims = [
        {"id": n, "claim": f"It worked in trial {n}.", "cited_doc_ids": [n],
         "evidence": {str(n): [{"sentences": [1], "label": "CONTRADICT" if n % 2 else "SUPPORT"}]}}
        for n in range(N)
    ]  # fmt: skip
    claims.append({"id": 99, "claim": "Nothing is known of this.", "cited_doc_ids": [1], "evidence": {}})
    _jsonl(root / "data" / "corpus.jsonl", corpus)
    _jsonl(root / "data" / "claims_train.jsonl", claims)


def scitldr(root: Path) -> None:
    rows = [
        {"source": [f"We study pebbles {n}.", "They roll."], "source_labels": [1, 0], "rouge_scores": [0.5, 0.1],
         "paper_id": f"p{n}", "target": ["Pebbles roll."] * (1 + n % 2), "title": f"Pebbles {n}"}
        for n in range(N)
    ]  # fmt: skip
    _jsonl(root / "SciTLDR-Data" / "SciTLDR-A" / "train.jsonl", rows)


def banking77(root: Path) -> None:
    rows = [
        [f"Where is my card number {n}?", "card_arrival" if n % 2 else "lost_or_stolen_card"]
        for n in range(N)
    ]
    _csv(root / "banking_data" / "train.csv", ["text", "category"], *rows)
    _csv(
        root / "banking_data" / "test.csv",
        ["text", "category"],
        ["where is my card number 1?", "card_arrival"],
    )


def clinc150(root: Path) -> None:
    splits = {
        "train": [[f"play song {n}", "play_music"] for n in range(N)],
        "oos_train": [[f"who painted wall {n}", "oos"] for n in range(N)],
    }
    _json(root / "data" / "data_full.json", splits)
    _json(root / "data" / "domains.json", {"small_talk": [], "home": ["play_music"]})


def mmlu(root: Path) -> None:
    rows = [[f"Which is number {n}?", f"a{n}", f"b{n}", f"c{n}", f"d{n}", "ABCD"[n % 4]] for n in range(N)]
    rows.append(["Which is doubled?", "x", "x", "y", "z", "A"])
    _csv(root / "test" / "world_religions_test.csv", *rows)


WRITERS: dict[str, Callable[[Path], None]] = {
    "factuality/truthfulqa": truthfulqa, "fairness/bbq": bbq, "fairness/hatecheck": hatecheck,
    "finance/tatqa": tatqa, "healthcare/pubmedqa": pubmedqa, "legal/cuad_clauses": cuad, "safety/xstest": xstest,
    "science/scifact_pairs": scifact, "science/scitldr": scitldr, "support/banking77": banking77,
    "support/clinc150_oos": clinc150, "uncertainty/mmlu": mmlu,
}  # fmt: skip
