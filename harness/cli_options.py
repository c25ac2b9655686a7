"""Options and arguments that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with public data sets, for suites with `public:` records."),
]
RecipeFile = Annotated[Path, typer.Argument(help="A recipe, such as recipes/demo.yaml.", show_default=False)]
RunName = Annotated[str, typer.Argument(help="A run's name, its unique beginning, or `last`.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming the same job.")]


def twin() -> list[str]:
    """The command as it was typed: the same one resumes the run."""
    return ["harness", *sys.argv[1:]]
