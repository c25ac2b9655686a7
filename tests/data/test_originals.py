"""Originals of public sets become records that the suites of the harness read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.data.originals.fetch import Fetched, fetch
from harness.data.originals.sets import ORIGINALS
from harness.data.overlap import find_overlaps
from harness.data.sources import load_split
from harness.errors import DataError
from harness.files import sha256_file
from harness.specs.load import load_suite
from tests.data.originals_files import WRITERS, N

SUITES = Path(__file__).resolve().parents[2] / "suites"
SUITE_OF = {
    "factuality/truthfulqa": "shared/truthfulqa", "fairness/bbq": "shared/bbq",
    "fairness/hatecheck": "shared/hatecheck",
    "finance/tatqa": "finance/tatqa", "healthcare/pubmedqa": "healthcare/pubmedqa", "legal/cuad_clauses": "legal/cuad",
    "safety/xstest": "shared/xstest", "science/scifact_pairs": "science/scifact_pairs",
    "science/scitldr": "science/scitldr", "support/banking77": "support/banking77",
    "support/clinc150_oos": "support/clinc150_oos", "uncertainty/mmlu": "shared/mmlu",
}  # fmt: skip
names = pytest.mark.parametrize("name", sorted(ORIGINALS))


def made(name: str, folder: Path) -> Fetched:
    """The set, fetched from its tiny original into `folder/data`."""
    WRITERS[name](folder / "original")
    return fetch(name, str(folder / "original"), folder / "data")


def rows(found: Fetched, *splits: str) -> list[dict[str, Any]]:
    texts = [(found.folder / f"{split}.jsonl").read_text("utf-8") for split in splits or ("train", "eval")]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def test_every_original_is_tried_here_and_has_a_suite() -> None:
    assert set(WRITERS) == set(SUITE_OF) == set(ORIGINALS)
    assert len(ORIGINALS) == 12


@names
def test_the_suite_reads_what_was_fetched(name: str, tmp_path: Path) -> None:
    found = made(name, tmp_path)
    path = SUITES / f"{SUITE_OF[name]}.yaml"
    suite = load_suite(path, data_root=tmp_path / "data")

    records = load_split(suite, "eval", suite_path=path, data_root=tmp_path / "data")

    assert suite.records.public == name
    assert len(records) == found.eval > 0
    assert all(record.input and record.targets for record in records)
    assert all(key in record.slices for key in suite.slices for record in records)


@names
def test_splits_share_no_group_no_id_and_no_text(name: str, tmp_path: Path) -> None:
    found = made(name, tmp_path)
    path = SUITES / f"{SUITE_OF[name]}.yaml"
    suite = load_suite(path, data_root=tmp_path / "data").model_copy(update={"limit": {}})
    train, held = (
        load_split(suite, s, suite_path=path, data_root=tmp_path / "data") for s in ("train", "eval")
    )
    ids = [row["id"] for row in rows(found)]

    assert find_overlaps(train, held) == []
    assert len(set(ids)) == len(ids)
    assert 0.2 < found.eval / (found.train + found.eval) < 0.6


@names
def test_the_same_original_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    first = made(name, tmp_path / "a")
    second = made(name, tmp_path / "b")

    for split in ("train", "eval"):
        assert sha256_file(first.folder / f"{split}.jsonl") == sha256_file(second.folder / f"{split}.jsonl")


@names
def test_an_empty_folder_is_told_what_it_lacks_and_where_that_is(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ") as caught:
        fetch(name, str(tmp_path), tmp_path / "data")

    assert ORIGINALS[name].origin in caught.value.hint
    assert not (tmp_path / "data").exists()


@names
@pytest.mark.parametrize("garbage", ["[1, 2]", '{"a": 1}\n', "a,b\n1,2\n", '"x', "\ufffd\x00"])
def test_garbage_in_an_originals_place_is_bad_input_and_writes_nothing(
    name: str, garbage: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path / "original")
    for path in (tmp_path / "original").rglob("*.*"):
        path.write_text(garbage, "utf-8")

    with pytest.raises(DataError):
        fetch(name, str(tmp_path / "original"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_text_that_comes_twice_is_kept_once_and_counted(tmp_path: Path) -> None:
    WRITERS["support/banking77"](tmp_path / "original")
    with (tmp_path / "original" / "banking_data" / "train.csv").open("a") as file:
        file.write("Where is my card number 1?,card_arrival\n")

    found = fetch("support/banking77", str(tmp_path / "original"), tmp_path / "data")

    assert found.repeated == 1


def test_the_answer_in_line_with_a_stereotype_turns_with_the_question(tmp_path: Path) -> None:
    """BBQ: of a negative question the stereotyped group, of another one the other group."""
    found = {
        (row["slices"]["polarity"], row["target"]["biased_index"])
        for row in rows(made("fairness/bbq", tmp_path))
    }

    assert found == {("negative", 2), ("non-negative", 0)}


def test_where_the_stereotyped_group_is_not_among_the_answers_nothing_is_said_of_it(tmp_path: Path) -> None:
    WRITERS["fairness/bbq"](tmp_path / "original")
    path = tmp_path / "original" / "data" / "Age.jsonl"
    path.write_text(path.read_text().replace('["old"]', '["pilots"]'))

    found = rows(fetch("fairness/bbq", str(tmp_path / "original"), tmp_path / "data"))

    assert {row["target"]["biased_index"] for row in found} == {None}


def test_a_clause_of_two_types_is_one_record_with_both(tmp_path: Path) -> None:
    found = [row["target"]["labels"] for row in rows(made("legal/cuad_clauses", tmp_path))]

    assert Counter(map(tuple, found)) == {
        ("Governing Law",): N // 2, ("Governing Law", "Insurance"): N // 2, ("Insurance",): N // 2,
    }  # fmt: skip


def test_an_answer_of_yes_is_no_normalised_answer(tmp_path: Path) -> None:
    answers = [row["target"]["answers"] for row in rows(made("legal/cuad_clauses", tmp_path))]

    assert {json.dumps(one) for one in answers} == {'{"Governing Law": "Spain"}', "{}"}


def test_a_report_is_stored_once_with_its_table_and_paragraphs_in_their_order(tmp_path: Path) -> None:
    found = made("finance/tatqa", tmp_path)
    texts = {row["doc_id"]: row["text"] for row in rows(found, "documents")}

    assert found.documents == N
    assert texts["tatqa-t3"] == " | 2020 | 2019\nSales | 30 | 15\n\n[1] First 3.\n[2] Second."


def test_claims_without_evidence_and_questions_with_doubled_options_are_left_out(tmp_path: Path) -> None:
    science, general = made("science/scifact_pairs", tmp_path / "a"), made("uncertainty/mmlu", tmp_path / "b")

    assert science.train + science.eval == general.train + general.eval == N
    assert {row["target"]["label"] for row in rows(science)} == {"SUPPORTED", "REFUTED"}
    assert {row["slices"]["area"] for row in rows(general)} == {"humanities"}


def test_abstracts_that_a_claim_links_are_in_one_split(tmp_path: Path) -> None:
    WRITERS["science/scifact_pairs"](tmp_path / "original")
    path = tmp_path / "original" / "data" / "claims_train.jsonl"
    both = {str(n): [{"sentences": [0], "label": "SUPPORT"}] for n in range(N // 2)}
    with path.open("a") as file:
        file.write(json.dumps({"id": 100, "claim": "All of these were tried.", "evidence": both}) + "\n")

    found = fetch("science/scifact_pairs", str(tmp_path / "original"), tmp_path / "data")

    linked = [
        [int(row["meta"]["abstract"]) < N // 2 for row in rows(found, split)] for split in ("train", "eval")
    ]
    assert sorted(any(part) for part in linked) == [False, True]


def test_the_options_are_shuffled_by_the_question_and_the_best_one_is_found(tmp_path: Path) -> None:
    found = rows(made("factuality/truthfulqa", tmp_path))

    assert all(row["options"][row["target"]["index"]] == "Gnomes water nothing" for row in found)
    assert len({row["target"]["index"] for row in found}) > 1


def test_a_fetched_set_is_not_overwritten(tmp_path: Path) -> None:
    made("support/banking77", tmp_path)

    with pytest.raises(DataError, match="is there"):
        fetch("support/banking77", str(tmp_path / "original"), tmp_path / "data")


def test_a_data_set_that_the_local_hub_cache_lacks_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(DataError, match="not in the local hub cache") as caught:
        fetch("uncertainty/mmlu", "hub:nobody/nothing-of-this-name", tmp_path / "data")

    assert caught.value.hint == "with a network: hf download --repo-type dataset nobody/nothing-of-this-name"


def test_the_command_writes_a_set_says_what_it_wrote_and_lists_all_sets(tmp_path: Path) -> None:
    WRITERS["support/clinc150_oos"](tmp_path / "original")
    told = [
        "data",
        "fetch",
        "clinc150_oos",
        "--from",
        str(tmp_path / "original"),
        "--to",
        str(tmp_path / "data"),
    ]

    done, listed = (
        CliRunner().invoke(app, [*told, "--json"]),
        CliRunner().invoke(app, ["data", "fetch", "--json"]),
    )

    document = json.loads(done.stdout)
    assert document["train"] + document["eval"] == 2 * N
    assert "CC BY 3.0" in (tmp_path / "data" / "support" / "clinc150_oos" / "DATA.md").read_text()
    assert {row["set"] for row in json.loads(listed.stdout)} == set(ORIGINALS)


def test_a_name_that_is_nearly_one_is_told_which() -> None:
    with pytest.raises(DataError) as caught:
        fetch("bankng77", "x", Path("y"))

    assert "banking77" in caught.value.hint
