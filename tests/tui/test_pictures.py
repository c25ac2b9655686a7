"""Pictures for the documentation, of a run that is there."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from fakes import FakeRun

from harness.tui.pictures import KEYS, main


def test_each_screen_becomes_a_picture_that_asks_no_server(
    finished: FakeRun, home: Path, tmp_path: Path
) -> None:
    main([str(tmp_path / "out"), "--home", str(home), "--screens", "board,export", "--run", finished.run])
    for name, words in (("board", "q5_k_m"), ("export", "ships")):
        text = (tmp_path / "out" / f"{name}.svg").read_text()
        root = ET.fromstring(text)
        assert root.tag.endswith("svg")
        assert words in "".join(root.itertext())
        assert "url(http" not in text.replace('"', "")


def test_a_screen_that_is_none_is_refused(home: Path, tmp_path: Path) -> None:
    assert "board" in KEYS
    with pytest.raises(KeyError):
        main([str(tmp_path), "--home", str(home), "--screens", "kitchen"])
