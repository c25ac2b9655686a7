"""What a training run tells while it works: losses, speed, memory, energy."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.train.batches import Batch
from harness.train.checkpoints import Progress
from harness.train.plan import OnEvent

if TYPE_CHECKING:
    from harness.train.loop import Step

POWERCAP = Path("/sys/class/powercap")


def tell_step(on_event: OnEvent, now: Progress, total: int, batch: Batch, step: Step) -> None:
    """One `train.step` and one `step.progress`."""
    eta_s = round(now.seconds / now.step * (total - now.step), 1)
    on_event(
        "train.step",
        {
            "step": now.step,
            "of": total,
            "loss": round(step.loss, 5),
            "lr": step.rate,
            "grad_norm": round(step.grad_norm, 5),
            "tok_s": round(batch.tokens / step.seconds, 1),
            "supervised_tok": now.supervised_tok,
            "supervised_tok_s": round(batch.supervised_tok / step.seconds, 1),
            "eta_s": eta_s,
            "memory_mb": peak_memory_mb(),
        },
    )
    steps_s = round(now.step / now.seconds, 3)
    progress = {"done": now.step, "total": total, "unit": "steps", "rate": steps_s, "eta_s": eta_s}
    on_event("step.progress", {"step": "train", **progress, "note": f"loss {step.loss:.3f}"})


def peak_memory_mb() -> int:
    """The most memory that this process had since `reset_peak_memory`, on the GPU where one is used."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() // 2**20)
    if (found := _status_mb("VmHWM")) is not None:
        return int(found)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // 2**20 if sys.platform == "darwin" else peak // 2**10)


def reset_peak_memory() -> None:
    """Forgets the peak so far, where the system can."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM to what is resident now


def resident_mb() -> float:
    """What this process holds now, on the GPU where one is used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 2**20
    return _status_mb("VmRSS") or float(peak_memory_mb())


def _status_mb(key: str) -> float | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024
    return None


class EnergyMeter:
    """Energy of the processor packages since it was made, by RAPL's counters.

    It is the machine's, not the process's: whatever else runs is in it. The counters wrap around at
    `max_energy_range_uj`; a meter that is read at least once an hour sees each wrap.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self._packages = [package for path in sorted(root.glob("*-rapl:?")) if (package := _open(path))]
        self._joules = 0.0

    def joules(self) -> float | None:
        """Since the meter was made; None where no counter can be read."""
        fresh = []
        for at, package in enumerate(self._packages):
            now = _microjoules(package.counter)
            if now is None:
                return None
            fresh.append(package._replace(last=now))
            passed = now - package.last if now >= package.last else now + package.wraps_at - package.last
            self._joules += passed / 1e6
            self._packages[at] = fresh[-1]
        return self._joules if self._packages else None


class _Package(NamedTuple):
    counter: Path
    wraps_at: int
    last: int


def _open(folder: Path) -> _Package | None:
    counter = folder / "energy_uj"
    last, wraps_at = _microjoules(counter), _microjoules(folder / "max_energy_range_uj")
    return None if last is None or wraps_at is None else _Package(counter, wraps_at, last)


def _microjoules(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
