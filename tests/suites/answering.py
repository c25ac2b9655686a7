"""Models that know the golds of a suite, so that every suite can be run whole without a model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.data.records import Record
from harness.data.sources import load_split
from harness.data.targets import labels_of
from harness.evals.results import Sample
from harness.evals.run import Work, evaluate
from harness.models.base import Answer, ChoiceRequest
from harness.specs.load import load_suite
from tests.evals.fakes import Told


def work_of(path: Path, *, data_root: Path | None = None, measures: bool = False) -> Work:
    """The suite's eval records as work; with `measures`, what is asked again too."""
    suite = load_suite(path, data_root=data_root)
    records = load_split(suite, "eval", suite_path=path, data_root=data_root)
    labels = labels_of(
        suite, [] if suite.labels else load_split(suite, "train", suite_path=path, data_root=data_root)
    )
    return Work("base", suite, labels, tuple(records), measures=measures)


def knowing(work: Work, *, rightly: bool = True) -> Told:
    """Answers every record with its gold, or never with it."""
    records = {record.id: record for record in work.records}

    def reply(request: Any) -> Answer:
        record = records[request.id]
        if isinstance(request, ChoiceRequest):
            return _weighed(request, work, record, rightly)
        text = _written(record) if rightly else "\u2297"
        return Answer(request.id, text=text, token_logprobs=(-0.1,))

    return Told(reply, size=64)


def run_suite(model: Told, work: Work, folder: Path) -> list[Sample]:
    return evaluate(
        model, work, folder / "samples.jsonl", on_event=lambda *_a, **_k: None, should_stop=lambda: False
    )


def _weighed(request: ChoiceRequest, work: Work, record: Record, rightly: bool) -> Answer:
    names = record.options or work.labels
    weights = tuple(-0.1 if (name in record.targets) is rightly else -7.0 for name in names)
    return Answer(request.id, choice_logprobs=weights, choice_tok=(1,) * len(weights))


def _written(record: Record) -> str:
    """The gold as it would be written: of spans that are offsets, the words."""
    spans = record.target if isinstance(record.target, list) else []
    if spans and all(isinstance(span, dict) and "text" not in span and "start" in span for span in spans):
        source = record.context or record.input
        return json.dumps([source[span["start"] : span["end"]] for span in spans])
    return record.targets[0]
