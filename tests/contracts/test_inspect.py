"""inspect_ai itself opens the logs that are written, and its own logs are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.formats.inspect_read import read_inspect
from harness.formats.inspect_write import inspect_eval, inspect_name
from harness.formats.log import Wanted
from tests.contracts.peers import Peer
from tests.formats.logs import log, sample, samples

pytestmark = pytest.mark.slow

READ = """
import json, sys
from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries, list_eval_logs
found = read_eval_log(sys.argv[1])
one = read_eval_log_sample(sys.argv[1], id="several", epoch=1)
print(json.dumps({
    "listed": [info.task for info in list_eval_logs(sys.argv[2])],
    "task": found.eval.task, "status": found.status, "model": found.eval.model,
    "ids": [s.id for s in found.samples],
    "summaries": [s.id for s in read_eval_log_sample_summaries(sys.argv[1])],
    "scores": {s.id: s.scores["label"].value for s in found.samples},
    "errors": {s.id: s.error.message for s in found.samples if s.error},
    "metrics": {s.name: {k: m.value for k, m in s.metrics.items()} for s in found.results.scores},
    "several": [one.target, {k: v.value for k, v in one.scores.items()}],
    "recomputed": None,
}))
"""
SCORE_ANEW = """
import json, sys
from inspect_ai.log import read_eval_log
from inspect_ai.scorer import accuracy, stderr, SampleScore
samples = read_eval_log(sys.argv[1]).samples
scores = [SampleScore(score=s.scores["label"], sample_id=s.id) for s in samples]
print(json.dumps([accuracy()(scores), stderr()(scores)]))
"""
FRAMES = """
import json, sys
from inspect_ai.analysis import evals_df, samples_df
evals, samples = evals_df(sys.argv[1]), samples_df(sys.argv[1])
print(json.dumps({"evals": len(evals), "accuracy": float(evals.score_label_accuracy[0]),
    "ids": sorted(samples.id), "sum": float(samples.score_label.astype(float).sum()),
    "errors": sorted(i for i, why in zip(samples.id, samples.error) if isinstance(why, str) and why)}))
"""
EVALUATE = """
import json, sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import match, scorer, Score, mean
from inspect_ai.solver import solver

@solver
def breaks():
    async def solve(state, generate):
        if state.sample_id == "q3":
            raise RuntimeError("the server is gone")
        said = "B" if (int(state.sample_id[1:]) + state.epoch) % 3 else "A"
        state.output = ModelOutput.from_content("mockllm/model", said)
        return state
    return solve

@scorer(metrics=[mean()])
def words():
    async def score(state, target):
        return Score(value=len(state.output.completion.split()))
    return score

@scorer(metrics=[mean()])
def sometimes():
    async def score(state, target):
        return Score.unscored(reason="refusal") if state.sample_id == "q2" else Score(value=1)
    return score

data = [
    Sample(id=f"q{i}", input=f"question {i}", target="A", metadata={"kind": {"of": f"k{i % 2}"}})
    for i in range(1, 5)
]
for form in ("eval", "json"):
    task = Task(dataset=data, solver=breaks(), scorer=[match(), words(), sometimes()])
    log = eval(task, model="mockllm/model", epochs=int(sys.argv[2]),
        log_dir=sys.argv[1], log_format=form, display="none", fail_on_error=False)[0]
scores = {}
for s in log.samples:
    scores[f"{s.id} {s.epoch}"] = s.scores["match"].value if s.scores else None
print(json.dumps(scores))
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / inspect_name(log())
    path.write_bytes(inspect_eval(log()))
    return path


def test_inspect_reads_what_is_written(inspect: Peer, written: Path) -> None:
    found = inspect.run(READ, written, written.parent)

    assert found["listed"] == ["legal-clauses"]
    assert (found["task"], found["status"], found["model"]) == (
        "legal-clauses",
        "success",
        "embedded:smollm2-135m",
    )
    assert sorted(found["ids"]) == sorted(found["summaries"]) == sorted(one.id for one in samples())
    assert found["scores"] == {one.id: one.score for one in samples()}
    assert found["errors"].keys() == {"broken", "hostile error"}
    assert found["several"] == [["yes", "oui"], {"label": 1.0, "exact": 1.0, "f1": 0.5}]


def test_inspects_own_metrics_give_the_totals_in_the_header(inspect: Peer, written: Path) -> None:
    accuracy, stderr = inspect.run(SCORE_ANEW, written)

    metrics = inspect.run(READ, written, written.parent)["metrics"]["label"]
    assert metrics["accuracy"] == pytest.approx(accuracy)
    assert metrics["stderr"] == pytest.approx(stderr)


def test_inspects_dataframes_hold_every_sample(inspect: Peer, written: Path) -> None:
    found = inspect.run(FRAMES, written.parent)

    assert found["evals"] == 1
    assert found["ids"] == sorted(one.id for one in samples())
    assert found["sum"] == sum(one.score for one in samples())
    assert found["accuracy"] == pytest.approx(found["sum"] / len(samples()))
    assert found["errors"] == ["broken", "hostile error"]


def test_inspects_command_line_dumps_the_log(inspect: Peer, written: Path) -> None:
    text = inspect.call("inspect", "log", "dump", written)

    assert len(json.loads(text)["samples"]) == len(samples())
    assert "\x1b" not in text


@pytest.mark.parametrize("form", ["eval", "json"])
def test_a_log_that_inspect_made_is_read(inspect: Peer, tmp_path: Path, form: str) -> None:
    scores = inspect.run(EVALUATE, tmp_path, "1")

    found = read_inspect(next(tmp_path.glob(f"*.{form}")), Wanted(slices=("kind.of",)))

    assert found.metric == "match"
    assert found.model == "mockllm/model"
    assert found.tool == "inspect 0.3.285"
    by_id = {one.id: one for one in found.samples}
    assert by_id.keys() == {"q1", "q2", "q3", "q4"}
    assert by_id["q3"].score == 0.0
    assert by_id["q3"].error == "RuntimeError('the server is gone')"
    assert {id_: one.slices["of"] for id_, one in by_id.items()} == {
        "q1": "k1",
        "q2": "k0",
        "q3": "k1",
        "q4": "k0",
    }
    assert {id_: one.score for id_, one in by_id.items() if not one.error} == {
        key.split()[0]: float(value == "C") for key, value in scores.items() if value
    }
    assert [by_id[id_].output for id_ in ("q1", "q2", "q4")] == ["B", "A", "B"]


def test_epochs_that_inspect_ran_share_a_unit(inspect: Peer, tmp_path: Path) -> None:
    inspect.run(EVALUATE, tmp_path, "3")

    found = read_inspect(next(tmp_path.glob("*.eval")), Wanted())

    assert len(found.samples) == 12
    assert len({one.id for one in found.samples}) == 12
    assert {one.unit for one in found.samples} == {"q1", "q2", "q3", "q4"}


def test_a_sample_that_inspect_left_unscored_counts_as_an_error(inspect: Peer, tmp_path: Path) -> None:
    inspect.run(EVALUATE, tmp_path, "1")

    found = read_inspect(next(tmp_path.glob("*.eval")), Wanted(metric="sometimes"))

    assert {one.id: one.error for one in found.samples if one.error} == {
        "q2": "not scored: refusal",
        "q3": "RuntimeError('the server is gone')",
    }
    assert len(found.samples) == 4


def test_samples_that_went_through_inspect_come_back(inspect: Peer, written: Path, tmp_path: Path) -> None:
    """inspect reads the log and writes it anew, in both of its formats."""
    for name in ("anew.eval", "anew.json"):
        inspect.run(
            "import sys; from inspect_ai.log import read_eval_log, write_eval_log\n"
            "write_eval_log(read_eval_log(sys.argv[1]), sys.argv[2]); print('true')", written, tmp_path / name,
        )  # fmt: skip

        back = {one.id: one for one in read_inspect(tmp_path / name, Wanted()).samples}

        assert {id_: one.score for id_, one in back.items()} == {one.id: one.score for one in samples()}
        assert {id_ for id_, one in back.items() if one.error} == {"broken", "hostile error"}
        assert back["right"].slices == sample("right", slices={"kind": "short", "tags": ["x", "y"]}).slices
        assert back["wrong"].unit == back["broken"].unit == "doc-1"
        assert back["several"].gold == ("yes", "oui")
        assert back["long"].output == "x" * 2**20
