from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.records import RecordsError
from harness.errors import DataError
from harness.train.batches import TooLong, encode, tensors
from harness.train.formats import hub_file, read_examples
from harness.train.packed import Heads, pack

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who pays?"},
    {"role": "assistant", "content": "The buyer."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "Within 30 days."},
]


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def supervised_text(row: Any, chat: Any) -> str:
    return "".join(chat.tokenizer.decode([row.ids[at]]) for at in row.supervised_at)


def test_each_assistant_turn_and_its_end_carry_loss_and_nothing_else(tmp_path: Path, chat: Any) -> None:
    (example,) = read_examples(written(tmp_path, {"messages": TALK}))

    row = encode(example, chat, max_tokens=300)

    assert not isinstance(row, TooLong)
    assert supervised_text(row, chat) == "The buyer.<|im_end|>Within 30 days.<|im_end|>"
    assert row.supervised_tok == len("The buyer.") + len("Within 30 days.") + 2
    whole = (
        chat.render([*example.prompt.messages, *()], add_generation_prompt=True) + "Within 30 days.<|im_end|>"
    )
    assert list(row.ids) == chat.encode(whole)


def test_targets_of_all_turns_stand_after_their_places_packed_or_padded(tmp_path: Path, chat: Any) -> None:
    import torch

    rows = [
        encode(example, chat, max_tokens=300)
        for example in read_examples(written(tmp_path, {"messages": TALK}, {"id": "b", "messages": TALK[:3]}))
    ]
    padded = tensors(rows, pad_id=2)
    packed = pack(rows, heads=Heads(4, 2), dtype=torch.float32, pad_id=2)

    wanted = [row.ids[at] for row in rows for at in row.supervised_at]
    assert padded.targets.tolist() == packed.targets.tolist() == wanted
    before = [row.ids[at - 1] for row in rows for at in row.supervised_at]
    assert padded.input_ids.flatten()[padded.rows].tolist() == before
    # The last shared token stands once for both rows.
    assert packed.input_ids[0][packed.places].tolist() == before


def test_the_loss_of_a_conversation_is_transformers_own(base: Path, tmp_path: Path, chat: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from harness.train.objectives import Supervised
    from tests.train.trained import fresh, tuned

    examples = read_examples(written(tmp_path, {"messages": TALK}, {"messages": TALK[:3]}))
    rows = [encode(example, chat, max_tokens=300) for example in examples]

    found = Supervised().summed_loss(fresh(base, tuned(method="lora")), rows, pad_id=2)

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    total = 0.0
    for row in rows:
        labels = torch.full((1, len(row.ids)), -100)
        labels[0, row.supervised_at] = torch.tensor([row.ids[at] for at in row.supervised_at])
        with torch.no_grad():
            total += float(model(input_ids=torch.tensor([row.ids]), labels=labels).loss) * row.supervised_tok
    assert float(found.detach()) == pytest.approx(total, rel=1e-5)


def test_too_long_talk_loses_its_oldest_exchange_and_never_an_answer(tmp_path: Path, chat: Any) -> None:
    path = written(tmp_path, {"id": "talk", "messages": TALK})
    whole = len(encode(read_examples(path)[0], chat, max_tokens=300).ids)

    def at_most(over_length: str, max_tokens: int) -> Any:
        return encode(read_examples(path, over_length=over_length)[0], chat, max_tokens=max_tokens)

    cut = at_most("truncate", whole - 1)

    assert supervised_text(cut, chat) == "Within 30 days.<|im_end|>"
    assert chat.tokenizer.decode(cut.ids).startswith("<|im_start|>system\nBe brief.")
    assert cut.is_prompt_truncated
    assert (at_most("error", whole - 1).is_skipped, at_most("skip", whole - 1).is_skipped) == (False, True)
    assert isinstance(at_most("truncate", 40), TooLong)
    assert len(at_most("error", whole).ids) == whole


def test_a_template_that_rewrites_earlier_turns_is_refused(tmp_path: Path, chat: Any) -> None:
    from dataclasses import replace

    forgetful = replace(
        chat,
        template="{% for m in messages %}{% if loop.last or m.role != 'assistant' %}<|im_start|>{{ m.content }}"
        "<|im_end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}",
    )
    (example,) = read_examples(written(tmp_path, {"id": "talk", "messages": TALK}))

    with pytest.raises(DataError, match="record talk: the chat template writes turn 3 otherwise"):
        encode(example, forgetful, max_tokens=300)


def test_the_same_rows_are_the_same_examples_from_jsonl_csv_and_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": str(at), "prompt": f"Question {at}?", "completion": "Yes, “twice”."} for at in range(3)]
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")

    wanted = read_examples(written(tmp_path, *rows))

    assert wanted == read_examples(tmp_path / "data.csv") == read_examples(tmp_path / "data.parquet")
    assert (wanted[1].prompt.messages[0].content, wanted[1].answer) == ("Question 1?", "Yes, “twice”.")


def test_preferences_are_texts_or_messages_that_repeat_the_prompt(tmp_path: Path) -> None:
    ask = {"role": "user", "content": "Who pays?"}
    says = [[ask, {"role": "assistant", "content": text}] for text in ("The buyer.", "Nobody.")]
    path = written(
        tmp_path,
        {"prompt": "Who pays?", "chosen": "The buyer.", "rejected": "Nobody."},
        {"prompt": [ask], "chosen": says[0], "rejected": says[1]},
        {"prompt": [ask], "chosen": says[0][1:], "rejected": says[1][1:]},
    )

    found = read_examples(path)

    assert {(one.prompt, one.answer, one.rejected) for one in found} == {
        (found[0].prompt, "The buyer.", "Nobody.")
    }
    assert [one.id for one in found] == ["data:1", "data:2", "data:3"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": TALK[:2]}, "an answer to learn at the end"),
        ({"messages": [TALK[1], TALK[1], TALK[2]]}, "user and assistant in turn"),
        ({"messages": [TALK[1], TALK[0], TALK[2]]}, "system first"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a list of {role, content}"),
        ({"messages": []}, "a list of {role, content}"),
        ({"messages": "hello"}, "a list of {role, content}"),
        ({"prompt": "a", "completion": " "}, "wanted text"),
        ({"prompt": "a", "completion": 3}, "wanted text"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "another one"),
        ({"question": "a"}, "`prompt` with `completion`"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecordsError) as caught:
        read_examples(written(tmp_path, row))
    problem = caught.value.problems[0]
    assert problem.line == 1
    assert said in f"{problem.found} wanted {problem.wanted}"


def test_all_bad_rows_are_named_at_once(tmp_path: Path) -> None:
    good = {"id": "same", "prompt": "a", "completion": "b"}
    path = written(tmp_path, good, {"prompt": "a"}, good, {"prompt": "", "completion": "b"})

    with pytest.raises(RecordsError) as caught:
        read_examples(path)

    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (2, "completion"), (3, "id"), (4, "prompt"),
    ]  # fmt: skip


def test_the_hub_is_read_from_its_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(DataError, match="not in the local hub cache") as caught:
        hub_file("hub:owner/name/train.jsonl")
    assert caught.value.hint.endswith("hf download --repo-type dataset owner/name train.jsonl")
    with pytest.raises(DataError, match="no file of a data set"):
        hub_file("hub:owner")
