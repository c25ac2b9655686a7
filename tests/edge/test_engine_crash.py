"""What becomes of requests when the engine's process dies, hangs or meets a hostile file."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.edge.base import Piece
from harness.edge.engine import EdgeEngine
from harness.errors import IntegrityError, ModelError
from harness.files import sha256_file
from tests.edge.conftest import Heard, ask, endless

GONE_S = 30.0


def kill(engine: EdgeEngine, number: int = signal.SIGKILL) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, number)


def is_gone(pid: int) -> bool:
    until = time.monotonic() + GONE_S
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        threading.Event().wait(0.02)
    return False


def wait_for_more(engine: EdgeEngine, heard: Heard, restarts: int = 1) -> None:
    """Until the next process has told something; what the last one had said before may still come."""
    until = time.monotonic() + GONE_S
    while time.monotonic() < until and engine.health().restarts < restarts:
        threading.Event().wait(0.01)
    told = len(heard.events)
    while time.monotonic() < until and len(heard.events) == told:
        threading.Event().wait(0.01)
    assert len(heard.events) > told


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def mortal(long_gguf: Path, notes: list[str]):  # type: ignore[no-untyped-def]
    engine = EdgeEngine(
        long_gguf, sha256_file(long_gguf), threads=1, slots=2, context_tok=2**16, on_note=notes.append
    )
    yield engine
    engine.close()


def test_a_request_goes_on_after_its_process_died(mortal: EdgeEngine, notes: list[str]) -> None:
    """The text is held to so many digits: what was told before stays, and exactly the rest follows it."""
    request = ask("count", grammar="root ::= [0-9]{1000}", max_new_tokens=1100, wants_logprobs=True)
    heard = Heard(mortal, request)
    heard.wait_for_text()

    kill(mortal)

    done = heard.done()
    assert (done.attempts, done.finish) == (2, "stop")
    assert done.text == heard.streamed()
    assert len(done.text) == 1000
    assert done.text.isdigit()
    assert done.token_logprobs is not None
    assert len(done.token_logprobs) == done.output_tok
    assert mortal.health().restarts == 1
    assert any("SIGKILL" in note for note in notes)


def test_a_request_that_the_process_dies_under_twice_is_told_and_the_others_are_answered(
    mortal: EdgeEngine,
) -> None:
    poison = Heard(mortal, endless("poison"))
    poison.wait_for_text()
    waiting = Heard(mortal, ask("waits"))
    first = mortal.pid
    kill(mortal)
    until = time.monotonic() + GONE_S
    while mortal.pid in (first, None) and time.monotonic() < until:
        threading.Event().wait(0.01)
    wait_for_more(mortal, poison)
    kill(mortal)

    assert poison.failed().trouble == "crashed"
    assert poison.streamed()  # what was told is not taken back, and the end says that there is no answer
    assert waiting.done().finish in ("stop", "length")
    assert all(isinstance(event, Piece) for event in poison.events[:-1])


def test_a_process_that_hangs_is_replaced(long_gguf: Path) -> None:
    engine = EdgeEngine(
        long_gguf, sha256_file(long_gguf), threads=1, slots=1, context_tok=2**16, patience_s=3.0
    )
    request = endless("hangs")
    heard = Heard(engine, request)
    heard.wait_for_text()

    kill(engine, signal.SIGSTOP)

    wait_for_more(engine, heard)
    engine.withdraw(request.id)
    assert heard.done().attempts == 2
    assert heard.done().text == heard.streamed()
    engine.close()


def test_a_request_withdrawn_from_a_process_that_hangs_is_not_asked_again(long_gguf: Path) -> None:
    engine = EdgeEngine(
        long_gguf, sha256_file(long_gguf), threads=1, slots=1, context_tok=2**16, patience_s=1.0
    )
    request = endless("hangs")
    heard = Heard(engine, request)
    heard.wait_for_text()
    kill(engine, signal.SIGSTOP)

    engine.withdraw(request.id)

    assert (heard.done().finish, heard.done().attempts) == ("cancelled", 1)
    engine.close()


def test_an_engine_whose_process_dies_again_and_again_gives_up_and_says_so(
    long_gguf: Path, tmp_path: Path
) -> None:
    path = tmp_path / "here.gguf"
    path.write_bytes(long_gguf.read_bytes())
    engine = EdgeEngine(path, sha256_file(path), threads=1, slots=1, context_tok=2**16)
    heard = Heard(engine, endless("last words"))
    heard.wait_for_text()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)

    kill(engine)

    assert "bytes changed" in heard.failed().text
    assert engine.health().state == "failed"
    assert Heard(engine, ask("anybody")).failed().trouble == "crashed"
    engine.close()


def test_a_killed_parent_takes_the_process_along(long_gguf: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from harness.edge.engine import EdgeEngine\n"
        "from harness.edge.base import Ask\n"
        "engine = EdgeEngine(Path(sys.argv[1]), sys.argv[2], threads=1, slots=1, context_tok=65536)\n"
        "ask = Ask('a', text='x', grammar='root ::= [a-z] root', max_new_tokens=60000)\n"
        "engine.submit(ask, lambda event: None)\n"
        "print(engine.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(long_gguf), sha256_file(long_gguf)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert is_gone(pid)


def test_a_listener_that_fails_does_not_take_the_engine_along(mortal: EdgeEngine, notes: list[str]) -> None:
    def broken(event: object) -> None:
        raise ValueError("gone")

    mortal.submit(endless("nobody listens"), broken)

    assert Heard(mortal, ask("somebody does")).done().finish in ("stop", "length")
    assert any("gone" in note for note in notes)
    until = time.monotonic() + GONE_S
    while mortal.health().running and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert mortal.health().running == 0


HOSTILE_TEMPLATES = {
    "a loop in a loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "gigabytes": "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}"
    "{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "one more than all": "{{ 'a' * 10**9 }}",
}


@pytest.mark.parametrize("source", HOSTILE_TEMPLATES.values(), ids=HOSTILE_TEMPLATES)
def test_a_hostile_template_is_refused_in_bounded_time_and_memory(
    source: str, gguf: Path, tmp_path: Path
) -> None:
    path = with_template(gguf, tmp_path / "hostile.gguf", source)

    with pytest.raises(ModelError, match="template"):
        EdgeEngine(path, sha256_file(path), threads=1)


def test_a_template_that_is_hostile_to_one_conversation_costs_that_one_alone(
    gguf: Path, tmp_path: Path
) -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if messages[-1]['content'] == 'boom' %}{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}<|im_start|>assistant\n"
    )
    path = with_template(gguf, tmp_path / "sly.gguf", source)
    engine = EdgeEngine(path, sha256_file(path), threads=1, slots=2)

    hostile, kind = Heard(engine, ask("boom")), Heard(engine, ask("fine"))

    assert "took over" in hostile.failed().text
    assert kind.done().attempts == 1
    engine.close()


@pytest.mark.parametrize("cut", [0, 3, 51, 4096])
def test_a_broken_file_is_refused(cut: int, gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(gguf.read_bytes()[:cut])

    with pytest.raises(ModelError):
        EdgeEngine(path, sha256_file(path), threads=1)


def test_a_header_that_promises_the_moon_is_refused(gguf: Path, tmp_path: Path) -> None:
    data = bytearray(gguf.read_bytes())
    struct.pack_into("<Q", data, 16, 2**62)  # the count of metadata values
    path = tmp_path / "moon.gguf"
    path.write_bytes(data)

    with pytest.raises(ModelError):
        EdgeEngine(path, sha256_file(path), threads=1)


def test_a_process_is_held_to_its_memory(gguf: Path) -> None:
    with pytest.raises(ModelError):
        EdgeEngine(gguf, sha256_file(gguf), threads=1, memory_mb=30)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="missing"):
        EdgeEngine(tmp_path / "nowhere.gguf", "0" * 64, threads=1)


def with_template(gguf: Path, out: Path, source: str) -> Path:
    """The file with another chat template, written by the `gguf` package alone."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(gguf)
    writer = GGUFWriter(out, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "tokenizer.chat_template"):
            continue
        kind = field.types[0]
        value = field.contents()
        if kind == GGUFValueType.ARRAY:
            writer.add_key_value(name, value, kind, sub_type=field.types[-1])
        else:
            writer.add_key_value(name, value, kind)
    writer.add_chat_template(source)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
