"""Memory that runs out, slots that are used again, and prefixes that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.models.base import ChoiceRequest, GenerateRequest, Prompt
from harness.models.transformers import TransformersModel

OPTIONS: Any = {"dtype": "float32", "device": "cpu", "threads": 1}


def requests(count: int) -> list[ChoiceRequest]:
    return [
        ChoiceRequest(str(at), Prompt((), text="the th " * at + "x"), (" th", " the", "é"), is_open=True)
        for at in range(count)
    ]


def questions(count: int) -> list[GenerateRequest]:
    return [GenerateRequest(str(at), Prompt((), text="the " * (at + 1)), 3 + at % 7) for at in range(count)]


def short_of_memory(model: TransformersModel, rows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all passes; one of more rows than `rows` fails as torch fails."""
    import torch

    feed, sizes = model._feeder.feed, []

    def limited(cache: Any, segments: Any, **kwargs: Any) -> Any:
        sizes.append(len(segments))
        if len(segments) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return feed(cache, segments, **kwargs)

    monkeypatch.setattr(model._feeder, "feed", limited)
    return sizes


def test_short_memory_halves_the_passes_says_so_once_and_changes_no_answer(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    model = TransformersModel(tiny, on_note=notes.append, **OPTIONS)
    asked = requests(12)
    wanted = [answer.choice_logprobs for answer in model.score_choices(asked)]
    texts = [answer.text for answer in model.generate(questions(12))]
    sizes = short_of_memory(model, 3, monkeypatch)

    found = [answer.choice_logprobs for answer in model.score_choices(asked)]
    written = [answer.text for answer in model.generate(questions(12))]

    assert max(sizes) > 3
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert written == texts
    assert len(notes) == 1
    assert "memory was short" in notes[0]


def test_a_prompt_that_alone_finds_no_memory_is_an_error_of_its_own(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TransformersModel(tiny, on_note=lambda _: None, **OPTIONS)
    short_of_memory(model, 0, monkeypatch)

    for answer in model.score_choices(requests(3)):
        assert "out of memory" in answer.error


def test_a_finished_answer_gives_its_slot_to_the_next(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TransformersModel(tiny, **OPTIONS)
    asked = questions(14)
    alone = [next(model.generate([request])) for request in asked]
    model._room.slots = 4
    sizes = short_of_memory(model, 4, monkeypatch)
    model.plan(asked)

    together = list(model.generate(asked))

    for one, other in zip(together, alone, strict=True):
        assert (one.text, one.output_tok) == (other.text, other.output_tok)
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
    assert max(sizes) == 4
    assert len(sizes) < sum(answer.output_tok for answer in alone) / 2  # most steps are of several rows


def test_prefixes_are_computed_once_each_and_the_oldest_is_dropped(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TransformersModel(tiny, **OPTIONS)
    subjects = {name: name * 60 for name in "abc"}
    asked = [
        ChoiceRequest(f"{name}{at}", Prompt((), text=f"{text}{at}"), (" th",), is_open=True)
        for name, text in subjects.items()
        for at in range(10, 16)
    ]
    singles = short_of_memory(model, 64, monkeypatch)
    plan = model.plan(asked)
    first = {a.id: a for batch in plan for a in model.score_choices([asked[at] for at in batch])}
    assert len(model._prefixes) == 3
    count = len(singles)

    monkeypatch.setattr("harness.models.transformers.PREFIXES_TOK", 100)
    again = {a.id: a for batch in plan for a in model.score_choices([asked[at] for at in batch])}
    assert len(singles) - count == count - 3  # the same passes, none for a prefix
    model.forget()
    alone = {request.id: next(model.score_choices([request])) for request in asked}

    for key, answer in first.items():
        assert answer.choice_logprobs == again[key].choice_logprobs
        assert answer.choice_logprobs == pytest.approx(alone[key].choice_logprobs, abs=1e-4)


def test_a_row_that_breaks_spoils_no_later_one(tiny: Path) -> None:
    import torch

    model = TransformersModel(tiny, **OPTIONS)
    asked = requests(6)
    wanted = [answer.choice_logprobs for answer in model.score_choices(asked)]
    norm = model._network.model.layers[0].input_layernorm.weight
    kept = norm.detach().clone()
    with torch.no_grad():
        norm[0] = float("nan")
    broken = list(model.score_choices(asked))
    with torch.no_grad():
        norm.copy_(kept)

    found = [answer.choice_logprobs for answer in model.score_choices(list(reversed(asked)))]

    assert {answer.error for answer in broken} == {"the model's logits are not finite"}
    for one, other in zip(reversed(found), wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_network_that_keeps_its_own_attention_scores_and_writes_alike(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped = TransformersModel(tiny, **OPTIONS)
    monkeypatch.setattr("harness.models.transformers.use_grouped_attention", lambda *_: 1)
    plain = TransformersModel(tiny, **OPTIONS)
    assert plain._readout._decode is None
    assert grouped._readout._decode is not None

    for one, other in zip(plain.score_choices(requests(9)), grouped.score_choices(requests(9)), strict=True):
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-4)
    for one, other in zip(plain.generate(questions(9)), grouped.generate(questions(9)), strict=True):
        assert one.text == other.text


def test_many_labels_are_followed_in_passes_that_fit(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = tuple(f"{first}{second} label" for first in "abcdef" for second in "ghijkl")
    asked = [ChoiceRequest(str(at), Prompt((), text="the " * (at + 1)), labels) for at in range(5)]
    model = TransformersModel(tiny, **OPTIONS)
    exact = TransformersModel(tiny, exact=True, **OPTIONS)
    sizes = short_of_memory(model, 64, monkeypatch)

    found = list(model.score_choices(asked))

    assert sizes[0] == 5  # all prompts at once, then their labels row by row
    assert set(sizes[1:]) == {1}
    for one, other in zip(found, exact.score_choices(asked), strict=True):
        best = max(other.choice_logprobs)
        for value, wanted in zip(one.choice_logprobs, other.choice_logprobs, strict=True):
            assert value == pytest.approx(wanted, abs=1e-4) or wanted <= value < best - 20
