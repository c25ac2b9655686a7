"""Real records through each kind of task: all that is right scores 1, and all that is wrong 0, on every one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.data.records import Record, read_records
from harness.data.targets import labels_of
from harness.evals.run import Work
from harness.models.base import Answer, ChoiceRequest
from harness.specs.suite import Fields
from tests.evals.fakes import Told, run, suite
from tests.real.conftest import ROOT

pytestmark = pytest.mark.real


class Set(NamedTuple):
    """A public set as a suite would name it."""

    name: str
    task: str
    target: str
    context: str | None = None
    options: str | None = None
    keys: dict[str, Any] = {}  # noqa: RUF012


SETS = [
    Set("support/clinc150_oos", "classify", "target.label"),
    Set("fairness/hatecheck", "classify", "target.label"),
    Set("science/scifact_pairs", "verify", "target.label", context="context"),
    Set("factuality/truth_judge", "verify", "target.label", context="context"),
    Set("uncertainty/mmlu", "choice", "target.index"),
    Set("fairness/bbq", "choice", "target.index", context="context"),
    Set("fairness/bbq", "choice", "target.index", keys={"answer_with": "letter"}),
    Set("factuality/truthfulqa", "rank", "target.index"),
    Set("ecommerce/product_attributes", "extract", "target.attributes"),
    Set("science/scitldr", "generate", "target.summaries", keys={"scorers": ["rouge_l", "token_f1"]}),
    Set("healthcare/icd10cm_terms", "answer", "target.code", keys={"scorers": ["exact"]}),
]


@pytest.fixture(params=SETS, ids=lambda one: f"{one.name}-{one.task}-{one.target}")
def work(request: pytest.FixtureRequest) -> Work:
    public: Set = request.param
    if not (ROOT / public.name).is_dir():
        pytest.skip(f"no {public.name} at $HARNESS_DATA")
    asked = suite(public.task, **public.keys)
    fields = Fields(target=public.target, context=public.context, options=public.options)
    train, evaluated = (
        read_records(ROOT / public.name / f"{split}.jsonl", fields, asked.task) for split in ("train", "eval")
    )
    labels = tuple(dict.fromkeys((*labels_of(asked, train), *labels_of(asked, evaluated))))
    return Work("base", asked, labels, tuple(evaluated[:300]))


def answering(work: Work, *, rightly: bool) -> Told:
    records = {record.id: record for record in work.records}

    def reply(request: Any) -> Answer:
        record = records[request.id]
        if not isinstance(request, ChoiceRequest):
            return Answer(request.id, text=record.targets[0] if rightly else "\u2297", token_logprobs=(-0.1,))
        is_gold = [name in record.targets for name in meant(work, record)]
        weights = tuple(-0.1 if gold is rightly else -7.0 for gold in is_gold)
        return Answer(request.id, choice_logprobs=weights, choice_tok=(1,) * len(weights))

    return Told(reply, size=64)


def meant(work: Work, record: Record) -> tuple[str, ...]:
    return record.options or work.labels


def test_what_is_right_scores_one_on_every_record(work: Work, tmp_path: Path) -> None:
    samples = run(answering(work, rightly=True), work, tmp_path)

    assert [(sample.id, sample.score, sample.error) for sample in samples if sample.score < 1.0] == []


def test_what_is_wrong_scores_less_on_every_record(work: Work, tmp_path: Path) -> None:
    samples = run(answering(work, rightly=False), work, tmp_path)

    # A ranking without a gold at its top still gives 1 / its place; where all options are right, nothing is wrong.
    all_right = {record.id for record in work.records if set(meant(work, record)) == set(record.targets)}
    most = 0.5 if work.suite.task == "rank" else 0.0
    assert [s.id for s in samples if s.score > most and s.id not in all_right] == []
