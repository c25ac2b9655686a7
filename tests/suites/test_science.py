"""The records and suites of science: what their README promises, exact quotes, and answers that repeat."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from harness.models.base import GenerateRequest, Message, Prompt
from harness.scoring.item import Item
from harness.scoring.scorers import SCORERS
from tests.evals.fakes import run
from tests.suites import domains
from tests.suites.domains import Loaded


@pytest.fixture(scope="module")
def abstracts() -> Loaded:
    return domains.load("science/roles")


def test_each_split_has_the_size_that_the_readme_states(abstracts: Loaded) -> None:
    assert domains.sizes(abstracts) == {"train": 252, "dev": 42, "calibration": 63, "eval": 126}


def test_every_label_is_equally_frequent_in_every_split(abstracts: Loaded) -> None:
    assert domains.is_balanced(abstracts)


def test_splits_share_no_paper_id_or_text_and_no_two_records_are_nearly_the_same(abstracts: Loaded) -> None:
    assert domains.shared(abstracts) == []
    assert domains.nearly_the_same(abstracts) == []


def test_records_are_clean_text_with_the_documented_keys_and_ids(abstracts: Loaded) -> None:
    assert domains.unclean(abstracts) == []
    assert domains.lines_are_plain(abstracts)
    assert [one.id for one in abstracts.records] == [f"science-role-{n:04d}" for n in range(1, 484)]


def test_a_paper_says_each_label_once(abstracts: Loaded) -> None:
    said: dict[str, list[str]] = defaultdict(list)
    for record in abstracts.records:
        said[record.unit].append(record.targets[0])
    assert len(said) == 69
    assert all(sorted(labels) == sorted(abstracts.suite.labels) for labels in said.values())


def test_a_word_count_solves_a_part_of_the_task_and_the_readme_says_which(abstracts: Loaded) -> None:
    pytest.importorskip("sklearn")
    hits, n = domains.baseline_hits(abstracts), len(abstracts.splits["eval"])
    stated = re.search(rf"names (\d+) of {n}", (abstracts.path.parent / "README.md").read_text("utf-8"))

    assert 0.55 < hits / n < 0.85
    assert stated is not None
    # Another version of the solver may tip a record that lies on the border.
    assert abs(int(stated[1]) - hits) <= 2


def test_every_quote_stands_in_its_document_at_its_place_and_the_document_is_the_one_that_was_read() -> None:
    records = domains.load("science/evidence").splits["eval"]
    for record in records:
        assert sha256(record.context.encode()).hexdigest() == record.raw["doc_sha256"], record.id
        for span in record.raw["target"]:
            assert record.context[span["start"] : span["end"]] == span["text"], record.id


def test_a_quote_that_was_changed_by_a_word_is_invented() -> None:
    for record in domains.load("science/evidence").splits["eval"]:
        quote = record.raw["target"][0]["text"]
        changed = [{"text": quote.replace(quote.split()[1], "seldom", 1), "start": None, "end": None}]
        item = Item(None, record.targets, changed, record.target, context=record.context)
        assert SCORERS["spans_exact"](item).error_class == "invented_quote", record.id


def test_each_abstract_is_asked_a_claim_of_each_kind() -> None:
    asked: dict[str, list[str]] = defaultdict(list)
    for record in domains.load("science/claims").splits["eval"]:
        asked[record.unit].append(record.targets[0])
    assert len(asked) == 10
    assert all(sorted(labels) == ["contradicted", "not enough", "supported"] for labels in asked.values())


@pytest.mark.parametrize("name", ["evidence", "claims", "tldr"])
def test_what_is_right_scores_one_and_what_is_wrong_scores_less(name: str, tmp_path: Path) -> None:
    work = domains.work_of(domains.load(f"science/{name}"))

    right = run(domains.answering(work, rightly=True), work, tmp_path / "right")
    wrong = run(domains.answering(work, rightly=False), work, tmp_path / "wrong")

    assert [one.id for one in right if one.score < 1.0 or one.error] == []
    assert [one.id for one in wrong if one.score > 0.0] == []


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], bytes]:
    """The bytes of two drawn answers of a tiny random model to the abstracts, by seed."""
    pytest.importorskip("torch")
    from harness.models.transformers import TransformersModel
    from tests.export.tiny_models import save_checkpoint

    model = TransformersModel(save_checkpoint(tmp_path_factory.mktemp("tiny"), max_position_embeddings=2048))
    texts = [record.context[:200] for record in domains.load("science/tldr").splits["eval"]][:2]

    def draw(seed: int) -> bytes:
        asked = [
            GenerateRequest(str(at), Prompt((Message("user", text),)), 12, temperature=0.7, seed=seed)
            for at, text in enumerate(texts)
        ]
        return "\0".join(answer.text or "" for answer in model.generate(asked)).encode()

    return draw


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(drawn: Callable[[int], bytes]) -> None:
    assert drawn(17) == drawn(17)
    assert len({drawn(seed) for seed in range(4)}) > 1
