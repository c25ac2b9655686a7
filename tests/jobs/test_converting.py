"""A run that was evaluated here goes out with the prompts that it asked, or with none."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from harness.formats.inspect_read import read_inspect
from harness.formats.log import Wanted
from harness.jobs.converting import convert, logs_of
from harness.jobs.evaluate import run_eval
from harness.jobs.journal import Journal
from harness.jobs.orders import order_eval

SUITE = {
    "suite": "greetings", "domain": "support", "task": "classify", "labels": ["hello", "bye"],
    "records": {"eval": "items.jsonl"}, "prompt": {"user": "Say: {{ input }}"}, "slices": ["mood"], "repeat": 0,
}  # fmt: skip
ITEMS = [
    {"id": "a", "input": "hi", "target": "hello", "slices": {"mood": "glad"}},
    {"id": "b", "input": "ciao", "target": "bye", "slices": {"mood": "sad"}},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two items, of which a scripted model has one right."""
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))
    write_items(tmp_path, ITEMS)
    (tmp_path / "script.jsonl").write_text('{"id": "*", "logprobs": {"hello": -0.5, "bye": -1.5}}\n')
    folder = order_eval(
        tmp_path, tmp_path / "suite.yaml", model=f"scripted:{tmp_path / 'script.jsonl'}", data_root=None,
        split="eval", command=["harness", "eval"],
    )  # fmt: skip
    journal = Journal(folder / "events.jsonl")
    run_eval(folder, journal)
    journal.close()
    return folder


def write_items(folder: Path, items: list[dict[str, object]]) -> None:
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))


def test_the_prompts_that_were_asked_go_with_the_samples(run: Path) -> None:
    log = logs_of(run)[0]

    assert log.inputs == {"a": "Say: hi", "b": "Say: ciao"}
    assert log.metric == "label"
    assert log.model.startswith("scripted:")


def test_prompts_that_today_s_records_no_longer_give_are_left_out(run: Path, tmp_path: Path) -> None:
    write_items(tmp_path, [{**ITEMS[0], "input": "hi there"}, ITEMS[1]])

    assert logs_of(run)[0].inputs == {}


def test_a_run_whose_documents_are_gone_is_still_converted(run: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").unlink()

    assert logs_of(run)[0].inputs == {}
    assert convert(run, "csv", tmp_path / "out")[0].exists()


def test_scores_slices_and_confidences_are_in_every_format(run: Path, tmp_path: Path) -> None:
    (table,) = convert(run, "csv", tmp_path / "out")
    (log,) = convert(run, "inspect", tmp_path / "out")

    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(table.read_text(), newline=""))}
    back = {one.id: one for one in read_inspect(log, Wanted()).samples}
    assert {id_: float(row["score"]) for id_, row in rows.items()} == {"a": 1.0, "b": 0.0}
    assert {id_: one.score for id_, one in back.items()} == {"a": 1.0, "b": 0.0}
    assert [rows[id_]["slices.mood"] for id_ in "ab"] == ["glad", "sad"]
    assert [back[id_].slices["mood"] for id_ in "ab"] == ["glad", "sad"]
    # e^-0.5 / (e^-0.5 + e^-1.5) = 1 / (1 + e^-1)
    assert float(rows["a"]["confidence"]) == pytest.approx(0.7310586)
    assert rows["a"]["input"] == "Say: hi"
