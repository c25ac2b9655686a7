"""The adapter that leaves training, and what is known of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.files import folder_written_whole, read_json, sha256_file, write_json
from harness.train import checkpoints
from harness.train.plan import TrainResult
from harness.train.probe import close_budget
from harness.train.selection import best_of, leaving

if TYPE_CHECKING:
    from harness.train.loop import Loop

RESULT = "result.json"
ADAPTER = "adapter"


def finished(folder: Path, digest: str) -> TrainResult | None:
    """The result of a run that ended, when its adapter still has the bytes that it ended with."""
    with suppress(HarnessError, OSError, KeyError, TypeError):
        document = read_json(folder / RESULT)
        files: dict[str, str] = document["files"]
        if document["plan"] == digest and all(sha256_file(folder / f) == sha for f, sha in files.items()):
            found = document["result"]
            orders = tuple(found.get("orders", ()))  # JSON has no tuples
            return TrainResult(**{**found, "adapter": folder / ADAPTER, "orders": orders})
    return None


def finish(loop: Loop) -> TrainResult:
    """Writes the adapter that leaves: the last one, or the one that the gates liked best.

    Raises:
        RefusedError: the gates let none leave.
    """
    folder, now = loop.work.folder, loop.progress
    chosen = leaving(now.gates) if loop.tune.gates else None
    if chosen and (best := best_of(now.gates)) and best.step == 0:
        text = f"no checkpoint is above the untrained adapter's {best.score:.3f} on the development records"
        loop.on_event("note", {"level": "warning", "text": text})
    if loop.ranks.is_first:
        if chosen and chosen.step != now.step:
            path = folder / "checkpoints" / chosen.checkpoint
            checkpoints.verified(path, plan_digest=loop.work.digest)
            loop.load_adapter(path)
        with folder_written_whole(folder / ADAPTER) as part:
            loop.write_adapter(part)
    result = TrainResult(
        adapter=folder / ADAPTER,
        steps=now.step,
        loss=sum(now.recent_losses) / len(now.recent_losses),
        held_out_loss=now.held_out[-1][1] if now.held_out else None,
        seconds=round(now.seconds, 3),
        supervised_tok=now.supervised_tok,
        tok_s=round(now.tokens / now.seconds, 1),
        chosen_step=chosen.step if chosen else now.step,
        expected=loop.budget.expected,
        actual=close_budget(loop, loop.budget),
        orders=now.orders,
    )
    if loop.ranks.is_first:
        files = {f"{ADAPTER}/{p.name}": sha256_file(p) for p in sorted((folder / ADAPTER).iterdir())}
        document = {**asdict(result), "adapter": ADAPTER}
        write_json(folder / RESULT, {"plan": loop.work.digest, "files": files, "result": document})
    return result
