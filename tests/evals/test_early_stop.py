"""A run that ends as soon as its rules know, on a model that counts what it is asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.data.records import Record
from harness.errors import CancelledError
from harness.evals.gate import Evidence, Planned, judge
from harness.evals.results import State
from harness.evals.rules.sequential import SequentialGate
from harness.evals.run import WATCHED, Work, evaluate
from tests.evals.builders import gate
from tests.evals.test_run import SUITE, Counting

RULE = gate(at_least=0.5, design="sequential")


def work(n: int = 600, *, right_every: int = 1) -> Work:
    records = tuple(
        Record(f"r{k}", f"text {k}", ("yes",) if k % right_every == 0 else ("no",), {}, f"u{k}", {})
        for k in range(n)
    )
    return Work("base", SUITE, ("yes", "no"), records)


def planned(asked: Work) -> list[Planned]:
    return [Planned(r.id, r.unit, r.targets, r.slices) for r in asked.records]


def run(
    model: Counting, asked: Work, path: Path, watch: SequentialGate, stop_after: int = 10**9
) -> list[Any]:
    return evaluate(
        model, asked, path, on_event=lambda *_, **__: None, should_stop=lambda: len(model.asked) >= stop_after,
        watch=watch,
    )  # type: ignore[arg-type]  # fmt: skip


def test_a_run_asks_no_more_than_its_rules_need(tmp_path: Path) -> None:
    model, asked = Counting(), work()

    found = run(model, asked, tmp_path / "s.jsonl", SequentialGate([RULE], planned(asked)))

    assert len(found) == len(model.asked) < len(asked.records)
    assert len(found) % WATCHED == 0
    shown = Evidence(found, 0.02, planned=planned(asked))
    verdict = judge("adapter", "m", "l", [RULE], {"s": shown}, "s")
    assert verdict.verdict is State.PASS
    assert verdict.rules[-1].items_saved == len(asked.records) - len(found)
    assert verdict.rules[-1].items_used is not None
    assert verdict.rules[-1].items_used <= len(found)


def test_items_that_were_not_needed_are_no_errors(tmp_path: Path) -> None:
    asked = work()

    found = run(Counting(), asked, tmp_path / "s.jsonl", SequentialGate([RULE], planned(asked)))

    rules = judge("a", "m", "l", [RULE], {"s": Evidence(found, 0.0, planned=planned(asked))}, "s").rules
    assert (rules[0].n, rules[0].score, rules[0].verdict) == (len(found), 0.0, State.PASS)


def test_items_are_asked_in_the_order_that_the_seed_fixed(tmp_path: Path) -> None:
    model, asked = Counting(), work(200, right_every=2)
    watch = SequentialGate([RULE], planned(asked))

    found = run(model, asked, tmp_path / "s.jsonl", watch)

    assert model.asked == [f"r{position}" for position in watch.order]
    assert model.asked != [record.id for record in asked.records]
    assert [sample.id for sample in found] == [record.id for record in asked.records]


def test_a_run_that_was_cut_off_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    whole, cut, asked = Counting(), Counting(), work()
    path = tmp_path / "cut" / "s.jsonl"
    undisturbed = run(whole, asked, tmp_path / "s.jsonl", SequentialGate([RULE], planned(asked)))

    with pytest.raises(CancelledError):
        run(cut, asked, path, SequentialGate([RULE], planned(asked)), stop_after=20)
    resumed = run(cut, asked, path, SequentialGate([RULE], planned(asked)))

    assert resumed == undisturbed
    assert cut.asked == whole.asked


def test_the_noise_floor_is_measured_on_what_was_asked(tmp_path: Path) -> None:
    asked = work()
    asked = replace(asked, suite=SUITE.model_copy(update={"repeat": 4}))

    found = run(Counting(), asked, tmp_path / "s.jsonl", SequentialGate([RULE], planned(asked)))

    assert len(found) < len(asked.records)
    assert (tmp_path / "noise.json").exists()
