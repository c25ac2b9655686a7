"""A verdict's seal over documents: one that is swapped, added or taken away is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.jobs.seals import changed_sources, seal
from harness.retrieval.documents import document_files


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    folder = tmp_path / "articles"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.md").write_text("first")
    (folder / "deep" / "b.md").write_text("second")
    seal(tmp_path / "run", "base", document_files(folder))
    assert changed_sources(tmp_path / "run", "base") == []
    return folder


def test_a_document_that_is_swapped_is_seen(articles: Path) -> None:
    (articles / "a.md").write_text("other text")

    assert changed_sources(articles.parent / "run", "base") == [articles / "a.md"]


@pytest.mark.parametrize("folder", [".", "deep"])
def test_a_document_that_is_added_is_seen(articles: Path, folder: str) -> None:
    (articles / folder / "c.md").write_text("third")

    assert changed_sources(articles.parent / "run", "base") == [articles / folder]


def test_a_document_that_is_taken_away_is_seen(articles: Path) -> None:
    (articles / "deep" / "b.md").unlink()

    assert changed_sources(articles.parent / "run", "base") == [articles / "deep"]


def test_a_folder_whose_files_are_the_same_has_not_changed(articles: Path) -> None:
    (articles / "c.md").write_text("third")
    (articles / "c.md").unlink()

    assert changed_sources(articles.parent / "run", "base") == []
