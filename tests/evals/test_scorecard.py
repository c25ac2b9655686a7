"""A run's numbers, from values that were computed by hand or by another library."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from harness.evals.results import Reading, Sample, Scorecard
from harness.evals.scorecard import find_reading, make_scorecard
from tests.evals.fakes import Told, make_work, run, says, suite

GOLDEN = Path(__file__).parent.parent / "golden" / "runs" / "demo"


def sample(number: int, score: float = 1.0, **changes: object) -> Sample:
    values: dict[str, object] = {
        "id": f"r{number}", "gold": ("a",), "answer": "a", "score": score, "slices": {}, "unit": f"r{number}",
    }  # fmt: skip
    return Sample(**{**values, **changes})  # type: ignore[arg-type]


def card(*samples: Sample, labelled: bool = False) -> Scorecard:
    return make_scorecard("s", "base", "m", samples, slices=["kind"], is_labelled=labelled)


def reading(found: Scorecard, metric: str, slice_name: str = "all") -> Reading:
    got = find_reading(found, metric, slice_name)
    assert got is not None
    return got


def test_a_mean_of_parts_is_not_rounded_to_hits() -> None:
    found = reading(card(sample(0, 0.5), sample(1, 0.25), sample(2, 0.9)), "accuracy")

    assert (found.n, found.hits, found.score) == (3, None, pytest.approx(0.55))
    # mean ± 1.959964 · sd / √3, sd = 0.327872 (numpy, ddof 1)
    assert (found.low, found.high) == (pytest.approx(0.17899, abs=1e-4), pytest.approx(0.92101, abs=1e-4))


def test_one_item_has_no_interval_and_none_have_no_score() -> None:
    assert reading(card(sample(0, 0.5)), "accuracy").low is None
    assert reading(card(), "accuracy").score is None


def test_errors_stay_in_the_denominator() -> None:
    found = card(
        sample(0), sample(1, 0.0, answer=None, error="lost"), sample(2, 0.0, answer=None, error="lost")
    )

    assert (reading(found, "accuracy").n, reading(found, "accuracy").hits) == (3, 1)
    assert (reading(found, "error_rate").hits, found.n_errors) == (2, 2)


def test_counts_give_micro_and_macro_f1() -> None:
    found = card(
        sample(0, 0.5, counts={"a": (3, 1, 0), "b": (0, 0, 2)}), sample(1, 0.5, counts={"a": (1, 0, 1)})
    )

    # a: tp 4 fp 1 fn 1; b: tp 0 fp 0 fn 2
    assert (reading(found, "precision", "label=a").score, reading(found, "recall", "label=b").score) == (
        0.8,
        0.0,
    )
    assert reading(found, "precision", "label=b").score is None
    assert reading(found, "micro_f1").score == pytest.approx(8 / 12)
    assert reading(found, "macro_f1").score == pytest.approx(0.4)


def test_perplexity_and_bits_a_byte_weigh_tokens_and_bytes_alike() -> None:
    weights = [{"logprob": -4.0, "tok": 2, "bytes": 10}, {"logprob": -1.0, "tok": 8, "bytes": 30}]
    found = card(*(sample(n, 0.5, parsed=one) for n, one in enumerate(weights)))

    assert reading(found, "token_perplexity").score == pytest.approx(math.exp(0.5))
    assert reading(found, "bits_per_byte").score == pytest.approx(5.0 / math.log(2) / 40)
    assert (reading(found, "token_perplexity").n, reading(found, "bits_per_byte").n) == (10, 40)


def test_a_confidence_is_judged_by_what_it_tells_apart() -> None:
    samples = [
        sample(
            n, float(n % 3 != 0), confidence=0.5 + n / 40,
            confidences={"semantic_entropy": 1.0 - n / 20, "p_true": n / 20},
        )
        for n in range(20)
    ]  # fmt: skip

    found = card(*samples)

    from sklearn.metrics import roc_auc_score

    wanted = roc_auc_score([n % 3 != 0 for n in range(20)], range(20))
    for name in ("confidence", "semantic_entropy", "p_true"):
        assert reading(found, "auroc", f"confidence={name}").score == pytest.approx(wanted)
    assert reading(found, "ece", "confidence=p_true").n == 20
    assert find_reading(found, "ece", "confidence=semantic_entropy") is None
    assert reading(found, "ece_by_chance", "confidence=confidence").high is not None


def test_several_scorers_and_ways_to_be_wrong_are_readings() -> None:
    found = card(
        sample(0, scores={"exact": 1.0, "token_f1": 1.0}),
        sample(1, 0.0, scores={"exact": 0.0, "token_f1": 0.5}, error_class="unit_slip"),
    )

    assert reading(found, "score token_f1").score == 0.75
    assert reading(found, "error_class", "class=unit_slip").hits == 1


def test_the_noise_floor_is_on_the_card_and_comes_back() -> None:
    floor = {"items": 16, "flips": 1, "upper": 0.26, "max_difference": 0.5, "is_sampled": False}
    made = make_scorecard("s", "base", "m", [sample(0)], slices=[], is_labelled=False, noise=floor)

    assert made.noise == floor
    assert Scorecard.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_a_run_from_records_to_the_card(tmp_path: Path) -> None:
    asked = suite("answer", slices=["kind"])
    rows = [{"target": "x", "slices": {"kind": "ab"[n % 2]}} for n in range(4)]

    found = card(*run(Told(says("x", "x", "y")), make_work(tmp_path, asked, *rows), tmp_path))

    assert (reading(found, "accuracy").score, reading(found, "accuracy", "kind=b").score) == (0.5, 0.5)


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.rglob("scorecard.json")), ids=lambda path: path.parent.parent.name
)
def test_scorecards_of_a_recorded_run_are_read(path: Path) -> None:
    found = Scorecard.from_json(json.loads(path.read_text()))

    assert found.noise is None
    assert reading(found, "accuracy").n == found.n
