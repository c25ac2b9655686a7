"""What was asked and who answered, line by line: ids, hashes, counts and times, and nothing else.

The fields are listed in docs/serving.md; what is not a field of `RequestLine` can't get into the file.
"""

from __future__ import annotations

import hmac
import json
import os
import queue
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ACTIVE = "requests.jsonl"
LIMIT_BYTES = 16 * 2**20
KEPT_FILES = 8
PENDING = 4096
"""Lines that may wait for a slow disk; further ones are lost and counted."""
MAX_TEXT_CHARS = 20_000
_ROTATED = re.compile(r"requests\.(\d{1,9})\.jsonl")


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One request; unknown is None."""

    id: str
    endpoint: str
    status: int
    error: str | None = None
    route: str | None = None
    band: str | None = None
    reason: str | None = None
    guard: str | None = None
    escalation: str | None = None
    suite: str | None = None
    label: str | None = None
    confidence: float | None = None
    set_size: int | None = None
    slices: Mapping[str, str] = field(default_factory=dict)
    finish: str | None = None
    prompt_tok: int | None = None
    cached_tok: int | None = None
    output_tok: int | None = None
    attempts: int | None = None
    first_ms: float | None = None
    total_ms: float | None = None
    is_stream: bool = False
    adapter: str = ""
    input_hash: str | None = None
    answer_hash: str | None = None
    input: str | None = None
    answer: str | None = None


class RequestLog:
    """An append-only file, written by a thread of its own: neither a slow nor a full disk holds an answer up."""

    def __init__(
        self, folder: Path, *, has_text: bool = False, limit_bytes: int = LIMIT_BYTES,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.path = folder / ACTIVE
        self._has_text = has_text
        self._limit_bytes = limit_bytes
        self._on_lost = on_lost
        self._key = _own_key(folder)
        self._lines: queue.Queue[tuple[dict[str, Any], Mapping[str, str]] | None] = queue.Queue(PENDING)
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def request(self, line: RequestLine, source: Mapping[str, Any]) -> None:
        """Puts a request down; `source` are the fields about the release. Never raises, never waits."""
        texts = {"input": line.input, "answer": line.answer} if self._has_text else {}
        data = {key: value for key, value in asdict(line).items() if key not in ("input", "answer")}
        self._put("request", source, data, {key: text for key, text in texts.items() if text is not None})

    def event(self, name: str, source: Mapping[str, Any], **data: Any) -> None:
        """Puts down what happened to the server."""
        self._put(name, source, data, {})

    def hashed(self, text: str) -> str:
        """HMAC-SHA256 of the text, under a key that stays on this device."""
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()

    def close(self) -> None:
        """Writes what waits; a disk that takes longer than 5 s keeps the rest."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=5.0)
        self._thread.join(5.0)

    def _put(
        self, name: str, source: Mapping[str, Any], data: Mapping[str, Any], texts: Mapping[str, str]
    ) -> None:
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._lines.put_nowait(({"event": name, "time": when, **source, **data}, texts))
        except queue.Full:
            self._on_lost()

    def _run(self) -> None:
        while (waiting := self._lines.get()) is not None:
            data, texts = waiting
            try:
                masked = {key: masked_text(text) for key, text in texts.items()}
                self._append(json.dumps({**data, **masked}, ensure_ascii=True).encode() + b"\n")
            except (
                Exception
            ):  # whatever a text or a disk does: the thread goes on, and the line is counted as lost
                self._on_lost()

    def _append(self, line: bytes) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and size + len(line) > self._limit_bytes:
                self._rotate()
                os.close(handle)
                handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                size = 0
            if os.write(handle, line) != len(line):
                os.ftruncate(handle, size)  # half a line would spoil the next one as well
                raise OSError("no room for the line")
        finally:
            os.close(handle)

    def _rotate(self) -> None:
        numbers = sorted(rotated_files(self.path.parent))
        self.path.rename(self.path.with_name(f"requests.{(numbers[-1] if numbers else 0) + 1}.jsonl"))
        for number in numbers[: max(0, len(numbers) + 2 - KEPT_FILES)]:
            self.path.with_name(f"requests.{number}.jsonl").unlink(missing_ok=True)


def rotated_files(folder: Path) -> dict[int, Path]:
    """The files that were full, by number; the highest is the newest."""
    found = {path: _ROTATED.fullmatch(path.name) for path in folder.glob("requests.*.jsonl")}
    return {int(match.group(1)): path for path, match in found.items() if match}


def masked_text(text: str) -> str:
    """The text with each piece of personal data replaced by its kind, such as `[email]`.

    Names and addresses are found where the extra `pii` is installed.
    """
    from harness.privacy.find import finder, has_names

    kept = text[:MAX_TEXT_CHARS]
    parts, at = [], 0
    for one in finder(names=has_names())(kept):
        parts += [kept[at : one.start], f"[{one.kind}]"]
        at = one.end
    return "".join([*parts, kept[at:]])


def _own_key(folder: Path) -> bytes:
    """The key of the hashes, made once; a folder that can't be written gives one for this process."""
    path = folder / "hash.key"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileExistsError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
        if len(key := path.read_bytes()) == 32:
            return key
    return secrets.token_bytes(32)
