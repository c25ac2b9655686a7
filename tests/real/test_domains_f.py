"""The suites on public data of support, e-commerce and legal: each loads whole, and a model that knows scores right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.data.check import check
from harness.scoring.clause_terms import check_term, read_date
from harness.scoring.jurisdictions import find_jurisdictions
from tests.real.conftest import ROOT, Rows
from tests.suites.answering import knowing, run_suite, work_of

pytestmark = pytest.mark.real
SUITES = Path(__file__).resolve().parents[2] / "suites"


class Public(NamedTuple):
    """A suite and what comes of it when every answer is the gold."""

    name: str
    records: int
    score: float = 1.0
    """The least mean of the first scorer: golds of real sets are not all without mistakes."""


PUBLIC = [
    Public("support/clinc150_oos", 950),
    Public("support/bitext_support", 450),
    Public("support/bitext_replies", 120),
    Public("support/multidogo", 1000),
    Public("support/multidogo_slots", 300, 0.99),
    Public("ecommerce/product_attributes", 200, 0.99),
    Public("ecommerce/product_descriptions", 120, 0.3),
    Public("legal/contract_nli", 200),
    Public("legal/contract_nli_evidence", 60),
]
SETS = {
    "bitext_replies": "bitext_support", "multidogo_slots": "multidogo", "contract_nli_evidence": "contract_nli",
}  # fmt: skip


@pytest.fixture(params=PUBLIC, ids=lambda one: one.name)
def public_suite(request: pytest.FixtureRequest) -> Public:
    found: Public = request.param
    domain, name = found.name.split("/")
    if not (ROOT / domain / SETS.get(name, name)).is_dir():
        pytest.skip(f"no {found.name} at $HARNESS_DATA")
    return found


def test_a_suite_is_sound_with_the_data_at_hand(public_suite: Public) -> None:
    assert check([SUITES / f"{public_suite.name}.yaml"], ROOT) == []


def test_golds_score_and_nonsense_does_not(public_suite: Public, tmp_path: Path) -> None:
    work = work_of(SUITES / f"{public_suite.name}.yaml", data_root=ROOT)

    right = run_suite(knowing(work), work, tmp_path / "right")

    assert len(right) == public_suite.records
    assert sum(one.score for one in right) / len(right) >= public_suite.score
    assert [one.error for one in right if one.error] == []
    if public_suite.name == "ecommerce/product_descriptions":
        return  # its first scorer is about what must not be said, and nonsense says nothing
    wrong = run_suite(knowing(work, rightly=False), work, tmp_path / "wrong")
    assert max(one.score for one in wrong) <= 0.01


def test_every_slice_of_a_public_suite_has_records(public_suite: Public) -> None:
    work = work_of(SUITES / f"{public_suite.name}.yaml", data_root=ROOT)

    for key in work.suite.slices:
        assert sum(key in record.slices for record in work.records) > 0.8 * len(work.records), key


# Validators on what lawyers wrote.


def answers_of(public: Callable[..., Rows], kind: str) -> list[tuple[str, str]]:
    """(clause, the annotators' normalised answer) of a clause type in CUAD."""
    rows = public("legal/cuad_clauses", "train", "eval")
    return [
        (row["input"], str(row["target"]["answers"][kind]))
        for row in rows
        if row["target"].get("answers", {}).get(kind)
    ]


def test_nearly_every_governing_law_clause_names_a_jurisdiction_that_is_read(
    public: Callable[..., Rows],
) -> None:
    found = answers_of(public, "Governing Law")
    named = [answer for _, answer in found if find_jurisdictions(answer)]
    same = [
        (clause, answer)
        for clause, answer in found
        if find_jurisdictions(answer) and find_jurisdictions(clause) & find_jurisdictions(answer)
    ]

    # docs/scorers.md states these.
    assert (len(found), len(named), len(same)) == (133, 132, 131)


def test_a_place_of_another_clause_is_found_out(public: Callable[..., Rows]) -> None:
    found = [pair for pair in answers_of(public, "Governing Law") if find_jurisdictions(pair[1])]
    shifted = [
        (clause, other)
        for (clause, own), (_, other) in zip(found, found[1:] + found[:1], strict=True)
        if not find_jurisdictions(clause) & find_jurisdictions(other)
    ]

    assert len(shifted) > 50
    assert {check_term("jurisdiction", other, clause) for clause, other in shifted} == {"not_in_source"}


def test_dates_of_real_clauses_are_read_as_the_annotators_did(public: Callable[..., Rows]) -> None:
    """CUAD's answers are M/D/YY; a clause that writes its date out has to hold the same day."""
    pairs = [pair for kind in ("Effective Date", "Expiration Date") for pair in answers_of(public, kind)]
    spelled = [
        (clause, match)
        for clause, answer in pairs
        if (match := re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{2,4})", answer))
        and re.search(r"[A-Z][a-z]+ \d{1,2}, \d{4}", clause)
    ]
    right = 0
    for clause, match in spelled:
        month, day, year = (int(part) for part in match.groups())
        iso = f"{year + (2000 if year < 70 else 1900) if year < 100 else year:04d}-{month:02d}-{day:02d}"
        right += read_date(iso) is not None and check_term("date", iso, clause) is None

    # docs/scorers.md states these: the others were worked out, and the clause does not write them.
    assert (len(spelled), right) == (41, 34)
