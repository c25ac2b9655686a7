"""Raw text and choices that may go on: against one plain pass a choice, whatever shares a batch with them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.models.base import ChoiceRequest, GenerateRequest, Message, Prompt
from harness.models.chat import load_chat
from harness.models.transformers import TransformersModel
from harness.models.windows import rolling_windows

LETTERS = st.sampled_from([*"th aé🙂\n", "the", " th"])
TEXT = st.lists(LETTERS, max_size=12).map("".join)
CHOICE = st.lists(LETTERS, min_size=1, max_size=8).map("".join)
LOOSE = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def open_request(id_: str, text: str, *choices: str, **limits: Any) -> ChoiceRequest:
    return ChoiceRequest(id_, Prompt((), text=text, **limits), choices, is_open=True)


def encoded_pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """As lm-evaluation-harness says it: spaces go to the continuation, both are encoded as one."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    if not context:
        ids = tokenizer.encode(continuation, add_special_tokens=False)
        start = tokenizer.bos_token_id
        return [start], ids[1:] if ids[0] == start else ids
    whole, begin = tokenizer.encode(context + continuation), tokenizer.encode(context)
    return begin, whole[len(begin) :]


@LOOSE
@given(
    stems=st.lists(TEXT, min_size=1, max_size=3),
    tails=st.lists(TEXT, min_size=1, max_size=5),
    choices=st.lists(CHOICE, min_size=1, max_size=5),
    budget_tok=st.sampled_from([8, 64, 2048]),
    seed=st.integers(0, 9),
)
def test_sharing_batching_and_order_move_no_log_probability(
    stems: list[str],
    tails: list[str],
    choices: list[str],
    budget_tok: int,
    seed: int,
    tiny_model: Any,
    naive: Any,
) -> None:
    longer = [*choices, choices[0] + "h", choices[0] + "he 🙂"]  # some are the beginnings of others
    texts = ["", "  ", *(stem * 6 + tail for stem in stems for tail in tails)]
    requests = [open_request(str(at), text, *longer[at % 2 :]) for at, text in enumerate(texts)]
    random.Random(seed).shuffle(requests)
    tiny_model.forget()
    tiny_model._budget_tok = budget_tok

    found = {
        answer.id: answer
        for batch in tiny_model.plan(requests)
        for answer in tiny_model.score_choices([requests[at] for at in batch])
    }

    tokenizer = tiny_model.chat.tokenizer
    for request in requests:
        answer = found[request.id]
        pairs = [encoded_pair(tokenizer, request.prompt.text, choice) for choice in request.choices]
        if not all(ids for _, ids in pairs):
            assert "no tokens" in answer.error
            continue
        wanted = [naive(begin, ids) for begin, ids in pairs]
        assert answer.choice_logprobs == pytest.approx(wanted, abs=1e-4)
        assert answer.choice_tok == tuple(len(ids) for _, ids in pairs)
        assert answer.prompt_tok == len(pairs[0][0])


def test_open_choices_after_a_conversation_follow_its_own_ids(tiny_model: Any, naive: Any) -> None:
    prompt = Prompt((Message("user", "the question"),))

    (answer,) = tiny_model.score_choices([ChoiceRequest("a", prompt, ("th", "the", "é"), is_open=True)])

    ids = tiny_model.token_ids(prompt)
    wanted = [naive(ids, tiny_model.chat.encode(choice)) for choice in ("th", "the", "é")]
    assert answer.choice_logprobs == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("length", [1, 511, 512, 513, 1024, 1300])
def test_a_text_longer_than_the_context_is_weighed_in_rolling_windows(
    length: int, tiny_model: Any, naive: Any
) -> None:
    text = "".join(random.Random(length).choice("abcdefgh ") for _ in range(length - 1)) + "x"

    (answer,) = tiny_model.score_choices([open_request("a", "", text)])

    ids = tiny_model.chat.tokenizer.encode(text)
    start = tiny_model.chat.tokenizer.bos_token_id
    wanted, done = naive([start], ids[:512]), 512
    while done < len(ids):  # the last tokens of the text, with as much before them as the context takes
        end = min(done + 512, len(ids))
        wanted += naive(ids[end - 513 : done], ids[done:end])
        done = end
    assert answer.choice_logprobs == pytest.approx([wanted], abs=1e-3 * max(1, length / 100))
    assert answer.choice_tok == (len(ids),)


@given(count=st.integers(0, 60), context_tok=st.integers(1, 20))
def test_rolling_windows_score_each_token_once_and_fit(count: int, context_tok: int) -> None:
    ids = list(range(100, 100 + count))

    windows = rolling_windows(ids, 1, context_tok)

    assert [token for window in windows for token in window.scored] == ids
    for window in windows:
        assert window.context
        assert len(window.context) + len(window.scored) - 1 <= context_tok
        assert (
            window.context == [1]
            or [*window.context, *window.scored]
            == ids[ids.index(window.context[0]) : ids.index(window.scored[-1]) + 1]
        )


def test_raw_text_over_its_budget_loses_its_beginning(tiny_model: Any, naive: Any) -> None:
    cut = open_request("a", "x" * 80 + "the end", " th", max_tokens=10, over_length="truncate_left")
    refused = open_request("b", "x" * 80, " th", max_tokens=10)

    shorter, error = tiny_model.score_choices([cut, refused])

    assert tiny_model.chat.decode(tiny_model.token_ids(cut.prompt)) == ("x" * 80 + "the end")[-11:]
    assert (shorter.prompt_tok, shorter.is_truncated) == (10, True)
    ids = tiny_model.token_ids(cut.prompt)
    assert shorter.choice_logprobs == pytest.approx([naive(ids, tiny_model.chat.encode(" th"))], abs=1e-4)
    assert "its budget is 10" in error.error


def test_a_users_turn_over_its_budget_loses_its_beginning_too(tiny_model: Any) -> None:
    prompt = Prompt((Message("user", "x" * 300 + " the end"),), max_tokens=60, over_length="truncate_left")

    text = tiny_model.chat.tokenizer.decode(tiny_model.token_ids(prompt))

    assert len(tiny_model.token_ids(prompt)) <= 60
    assert "user\n … x" in text
    assert "x the end<|im_end|>" in text


def test_a_choice_without_tokens_and_a_grammar_are_refused_in_words(tiny_model: Any) -> None:
    (empty,) = tiny_model.score_choices([open_request("a", "the", "x", "")])
    (held,) = tiny_model.generate([GenerateRequest("b", Prompt((), text="x"), 3, grammar='root ::= "a"')])

    assert empty.error == "choice 2 has no tokens to score"
    assert held.error == "this model can't be held to a grammar"
    assert empty.choice_logprobs is held.text is None


def with_post_processor(tiny: Path, folder: Path, *begin: str) -> Path:
    """The tiny checkpoint, its tokenizer putting these tokens before a text."""
    shutil.copytree(tiny, folder)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    ids = {token["content"]: token["id"] for token in settings["added_tokens"]}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            *({"SpecialToken": {"id": token, "type_id": 0}} for token in begin),
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in sorted(set(begin))
        },
    }
    path.write_text(json.dumps(settings))
    return folder


def test_raw_text_begins_with_the_tokenizers_own_bos_once(tiny: Path, tmp_path: Path) -> None:
    chat = load_chat(with_post_processor(tiny, tmp_path / "bos", "<|im_start|>"))
    bos = chat.tokenizer.bos_token_id

    assert chat.bos_ids == (bos,)
    assert chat.text_ids("the") == chat.tokenizer.encode("the") == [bos, *chat.encode("the")]
    assert chat.text_ids("<|im_start|>the") == [bos, *chat.encode("the")]
    assert chat.text_ids("") == [bos]
    assert chat.continuation_ids("the", " th") == chat.encode(" th")
    assert chat.continuation_ids("", "<|im_start|>the") == chat.encode("the")


def test_a_tokenizer_that_doubles_the_first_token_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = with_post_processor(tiny, tmp_path / "twice", "<|im_start|>", "<|im_start|>")

    with pytest.raises(ModelError, match="2 times"):
        load_chat(folder)


def test_a_base_model_without_a_template_scores_raw_text_and_refuses_conversations(
    tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    model = TransformersModel(tmp_path / "base", dtype="float32", device="cpu", threads=1)

    scored, refused = model.score_choices(
        [open_request("a", "the", " th"), ChoiceRequest("b", Prompt((Message("user", "x"),)), ("a",))]
    )

    assert scored.error is None
    assert "no chat template" in refused.error
    assert model.chat.end_ids == (model.chat.tokenizer.eos_token_id,)


def test_every_end_of_text_the_checkpoint_names_ends_an_answer(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "ends")
    path = tmp_path / "ends" / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [0, 2]}))

    chat = load_chat(tmp_path / "ends")

    assert chat.end_ids == (2, 0)
