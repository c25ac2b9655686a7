"""Training state on disk: written whole, proved by digests, resumed from the newest that verifies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import HarnessError, IntegrityError
from harness.files import check_digest, digest_json, folder_written_whole, read_json, sha256_file, write_json
from harness.train.batches import Position

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
OPTIMIZER = "optimizer.safetensors"
RANDOM = "random.safetensors"
FORMAT = 2
KEEP = 2
"""Checkpoints kept: when the newest does not verify, the one before it is resumed."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A checkpoint as the development split judged it. Unknown is None."""

    step: int
    checkpoint: str
    """Name of its folder."""
    n: int
    """Records that were scored."""
    score: float | None
    kept: float | None
    """The metric on the suite that must not be forgotten."""
    failed: str
    """Why the gate fails; empty where it does not."""
    is_vetoed: bool
    """Its checkpoint may not leave training."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training run is; all that the next step depends on besides tensors."""

    step: int = 0
    """Optimizer steps done."""
    position: Position = field(default=Position(0, 0))
    seconds: float = 0.0
    """Time spent in training steps, over all attempts."""
    tokens: int = 0
    supervised_tok: int = 0
    recent_losses: tuple[float, ...] = ()
    held_out: tuple[tuple[int, float], ...] = ()
    """(step, loss) of each measurement."""
    rollbacks: int = 0
    lr_scale: float = 1.0
    """Factor on the schedule: halved at each rollback."""
    gates: tuple[Gate, ...] = ()
    """In the order of their steps."""
    orders: tuple[str, ...] = ()
    """What a person asked for while it trained, each with its step."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Progress:
        return cls(
            **{
                **data,
                "position": Position(*data["position"]),
                "recent_losses": tuple(data["recent_losses"]),
                "held_out": tuple((int(step), float(loss)) for step, loss in data["held_out"]),
                "gates": tuple(Gate(**gate) for gate in data["gates"]),
                "orders": tuple(data.get("orders", ())),
            }
        )


class Saved(NamedTuple):
    """A checkpoint that was written."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Found:
    """The checkpoint to resume from, and those that can't be trusted."""

    path: Path | None
    progress: Progress | None
    rejected: tuple[str, ...] = field(default=())
    """One line for each checkpoint that does not verify: its path and why."""


def save(
    folder: Path,
    progress: Progress,
    *,
    plan_digest: str,
    optimizer: Mapping[str, torch.Tensor],
    write_adapter: Callable[[Path], None],
    random: Sequence[Mapping[str, torch.Tensor]] | None = None,
    keep: int = KEEP,
    protect: Collection[str] = (),
) -> Saved:
    """A checkpoint of everything the next step depends on; older ones beyond `keep` are removed after it.

    `random` holds the state of the generators of each process; None takes this one's. `protect` names
    checkpoints that stay whatever their age.

    The folder appears with all its files or not at all, whenever the process dies.
    """
    from safetensors.torch import save_file

    target = folder / name_of(progress)
    with folder_written_whole(target) as part:
        write_adapter(part)
        save_file(dict(optimizer), part / OPTIMIZER)
        save_file(_by_rank(random or [random_state()]), part / RANDOM)
        write_json(part / PROGRESS, progress.to_json())
        digest = _write_manifest(part, plan_digest)
    for old in _newest_first(folder)[max(1, keep) :]:
        if old.name not in protect:
            shutil.rmtree(old, ignore_errors=True)
    return Saved(target, digest)


def name_of(progress: Progress) -> str:
    """The checkpoint's folder: its step, and how often training had gone back before it."""
    again = f"-{progress.rollbacks}" if progress.rollbacks else ""
    return f"step-{progress.step:07d}{again}"


def newest(folder: Path, *, plan_digest: str) -> Found:
    """The newest checkpoint whose every byte is as it was written, with why each newer one was passed over.

    Raises:
        IntegrityError: a sound checkpoint belongs to another plan.
    """
    rejected: list[str] = []
    for path in _newest_first(folder):
        try:
            progress = verified(path, plan_digest=plan_digest)
        except AnotherPlanError:
            raise
        except (HarnessError, OSError, TypeError, KeyError, ValueError) as error:
            rejected.append(f"{path}: {error}")
            continue
        return Found(path, progress, tuple(rejected))
    return Found(None, None, tuple(rejected))


class AnotherPlanError(IntegrityError):
    """A sound checkpoint of a training run with another base, other data or other settings."""


def verified(path: Path, *, plan_digest: str) -> Progress:
    """The progress of a checkpoint whose every byte is as it was written.

    Raises:
        AnotherPlanError: it belongs to another plan.
        IntegrityError: its bytes changed.
    """
    plan = _verify(path)
    progress = Progress.from_json(read_json(path / PROGRESS))
    if plan != plan_digest:
        raise AnotherPlanError(
            f"{path}: belongs to another training run: its base, data or settings differ",
            hint="train into an empty folder",
        )
    return progress


def load_optimizer(path: Path) -> dict[str, torch.Tensor]:
    """The optimizer's tensors of a checkpoint that `newest` returned."""
    from safetensors.torch import load_file

    return dict(load_file(path / OPTIMIZER))


def restore_random(path: Path, rank: int = 0) -> None:
    """Sets torch's generators to the state that this process had at the checkpoint."""
    import torch
    from safetensors.torch import load_file

    states = load_file(path / RANDOM)
    torch.set_rng_state(states[f"{rank}.cpu"])
    for index in range(torch.cuda.device_count()):
        if f"{rank}.cuda.{index}" in states:
            torch.cuda.set_rng_state(states[f"{rank}.cuda.{index}"], index)


def _by_rank(states: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{rank}.{device}": state for rank, of in enumerate(states) for device, state in of.items()}


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's generators, by device."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    for index in range(torch.cuda.device_count()):
        states[f"cuda.{index}"] = torch.cuda.get_rng_state(index)
    return states


def _write_manifest(part: Path, plan_digest: str) -> str:
    files = {path.name: sha256_file(path) for path in sorted(part.iterdir())}
    body = {"format": FORMAT, "plan": plan_digest, "files": files}
    digest = digest_json(body)
    write_json(part / MANIFEST, {**body, "digest": digest})
    return digest


def _verify(path: Path) -> str:
    """The plan's digest from the manifest, when the manifest and every file in it are unchanged."""
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict):
        raise IntegrityError(f"{path / MANIFEST}: is not a manifest")
    promised = manifest.pop("digest", None)
    if manifest.get("format") != FORMAT or promised != digest_json(manifest):
        raise IntegrityError(f"{path / MANIFEST}: its bytes changed, or its format is not {FORMAT}")
    for name, digest in manifest["files"].items():
        check_digest(path / name, digest)
    return str(manifest["plan"])


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), key=_age, reverse=True)


def _age(path: Path) -> tuple[int, int]:
    """What is trained after going back is newer than what was given up, whatever its step."""
    step, _, again = path.name.removeprefix("step-").partition("-")
    return (int(again or 0), int(step)) if step.isdigit() and (again or "0").isdigit() else (-1, 0)
