"""Where `harness` begins: the terminal at once where only that was asked for, else the command line."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs what was typed. To build a command line that nobody uses takes a fifth of the time to the first paint."""
    if sys.argv[1:] in ([], ["board"]) and sys.stdin.isatty() and sys.stdout.isatty():
        from harness.jobs.store import home_folder
        from harness.tui.app import run

        run(home_folder())
        sys.exit(0)
    from harness.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
