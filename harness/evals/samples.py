"""The samples of one stage on one suite, on disk batch by batch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.evals.results import Sample


class Header(NamedTuple):
    """What the samples stand on. Samples of another header are never used."""

    identity: str
    """Digest of the model."""
    requests: str
    """Digest of prompts, choices, settings and scorer, in their order."""


class SampleLog:
    """Append-only; a batch counts as finished when its closing line is whole."""

    def __init__(self, path: Path, header: Header) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.batches, whole_bytes = _read(path, header)
        """Samples of each finished batch by its number."""
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(self._handle, whole_bytes)
        os.lseek(self._handle, 0, os.SEEK_END)
        if not whole_bytes:
            self._append([{"header": header._asdict()}])

    def commit(self, number: int, samples: Sequence[Sample]) -> None:
        """Puts a finished batch on disk: after this returns it is never computed again."""
        lines = [sample.to_json() for sample in samples]
        self._append([*lines, {"batch": number, "n": len(lines)}])
        os.fsync(self._handle)
        self.batches[number] = list(samples)

    def close(self) -> None:
        os.close(self._handle)

    def _append(self, lines: Sequence[dict[str, Any]]) -> None:
        data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        view = memoryview(data.encode())
        while view:
            view = view[os.write(self._handle, view) :]


def read_samples(path: Path) -> list[Sample]:
    """The samples of all finished batches, in the order they were finished; empty where there is no file."""
    batches, _ = _read(path, None)
    return [sample for batch in batches.values() for sample in batch]


def read_header(path: Path) -> Header | None:
    """What the samples stand on; None where there is no file, or no header that can be read."""
    try:
        with path.open("rb") as file:
            header = (_parse(file.readline()) or {})["header"]
        return Header(str(header["identity"]), str(header["requests"]))
    except (FileNotFoundError, KeyError, TypeError):
        return None


def _read(path: Path, wanted: Header | None) -> tuple[dict[int, list[Sample]], int]:
    """The finished batches and how many bytes they take; none if the header is not the wanted one."""
    batches: dict[int, list[Sample]] = {}
    open_batch: list[Sample] = []
    whole_bytes = offset = 0
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return {}, 0
    for number, line in enumerate(lines):
        offset += len(line)
        data = _parse(line)
        if data is None:
            break
        if number == 0:
            if wanted is not None and data.get("header") != wanted._asdict():
                return {}, 0
            whole_bytes = offset
        elif "batch" in data:
            if data["n"] != len(open_batch):
                break
            batches[data["batch"]], open_batch, whole_bytes = open_batch, [], offset
        else:
            open_batch.append(Sample.from_json(data))
    return batches, whole_bytes


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
