"""The terminal opens with no more than it shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

OPEN = """
import sys
import harness.__main__ as entry
from harness.tui.app import HarnessApp

class Terminal:
    def __init__(self, stream): self.stream = stream
    def isatty(self): return True
    def __getattr__(self, name): return getattr(self.stream, name)

sys.stdin, sys.stdout = Terminal(sys.stdin), Terminal(sys.stdout)
HarnessApp.run = lambda self: sys.stdout.write("opened\\n")
sys.argv = ["harness", *sys.argv[1:]]
try:
    entry.main()
finally:
    unwanted = ("typer", "pydantic", "numpy", "torch", "harness.tui.screens.diff", "harness.tui.views.monitor")
    print(sorted(set(unwanted) & set(sys.modules)))
"""


@pytest.mark.parametrize("words", [[], ["board"]])
def test_only_what_is_shown_is_imported(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", OPEN, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "opened\n[]\n"), done.stderr


def test_every_other_word_goes_to_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-c", OPEN, "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "opened" not in done.stdout
    assert "typer" in done.stdout


def test_without_a_terminal_the_board_is_text() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
