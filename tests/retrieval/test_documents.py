"""Documents from folders and files: what is no text is named, all at once, and never skipped in silence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.retrieval.documents import MAX_FILE_BYTES, MAX_LINE_BYTES, document_files, read_documents


def test_a_folder_is_read_by_name_with_its_folders(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_bytes(b"\xef\xbb\xbfsecond")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("first")
    (tmp_path / ".hidden").write_text("not read")

    found = read_documents(tmp_path)

    assert [(one.name, one.text) for one in found] == [("b", "second"), ("deep/a", "first")]
    assert found[0].sha256 == hashlib.sha256(b"\xef\xbb\xbfsecond").hexdigest()
    assert document_files(tmp_path) == [
        tmp_path, tmp_path / "deep", tmp_path / "b.md", tmp_path / "deep" / "a.txt",
    ]  # fmt: skip


def test_a_file_holds_one_document_a_line(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text('{"doc_id": "b", "text": "two"}\n\n{"doc_id": 7, "text": "seven"}\n')

    assert [(one.name, one.text) for one in read_documents(path)] == [("7", "seven"), ("b", "two")]
    assert document_files(path) == [path]


def test_hostile_files_are_all_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("text")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "binary.md").write_bytes(b"a\0b")
    (tmp_path / "blank.md").write_text(" \n")
    (tmp_path / "link.md").symlink_to("/etc/hostname")
    (tmp_path / "folder").symlink_to("/etc")
    with (tmp_path / "long.md").open("wb") as file:
        file.truncate(100 * 2**20)  # one line of 100 MB, sparse on disk

    with pytest.raises(DataError) as error:
        read_documents(tmp_path)

    for name in ("image.png", "latin.txt", "binary.md", "blank.md", "link.md", "folder", "long.md"):
        assert name in error.value.message
    assert "good.md" not in error.value.message
    assert f"{MAX_FILE_BYTES:,}" in error.value.message


def test_hostile_lines_are_named_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    good = json.dumps({"doc_id": "a", "text": "text"})
    rows = [
        good,
        "{",
        "[]",
        '{"doc_id": "b"}',
        '{"doc_id": "c", "text": "\\ud800"}',
        '{"doc_id": true, "text": "x"}',
    ]
    path.write_text("\n".join([*rows, "x" * (MAX_LINE_BYTES + 1), good]))

    with pytest.raises(DataError) as error:
        read_documents(path)

    for line in range(2, 8):
        assert f"line {line} " in error.value.message
    assert "line 1 " not in error.value.message
    assert "a name of its own" in error.value.message


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no documents"):
        read_documents(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read_documents(tmp_path / "gone")
