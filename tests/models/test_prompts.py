"""Prompts within their budget, the same way at every stage."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.models.base import Message, Prompt
from harness.models.prompts import ELLIPSIS, PromptTooLong, common_prefix, fit, prompt_digest


def render(messages: Sequence[Message]) -> str:
    return "".join(f"<{message.role}>{message.content}" for message in messages) + "<assistant>"


def encode(text: str) -> list[int]:
    return list(text.encode("utf-8"))


def ask(*contents: str, budget: int | None = None, over: str = "error") -> Prompt:
    return Prompt(tuple(Message("user", text) for text in contents), budget, over)


def test_a_prompt_within_its_budget_is_left_alone() -> None:
    exact = len(encode(render([Message("user", "héllo")])))

    fitted = fit(ask("héllo", budget=exact), render, encode)

    assert fitted.ids == encode("<user>héllo<assistant>")
    assert not fitted.is_truncated


@pytest.mark.parametrize(("over", "is_skip"), [("error", False), ("skip", True)])
def test_a_prompt_over_its_budget_is_refused_with_both_figures(over: str, is_skip: bool) -> None:
    with pytest.raises(PromptTooLong, match="117 tokens, its budget is 50") as caught:
        fit(ask("x" * 100, budget=50, over=over), render, encode)

    assert caught.value.is_skip is is_skip
    assert (caught.value.found_tok, caught.value.budget_tok) == (117, 50)


@given(
    texts=st.lists(st.text(max_size=120), min_size=1, max_size=4),
    budget=st.integers(min_value=60, max_value=200),
)
def test_truncation_keeps_both_ends_and_as_much_as_fits(texts: list[str], budget: int) -> None:
    prompt = ask(*texts, budget=budget, over="truncate")
    try:
        fitted = fit(prompt, render, lambda text: list(text.encode("utf-8", "surrogatepass")))
    except PromptTooLong:
        return
    assert len(fitted.ids) <= budget
    longest = max(texts, key=len)
    turn = texts.index(longest)
    if fitted.is_truncated:
        head, _, tail = fitted.messages[turn].content.partition(ELLIPSIS)
        assert longest.startswith(head) or ELLIPSIS in longest
        assert longest.endswith(tail) or ELLIPSIS in longest
        assert [m.content for i, m in enumerate(fitted.messages) if i != turn] == [
            text for i, text in enumerate(texts) if i != turn
        ]


def test_one_character_more_would_not_have_fitted() -> None:
    text = "".join(chr(97 + i % 26) for i in range(300))

    fitted = fit(ask(text, budget=100, over="truncate"), render, encode)

    assert len(fitted.ids) == 100
    assert fitted == fit(ask(text, budget=100, over="truncate"), render, encode)


def test_a_template_longer_than_the_budget_is_refused_even_where_truncation_is_allowed() -> None:
    with pytest.raises(PromptTooLong, match="the template alone is longer"):
        fit(ask("abc" * 30, budget=10, over="truncate"), render, encode)


def test_a_system_turn_is_never_cut() -> None:
    prompt = Prompt((Message("system", "s" * 200),), 50, "truncate")

    with pytest.raises(PromptTooLong, match="no user turn"):
        fit(prompt, render, encode)


@given(st.lists(st.integers(min_value=0, max_value=2**31 - 1)))
def test_the_digest_is_of_little_endian_int32(ids: list[int]) -> None:
    assert prompt_digest(ids) == hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=5))
def test_the_common_prefix_is_the_longest(rows: list[list[int]]) -> None:
    found = common_prefix(rows)

    assert all(row[: len(found)] == found for row in rows)
    if rows and all(len(row) > len(found) for row in rows):
        assert len({row[len(found)] for row in rows}) > 1
