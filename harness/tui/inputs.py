"""The texts that samples were made from, read again from the suite's data."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.tui.views.folders import RunFolder

Texts = dict[tuple[str, str], str]
"""Input by suite and record id."""


class Inputs:
    """Reads the records of a run once, beside the screen: they may be many."""

    def __init__(self) -> None:
        self._texts: dict[Path, Texts] = {}
        self._asked: set[Path] = set()

    def find(self, folder: RunFolder, suite: str, record: str) -> str | None:
        """The record's input; None where it is not known, or not known yet."""
        if folder.folder not in self._asked:
            self._asked.add(folder.folder)
            threading.Thread(target=self.read_now, args=(folder,), daemon=True).start()
        return self._texts.get(folder.folder, {}).get((suite, record))

    def has_read(self, folder: RunFolder) -> bool:
        """Whether the records were read, or turned out to be gone."""
        return folder.folder in self._texts

    def read_now(self, folder: RunFolder) -> None:
        """Reads the run's records; where the data have moved since, its samples are shown without their inputs."""
        self._asked.add(folder.folder)
        try:
            self._texts[folder.folder] = read_inputs(folder.manifest)
        except (HarnessError, OSError, KeyError, TypeError, ValueError):
            self._texts[folder.folder] = {}


def read_inputs(manifest: Mapping[str, Any]) -> Texts:
    """Every record that the run may have scored.

    Raises:
        HarnessError: the documents or the data are not there any more, or wrong.
    """
    from harness.data.sources import load_split
    from harness.specs.load import find_document, load_release, load_suite

    options = manifest["options"]
    if "asked" in options:
        return _asked(Path(options["asked"]))
    data_root = Path(options["data_root"]) if options.get("data_root") else None
    if "recipe" in options:
        suites = [
            (one.suite, one.path) for one in load_release(options["recipe"], data_root=data_root).suites
        ]
    else:
        suites = [(load_suite(options["suite"]), find_document(options["suite"]))]
    return {
        (suite.suite, record.id): record.input
        for suite, path in suites
        for split in ("dev", "calibration", "eval")
        for record in load_split(suite, split, suite_path=path, data_root=data_root)
    }


def _asked(path: Path) -> Texts:
    """What a server put aside for people, in a file of its own."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.endswith("\n")]
    return {(row["suite"], row["id"]): row["input"] for row in rows}
