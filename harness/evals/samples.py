"""The samples of one stage on one suite, on disk: scored anew from the answers whenever a run begins."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.evals.answers import Header, parse_line
from harness.evals.results import Sample
from harness.files import write_atomic

__all__ = ["Header", "SampleLog", "read_header", "read_samples", "write_samples"]

_encode = json.JSONEncoder(allow_nan=False).encode


class SampleLog:
    """Samples in groups, for whoever watches; a group counts when its closing line is whole.

    What it holds follows from the answers, so it begins empty each time and needs no sync of its own.
    """

    def __init__(self, path: Path, header: Header) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._write([_encode({"header": header._asdict()})])

    def commit(self, number: int, samples: Sequence[Sample]) -> None:
        """Appends a group."""
        self._write(_group(number, samples))

    def close(self) -> None:
        """Syncs and closes."""
        os.fsync(self._handle)
        os.close(self._handle)

    def _write(self, lines: Sequence[str]) -> None:
        view = memoryview(("\n".join(lines) + "\n").encode())
        while view:
            view = view[os.write(self._handle, view) :]


def write_samples(path: Path, header: Header, samples: Sequence[Sample]) -> None:
    """Writes all samples as one group, whole or not at all."""
    write_atomic(path, "\n".join([_encode({"header": header._asdict()}), *_group(0, samples)]) + "\n")


def read_samples(path: Path) -> list[Sample]:
    """The samples of all finished groups, in the order they were finished; empty where there is no file."""
    found: list[Sample] = []
    group: list[dict[str, Any]] = []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    for line in lines[1:]:
        data = parse_line(line)
        if data is None or ("batch" in data and data["n"] != len(group)):
            break
        if "batch" in data:
            found += map(Sample.from_json, group)
            group = []
        else:
            group.append(data)
    return found


def read_header(path: Path) -> Header | None:
    """What the samples stand on; None where there is no file, or no header that can be read."""
    try:
        with path.open("rb") as file:
            header = (parse_line(file.readline()) or {})["header"]
        return Header(str(header["identity"]), str(header["requests"]), str(header.get("scoring", "")))
    except (FileNotFoundError, KeyError, TypeError):
        return None


def _group(number: int, samples: Sequence[Sample]) -> list[str]:
    return [*(_encode(sample.to_json()) for sample in samples), _encode({"batch": number, "n": len(samples)})]
