from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.console_show import draw
from harness.models.base import Message
from harness.specs.tune import Tune
from harness.train.show import Shown, Token, show
from tests.train.conftest import LABELS, build_example


def test_what_is_shown_as_supervised_is_the_answer_and_its_end(chat: Any) -> None:
    (shown,) = show([build_example(0)], chat, Tune())

    assert "".join(t.text for t in shown.tokens if t.is_supervised) == f"{LABELS[0]}<|im_end|>"
    assert "".join(t.text for t in shown.tokens).startswith("<|im_start|>system\nName the clause.")
    assert shown.supervised_tok == len(chat.answer_ids(LABELS[0]))


def test_of_preferences_both_answers_are_shown(chat: Any) -> None:
    pair = replace(build_example(0), rejected="Other")

    shown = show([pair], chat, Tune(objective="dpo", method="lora"))

    assert [one.id for one in shown] == ["r000 (chosen)", "r000 (rejected)"]
    assert "".join(t.text for t in shown[1].tokens if t.is_supervised) == "Other<|im_end|>"


def test_an_example_that_does_not_fit_says_so(chat: Any) -> None:
    long = build_example(0, words=90)

    refused, skipped = (
        show([replace(long, prompt=replace(long.prompt, over_length=how))], chat, Tune(max_tokens=64))[0]
        for how in ("error", "skip")
    )

    assert (refused.tokens, refused.note.partition(":")[0]) == ((), "refused")
    assert skipped.note.startswith("left out")


def test_marks_tell_what_is_supervised_without_colour() -> None:
    tokens = (
        Token("ask\n", False),
        Token("yes", True),
        Token("<end>", True),
        Token("more", False),
        Token("!", True),
    )

    plain = draw(Shown("one", tokens, "")).plain

    assert plain == "\none: 3 of 5 tokens carry loss\nask⏎·\n⟦yes·<end>·⟧more·⟦!·⟧"


def test_a_character_of_several_tokens_keeps_them_apart(chat: Any) -> None:
    (shown,) = show([replace(build_example(0), answer="東")], chat, Tune())

    answer = [t.text for t in shown.tokens if t.is_supervised]
    assert len(answer) == 4  # three bytes and the end
    assert not any("\ufffd" in text for text in answer)


def test_hostile_records_cannot_reach_the_terminal(chat: Any) -> None:
    evil = replace(build_example(0), id="\x1b[31mid", answer="\x1b]0;owned\x07 [bold]x[/bold]")
    evil = replace(evil, prompt=replace(evil.prompt, messages=(Message("user", "\x9b2J"),)))

    plain = draw(show([evil], chat, Tune())[0]).plain

    assert "\x1b" not in plain
    assert "\x9b" not in plain
    assert "[·b·o·l·d·]" in plain
