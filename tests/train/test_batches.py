from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from harness.models.base import Message, Prompt
from harness.train.batches import (
    Encoded,
    Example,
    Position,
    TooLong,
    batches_from,
    batches_of,
    encode,
    micro_batches,
    steps_an_epoch,
    tensors,
)
from tests.train.conftest import build_example


def row(at: int, length: int, supervised: int = 2) -> Encoded:
    return Encoded(f"r{at}", tuple(range(length)), length - supervised, False, False, True, supervised - 1)


lengths = st.lists(st.integers(3, 60), min_size=1, max_size=90)


def test_only_the_answer_and_its_end_are_supervised(chat: Any) -> None:
    encoded = encode(build_example(0), chat, max_tokens=400)

    assert isinstance(encoded, Encoded)
    assert chat.decode(encoded.ids[encoded.supervised_from :]) == "Governing Law"
    assert encoded.ids[-1] == chat.end_id
    assert encoded.is_end_supervised
    assert encoded.answer_tok == len("Governing Law")  # a byte a token


def test_prompt_and_answer_together_are_the_template_of_the_whole_conversation(chat: Any) -> None:
    example = build_example(4)
    encoded = encode(example, chat, max_tokens=400)
    whole = [*example.prompt.messages, Message("assistant", example.answer)]

    assert isinstance(encoded, Encoded)
    assert [*encoded.ids, *chat.encode("\n")] == chat.encode(chat.render(whole, add_generation_prompt=False))


def test_a_prompt_gives_way_and_the_answer_stays_whole(chat: Any) -> None:
    encoded = encode(build_example(1, words=60, over_length="truncate"), chat, max_tokens=120)

    assert isinstance(encoded, Encoded)
    assert len(encoded.ids) <= 120
    assert encoded.is_prompt_truncated
    assert not encoded.is_answer_truncated
    assert chat.decode(encoded.ids[encoded.supervised_from :]) == "Insurance"


def test_the_prompts_own_budget_holds_where_it_is_the_smaller(chat: Any) -> None:
    encoded = encode(build_example(1, words=60, over_length="truncate", max_tokens=100), chat, max_tokens=400)

    assert isinstance(encoded, Encoded)
    assert encoded.supervised_from <= 100


@pytest.mark.parametrize(("policy", "is_skipped"), [("error", False), ("skip", True)])
def test_a_long_prompt_that_may_not_be_cut_is_left_out_and_says_why(
    chat: Any, policy: str, is_skipped: bool
) -> None:
    found = encode(build_example(1, words=60, over_length=policy), chat, max_tokens=120)

    assert isinstance(found, TooLong)
    assert found.is_skipped is is_skipped
    assert "120" in found.reason or "tokens" in found.reason


def test_an_answer_longer_than_everything_is_cut_and_says_so(chat: Any) -> None:
    example = Example("long", Prompt((Message("user", "hi"),), over_length="truncate"), "x" * 300)
    encoded = encode(example, chat, max_tokens=100)

    assert isinstance(encoded, Encoded)
    assert len(encoded.ids) == 100
    assert encoded.is_answer_truncated
    assert not encoded.is_end_supervised


@given(lengths, st.integers(1, 9), st.integers(0, 5), st.integers(0, 3))
def test_each_epoch_holds_every_row_once(sizes: list[int], batch: int, seed: int, epoch: int) -> None:
    rows = [row(at, size) for at, size in enumerate(sizes)]
    found = batches_of(rows, batch=batch, seed=seed, epoch=epoch)

    assert sorted(at for some in found for at in some) == list(range(len(rows)))
    assert len(found) == steps_an_epoch(len(rows), batch)
    assert all(1 <= len(some) <= batch for some in found)


@given(lengths, st.integers(1, 9), st.integers(0, 25))
@settings(max_examples=50)
def test_starting_at_a_position_gives_what_an_unbroken_run_sees_there(
    sizes: list[int], batch: int, done: int
) -> None:
    rows = [row(at, size) for at, size in enumerate(sizes)]
    unbroken = batches_from(rows, Position(0, 0), batch=batch, seed=3)
    seen = [next(unbroken) for _ in range(done + 3)]
    position = seen[done].position

    resumed = batches_from(rows, position, batch=batch, seed=3)

    assert [next(resumed) for _ in range(3)] == seen[done:]


def test_epochs_and_seeds_differ_in_order() -> None:
    rows = [row(at, 10 + at % 30) for at in range(120)]
    orders = {
        tuple(batches_of(rows, batch=8, seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1, 2)
    }

    assert len(orders) == 6


def test_buckets_need_far_less_padding_than_a_random_order() -> None:
    rows = [row(at, 10 + at * 37 % 200) for at in range(256)]
    batches = batches_of(rows, batch=8, seed=0, epoch=0)
    padded = sum(len(some) * max(len(rows[at].ids) for at in some) for some in batches)
    in_file_order = sum(8 * max(len(r.ids) for r in some) for some in micro_batches(rows, 8))
    real = sum(len(r.ids) for r in rows)

    assert padded / real < 1.1 < in_file_order / real


def test_no_rows_are_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(DataError, match="no training example"):
        next(batches_from([], Position(0, 0), batch=4, seed=1))


def test_each_supervised_token_is_predicted_from_the_place_before_it() -> None:
    rows = [row(0, 7, supervised=3), row(1, 4, supervised=1)]
    ids, places, targets = tensors(rows, pad_id=99)

    assert ids.tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 99, 99, 99]]
    assert targets.tolist() == [4, 5, 6, 3]
    assert ids.flatten()[places].tolist() == [3, 4, 5, 2]
