"""What a GGUF says of itself, read from a file that nobody trusts.

The file is read in a child process with limits on memory, processor time, files and wall time, by a parser that
bounds every count before it believes it; the chat template is rendered there too. A hostile file costs its limits and
is an error here. llama.cpp and the gguf package are not used: the one maps files that may be cut short, the other
hangs on a crafted header.

Source: GGUF specification v3, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from harness.errors import DataError, HarnessError, ModelError

MEMORY_BYTES = 2 * 2**30
CPU_S = 20
WALL_S = 120.0
MAX_ANSWER_BYTES = 2**20
MAX_KEYS = 4096
MAX_TENSORS = 65_536
MAX_ARRAY = 4 * 2**20
MAX_TEXT_BYTES = 4 * 2**20
MAX_NAME_BYTES = 64 * 1024
MAX_SHOWN = 8192
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_TEXT, _ARRAY = 8, 9
_CONVERSATIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "U1"),),
    (("system", "S1"), ("user", "U1")),
    (("user", "U1"), ("assistant", "A1"), ("user", "U2")),
    (("system", "S1"), ("user", "U1"), ("assistant", "A1"), ("user", "U2")),
    (("user", "U1"), ("assistant", "A1")),
)


class Header(NamedTuple):
    """What the file says."""

    architecture: str
    tensors: int
    context_tok: int | None
    end_text: str | None
    """The token that ends an answer."""
    template: str | None
    """The chat template, as Jinja; None where there is none."""
    rendered: tuple[str | None, ...]
    """The template's text for each of five fixed conversations; None where it refuses one."""


def read_header(path: Path) -> Header:
    """The header of an untrusted GGUF, read in a child.

    Raises:
        DataError: it is malformed, or costs more than a header may.
    """
    with tempfile.TemporaryFile() as answer:
        command = [sys.executable, "-m", "harness.export.header", str(path.absolute()), str(CPU_S)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.DEVNULL, env=environment,
                timeout=WALL_S, check=False, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{path.name}: its header takes more than {WALL_S:g} s to read") from error
        answer.seek(0)
        said = answer.read(MAX_ANSWER_BYTES + 1)
    if done.returncode < 0 or not said:
        raise DataError(f"{path.name}: reading its header takes more memory or time than a header may")
    document = json.loads(said)
    if "problem" in document:
        raise DataError(f"{path.name}: {document['problem']}")
    return Header(**{**document, "rendered": tuple(document["rendered"])})


class _Reader:
    """A file with a budget: nothing is read or counted past its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.left = size

    def take(self, n: int) -> bytes:
        if n > self.left:
            raise DataError("the header runs past the end of the file")
        self.left -= n
        data = self._file.read(n)
        if len(data) != n:
            raise DataError("the file got shorter while it was read")
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self, most: int, what: str) -> int:
        found = int(self.number("<Q"))
        if found > most:
            raise DataError(f"{found:,} {what}, wanted at most {most:,}")
        return found

    def text(self, most: int = MAX_TEXT_BYTES) -> str:
        return self.take(self.count(most, "bytes in a text")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise DataError(f"a value of type {kind}, which GGUF does not have")
        inner = self.number("<I")
        n = self.count(MAX_ARRAY, "elements in an array")
        if inner == _TEXT:
            return [self.text() for _ in range(n)]
        if inner not in _SCALARS:
            raise DataError(f"an array of type {inner}")
        form = _SCALARS[inner]
        return memoryview(self.take(n * struct.calcsize(form)))


def parse(file: BinaryIO, size: int) -> dict[str, Any]:
    """Keys and values of a GGUF with so many bytes, and its number of `tensors`; for the child.

    Raises:
        DataError: it is malformed, or names more than a header may.
    """
    reader = _Reader(file, size)
    if reader.take(4) != b"GGUF":
        raise DataError("no GGUF file")
    version = reader.number("<I")
    if version not in (2, 3):
        raise DataError(f"GGUF version {version}, wanted 2 or 3")
    n_tensors, n_keys = reader.count(MAX_TENSORS, "tensors"), reader.count(MAX_KEYS, "keys")
    found: dict[str, Any] = {}
    for _ in range(n_keys):
        key = reader.text(MAX_NAME_BYTES)
        if key in found:
            raise DataError(f"the key {key!r} stands twice")
        found[key] = reader.value(reader.number("<I"))
    names = {_tensor(reader) for _ in range(n_tensors)}
    if len(names) != n_tensors:
        raise DataError("two tensors have one name")
    return {**found, "tensors": n_tensors}


def _tensor(reader: _Reader) -> str:
    name = reader.text(MAX_NAME_BYTES)
    dimensions = reader.number("<I")
    if not 1 <= dimensions <= 4:
        raise DataError(f"tensor {name!r} has {dimensions} dimensions")
    reader.take(8 * dimensions + 4)
    if reader.number("<Q") > reader.left:
        raise DataError(f"tensor {name!r} begins past the end of the file")
    return name


def _describe(found: dict[str, Any]) -> dict[str, Any]:
    tokens = found.get("tokenizer.ggml.tokens", [])
    end, architecture = found.get("tokenizer.ggml.eos_token_id"), found.get("general.architecture")
    template = found.get("tokenizer.chat_template")
    if not isinstance(architecture, str) or not isinstance(tokens, list):
        raise DataError("general.architecture and tokenizer.ggml.tokens are not what GGUF says")
    if template is not None and (not isinstance(template, str) or len(template) > MAX_ANSWER_BYTES // 8):
        raise DataError("its chat template is no text, or an endless one")
    context = found.get(f"{architecture}.context_length")
    return {
        "architecture": architecture[:100],
        "tensors": found["tensors"],
        "context_tok": context if isinstance(context, int) else None,
        "end_text": tokens[end][:200] if isinstance(end, int) and 0 <= end < len(tokens) else None,
        "template": template,
        "rendered": [] if template is None else [_render(template, turns) for turns in _CONVERSATIONS],
    }


def _render(template: str, turns: tuple[tuple[str, str], ...]) -> str | None:
    from harness.models.base import Message
    from harness.models.template import render

    messages = [Message(role, content) for role, content in turns]
    try:
        # llama.cpp and Ollama put the first token there themselves.
        text = render(
            template, messages, add_generation_prompt=True, tokens={"bos_token": "", "eos_token": ""}
        )
    except ModelError:
        return None
    return text if len(text) <= MAX_SHOWN else None


def _limit(cpu_s: int) -> None:
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, MAX_ANSWER_BYTES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))


def main() -> None:
    """The child: a path and seconds of processor time in, one JSON document out."""
    _limit(int(sys.argv[2]))
    try:
        with Path(sys.argv[1]).open("rb") as file:
            answer = _describe(parse(file, os.fstat(file.fileno()).st_size))
    except HarnessError as error:
        answer = {"problem": error.message[:500]}
    except (ValueError, TypeError, LookupError, struct.error, OSError) as error:
        answer = {"problem": f"no GGUF header: {type(error).__name__}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
