"""Raw answers on disk: kept in whole groups, and never asked for twice."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evals import answers as answers_module
from harness.evals.answers import SYNC_S, AnswerLog, Header, ask, requests_digest
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Message, Prompt

HEADER = Header("model", "requests")


def answer(number: int) -> Answer:
    return Answer(
        f"r{number}", text="tab\t\u2028 \ud800 é", choice_logprobs=(-0.5, -math.inf), choice_tok=(2, 3),
        token_logprobs=(-0.1,), extra={"x": 1.0}, prompt_tok=7,
    )  # fmt: skip


def write(path: Path, groups: int = 3) -> None:
    log = AnswerLog(path, HEADER)
    for number in range(groups):
        log.take(answer(2 * number))
        log.take(answer(2 * number + 1))
        log.end_group()
    log.close()


def opened(path: Path, header: Header = HEADER) -> dict[str, Answer]:
    log = AnswerLog(path, header)
    log.close()
    return log.answers


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")

    assert opened(tmp_path / "a.jsonl") == {f"r{n}": answer(n) for n in range(6)}


@given(cut=st.integers(0, 2000))
def test_a_log_cut_anywhere_keeps_exactly_its_whole_groups(tmp_path_factory, cut: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    write(path)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)

    log = AnswerLog(path, HEADER)
    whole = len(log.answers)
    log.take(Answer("new"))
    log.close()

    closing_lines = sum(line.startswith(b'{"n"') for line in data.split(b"\n")[:-1])
    assert whole == 2 * closing_lines
    assert len(opened(path)) == whole + 1


@pytest.mark.parametrize("other", [Header("another model", "requests"), Header("model", "other prompts")])
def test_answers_of_another_model_or_other_prompts_are_never_used(tmp_path: Path, other: Header) -> None:
    write(tmp_path / "a.jsonl")

    assert opened(tmp_path / "a.jsonl", other) == {}
    assert opened(tmp_path / "a.jsonl") == {}


def test_garbage_in_the_middle_ends_the_log(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], b"\x00\xff\n", *lines[5:]]))

    assert sorted(opened(path)) == ["r0", "r1"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class ManualTimers:
    """Timers that go off when a test says so."""

    def __init__(self) -> None:
        self.due: list[Any] = []

    def __call__(self, wait_s: float, call: Any) -> ManualTimers:
        assert wait_s == SYNC_S
        self.due.append(call)
        return self

    daemon = False

    def start(self) -> None: ...
    def cancel(self) -> None: ...

    def go_off(self) -> None:
        self.due.pop()()


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> ManualTimers:
    made = ManualTimers()
    monkeypatch.setattr(answers_module.threading, "Timer", made)
    return made


def test_a_fast_model_costs_a_sync_per_half_second_and_not_one_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timers: ManualTimers
) -> None:
    clock, syncs = Clock(), []
    monkeypatch.setattr(os, "fsync", syncs.append)
    log = AnswerLog(tmp_path / "a.jsonl", HEADER, clock=clock)
    for number in range(100):
        clock.now = number * SYNC_S / 20
        log.take(answer(number))
        log.end_group()

    assert (len(syncs), log.synced) == (4, 81)
    assert len((tmp_path / "a.jsonl").read_bytes().splitlines()) == 201, "a kill loses nothing, synced or not"
    log.close()


def test_an_answer_that_no_other_follows_reaches_the_disk_all_the_same(
    tmp_path: Path, timers: ManualTimers
) -> None:
    clock = Clock()
    log = AnswerLog(tmp_path / "a.jsonl", HEADER, clock=clock)
    log.take(answer(0))
    clock.now = SYNC_S

    timers.go_off()

    assert log.synced == 1
    assert b'"r0"' in (tmp_path / "a.jsonl").read_bytes()
    log.close()


def test_answers_that_come_together_are_never_divided(tmp_path: Path, timers: ManualTimers) -> None:
    clock = Clock()
    log = AnswerLog(tmp_path / "a.jsonl", HEADER, clock=clock)
    clock.now = SYNC_S
    log.take(answer(0))

    timers.go_off()
    assert b'"r0"' not in (tmp_path / "a.jsonl").read_bytes()
    log.take(answer(1))
    log.end_group()
    log.close()

    assert (tmp_path / "a.jsonl").read_bytes().splitlines()[-1] == b'{"n":2}'


class Stepping:
    """A model of batches of one, each taking a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asked: list[str] = []

    def plan(self, requests: Sequence[Any]) -> list[list[int]]:
        return [[index] for index in range(len(requests))]

    def generate(self, requests: Sequence[Any]) -> Iterator[Answer]:
        self._clock.now += 1.0
        self.asked += [request.id for request in requests]
        yield from (Answer(request.id, text="x") for request in requests)


def test_what_is_told_as_done_is_on_disk(tmp_path: Path, timers: ManualTimers) -> None:
    clock = Clock()
    log = AnswerLog(tmp_path / "a.jsonl", HEADER, clock=clock)
    asked = [GenerateRequest(f"r{n}", Prompt(()), 4) for n in range(3)]
    told: list[int] = []

    def on_disk() -> None:
        told.append(len(AnswerLog(tmp_path / "a.jsonl", HEADER).answers))

    ask(Stepping(clock), asked, log, should_stop=lambda: False, on_disk=on_disk)  # type: ignore[arg-type]
    log.close()

    assert told == [1, 2, 3, 3]


def test_what_is_there_is_not_asked_again_and_nothing_left_needs_no_plan(
    tmp_path: Path, timers: ManualTimers
) -> None:
    asked = [GenerateRequest(f"r{n}", Prompt(()), 4) for n in range(7)]
    write(tmp_path / "a.jsonl")
    model = Stepping(Clock())
    for _ in range(2):
        log = AnswerLog(tmp_path / "a.jsonl", HEADER)
        ask(model, asked, log, should_stop=lambda: False, on_disk=lambda: None)  # type: ignore[arg-type]
        log.close()
        model.plan = None  # type: ignore[method-assign, assignment]

    assert model.asked == ["r6"]


def requests(**changes: Any) -> list[Any]:
    made = {"id": "a", "prompt": Prompt((Message("user", "q"),)), "max_new_tokens": 4, **changes}
    return [GenerateRequest(**made)]


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "b"}, {"max_new_tokens": 5}, {"stop": ("x",)}, {"temperature": 0.1}, {"seed": 1}, {"grammar": "g"},
        {"prompt": Prompt((Message("user", "Q"),))}, {"prompt": Prompt((Message("system", "q"),))},
        {"prompt": Prompt((Message("user", "q"),), 9)}, {"prompt": Prompt((Message("user", "q"),), None, "skip")},
        {"prompt": Prompt((), text="q")}, {"prompt": Prompt((), text="")},
    ],
)  # fmt: skip
def test_whatever_the_model_is_told_is_in_the_digest(changes: dict[str, Any]) -> None:
    assert requests_digest(requests(**changes)) != requests_digest(requests())
    assert requests_digest(requests()) == requests_digest(requests())


def test_choices_and_their_ends_are_in_the_digest() -> None:
    prompt = Prompt((Message("user", "q"),))
    found = {
        requests_digest([ChoiceRequest("a", prompt, choices, is_open)])
        for choices in (("x", "y"), ("y", "x"), ("x",))
        for is_open in (True, False)
    }

    assert len(found) == 6
