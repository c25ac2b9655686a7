"""Kept answers: never another model's, never to another question, and never worth losing a run for."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Identity, Message, Prompt
from harness.models.cache import CachedModel, is_worth_keeping, request_key, uncached
from harness.models.cache_store import AnswerStore
from harness.models.identity import identity_of
from harness.models.prompts import PromptTooLong
from harness.models.scripted import ScriptedModel

A = identity_of(kind="gguf", weights="a" * 64)
B = identity_of(kind="gguf", weights="b" * 64)


@dataclass
class Counting:
    """Answers with the first letter of its weights and how often it was asked."""

    identity: Identity = A
    asked: int = 0
    is_broken: bool = False
    is_shuffled: bool = False
    is_closed: bool = False

    def plan(self, requests: Sequence[Any]) -> list[list[int]]:
        return [list(range(at, min(at + 3, len(requests)))) for at in range(0, len(requests), 3)]

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        return self._answers(requests)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Answer]:
        return self._answers(requests)

    def _answers(self, requests: Sequence[Any]) -> Iterator[Answer]:
        for request in reversed(requests) if self.is_shuffled else requests:
            self.asked += 1
            if self.is_broken:
                yield Answer(request.id, error="out of memory")
            else:
                yield self._answer(request)

    def _answer(self, request: Any) -> Answer:
        return Answer(
            request.id, text=f"{self.identity.weights[0]} says {self.asked}", choice_logprobs=(-0.1, -1 / 3),
            choice_tok=(1, 2), token_logprobs=(-1e-300, -5.0), prompt_tok=7, output_tok=2, is_truncated=True,
            prompt_digest="f" * 64, latency_ms=12.5, extra={"p": 0.25},
        )  # fmt: skip

    def token_ids(self, prompt: Prompt) -> list[int]:
        if "too long" in prompt.messages[0].content:
            raise PromptTooLong(9, 8)
        return list(prompt.messages[0].content.encode())

    def close(self) -> None:
        self.is_closed = True


def prompt(text: str = "q", **more: Any) -> Prompt:
    return Prompt((Message("user", text),), **more)


def writes(*texts: str, **more: Any) -> list[GenerateRequest]:
    return [GenerateRequest(f"id-{text}", prompt(text), 8, **more) for text in texts]


def test_the_same_question_to_the_same_bytes_is_computed_once(tmp_path: Path) -> None:
    first = CachedModel(Counting(), tmp_path)
    before = list(first.generate(writes("x", "y")))
    first.close()
    inner = Counting()
    again = CachedModel(inner, tmp_path)

    answers = list(again.generate(writes("y", "x")))

    assert inner.asked == 0
    assert answers == [replace(answer, latency_ms=None) for answer in reversed(before)]


def test_choices_are_kept_as_well(tmp_path: Path) -> None:
    request = [ChoiceRequest("c", prompt(), ("yes", "no"))]
    inner = Counting()
    model = CachedModel(inner, tmp_path)

    first, second = list(model.score_choices(request)), list(model.score_choices(request))

    assert inner.asked == 1
    assert second == [replace(first[0], latency_ms=None)]


def test_other_weights_never_get_these_answers(tmp_path: Path) -> None:
    list(CachedModel(Counting(A), tmp_path).generate(writes("x")))

    (answer,) = CachedModel(Counting(B), tmp_path).generate(writes("x"))

    assert answer.text == "b says 1"


@pytest.mark.parametrize(
    "changed",
    [
        {"max_new_tokens": 9},
        {"stop": ("x",)},
        {"stop": ("x", "")},
        {"temperature": 0.5},
        {"temperature": 0.5, "seed": 1},
        {"grammar": "root ::= x"},
        {"prompt": prompt("other")},
        {"prompt": prompt(max_tokens=4)},
        {"prompt": prompt(over_length="truncate")},
        {"prompt": Prompt((Message("system", "q"),))},
        {"prompt": Prompt((Message("user", "q"),), text="q")},
    ],
)
def test_another_setting_is_another_question(tmp_path: Path, changed: dict[str, Any]) -> None:
    inner = Counting()
    model = CachedModel(inner, tmp_path)
    plain = GenerateRequest("id", prompt(), 8)

    list(model.generate([plain]))
    list(model.generate([replace(plain, **changed)]))

    assert inner.asked == 2


def test_an_answer_drawn_at_random_is_kept_with_its_seed(tmp_path: Path) -> None:
    inner = Counting()
    model = CachedModel(inner, tmp_path)

    for seed in (1, 2, 1):
        list(model.generate(writes("x", temperature=0.7, seed=seed)))

    assert inner.asked == 2


def test_other_rendered_tokens_are_another_question() -> None:
    request = writes("x")[0]

    assert request_key(A, "", request, [1, 2]) != request_key(A, "", request, [1, 3])
    assert request_key(A, "one engine", request, [1]) != request_key(A, "another", request, [1])


def test_a_scripted_answer_belongs_to_its_id() -> None:
    scripted = identity_of(kind="scripted", weights="s")
    one, other = writes("x")[0], replace(writes("x")[0], id="other")

    assert request_key(scripted, "", one, [1]) != request_key(scripted, "", other, [1])
    assert request_key(A, "", one, [1]) == request_key(A, "", other, [1])


texts = st.text(max_size=5)
prompts = st.builds(
    Prompt,
    st.lists(st.builds(Message, st.sampled_from(["user", "system"]), texts), max_size=2).map(tuple),
    st.none() | st.integers(8, 10),
    st.sampled_from(["error", "truncate"]),
    st.none() | texts,
)
generations = st.builds(
    GenerateRequest, st.just("id"), prompts, st.integers(1, 3), st.lists(texts, max_size=2).map(tuple),
    st.sampled_from([0.0, 0.5]), st.integers(0, 2), st.none() | texts,
)  # fmt: skip
choices = st.builds(
    ChoiceRequest, st.just("id"), prompts, st.lists(texts, max_size=3).map(tuple), st.booleans()
)
questions = generations | choices


@given(questions, questions, st.lists(st.integers(0, 9), max_size=2), st.lists(st.integers(0, 9), max_size=2))
def test_keys_are_equal_only_where_everything_is(
    one: Any, other: Any, ids: list[int], more: list[int]
) -> None:
    is_same = one == other and type(one) is type(other) and ids == more

    assert (request_key(A, "", one, ids) == request_key(A, "", other, more)) == is_same


def test_every_field_of_a_request_is_in_its_key() -> None:
    """A field that somebody adds to a request must not be forgotten: the key reads them all."""
    assert {field.name for field in fields(GenerateRequest)} >= {"id", "prompt", "seed", "grammar"}
    for request in (GenerateRequest("i", prompt(), 1), ChoiceRequest("i", prompt(), ("a",))):
        for field in fields(request):
            if field.name != "id":
                marked = replace(request, **{field.name: "changed"})
                assert request_key(A, "", request, []) != request_key(A, "", marked, []), field.name


def test_errors_are_asked_again(tmp_path: Path) -> None:
    inner = Counting(is_broken=True)
    model = CachedModel(inner, tmp_path)
    list(model.generate(writes("x")))
    inner.is_broken = False

    (answer,) = model.generate(writes("x"))

    assert (answer.error, inner.asked) == (None, 2)


def test_a_prompt_that_has_no_tokens_goes_to_the_model(tmp_path: Path) -> None:
    inner = Counting()
    model = CachedModel(inner, tmp_path)

    for _ in range(2):
        list(model.generate(writes("too long")))

    assert inner.asked == 2


def test_replies_out_of_order_are_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    model = CachedModel(Counting(is_shuffled=True), tmp_path)
    with pytest.raises(RuntimeError, match="one to one"):
        list(model.generate(writes("x", "y")))
    inner = Counting()

    list(CachedModel(inner, tmp_path).generate(writes("x", "y")))

    assert inner.asked == 2


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path) -> None:
    answers = CachedModel(Counting(), tmp_path).generate(writes("x", "y", "z"))
    before = [next(answers), next(answers)]
    answers.close()
    inner = Counting()

    again = list(CachedModel(inner, tmp_path).generate(writes("x", "y", "z")))

    assert inner.asked == 1
    assert [answer.text for answer in again[:2]] == [answer.text for answer in before]


def test_answers_come_as_they_are_computed(tmp_path: Path) -> None:
    inner = Counting()

    next(CachedModel(inner, tmp_path).generate(writes("x", "y")))

    assert inner.asked == 1


def test_the_plan_does_not_depend_on_what_is_known(tmp_path: Path) -> None:
    requests = writes(*"abcdefgh")
    model = CachedModel(Counting(), tmp_path)
    before = model.plan(requests)
    list(model.generate(requests[2:5]))

    assert model.plan(requests) == before == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_only_the_misses_of_a_batch_are_computed_and_each_gets_its_own(tmp_path: Path) -> None:
    inner = Counting()
    model = CachedModel(inner, tmp_path)
    known = {answer.id: answer.text for answer in model.generate(writes("b", "d"))}

    answers = list(model.generate(writes(*"abcde")))

    assert inner.asked == 5
    assert [answer.id for answer in answers] == [f"id-{text}" for text in "abcde"]
    assert {answer.id: answer.text for answer in answers if answer.id in known} == known
    assert len({answer.text for answer in answers}) == 5


def test_whoever_measures_gets_the_model_itself(tmp_path: Path) -> None:
    inner = Counting()

    assert uncached(CachedModel(inner, tmp_path)) is inner
    assert uncached(inner) is inner


def test_closing_twice_closes_the_model_inside(tmp_path: Path) -> None:
    inner = Counting()
    model = CachedModel(inner, tmp_path)

    model.close()
    model.close()

    assert inner.is_closed


def test_answers_are_kept_of_models_that_stay_what_they_are() -> None:
    assert is_worth_keeping(A)
    assert is_worth_keeping(identity_of(kind="openai", weights="pin: v1"))
    assert is_worth_keeping(identity_of(kind="openai", weights="sha256:" + "0" * 64))
    assert not is_worth_keeping(identity_of(kind="openai", weights="reported: x"))
    assert not is_worth_keeping(identity_of(kind="scripted", weights="x"))


def test_another_file_for_the_scripted_model_gives_its_own_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    found = []
    for text in ("one", "two"):
        path.write_text(f'{{"id": "id-x", "text": "{text}"}}\n')
        found += list(CachedModel(ScriptedModel.from_file(path), tmp_path / "kept").generate(writes("x")))

    assert [answer.text for answer in found] == ["one", "two"]


# The file.


def store(folder: Path, said: list[str] | None = None, **more: Any) -> AnswerStore:
    return AnswerStore(folder, note=(said if said is not None else []).append, **more)


def keys(n: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(n)]


def test_only_the_owner_can_read_what_is_kept(tmp_path: Path) -> None:
    kept = store(tmp_path / "home" / "answers")
    kept.put({b"k": b"private"})

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept.path.parent.iterdir()}

    assert {f"answers-1.sqlite3{end}" for end in ("", "-wal", "-shm")} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(kept.path.parent.stat().st_mode) == 0o700


def test_two_processes_share_the_file(tmp_path: Path) -> None:
    one, other = store(tmp_path), store(tmp_path)

    one.put({b"x": b"1"})
    other.put({b"y": b"2"})

    assert one.get([b"x", b"y"]) == other.get([b"x", b"y"]) == {b"x": b"1", b"y": b"2"}


def test_the_least_recently_used_answers_go_first(tmp_path: Path) -> None:
    hour = [0]
    kept = store(tmp_path, limit_bytes=400_000, hour=lambda: hour[0])
    first, second = keys(200)[:100], keys(200)[100:]
    kept.put({key: bytes(1000) for key in first})
    hour[0] = 1
    kept.put({key: bytes(1000) for key in second})
    hour[0] = 2
    kept.get(first)
    kept.put({key + b"more": bytes(1000) for key in keys(200)})

    assert len(kept.get(first)) > len(kept.get(second))
    assert len(kept.get([key + b"more" for key in keys(200)])) == 200


def test_the_file_stays_below_its_limit(tmp_path: Path) -> None:
    kept = store(tmp_path, limit_bytes=300_000)
    for number in range(40):
        kept.put({number.to_bytes(32, "big") + key: bytes(1000) for key in keys(25)})
    kept.close()

    assert kept.path.stat().st_size < 2 * 300_000


def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.put({b"k": b"v"})
    kept.close()
    kept.path.write_bytes(b"not a database at all" * 1000)
    said: list[str] = []

    again = store(tmp_path, said)
    again.put({b"k": b"w"})

    assert again.get([b"k"]) == {b"k": b"w"}
    assert len(said) == 1
    assert "damaged, set aside as answers-1.damaged" in said[0]
    assert (tmp_path / "answers-1.damaged").read_bytes().startswith(b"not a database")


def test_damage_in_the_middle_is_found_when_it_is_read(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.put({key: bytes(3000) for key in keys(200)})
    kept.close()
    with kept.path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(200_000))
    said: list[str] = []
    again = store(tmp_path, said)

    assert again.get(keys(200)) == {}
    again.put({b"k": b"v"})

    assert again.get([b"k"]) == {b"k": b"v"}
    assert "set aside" in said[0]


def test_a_damaged_file_that_others_have_open_is_left_alone(tmp_path: Path) -> None:
    other = store(tmp_path)
    other.put({b"k": b"v"})
    kept = AnswerStore(tmp_path, note=(said := []).append)
    with pytest.MonkeyPatch.context() as patch:

        def broken(_: Any) -> dict[bytes, bytes]:
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        patch.setattr(kept, "_get", broken)
        assert kept.get([b"k"]) == {}

    assert "another process has it open" in said[0]
    assert other.get([b"k"]) == {b"k": b"v"}
    assert kept.get([b"k"]) == {}


def test_a_flipped_bit_is_no_answer(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.put({b"k": b"-0.125"})
    with sqlite3.connect(kept.path) as db:
        db.execute("UPDATE answers SET answer = ?", (b"-0.126",))
    db.close()

    assert kept.get([b"k"]) == {}


def test_an_answer_that_cant_be_read_is_computed_again(tmp_path: Path) -> None:
    inner = Counting()
    model = CachedModel(inner, tmp_path)
    list(model.generate(writes("x")))
    key = request_key(A, model._salt, writes("x")[0], inner.token_ids(prompt("x")))
    for junk in (b"{", b"[]", b'{"text": 1}', b'{"surprise": 1}', b"\xff"):
        model._store.put({key: junk})
        list(model.generate(writes("x")))

    assert inner.asked == 6


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    inner, said = Counting(), []
    model = CachedModel(inner, tmp_path, note=said.append)
    model._store._db.execute("PRAGMA max_page_count = 6")

    answers = [next(model.generate(writes(str(number)))) for number in range(60)]

    assert all(answer.error is None for answer in answers)
    assert inner.asked == 60
    assert said == [f"{model._store.path}: database or disk is full; going on without kept answers"]


def test_a_folder_that_cant_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    inner, said = Counting(), []
    model = CachedModel(inner, tmp_path / "file" / "answers", note=said.append)

    list(model.generate(writes("x")))

    assert inner.asked == 1
    assert len(said) == 1
    assert "Not a directory" in said[0]


def test_a_writer_that_does_not_end_costs_only_this_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.models.cache_store.BUSY_S", 0.01)
    kept = store(tmp_path, said := [])
    other = sqlite3.connect(kept.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    kept.put({b"k": b"v"})
    other.execute("ROLLBACK")
    other.close()

    kept.put({b"l": b"w"})

    assert kept.get([b"k", b"l"]) == {b"l": b"w"}
    assert said == []


OPENER = """
import sys
from pathlib import Path
from harness.models.cache_store import AnswerStore

sys.stdin.readline()
store = AnswerStore(Path(sys.argv[1]), note=print)
store.put({sys.argv[2].encode(): b"v"})
print(len(store.get([sys.argv[2].encode()])))
"""


def test_processes_that_make_the_file_at_once_all_keep_their_answers(tmp_path: Path) -> None:
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, str(tmp_path / "answers"), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for opener in openers:
        assert opener.stdin
        opener.stdin.write("now\n")
        opener.stdin.flush()

    assert [opener.communicate()[0] for opener in openers] == ["1\n"] * 4
    assert len(store(tmp_path / "answers").get([str(number).encode() for number in range(4)])) == 4


WRITER = """
import sys
from pathlib import Path
from harness.models.cache_store import AnswerStore

store = AnswerStore(Path(sys.argv[1]), note=print)
for batch in range(10**6):
    store.put({batch.to_bytes(4, "big") + bytes([at]): b"answer" * 100 for at in range(32)})
    print(batch, flush=True)
"""


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    said = [writer.stdout.readline().strip() for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()

    kept = store(tmp_path, notes := [])
    found = [
        len(kept.get([batch.to_bytes(4, "big") + bytes([at]) for at in range(32)])) for batch in range(200)
    ]

    assert said == [str(batch) for batch in range(20)]
    assert found[:20] == [32] * 20, "what was said to be kept is kept"
    assert set(found) <= {0, 32}, "a batch is kept whole or not at all"
    assert notes == []
