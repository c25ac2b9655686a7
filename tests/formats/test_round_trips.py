"""Whatever a model says, samples come back from other tools' formats as they went."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from harness.evals.results import Sample
from harness.formats.inspect_read import read_inspect
from harness.formats.inspect_write import inspect_eval
from harness.formats.lm_eval_read import read_lm_eval
from harness.formats.lm_eval_write import lm_eval_files
from harness.formats.log import Wanted, whole
from harness.formats.reading import read_logs
from harness.formats.tables import FORMULA_STARTS, csv_text
from tests.formats.logs import log

TEXTS = st.text(st.characters(), max_size=30)
IDS = st.text(st.characters(codec="ascii", exclude_characters="\x00"), min_size=1, max_size=12)


@st.composite
def found_samples(draw: st.DrawFn) -> tuple[Sample, ...]:
    ids = draw(
        st.lists(
            IDS.filter(lambda id_: id_.isprintable() and ".." not in id_), min_size=1, max_size=5, unique=True
        )
    )
    return tuple(
        Sample(
            id=id_, gold=tuple(draw(st.lists(TEXTS.filter(bool), min_size=1, max_size=2, unique=True))),
            answer=draw(TEXTS | st.none()), score=0.0 if (error := draw(TEXTS.filter(bool) | st.none())) else
            draw(st.floats(0.0, 1.0)), slices={"kind": draw(TEXTS)}, unit=draw(TEXTS.filter(bool)),
            output=draw(TEXTS | st.none()), error=error,
        )
        for id_ in ids
    )  # fmt: skip


@settings(max_examples=60)
@given(found_samples())
def test_ids_scores_errors_golds_units_and_slices_survive_inspect(samples: tuple[Sample, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.eval"
        path.write_bytes(inspect_eval(log(*samples)))
        back = read_inspect(path, Wanted()).samples

    assert same(back) == same(samples)
    assert [one.gold for one in back] == [tuple(dict.fromkeys(map(whole, one.gold))) for one in samples]


@settings(max_examples=60)
@given(found_samples())
def test_ids_scores_errors_units_and_slices_survive_lm_eval(samples: tuple[Sample, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in lm_eval_files([log(*samples)]).items():
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_text(text, "utf-8", newline="")
        back = read_lm_eval(next(Path(folder).rglob("results_*.json")), Wanted())[0].samples

    assert same(back) == same(samples)


def same(samples: tuple[Sample, ...]) -> list[tuple[object, ...]]:
    """What must survive, halves of surrogate pairs spelled out."""
    return [
        (
            one.id,
            one.score,
            one.error and whole(one.error),
            whole(one.unit),
            whole(str(one.slices["kind"])),
        )
        for one in samples
    ]


@settings(max_examples=60)
@given(found_samples())
def test_no_text_breaks_a_table_or_becomes_a_formula(samples: tuple[Sample, ...]) -> None:
    rows = list(csv.reader(io.StringIO(csv_text([log(*samples)]), newline="")))

    assert len(rows) == len(samples) + 1
    assert {len(row) for row in rows} == {len(rows[0])}
    texts = [
        cell
        for row in rows[1:]
        for name, cell in zip(rows[0], row, strict=True)
        if name in ("output", "answer", "id")
    ]
    assert [text for text in texts if text.startswith(FORMULA_STARTS)] == []


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every value within the document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


def with_junk(document: Any, place: tuple[str | int, ...], junk: object) -> Any:
    if not place:
        return junk
    copy = document.copy()
    copy[place[0]] = with_junk(document[place[0]], place[1:], junk)
    return copy


@settings(max_examples=200)
@given(st.data())
def test_an_inspect_log_with_junk_in_any_place_is_read_or_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        packed = inspect_eval(log(Sample("a", ("x",), "x", 1.0, {"kind": "k"}, "a", output="x")))
        with ZipFile(io.BytesIO(packed)) as archive:
            whole_log = json.loads(archive.read("header.json"))
            whole_log["samples"] = [json.loads(archive.read("samples/a_epoch_1.json"))]
        place = data.draw(st.sampled_from(places(whole_log)))
        changed = with_junk(whole_log, place, data.draw(JUNK))
        (Path(folder) / "log.json").write_text(json.dumps(changed))

        read_or_refused(Path(folder) / "log.json")


def lm_eval_document() -> dict[str, Any]:
    """A line of samples and the results that go with it."""
    arguments = {f"gen_args_{i}": {"arg_0": "q", "arg_1": f" {i}"} for i in range(2)}
    row = {
        "doc_id": 0, "doc": {"id": "a", "unit": "u", "slices": {"k": "v"}}, "target": "[0]", "arguments": arguments,
        "resps": [[["-1.0", "False"]], [["-2.0", "True"]]], "filtered_resps": [["-1.0", "False"], ["-2.0", "True"]],
        "filter": "none", "metrics": ["acc"], "acc": 1.0, "error": None,
    }  # fmt: skip
    results = {
        "results": {"t": {"acc,none": 1.0}}, "configs": {"t": {"target_delimiter": " "}}, "model_name": "m",
        "n-samples": {"t": {"effective": 1}}, "versions": {"t": 1}, "n-shot": {"t": 0}, "config": {"limit": None},
        "task_hashes": {"t": "h"}, "lm_eval_version": "0.4.13",
    }  # fmt: skip
    return {"row": row, "results": results}


def read_lm_eval_document(document: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        date = "2026-11-22T11-29-01.931509"
        (Path(folder) / f"samples_t_{date}.jsonl").write_text(json.dumps(document["row"]) + "\n")
        (Path(folder) / f"results_{date}.json").write_text(json.dumps(document["results"]))

        read_or_refused(Path(folder) / f"results_{date}.json")


@settings(max_examples=200)
@given(st.data())
def test_a_line_of_lm_eval_with_junk_in_any_place_is_read_or_refused(data: st.DataObject) -> None:
    document = lm_eval_document()
    place = data.draw(st.sampled_from([one for one in places(document) if one]))

    read_lm_eval_document(with_junk(document, place, data.draw(JUNK)))


def test_a_mean_that_no_float_holds_is_refused() -> None:
    read_lm_eval_document(with_junk(lm_eval_document(), ("results", "results", "t", "acc,none"), 10**400))


def read_or_refused(path: Path) -> None:
    try:
        logs = read_logs([path], Wanted())
    except DataError:
        return
    for one in logs:
        assert all(0.0 <= sample.score <= 1.0 for sample in one.samples)
        json.dumps([sample.to_json() for sample in one.samples], allow_nan=False)
        json.dumps(dict(one.settings), ensure_ascii=False, allow_nan=False).encode("utf-8")
