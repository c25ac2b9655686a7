"""Results of other tools become runs that are shown, compared and converted, and that no release rests on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.data.records import Record
from harness.errors import DataError, HarnessError
from harness.evals.samples import read_header, read_samples
from harness.export.verify import verify
from harness.formats.inspect_read import read_inspect
from harness.formats.inspect_write import inspect_eval
from harness.formats.lm_eval_write import lm_eval_files
from harness.formats.log import Wanted
from harness.jobs.converting import convert, logs_of
from harness.jobs.importing import aligned, import_run, named
from harness.jobs.store import RunState, describe_run, last_event
from harness.specs.suite import Suite
from tests.formats.logs import HOSTILE, log, sample, samples

SUITE = {
    "suite": "legal-clauses", "domain": "legal", "task": "generate", "records": {"eval": "items.jsonl"},
    "prompt": {"user": "{{ input }}"}, "slices": ["kind"],
}  # fmt: skip


def harness(home: Path, *arguments: str | Path) -> Result:
    runner = CliRunner(env={"HARNESS_HOME": str(home), "COLUMNS": "120"})
    return runner.invoke(app, [str(argument) for argument in arguments])


def record(id_: str, gold: str = "yes", unit: str = "") -> Record:
    return Record(id_, f"Is it {id_}?", (gold,), {"kind": "short"}, unit or id_, {})


def suite() -> Suite:
    return Suite.model_validate_json(json.dumps(SUITE))


@pytest.fixture
def eval_file(tmp_path: Path) -> Path:
    path = tmp_path / "log.eval"
    path.write_bytes(inspect_eval(log()))
    return path


def test_an_imported_run_is_done_and_says_where_it_comes_from(tmp_path: Path, eval_file: Path) -> None:
    folder = import_run(tmp_path, [read_inspect(eval_file, Wanted())], command=["harness", "import"])

    info = describe_run(folder)
    assert info is not None
    assert (info.job, info.state) == ("import", RunState.DONE)
    source = json.loads((folder / "stages/model/legal-clauses/source.json").read_text())
    assert source["files"][0]["path"] == str(eval_file)
    assert source["metric"] == "label"
    assert len(read_samples(folder / "stages/model/legal-clauses/samples.jsonl")) == len(samples())


def test_an_imported_identity_is_no_model_s_digest(tmp_path: Path, eval_file: Path) -> None:
    folder = import_run(tmp_path, [read_inspect(eval_file, Wanted())], command=[])

    header = read_header(folder / "stages/model/legal-clauses/samples.jsonl")
    assert header is not None
    assert header.identity.startswith("imported:")
    assert (
        json.loads((folder / "stages/model/legal-clauses/scorecard.json").read_text())["identity"]
        == header.identity
    )
    assert not verify(folder).ok


def test_other_bytes_give_another_run_and_another_identity(tmp_path: Path) -> None:
    folders = []
    for number, score in enumerate((1.0, 0.0)):
        path = tmp_path / f"{number}.eval"
        path.write_bytes(inspect_eval(log(sample(score=score))))
        folders.append(import_run(tmp_path, [read_inspect(path, Wanted())], command=[]))

    headers = [read_header(folder / "stages/model/legal-clauses/samples.jsonl") for folder in folders]
    assert folders[0] != folders[1]
    assert headers[0].identity != headers[1].identity  # type: ignore[union-attr]


def test_the_same_files_give_the_same_run(tmp_path: Path, eval_file: Path) -> None:
    first = harness(tmp_path, "import", eval_file, "--json")
    again = harness(tmp_path, "import", eval_file, "--json")

    assert json.loads(first.stdout)["run"] == json.loads(again.stdout)["run"]
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_the_command_shows_the_scores_and_the_run(tmp_path: Path, eval_file: Path) -> None:
    done = harness(tmp_path, "import", eval_file, "--name", "clauses")

    assert done.exit_code == 0
    assert "accuracy" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("import-clauses-")
    assert "\x1b" not in done.stdout
    for command in (["show", "last"], ["runs"], ["board", "--plain"], ["show", "last", "hostile"]):
        shown = harness(tmp_path, *command)
        assert shown.exit_code == 0, shown.output
        assert "\x1b]0;owned" not in shown.stdout


@pytest.mark.parametrize(("at_least", "code"), [(0.9, 1), (0.3, 3), (0.05, 0)])
def test_an_imported_run_is_gated_by_the_rules_of_a_file(tmp_path: Path, at_least: float, code: int) -> None:
    """4 of 12: the exact 95 % bounds are 0.123 and 0.609."""
    (tmp_path / "log.eval").write_bytes(
        inspect_eval(log(*(sample(str(i), score=float(i < 4)) for i in range(12))))
    )
    harness(tmp_path, "import", tmp_path / "log.eval")
    (tmp_path / "gates.yaml").write_text(
        json.dumps({"gates": [{"metric": "accuracy", "at_least": at_least}]})
    )

    done = harness(tmp_path, "gate", "last", "--gates", tmp_path / "gates.yaml")

    assert done.exit_code == code, done.output


def test_two_imported_runs_are_compared_item_by_item(tmp_path: Path) -> None:
    for name, right in (("old", 2), ("new", 3)):
        found = log(*(sample(str(i), score=float(i < right)) for i in range(4)), model=name)
        (tmp_path / f"{name}.eval").write_bytes(inspect_eval(found))
        assert harness(tmp_path, "import", tmp_path / f"{name}.eval").exit_code == 0
    old, new = (
        path.name
        for path in sorted((tmp_path / "runs").iterdir(), key=lambda p: "old.eval" not in text_of(p))
    )

    found = json.loads(harness(tmp_path, "compare", old, new, "--json").stdout)

    overall = found["suites"][0]["overall"]
    assert (overall["n"], overall["a"], overall["b"], overall["gained"], overall["lost"]) == (
        4,
        0.5,
        0.75,
        1,
        0,
    )


def text_of(folder: Path) -> str:
    return (folder / "manifest.json").read_text()


def test_results_of_several_tasks_are_one_run(tmp_path: Path) -> None:
    for name, text in lm_eval_files([log(task="a"), log(sample(), task="b")]).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")

    done = harness(tmp_path, "import", next(tmp_path.rglob("results_*.json")), "--json")

    assert [card["suite"] for card in json.loads(done.stdout)["scorecards"]] == ["a", "b"]
    with pytest.raises(HarnessError, match="one name for 2 tasks"):
        raise harness(tmp_path, "import", next(tmp_path.rglob("results_*.json")), "--name", "x").exception  # type: ignore[misc]


def test_logs_of_two_models_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="logs of 2 models"):
        import_run(tmp_path, [log(task="a", model="x"), log(task="b", model="y")], command=[])


@pytest.mark.parametrize("name", ["../up", "Name", "", "a" * 65, "a b"])
def test_a_name_that_no_suite_has_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="wanted small letters"):
        named(log(), name)


@pytest.mark.parametrize(("task", "name"), [("MMLU/Law", "mmlu-law"), ("../../etc", "etc"), ("∅", "task")])
def test_a_task_s_name_becomes_one_that_a_suite_may_have(task: str, name: str) -> None:
    assert named(log(task=task)).task == name


def test_a_suite_s_records_give_golds_slices_and_units() -> None:
    found = aligned(log(sample("a"), task="other"), suite(), [record("a", unit="doc-7")])

    assert found.task == "legal-clauses"
    assert (found.samples[0].unit, found.samples[0].slices) == ("doc-7", {"kind": "short"})


def test_what_the_log_lacks_of_a_suite_counts_as_wrong() -> None:
    found = aligned(log(sample("a")), suite(), [record("a"), record("b")])

    assert [(one.id, one.score, one.error) for one in found.samples] == [
        ("a", 1.0, None), ("b", 0.0, "not in the imported log"),
    ]  # fmt: skip


def test_samples_that_the_suite_does_not_have_are_refused() -> None:
    with pytest.raises(DataError, match="1 sample: x: not among the 1 items"):
        aligned(log(sample("a"), sample("x")), suite(), [record("a")])


def test_samples_scored_against_another_answer_are_refused() -> None:
    with pytest.raises(DataError, match="scored against another answer"):
        aligned(log(sample("a", gold=("no",))), suite(), [record("a", gold="yes")])


def test_a_suite_on_the_command_line_is_looked_up(tmp_path: Path, eval_file: Path) -> None:
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))
    rows = [
        {"id": one.id, "input": "?", "target": list(one.gold), "slices": {"kind": "x"}} for one in samples()
    ]
    rows = [row if row["id"] not in ("hostile",) else {**row, "target": "?"} for row in rows]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    done = harness(tmp_path, "import", eval_file, "--suite", tmp_path / "suite.yaml")

    assert isinstance(done.exception, DataError)
    assert "1 sample: hostile: scored against another answer" in done.exception.message


@pytest.mark.parametrize("form", ["inspect", "lm-eval", "csv", "parquet"])
def test_a_run_is_converted_and_the_files_are_named(tmp_path: Path, eval_file: Path, form: str) -> None:
    harness(tmp_path, "import", eval_file)

    done = harness(tmp_path, "convert", "last", "--to", form, "--out", tmp_path / "out")

    assert done.exit_code == 0, done.output
    files = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(files) == sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert all(path.stat().st_size for path in files)


def test_a_run_that_was_converted_is_imported_as_it_was(tmp_path: Path, eval_file: Path) -> None:
    folder = import_run(tmp_path, [read_inspect(eval_file, Wanted())], command=[])
    for form in ("inspect", "lm-eval"):
        files = convert(folder, form, tmp_path / form)  # type: ignore[arg-type]
        again = harness(tmp_path / form, "import", files[0], "--json")

        run = tmp_path / form / "runs" / json.loads(again.stdout)["run"]
        back = {one.id: one for one in logs_of(run)[0].samples}
        assert {id_: one.score for id_, one in back.items()} == {one.id: one.score for one in samples()}
        assert {id_ for id_, one in back.items() if one.error} == {"broken", "hostile error"}
        assert back["hostile"].answer == HOSTILE.replace("\ud800", "\\ud800")


def test_a_format_or_stage_that_is_not_there_is_named(tmp_path: Path, eval_file: Path) -> None:
    folder = import_run(tmp_path, [read_inspect(eval_file, Wanted())], command=[])

    with pytest.raises(DataError, match="no samples for stage 'q4'"):
        convert(folder, "csv", tmp_path / "out", stage="q4")
    wrong = harness(tmp_path, "convert", "last", "--to", "xlsx").exception
    assert isinstance(wrong, HarnessError)
    assert wrong.hint == "one of inspect, lm-eval, csv, parquet"
    assert last_event(folder) is not None
