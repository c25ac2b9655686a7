"""Extracted objects, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.fields import OTHER, fields, valid_json
from harness.scoring.item import Item, Score
from harness.scoring.parse import MAX_JSON_DEPTH

GOLD = {"brand": "Acme Ltd.", "price": 1200, "tags": ["red", "blue"], "size": None, "maker": {"city": "Bonn"}}


def score(said: Any, gold: Any = GOLD, **settings: Any) -> Score:
    return fields(Item(None, (), parsed=said, target=gold, settings=settings))


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({}, {}),
        ({"brand": "ACME ltd"}, {}),
        ({"brand": "Other"}, {"brand": (0, 1, 1)}),
        ({"brand": None}, {"brand": (0, 0, 1)}),
        ({"brand": ""}, {"brand": (0, 0, 1)}),
        ({"brand": ["Acme Ltd.", "Acme Ltd."]}, {}),
        ({"price": "1,200"}, {}), ({"price": "$1.2k"}, {}), ({"price": 1200.0}, {}),
        ({"price": "1,300"}, {"price": (0, 1, 1)}), ({"price": True}, {"price": (0, 1, 1)}),
        ({"tags": ["blue", "red"]}, {}), ({"tags": ["red", "green"]}, {"tags": (1, 1, 1)}),
        ({"tags": "red"}, {"tags": (1, 0, 1)}),
        ({"size": "XL"}, {"size": (0, 1, 0)}), ({"size": []}, {}), ({"size": " "}, {}),
        ({"maker": {"city": "Köln"}}, {"maker.city": (0, 1, 1)}),
        ({"maker": "Bonn"}, {"maker.city": (0, 0, 1), OTHER: (0, 1, 0)}),
        ({"colour": "red"}, {OTHER: (0, 1, 0)}), ({"colour": None}, {}),
    ],
)  # fmt: skip
def test_each_field_counts_for_itself(change: dict[str, Any], counts: dict[str, Any]) -> None:
    right = {"brand": (1, 0, 0), "price": (1, 0, 0), "tags": (2, 0, 0), "maker.city": (1, 0, 0)}
    found = score({**GOLD, **change})
    tp, fp, fn = (sum(cells[i] for cells in found.counts.values()) for i in range(3))

    assert found.counts == {**right, **counts}
    assert found.value == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_errors_are_classed() -> None:
    assert score(None).error_class == "not_json"
    assert score({**GOLD, "size": "XL"}).error_class == "hallucinated_field"
    assert score({**GOLD, "brand": "Other"}).error_class == "wrong_value"
    assert score({**GOLD, "brand": None}).error_class == "missing_field"
    assert score(GOLD).error_class is None


def test_a_null_gold_makes_any_value_a_false_positive() -> None:
    assert score({"a": None}, {"a": None}).value == 1.0
    assert score({"a": 0}, {"a": None}).counts == {"a": (0, 1, 0)}
    assert score({"a": False}, {"a": None}).value == 0.0


def test_accepted_values_are_one_decision() -> None:
    gold = {"sport": ["Ski", "Skiing"]}

    assert score({"sport": "skiing"}, gold, gold_lists="any").counts == {"sport": (1, 0, 0)}
    assert score({"sport": "golf"}, gold, gold_lists="any").counts == {"sport": (0, 1, 1)}
    assert score({"sport": ["Ski", "Skiing"]}, gold, gold_lists="any").counts == {"sport": (1, 1, 0)}
    assert score({"sport": "skiing"}, gold).counts == {"sport": (1, 0, 1)}


def test_settings_make_it_stricter_or_looser() -> None:
    assert score({**GOLD, "brand": "acme ltd"}, strings="exact").counts["brand"] == (0, 1, 1)
    assert score({**GOLD, "colour": "red"}, ignore_extra=True).value == 1.0
    assert score({**GOLD, "price": 1205}, tolerance=0.01).value == 1.0


def test_objects_in_a_list_are_values_as_a_whole() -> None:
    gold = {"items": [{"name": "A", "n": 1}, {"name": "B", "n": 2}]}

    assert score({"items": [{"n": 2, "name": "b"}, {"n": 1, "name": "a"}]}, gold).value == 1.0
    assert score({"items": [{"name": "A", "n": 2}, {"name": "B", "n": 1}]}, gold).counts == {
        "items": (0, 2, 2)
    }


def test_the_best_of_several_gold_objects_counts() -> None:
    assert score({"a": 2}, [{"a": 1}, {"a": 2}]).value == 1.0


def test_the_answer_is_read_where_nothing_was_parsed() -> None:
    assert fields(Item('```json\n{"a": 1}\n```', ('{"a": 1}',))).value == 1.0
    assert fields(Item('{"a": 1, "a": 1}', ('{"a": 1}',))).error_class == "not_json"


@pytest.mark.parametrize(
    "text", ['{"a": 1', "[]", "", "{'a': 1}", '{"a": NaN}', "[" * 100_000, '{"a":' * (MAX_JSON_DEPTH + 1)]
)
def test_what_is_no_strict_object_is_not_valid(text: str) -> None:
    assert valid_json(Item(text, ())).value == 0.0


def test_required_keys_are_named_where_they_are_missing() -> None:
    found = valid_json(Item('{"a": 1}', (), settings={"required": ("a", "b")}))

    assert (found.value, found.error_class, found.note) == (0.0, "missing_keys", "b")
    assert valid_json(Item('{"a": 1, "b": null}', (), settings={"required": ("a", "b")})).value == 1.0


values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)


@given(objects, objects)
def test_scores_are_bounded_gold_is_right_and_counts_explain_the_value(gold: Any, said: Any) -> None:
    found = score(said, gold)
    tp, fp, fn = (sum(cells[i] for cells in found.counts.values()) for i in range(3))

    assert 0.0 <= found.value <= 1.0
    assert found.value == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0)
    assert score(gold, gold).value == 1.0
