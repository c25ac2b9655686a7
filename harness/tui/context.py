"""Where the person is: the screens' names, and what is under the cursor."""

from __future__ import annotations

from dataclasses import dataclass

from harness.jobs.store import RunState

BOARD, LIVE, SAMPLES, DIFF = "board", "live", "samples", "diff"
TRAIN, EXPORT, REVIEW, MONITOR, START, HELP = "train", "export", "review", "monitor", "start", "help"
PLAN = "plan"
NUMBERED = (BOARD, LIVE, SAMPLES, DIFF, TRAIN, EXPORT, REVIEW, MONITOR)
"""The screens that stand in the line of tabs, opened by their number."""
SCREENS = (*NUMBERED, START, PLAN)
TITLES = {name: name.capitalize() for name in SCREENS}


@dataclass(frozen=True, slots=True)
class Context:
    """What an action may depend on: where the person is, and what is under the cursor."""

    screen: str
    run: str | None = None
    state: RunState | None = None
    command: str | None = None
    """The command that made the run, and that resumes it."""
    pane: str = "runs"
    """On the board: `runs` or `stages`."""
    stage: str | None = None
    """On the board the stage under the cursor, on the sample screen the one shown."""
    n_rules: int = 0
    n_sources: int = 0
    """Sample files of the run."""
    n_listed: int = 0
    """Samples that the filter lets through."""
    n_failures: int = 0
    """Failures among them."""
    sample: str | None = None
    has_filter: bool = False
    is_failures_only: bool = False
    is_reading: bool = False
    """Whether the sample's whole text fills the screen."""
    n_suites: int = 0
    """On the diff: suites that both sides were scored on."""
    document: str | None = None
    """On the start screen: the file under the cursor."""
    kind: str | None = None
    """`recipe` or `suite`."""
    model: str | None = None
    """What a suite is scored with."""
    plan: tuple[str, ...] = ()
    """On the plan: the words of the command that plans what is chosen."""
    plan_file: str | None = None
    """On the plan: where the recipe goes."""
    n_disputed: int = 0
    """On the review: answers on which reviewers disagree."""
    why: str = ""
    correction: str = ""
    """On the review: what is kept with the next word."""
    has_said: bool = False
    """Whether this reviewer has judged anything here."""
    is_training: bool = False
    """Whether the run is in its training step."""
    is_paused: bool = False
    """Whether training waits for a person."""
    has_train_gates: bool = False
    """Whether the recipe scores checkpoints."""
    n_served: int = 0
    """On the monitor: servers whose request logs are at hand."""
    is_read_only: bool = False
    """Whether nothing can be written below the home: a mounted folder, say."""
    comparison: tuple[str, ...] | None = None
    """On the diff: the words of the command that compares the two sides."""
