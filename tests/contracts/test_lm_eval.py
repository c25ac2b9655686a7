"""lm-evaluation-harness itself takes the results that are written, and its own results are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError
from harness.files import sha256_text
from harness.formats.lm_eval_read import read_lm_eval, read_lm_eval_samples
from harness.formats.lm_eval_write import lm_eval_files
from harness.formats.log import Wanted
from tests.contracts.peers import Peer
from tests.formats.logs import log, samples

pytestmark = pytest.mark.slow

TASKS = Path(__file__).parent / "lm_eval_tasks"
TAKE = """
import json, sys
from pathlib import Path
from lm_eval.loggers import EvaluationTracker
from lm_eval.utils import get_file_task_name, get_latest_filename, get_results_filenames
from lm_eval.utils import get_sample_results_filenames, make_table
import datasets
names = [str(path) for path in Path(sys.argv[1]).iterdir()]
results = json.loads(Path(get_latest_filename(get_results_filenames(names))).read_text())
samples = {}
for name in get_sample_results_filenames(names):
    rows = [json.loads(line) for line in Path(name).read_text().splitlines()]
    samples[get_file_task_name(Path(name).name)] = rows
columns = datasets.load_dataset("json", data_files=get_sample_results_filenames(names)[0], split="train")
said, table = dict(results["task_hashes"]), make_table(results)
for row in samples["legal-clauses"]:  # as they are before they are saved
    row["arguments"] = [tuple(one.values()) for one in row["arguments"].values()]
tracker = EvaluationTracker(output_path=sys.argv[2])
tracker.general_config_tracker.log_experiment_args("x", {"model": results["model_name"]}, None, None, False)
tracker.save_results_aggregated(results=results, samples=samples)
for task, rows in samples.items():
    tracker.save_results_samples(task_name=task, samples=rows)
print(json.dumps({"tasks": list(samples), "table": table, "said": said, "hashed": results["task_hashes"],
    "rows": columns.num_rows, "columns": columns.column_names}))
"""


@pytest.fixture(scope="module")
def evaluated(lm_eval: Peer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of results that lm-eval wrote of two tasks, with answers that its dummy model draws."""
    folder = tmp_path_factory.mktemp("lm-eval")
    lm_eval.call(
        "lm_eval", "--model", "dummy", "--include_path", placed(folder), "--tasks", "numbers_mc,numbers_gen",
        "--output_path", folder / "out", "--log_samples",
    )  # fmt: skip
    return next((folder / "out").iterdir())


def placed(folder: Path) -> Path:
    """The task files with the place of their data filled in: lm-eval looks for it in the working directory."""
    for path in TASKS.iterdir():
        (folder / path.name).write_text(path.read_text("utf-8").replace("DATA", str(folder)), "utf-8")
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_lm_eval_takes_what_is_written(lm_eval: Peer, tmp_path: Path) -> None:
    for name, text in lm_eval_files([log()]).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")

    found = lm_eval.run(TAKE, tmp_path / "embedded__smollm2-135m", tmp_path / "again")

    assert found["tasks"] == ["legal-clauses"]
    assert found["said"] == found["hashed"]
    assert found["rows"] == len(samples())
    assert f"{sum(one.score for one in samples()) / len(samples()):.4f}" in found["table"]
    assert {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "doc_hash"} <= set(
        found["columns"]
    )


def test_samples_that_went_through_lm_eval_come_back(lm_eval: Peer, tmp_path: Path) -> None:
    for name, text in lm_eval_files([log()]).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    lm_eval.run(TAKE, tmp_path / "embedded__smollm2-135m", tmp_path / "again")

    found = read_lm_eval(next((tmp_path / "again").rglob("results_*.json")), Wanted())[0]

    assert found.model == "embedded:smollm2-135m"
    back = {one.id: one for one in found.samples}
    assert {id_: one.score for id_, one in back.items()} == {one.id: one.score for one in samples()}
    assert {id_ for id_, one in back.items() if one.error} == {"broken", "hostile error"}
    assert back["wrong"].unit == back["broken"].unit == "doc-1"
    assert back["several"].gold == ("yes", "oui")
    assert back["right"].slices["kind"] == "short"


def test_every_task_of_a_results_file_is_read(evaluated: Path) -> None:
    found = {one.task: one for one in read_lm_eval(next(evaluated.glob("results_*.json")), Wanted())}

    assert found.keys() == {"numbers_mc", "numbers_gen"}
    assert found["numbers_mc"].metric == "acc,none"
    assert found["numbers_gen"].metric == "exact_match,strict"
    assert found["numbers_mc"].tool == "lm-eval 0.4.13"


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_scores_and_answers_are_those_that_lm_eval_counted(evaluated: Path, metric: str) -> None:
    path = next(evaluated.glob("samples_numbers_mc_*"))

    found = read_lm_eval_samples(path, Wanted(metric=metric))

    rows = {row["doc"]["id"]: row for row in lines(path)}
    for one in found.samples:
        assert one.score == rows[one.id][metric]
        assert (one.answer in one.gold) == bool(one.score)
    results = json.loads(next(evaluated.glob("results_*.json")).read_text())
    mean = sum(one.score for one in found.samples) / len(found.samples)
    assert mean == pytest.approx(results["results"]["numbers_mc"][f"{metric},none"])


def test_prompts_are_kept_word_for_word(evaluated: Path) -> None:
    path = next(evaluated.glob("samples_numbers_mc_*"))

    found = read_lm_eval_samples(path, Wanted())

    assert {id_: sha256_text(text) for id_, text in found.inputs.items()} == {
        row["doc"]["id"]: row["prompt_hash"] for row in lines(path)
    }


def test_a_results_file_whose_samples_say_something_else_is_refused(evaluated: Path, tmp_path: Path) -> None:
    for path in evaluated.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    samples_ = next(tmp_path.glob("samples_numbers_mc_*"))
    rows = lines(samples_)
    samples_.write_text("".join(json.dumps({**row, "acc": 1.0}) + "\n" for row in rows), "utf-8")

    with pytest.raises(DataError, match=r"mean acc,none is 1.000000, and the results say"):
        read_lm_eval(next(tmp_path.glob("results_*.json")), Wanted())

    samples_.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]), "utf-8")
    with pytest.raises(DataError, match="samples, and the results say 12"):
        read_lm_eval(next(tmp_path.glob("results_*.json")), Wanted())
