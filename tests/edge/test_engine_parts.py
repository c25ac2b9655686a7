"""The parts of the engine alone: frames, streams of text, sampling, shares, limits."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.edge.base import Ask
from harness.edge.bounded import bounded
from harness.edge.running import fair_shares
from harness.edge.stream import TextStream
from harness.edge.wire import MAX_FRAME_BYTES, Frames, ask_from_json, ask_to_json, pack, read_frame
from harness.edge.writing import NotFiniteError, Writing, Written
from harness.errors import DataError, ModelError
from harness.files import parse_json
from harness.models.base import Message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda children: st.lists(children, max_size=3),
    max_leaves=5,
)
DOCUMENTS = st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=4)
END = 0


@settings(max_examples=30)
@given(DOCUMENTS, st.integers(1, 7))
def test_frames_arrive_whole_however_their_bytes_come(documents: list[dict[str, Any]], size: int) -> None:
    data = b"".join(map(pack, documents))
    frames, found = Frames(), []

    for start in range(0, len(data), size):
        found += list(frames.feed(data[start : start + size]))

    assert found == documents
    file = io.BytesIO(data)
    assert [read_frame(file) for _ in range(len(documents) + 1)] == [*documents, None]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"{}",
        b"\0\0\0\2[]",
        b"\0\0\0\x03{,}",
        b"\0\0\0\x09" + b'{"a":NaN}',
        b"\0\0\0\x0d" + b'{"a":1,"a":2}',
        b"\0\0\0\x02\xff\xfe",
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        list(Frames().feed(data))


def test_a_frame_that_breaks_off_is_the_end() -> None:
    assert read_frame(io.BytesIO(pack({"a": 1})[:-1])) is None
    assert read_frame(io.BytesIO(b"\0\0")) is None


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(ModelError, match="over the limit"):
        pack({"text": "x" * MAX_FRAME_BYTES})


@given(
    st.builds(
        Ask,
        id=st.text(),
        messages=st.lists(st.builds(Message, st.text(), st.text())).map(tuple),
        labels=st.lists(st.text()).map(tuple),
        stop=st.lists(st.text()).map(tuple),
        grammar=st.none() | st.text(),
        budget_ms=st.none() | st.floats(0, 1e9),
        seed=st.integers(0, 2**63),
    )
)
def test_a_request_crosses_the_pipe_unchanged(ask: Ask) -> None:
    assert ask_from_json(parse_json(pack(ask_to_json(ask))[4:])) == ask


class Bytes:
    """Each token is one byte of UTF-8."""

    is_exact = True

    def bytes_of(self, token: int, is_first: bool) -> bytes:
        return bytes([token])

    def whole(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


@given(st.text(), st.lists(st.text(max_size=3), max_size=3))
def test_a_stream_is_the_text_up_to_its_first_stop_string(text: str, stops: list[str]) -> None:
    text = text.encode("utf-8", "replace").decode()
    stream = TextStream(Bytes(), stops)  # type: ignore[arg-type]
    told = []
    for byte in text.encode():
        told.append(stream.add(byte))
        if stream.is_stopped:
            break
    told.append(stream.end())

    reached = [text[:end] for end in range(len(text) + 1)]
    known = [stop.encode("utf-8", "replace").decode() for stop in stops if stop]
    stopped = next((one for one in reached if any(stop in one for stop in known)), None)
    if stopped is None or any(stop not in known for stop in stops if stop):
        assert "".join(told) in reached
    else:
        assert "".join(told) == stopped[: min(stopped.find(stop) for stop in known if stop in stopped)]
    assert stream.text == "".join(told)


def test_a_character_is_told_when_it_is_whole() -> None:
    stream = TextStream(Bytes(), ())  # type: ignore[arg-type]

    assert [stream.add(byte) for byte in "é€".encode()] == ["", "é", "", "", "€"]


def test_bytes_that_never_become_a_character_are_told_at_the_end() -> None:
    stream = TextStream(Bytes(), ())  # type: ignore[arg-type]

    assert (stream.add(0xE2), stream.end()) == ("", "�")


def writing(begun: Written | None = None, **options: Any) -> Writing:
    request = Ask(**{"id": "w", "max_new_tokens": 400, **options})
    return Writing(request, (END,), Bytes(), None, begun or Written())  # type: ignore[arg-type]


def test_sampling_draws_each_token_as_often_as_its_probability() -> None:
    logits = np.log(np.array([1e-9, 0.5, 0.3, 0.2]))
    answer = writing(temperature=1.0, seed=3)
    for _ in range(400):
        answer.extend(logits)
        if answer.finish:
            break

    found = Counter(answer.ids)
    for token, share in ((1, 0.5), (2, 0.3), (3, 0.2)):
        assert abs(found[token] / len(answer.ids) - share) < 0.1  # over four standard errors


def test_the_nucleus_holds_the_fewest_tokens_that_reach_its_share() -> None:
    logits = np.log(np.array([1e-9, 0.5, 0.3, 0.2]))
    answer = writing(temperature=1.0, top_p=0.6, seed=3)
    for _ in range(200):
        answer.extend(logits)

    assert set(answer.ids) == {1, 2}


def test_an_answer_that_is_taken_over_goes_on_as_if_it_never_stopped() -> None:
    rows = [np.random.default_rng(at).normal(size=200) for at in range(30)]
    whole, begun = writing(temperature=1.0, seed=8), writing(temperature=1.0, seed=8)
    for logits in rows:
        whole.extend(logits)
    for logits in rows[:11]:
        begun.extend(logits)

    taken = writing(Written(tuple(begun.ids)), temperature=1.0, seed=8)
    for logits in rows[11:]:
        taken.extend(logits)

    assert taken.ids == whole.ids


def test_logits_that_are_no_numbers_are_no_answer() -> None:
    with pytest.raises(NotFiniteError):
        writing().extend(np.full(8, np.nan))


@given(st.lists(st.integers(1, 900), min_size=1, max_size=9), st.integers(9, 512))
def test_prompts_share_a_step_fairly(lengths: list[int], budget: int) -> None:
    runs: list[Any] = [SimpleNamespace(left_tok=length) for length in lengths]

    shares = {id(run): tokens for run, tokens in fair_shares(runs, budget)}

    given_ = [shares.get(id(run), 0) for run in runs]
    assert sum(given_) <= budget
    assert all(tokens <= length for tokens, length in zip(given_, lengths, strict=True))
    assert sum(given_) == sum(lengths) or sum(given_) > budget - len(lengths)
    for tokens, length in zip(given_, lengths, strict=True):
        assert tokens == length or tokens >= budget // len(lengths)


def test_time_and_memory_of_a_piece_of_python_are_bounded() -> None:
    """In a process of its own: the limit is on the whole address space."""
    code = (
        "from harness.edge.bounded import bounded\nfrom harness.errors import ModelError\n"
        "for what, call in (('loop', lambda: [0 for _ in iter(int, 1)]), ('list', lambda: bytearray(10**9))):\n"
        "    try:\n"
        "        with bounded(what, seconds=0.2, extra_bytes=2**26): call()\n"
        "    except ModelError as error: print(error.message)\n"
        "print(len(bytearray(10**8)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loop, large, after = done.stdout.splitlines()
    assert "took over" in loop
    assert large == "list took over 64 MB"
    assert after == str(10**8)


def test_limits_leave_a_block_alone_that_keeps_to_them() -> None:
    with bounded("nothing", seconds=60, extra_bytes=2**30):
        found = sum(range(10))
    assert found == 45


def test_the_engine_loads_nothing_heavy_before_it_is_used() -> None:
    code = "import sys, harness.edge.engine; "
    code += "print(sorted({'numpy', 'torch', 'llama_cpp', 'jinja2', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
