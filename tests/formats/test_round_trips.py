"""Whatever a model says, samples come back from other tools' formats as they went."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evals.results import Sample
from harness.formats.inspect_read import read_inspect
from harness.formats.inspect_write import inspect_eval
from harness.formats.lm_eval_read import read_lm_eval
from harness.formats.lm_eval_write import lm_eval_files
from harness.formats.log import Wanted, whole
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
