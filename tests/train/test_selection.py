"""Gates inside training, on a scorer whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import CancelledError, RefusedError
from harness.specs.training import TrainGates
from harness.train.checkpoints import Gate
from harness.train.plan import TrainPlan, TrainResult
from harness.train.selection import Action, Scores, action, best_of, failure, leaving
from harness.train.sft import train
from tests.train.test_sft import Log, after, never, plan_for

GATES = {"every": 3}


class Scorer:
    """Scores by step; counts what it is asked."""

    def __init__(self, scores: Mapping[int, float | Scores | None]) -> None:
        self.scores, self.asked = scores, list[str]()

    def __call__(self, checkpoint: Path, name: str) -> Scores:
        assert (checkpoint / "adapter_model.safetensors").is_file()
        torch.rand(7)
        torch.set_num_threads(torch.get_num_threads() + 1)
        self.asked.append(name)
        found = self.scores[int(name.split("-")[1])]
        return found if isinstance(found, Scores) else Scores(10, found, None)


def run(plan: TrainPlan, folder: Path, scorer: Scorer) -> tuple[TrainResult, Log]:
    log = Log()
    return train(plan, folder, on_event=log, should_stop=never, scorer=scorer), log


def gate(step: int, score: float | None, *, failed: str = "", is_vetoed: bool = False) -> Gate:
    return Gate(step, f"step-{step:07d}", 10, score, None, failed, is_vetoed)


def test_the_best_checkpoint_leaves_and_not_the_last(base: Path, tmp_path: Path) -> None:
    result, log = run(plan_for(base, gates=GATES), tmp_path / "a", Scorer({0: 0.1, 3: 0.4, 6: 0.9, 9: 0.5}))
    plain, other = tmp_path / "b", Log()
    with pytest.raises(CancelledError):
        train(plan_for(base), plain, on_event=other, should_stop=after(6, other))

    assert result.chosen_step == 6
    assert result.steps == 9
    at_six = (plain / "checkpoints" / "step-0000006" / "adapter_model.safetensors").read_bytes()
    assert (result.adapter / "adapter_model.safetensors").read_bytes() == at_six
    assert [(e["step"], e["score"], e["is_best"]) for e in log.of("train.gate")] == [
        (0, 0.1, True), (3, 0.4, True), (6, 0.9, True), (9, 0.5, False),
    ]  # fmt: skip


def test_scoring_leaves_no_trace_in_what_is_trained(base: Path, tmp_path: Path) -> None:
    gated, _ = run(plan_for(base, gates=GATES), tmp_path / "a", Scorer({0: 0.1, 3: 0.2, 6: 0.3, 9: 0.9}))
    log = Log()
    plain = train(plan_for(base), tmp_path / "b", on_event=log, should_stop=never)

    one, other = (found.adapter / "adapter_model.safetensors" for found in (gated, plain))
    assert one.read_bytes() == other.read_bytes()


def test_a_gate_that_fails_may_stop_training(base: Path, tmp_path: Path) -> None:
    plan = plan_for(base, gates={**GATES, "on_fail": "stop"})
    result, log = run(plan, tmp_path, Scorer({0: 0.1, 3: 0.8, 6: 0.8}))

    assert (result.steps, result.chosen_step) == (6, 3)
    assert log.of("train.gate")[-1]["failed"] == "accuracy 0.800 after 0.800 at step 3"
    assert log.of("train.gate")[-1]["action"] == "stop"


def test_a_gate_that_fails_may_go_back_with_half_the_rate(base: Path, tmp_path: Path) -> None:
    scorer = Scorer({0: 0.1, 3: 0.8, 6: 0.2, 9: 0.9})
    answers = iter([0.2, 0.85])
    scores = {0: 0.1, 3: 0.8, 9: 0.9}
    scorer.scores = _Changing(scores, answers)
    plan = plan_for(base, gates={**GATES, "on_fail": "roll_back"}, warmup_frac=0.0, schedule="constant")

    result, log = run(plan, tmp_path, scorer)

    assert [e["step"] for e in log.of("train.step")] == [1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9]
    rates = [e["lr"] for e in log.of("train.step")]
    assert rates[6] == pytest.approx(rates[5] / 2)
    assert result.chosen_step == 9
    assert scorer.asked == [
        "step-0000000", "step-0000003", "step-0000006", "step-0000006-1", "step-0000009-1",
    ]  # fmt: skip


class _Changing(dict[int, Any]):
    """Step 6 is worse at first than after going back."""

    def __init__(self, scores: dict[int, float], at_six: Any) -> None:
        super().__init__(scores)
        self._at_six = at_six

    def __missing__(self, step: int) -> float:
        return next(self._at_six)


@pytest.mark.parametrize("stop_at", [2, 5, 6, 7, 8])
def test_a_run_that_goes_back_is_resumed_to_the_same_end(base: Path, tmp_path: Path, stop_at: int) -> None:
    plan = plan_for(base, gates={**GATES, "on_fail": "roll_back"})
    scores = {0: 0.1, 3: 0.8, 6: 0.2, 9: 0.9}
    whole, _ = run(plan, tmp_path / "whole", Scorer(scores))
    log, scorer = Log(), Scorer(scores)
    with pytest.raises(CancelledError):
        train(plan, tmp_path / "cut", on_event=log, should_stop=after(stop_at, log), scorer=scorer)

    resumed, _ = run(plan, tmp_path / "cut", scorer)

    one, other = (found.adapter / "adapter_model.safetensors" for found in (whole, resumed))
    assert one.read_bytes() == other.read_bytes()
    assert len(scorer.asked) == len(set(scorer.asked))


def test_a_suite_that_is_forgotten_vetoes_the_best_checkpoint(base: Path, tmp_path: Path) -> None:
    gates = {**GATES, "forgetting": "general", "max_drop": 0.1}
    scorer = Scorer(
        {0: Scores(10, 0.1, 0.7), 3: Scores(10, 0.5, 0.65), 6: Scores(10, 0.9, 0.55), 9: Scores(10, 0.8, 0.3)}
    )
    result, log = run(plan_for(base, gates=gates), tmp_path, scorer)

    assert result.chosen_step == 3
    assert log.of("train.gate")[2]["failed"] == "general fell from 0.700 to 0.550"
    assert [e["is_vetoed"] for e in log.of("train.gate")] == [False, False, True, True]


def test_where_every_checkpoint_is_vetoed_nothing_leaves(base: Path, tmp_path: Path) -> None:
    gates = {**GATES, "forgetting": "general", "max_drop": 0.0}
    scorer = Scorer({step: Scores(10, 0.9, 0.7 - step / 100) for step in (0, 3, 6, 9)})

    with pytest.raises(RefusedError, match=r"step 3: general fell from 0.700 to 0.670"):
        run(plan_for(base, gates=gates), tmp_path, scorer)
    assert not (tmp_path / "adapter").exists()


def test_an_unknown_score_is_no_score(base: Path, tmp_path: Path) -> None:
    result, _ = run(plan_for(base, gates=GATES), tmp_path, Scorer({0: 0.9, 3: 0.1, 6: None, 9: None}))

    assert result.chosen_step == 3
    assert best_of([gate(0, None)]) is None
    with pytest.raises(RefusedError, match="none was scored"):
        leaving([gate(0, 0.5)])


def test_a_killed_run_asks_no_gate_again(base: Path, tmp_path: Path) -> None:
    plan, log = plan_for(base, gates=GATES), Log()
    first = Scorer({0: 0.1, 3: 0.4, 6: 0.9, 9: 0.5})
    with pytest.raises(CancelledError):
        train(plan, tmp_path, on_event=log, should_stop=after(7, log), scorer=first)
    second = Scorer(first.scores)

    run(plan, tmp_path, second)

    assert second.asked == ["step-0000009"]


@pytest.mark.parametrize(
    ("gates", "passed", "returns", "is_last", "wanted"),
    [
        (TrainGates(on_fail="stop"), ["", "bad"], 0, False, Action.STOP),
        (TrainGates(on_fail="stop", patience=2), ["", "bad"], 0, False, Action.GO_ON),
        (TrainGates(on_fail="stop", patience=2), ["bad", "", "bad"], 0, False, Action.GO_ON),
        (TrainGates(on_fail="stop", patience=2), ["", "bad", "bad"], 0, False, Action.STOP),
        (TrainGates(on_fail="continue"), ["", "bad", "bad"], 0, False, Action.GO_ON),
        (TrainGates(on_fail="roll_back"), ["", "bad"], 0, False, Action.ROLL_BACK),
        (TrainGates(on_fail="roll_back"), ["", "bad"], 3, False, Action.STOP),
        (TrainGates(on_fail="roll_back"), ["", "bad"], 0, True, Action.GO_ON),
        (TrainGates(on_fail="stop"), ["bad", ""], 0, False, Action.GO_ON),
    ],
)
def test_what_follows_from_gates(
    gates: TrainGates, passed: list[str], returns: int, is_last: bool, wanted: Action
) -> None:
    found = [gate(at, 0.5, failed=failed) for at, failed in enumerate(passed)]

    assert action(gates, found, is_last=is_last, returns=returns) is wanted


def test_a_gate_passes_by_more_than_its_least_gain() -> None:
    before = [gate(0, 0.5)]

    assert failure(TrainGates(min_gain=0.1), before, 3, Scores(10, 0.61, None)) == ("", False)
    assert failure(TrainGates(min_gain=0.1), before, 3, Scores(10, 0.6, None))[0]
    assert failure(TrainGates(min_gain=-0.1), before, 3, Scores(10, 0.45, None)) == ("", False)
    assert failure(TrainGates(), before, 3, Scores(10, None, None)) == (
        "no accuracy on the development records", True,
    )  # fmt: skip
