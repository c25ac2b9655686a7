"""Task files of lm-evaluation-harness: the same prompts, golds and scores as lm-eval itself gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.data.sources import load_split
from harness.evals.results import Sample
from harness.evals.run import Work, build_requests, evaluate
from harness.formats.lm_eval_read import read_lm_eval
from harness.formats.log import Wanted
from harness.jobs.importing import aligned
from harness.models.base import ChoiceRequest, GenerateRequest
from harness.models.load import open_model
from harness.specs.load import load_suite
from harness.specs.suite import Suite
from tests.contracts.peers import Peer
from tests.contracts.test_lm_eval import placed

pytestmark = pytest.mark.slow

TASKS = ("numbers_mc", "numbers_norm", "numbers_gen", "letters_mc")
EVALUATE = """
import hashlib, json, sys
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

class Canned(LM):
    said = ["1", " two", "three words", "Two.", "it is 3", "", "ONE", " 2 ", "None"]
    def loglikelihood(self, requests):
        drawn = [int(hashlib.sha256("".join(r.args).encode()).hexdigest()[:6], 16) for r in requests]
        return [(-(d % 7) - len(r.args[1]) / 4, False) for d, r in zip(drawn, requests)]
    def generate_until(self, requests):
        return [self.said[i % len(self.said)] for i, _ in enumerate(requests)]
    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

found = simple_evaluate(model=Canned(), tasks=sys.argv[2:], task_manager=TaskManager(include_path=sys.argv[1]),
    log_samples=True, bootstrap_iters=0)
print(json.dumps({"samples": found["samples"], "results": found["results"]}, default=str))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return placed(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def theirs(lm_eval: Peer, folder: Path) -> Any:
    """What lm-eval logs and counts, with answers that depend on the prompt alone."""
    return lm_eval.run(EVALUATE, folder, *TASKS)


def work_of(folder: Path, task: str) -> Work:
    path = folder / f"{task}.yaml"
    suite = load_suite(path)
    records = load_split(suite, "eval", suite_path=path, data_root=None)
    return Work("model", suite, (), tuple(records), measures=False)


def ours(folder: Path, task: str, rows: list[dict[str, Any]], tmp_path: Path) -> list[Sample]:
    """The samples of the task, given the very answers that lm-eval got."""
    work = work_of(folder, task)
    lines = [
        {"id": record.id, **canned(work.suite, row)} for record, row in zip(work.records, rows, strict=True)
    ]
    script = tmp_path / "script.jsonl"
    script.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    model = open_model(f"scripted:{script}")
    return evaluate(
        model, work, tmp_path / "samples.jsonl", on_event=lambda *_, **__: None, should_stop=lambda: False
    )


def canned(suite: Suite, row: Mapping[str, Any]) -> dict[str, Any]:
    if suite.task == "choice":
        pairs = zip(row["arguments"], row["filtered_resps"], strict=True)
        return {"logprobs": {arguments[1]: response[0] for arguments, response in pairs}}
    return {"text": row["resps"][0][0]}


def one_filter(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["filter"] == rows[0]["filter"]]


@pytest.mark.parametrize("task", TASKS)
def test_prompts_and_choices_are_the_same_text(theirs: Any, folder: Path, task: str) -> None:
    rows = one_filter(theirs["samples"][task])

    requests = build_requests(work_of(folder, task))

    for request, row in zip(requests, rows, strict=True):
        assert request.prompt.text == row["arguments"][0][0]
        if isinstance(request, ChoiceRequest):
            assert list(request.choices) == [arguments[1] for arguments in row["arguments"]]
            assert request.is_open
        else:
            assert isinstance(request, GenerateRequest)
            how = row["arguments"][0][1]
            assert (list(request.stop), request.max_new_tokens) == (how["until"], how["max_gen_toks"])
            assert request.temperature == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_golds_are_the_same(theirs: Any, folder: Path, task: str) -> None:
    rows = one_filter(theirs["samples"][task])

    for record, row in zip(work_of(folder, task).records, rows, strict=True):
        target = row["target"]
        golds = target if isinstance(target, list) else [target]
        assert list(record.targets) == [record.options[one] if record.options else one for one in golds]


@pytest.mark.parametrize(
    ("task", "metric"), [("numbers_mc", "acc"), ("numbers_norm", "acc_norm"), ("letters_mc", "acc")]
)
def test_choices_are_counted_as_lm_eval_counts_them(
    theirs: Any, folder: Path, tmp_path: Path, task: str, metric: str
) -> None:
    rows = theirs["samples"][task]

    found = ours(folder, task, rows, tmp_path)

    assert [one.score for one in found] == [row[metric] for row in rows]
    mean = sum(one.score for one in found) / len(found)
    assert mean == pytest.approx(theirs["results"][task][f"{metric},none"])
    assert 0.0 < mean < 1.0


def test_acc_and_acc_norm_differ_on_these_answers(theirs: Any) -> None:
    """Else the test above could not tell them apart."""
    rows = theirs["samples"]["numbers_mc"]

    assert [row["acc"] for row in rows] != [row["acc_norm"] for row in rows]


def test_written_answers_are_counted_as_lm_eval_counts_them_under_each_filter(
    theirs: Any, folder: Path, tmp_path: Path
) -> None:
    rows = theirs["samples"]["numbers_gen"]
    by_filter = {name: [row for row in rows if row["filter"] == name] for name in ("strict", "loose")}

    found = ours(folder, "numbers_gen", by_filter["strict"], tmp_path)

    for name, wanted in by_filter.items():
        scores = [one.scores[f"exact_match-{name}"] for one in found]
        assert scores == [row["exact_match"] for row in wanted]
        assert 0.0 < sum(scores) < len(scores)
    assert [one.score for one in found] == [row["exact_match"] for row in by_filter["strict"]]


def test_lm_eval_s_own_results_are_items_of_the_task_as_a_suite(
    lm_eval: Peer, folder: Path, tmp_path: Path
) -> None:
    """What lm-eval scored elsewhere stands beside what is scored here: same ids, same golds."""
    lm_eval.call(
        "lm_eval", "--model", "dummy", "--include_path", folder, "--tasks", "numbers_mc,numbers_gen",
        "--output_path", tmp_path, "--log_samples",
    )  # fmt: skip

    for log in read_lm_eval(next(tmp_path.rglob("results_*.json")), Wanted()):
        work = work_of(folder, log.task)
        found = aligned(log, work.suite, work.records)

        assert [one.id for one in found.samples] == [record.id for record in work.records]
        assert [one.gold for one in found.samples] == [record.targets for record in work.records]
        assert [one.score for one in found.samples] == [one.score for one in log.samples]
