"""What a person asks of a run while it trains: a file that the trainer reads between two steps."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from harness.errors import DataError
from harness.files import write_atomic
from harness.jobs import lease

FILE = "order"
TRAIN = "train"
"""The trainer's folder in a run."""


class Order(StrEnum):
    """What may be asked for."""

    PAUSE = "pause"
    """Write a checkpoint and wait; memory stays taken."""
    GO_ON = "go-on"
    """End the pause."""
    GATE = "gate"
    """Score this step's checkpoint now, by `tune.gates`."""
    ROLL_BACK = "roll-back"
    """Back to the checkpoint that the gates like best, else to the newest, with half the learning rate."""
    FINISH = "finish"
    """Train no further: the best checkpoint, without gates this one, is the adapter."""


_SAID = {
    Order.PAUSE: "waits after this step, until it is told to go on",
    Order.GO_ON: "goes on",
    Order.GATE: "scores this step's checkpoint",
    Order.ROLL_BACK: "goes back to its best checkpoint, with half the learning rate",
    Order.FINISH: "trains no further; what it has becomes the adapter, and is gated as ever",
}


def steer(folder: Path, order: Order) -> str:
    """Asks it of the run in this folder; a sentence that says what will come of it.

    Raises:
        DataError: nobody works on the run, or it does not train now.
    """
    train = folder / TRAIN
    if lease.holder(folder) is None:
        raise DataError(f"{folder.name} is not running", hint=f"harness show {folder.name}")
    if not train.is_dir() or (train / "result.json").exists():
        raise DataError(f"{folder.name} does not train now", hint=f"harness attach {folder.name}")
    write_atomic(train / FILE, f"{order.value}\n")
    return f"{folder.name} {_SAID[order]}"


def take(train: Path) -> Order | None:
    """What was asked of the trainer in this folder since the last look; None where it was nothing, or nonsense.

    `finish` stays until there is a result: a trainer that is killed while it ends must end when it is resumed.
    """
    path, found = train / FILE, None
    with suppress(OSError, ValueError):
        found = Order(path.read_text().strip())
    if found is not Order.FINISH:
        path.unlink(missing_ok=True)
    return found
