"""Which answers the device gives itself: by the threshold, the sets and the temperature of its own calibration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.edge.bands import tempered, weigh
from harness.evals.calibrate import Calibration
from harness.evals.results import Sample
from harness.evals.rules.sets import is_answered, prediction_sets_of
from harness.evals.tasks import Reading
from harness.specs.gate import Gate
from tests.edge.serving import ScriptedEngine, calibration, client_of, likely, shared_release

ASKED = {"input": "Either party may end this.", "slices": {"style": "plain"}}


def reading(*, top: float = 0.9, answer: str | None = "fee", **more: Any) -> Reading:
    probs = {"fee": top, "cap": (1 - top) * 0.75, "term": (1 - top) * 0.25}
    return Reading(answer, None, top if answer else None, probs if answer else None, **more)


def fitted(**changes: Any) -> Calibration:
    return Calibration.from_json(calibration(**changes))


def test_an_answer_over_the_threshold_is_given_and_one_at_it_is_not() -> None:
    found = fitted(threshold=0.6)

    assert weigh(reading(top=0.61), found, {}).is_sure
    assert weigh(reading(top=0.6), found, {}).reason == "confidence"


def test_the_threshold_is_held_against_the_number_that_it_was_fitted_on() -> None:
    # At temperature 2 the answer's probability is far under the threshold; before it, it is over.
    weighed = weigh(reading(top=0.7), fitted(threshold=0.6, temperature=2.0), {})

    assert weighed.is_sure
    assert weighed.is_calibrated
    assert weighed.confidence is not None
    assert weighed.confidence < 0.6


def test_the_temperature_divides_logits() -> None:
    # By hand: p^(1/2) over the sum of the roots.
    roots = [math.sqrt(p) for p in (0.9, 0.075, 0.025)]

    assert tempered(reading(top=0.9), 2.0) == pytest.approx(roots[0] / sum(roots))
    assert tempered(reading(top=0.9), 1.0) == pytest.approx(0.9)
    assert tempered(reading(top=0.9), None) is None


def test_a_threshold_that_could_not_be_proved_answers_nothing() -> None:
    weighed = weigh(reading(top=0.999), fitted(found=False, threshold=None), {})

    assert weighed.reason == "no_threshold"
    assert weighed.precision is None


def test_a_threshold_on_a_confidence_that_is_not_measured_here_answers_nothing() -> None:
    by_other = fitted(confidence="self_consistency")

    assert weigh(reading(top=0.999), by_other, {}).reason == "no_confidence"
    sure = reading(top=0.2, confidences={"self_consistency": 0.9})
    assert weigh(sure, by_other, {}).is_sure


def test_of_several_rules_the_most_demanding_decides() -> None:
    document = calibration(threshold=0.6)
    document["abstention"].append({**document["abstention"][0], "precision": 0.99, "threshold": 0.95})
    both = Calibration.from_json(document)

    weighed = weigh(reading(top=0.9), both, {})

    assert (weighed.reason, weighed.precision) == ("confidence", 0.99)


def test_without_a_threshold_a_set_of_one_label_is_given() -> None:
    document = calibration(lac=0.7)
    document["abstention"] = []
    sets_alone = Calibration.from_json(document)

    assert weigh(reading(top=0.9), sets_alone, {}).is_sure  # 1 - .075 > .7
    two = weigh(reading(top=0.55), sets_alone, {})  # 1 - .3375 <= .7
    assert (two.set, two.reason, two.coverage) == (("fee", "cap"), "set", 0.9)


def test_a_release_without_calibration_promises_nothing() -> None:
    weighed = weigh(reading(top=0.4), None, {})

    assert weighed.is_sure
    assert (weighed.precision, weighed.coverage, weighed.set, weighed.is_calibrated) == (
        None,
        None,
        None,
        False,
    )


def test_an_answer_that_says_nothing_is_never_given() -> None:
    assert weigh(reading(answer=None), fitted(), {}).reason == "unread"
    assert weigh(reading(answer=None), None, {}).reason == "unread"


def test_a_set_of_a_group_that_calibration_did_not_see_promises_nothing() -> None:
    groups = {"style=plain": {"threshold": 0.2, "n": 40, "is_pooled": False}}
    found = fitted(lac=0.8, per=["style"], groups=groups)

    plain = weigh(reading(top=0.78), found, {"style": "plain"})
    odd = weigh(reading(top=0.78), found, {"style": "odd"})
    unsaid = weigh(reading(top=0.78), found, {})

    assert (plain.set, plain.coverage) == ((), 0.9)
    assert (odd.set, odd.coverage) == (("fee",), None)
    assert (unsaid.set, unsaid.coverage) == (("fee",), None)


def test_a_set_with_an_infinite_threshold_holds_every_label() -> None:
    assert weigh(reading(), fitted(lac=None), {}).set == ("fee", "cap", "term")


@given(
    logits=st.lists(st.floats(-8, 8), min_size=3, max_size=3),
    threshold=st.floats(0.05, 0.99),
    lac=st.floats(0.01, 0.99),
)
def test_the_device_decides_as_the_gate_did(logits: list[float], threshold: float, lac: float) -> None:
    top = max(logits)
    weights = [math.exp(value - top) for value in logits]
    probs = dict(zip(("cap", "fee", "term"), (w / sum(weights) for w in weights), strict=True))
    answer = max(probs, key=lambda label: probs[label])
    sample = Sample(
        id="s", gold=("fee",), answer=answer, score=0.0, slices={}, unit="s", confidence=probs[answer],
        label_probs=probs,
    )  # fmt: skip
    found = fitted(threshold=threshold, lac=lac)

    weighed = weigh(Reading(answer, None, probs[answer], probs), found, {})

    assert weighed.is_sure == is_answered(found.abstention[0], sample)
    gate = Gate(metric="coverage", target=0.9, at_least=0.85)
    sets = prediction_sets_of(gate, found.coverage[0], [sample])["all"]
    assert weighed.set is not None
    assert [len(weighed.set)] == sets.sizes
    assert [float("fee" in weighed.set)] == sets.covered


async def test_a_sure_label_is_answered_on_the_device_with_what_is_promised(tmp_path: Path) -> None:
    release = shared_release(fitted=calibration(threshold=0.6, lac=0.7))
    engine = ScriptedEngine(logprobs=likely("fee", 0.9))
    async with client_of(release, engine, tmp_path / "home") as (client, _):
        reply = await client.post("/suites/clauses/answer", json=ASKED)

    body = reply.json()
    assert (body["label"], body["band"], body["route"], body["set"]) == ("fee", "answer", "edge", ["fee"])
    assert (body["precision"], body["coverage"], body["is_calibrated"]) == (0.95, 0.9, True)
    assert reply.headers["x-confidence"] == f"{body['confidence']:.4f}"
    roots = [math.sqrt(p) for p in (0.9, 0.05, 0.05)]
    assert body["confidence"] == pytest.approx(roots[0] / sum(roots))


async def test_the_engine_is_asked_the_very_prompt_that_was_evaluated(tmp_path: Path) -> None:
    shown = [[("user", "Pay on time."), ("assistant", "fee")]]
    template = "Clause: {{ input }} ({{ slices.style }})"
    prompt = {"system": "Which?", "user": template, "max_tokens": 64, "over_length": "truncate"}
    release = shared_release(examples=shown, prompt=prompt)
    engine = ScriptedEngine()
    async with client_of(release, engine, tmp_path / "home") as (client, _):
        await client.post("/suites/clauses/answer", json=ASKED)

    (ask,) = engine.asked
    assert [tuple(message) for message in ask.messages] == [
        ("system", "Which?"), ("user", "Pay on time."), ("assistant", "fee"),
        ("user", "Clause: Either party may end this. (plain)"),
    ]  # fmt: skip
    assert (ask.labels, ask.max_prompt_tok, ask.over_length) == (("cap", "fee", "term"), 64, "truncate")


async def test_an_unsure_label_is_not_said_and_goes_to_people(tmp_path: Path) -> None:
    release = shared_release(fitted=calibration(threshold=0.6))
    engine = ScriptedEngine(logprobs=likely("fee", 0.5))
    async with client_of(release, engine, tmp_path / "home") as (client, _):
        reply = await client.post("/suites/clauses/answer", json=ASKED)

    body = reply.json()
    assert (body["label"], body["band"], body["route"], body["reason"]) == (
        None,
        "abstain",
        "review",
        "confidence",
    )
    assert "put aside for a person" in body["note"]
    assert body["review"] == body["id"]
    assert (reply.headers["x-route"], reply.headers["x-reason"]) == ("review", "confidence")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": "x", "options": ["a"]}, 400, "options"),
        ({"input": "x", "slices": ["plain"]}, 400, "slices"),
        ({"input": "x", "slices": {"style": "s" * 65}}, 400, "slices"),
        ({"input": "x", "label": "fee"}, 400, "label"),
    ],
)
async def test_a_question_that_is_none_of_the_suite_is_refused(
    tmp_path: Path, body: dict[str, Any], status: int, param: str
) -> None:
    release = shared_release()
    async with client_of(release, ScriptedEngine(), tmp_path / "home") as (client, _):
        reply = await client.post("/suites/clauses/answer", json=body)
        unknown = await client.post("/suites/other/answer", json=ASKED)

    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "suite_not_found")


async def test_a_log_probability_that_is_no_number_is_no_answer(tmp_path: Path) -> None:
    release = shared_release(fitted=calibration(threshold=None))
    engine = ScriptedEngine(logprobs=lambda ask: {"cap": float("nan"), "fee": -1.0, "term": -2.0})
    async with client_of(release, engine, tmp_path / "home") as (client, _):
        body = (await client.post("/suites/clauses/answer", json=ASKED)).json()

    assert (body["label"], body["reason"], body["route"]) == (None, "unread", "review")
