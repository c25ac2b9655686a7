"""What a person asks of training while it trains, in a file that is read between two steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CancelledError, DataError
from harness.jobs import lease
from harness.jobs.steering import FILE, Order, steer, take
from harness.train.sft import train
from tests.train.test_selection import GATES, Scorer
from tests.train.test_sft import Log, never, plan_for


class Person(Log):
    """Asks for something once a step is done."""

    def __init__(self, folder: Path, wanted: Mapping[int, str]) -> None:
        super().__init__()
        self.folder, self.wanted = folder, dict(wanted)

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        super().__call__(name, data)
        if name == "train.step" and (order := self.wanted.pop(data["step"], None)):
            (self.folder / FILE).write_text(order)


def orders(log: Log) -> list[tuple[int, str]]:
    return [(event["step"], event["order"]) for event in log.of("train.order")]


def test_finish_keeps_the_best_of_what_was_trained(base: Path, tmp_path: Path) -> None:
    person = Person(tmp_path, {5: "finish"})
    result = train(
        plan_for(base, gates=GATES), tmp_path, on_event=person, should_stop=never,
        scorer=Scorer({0: 0.1, 3: 0.8, 5: 0.4}),
    )  # fmt: skip
    assert (result.steps, result.chosen_step) == (5, 3)
    assert list(result.orders) == ["step 5: finish"]
    assert json.loads((tmp_path / "result.json").read_text())["result"]["orders"] == ["step 5: finish"]
    assert orders(person) == [(5, "finish")]


def test_a_gate_that_is_asked_for_scores_this_step(base: Path, tmp_path: Path) -> None:
    person = Person(tmp_path, {4: "gate"})
    scorer = Scorer({0: 0.1, 3: 0.2, 4: 0.9, 6: 0.3, 9: 0.4})
    result = train(plan_for(base, gates=GATES), tmp_path, on_event=person, should_stop=never, scorer=scorer)
    assert [event["step"] for event in person.of("train.gate")] == [0, 3, 4, 6, 9]
    assert result.chosen_step == 4


def test_a_gate_without_gates_is_answered_and_changes_nothing(base: Path, tmp_path: Path) -> None:
    person, plain = Person(tmp_path / "a", {4: "gate"}), Log()
    asked = train(plan_for(base), tmp_path / "a", on_event=person, should_stop=never)
    other = train(plan_for(base), tmp_path / "b", on_event=plain, should_stop=never)
    assert any("no tune.gates" in event["text"] for event in person.of("note"))
    one, two = (found.adapter / "adapter_model.safetensors" for found in (asked, other))
    assert one.read_bytes() == two.read_bytes()


def test_rolling_back_returns_to_the_best_checkpoint_with_half_the_rate(base: Path, tmp_path: Path) -> None:
    person = Person(tmp_path, {5: "roll-back"})
    result = train(
        plan_for(base, gates=GATES), tmp_path, on_event=person, should_stop=never,
        scorer=Scorer({0: 0.1, 3: 0.8, 6: 0.4, 9: 0.3}),
    )  # fmt: skip
    assert list(result.orders) == ["step 5: roll-back"]
    steps = [event["step"] for event in person.of("train.step")]
    assert steps == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9]
    before, after = (event["lr"] for event in person.of("train.step") if event["step"] == 4)
    assert after == pytest.approx(before / 2)


def test_a_pause_waits_with_a_checkpoint_until_it_is_told_to_go_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(tmp_path, {4: "pause"})
    waits = []

    def wait(_seconds: float) -> None:
        waits.append((tmp_path / "checkpoints" / "step-0000004").is_dir())
        if len(waits) == 3:
            (tmp_path / FILE).write_text("go-on")

    monkeypatch.setattr("harness.train.loop.time.sleep", wait)
    result = train(plan_for(base), tmp_path, on_event=person, should_stop=never)
    assert waits == [True] * 3
    assert [event["done"] for event in person.of("step.progress") if event["note"] == "paused"] == [4]
    assert orders(person) == [(4, "pause"), (4, "go-on")]
    assert result.steps == 9


def test_a_paused_run_can_be_stopped(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(tmp_path, {4: "pause"})
    is_stopped = []
    monkeypatch.setattr("harness.train.loop.time.sleep", lambda _: is_stopped.append(True))
    with pytest.raises(CancelledError):
        train(plan_for(base), tmp_path, on_event=person, should_stop=lambda: bool(is_stopped))


def test_an_order_outlives_the_process_only_where_it_ends_training(tmp_path: Path) -> None:
    for order in Order:
        (tmp_path / FILE).write_text(order.value)
        assert take(tmp_path) is order
        assert take(tmp_path) is (Order.FINISH if order is Order.FINISH else None)
    (tmp_path / FILE).write_bytes(b"\xff\xfe rm -rf")
    assert take(tmp_path) is None
    assert not (tmp_path / FILE).exists()


def test_only_a_run_that_trains_can_be_steered(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(DataError, match="not running"):
        steer(run, Order.PAUSE)
    with lease.hold(run):
        with pytest.raises(DataError, match="does not train"):
            steer(run, Order.PAUSE)
        (run / "train").mkdir()
        assert "waits after this step" in steer(run, Order.PAUSE)
        assert take(run / "train") is Order.PAUSE
        (run / "train" / "result.json").write_text("{}")
        with pytest.raises(DataError, match="does not train"):
            steer(run, Order.PAUSE)
