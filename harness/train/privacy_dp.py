"""DP-SGD: each record's gradient is clipped, noise is added to their sum, and the budget is counted.

The unit of privacy is one training record. What it covers is the adapter: losses that are logged while training
come from the records themselves. Floating-point attacks on the noise (Mironov, 2012) are not defended against.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError, RefusedError
from harness.specs.tune import Privacy
from harness.train.batches import Batch, Encoded, Example, Position, micro_batches, steps_an_epoch
from harness.train.objectives import token_log_probs

if TYPE_CHECKING:
    import torch

    from harness.train.methods import Adapted

SECRET = "dp_secret"
CHECKED_RECORDS = 8
LARGEST_DIFFERENCE = 1e-4
"""Between the clipped sum and that of an explicit loop, as a share of its norm; float32 gives about 1e-6."""
PRV_OVER_RDP = 1.01
"""RDP's epsilon is an upper bound that PRV tightens: an epsilon above it means that one of them is wrong."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run spends, and on what."""

    unit: str
    """Whose presence the guarantee hides: `record`."""
    records: int
    largest_group: int | None
    """Records of the unit (document, person) that has most; the guarantee for it is weaker. None: unknown."""
    epsilon: float
    """By the PRV accountant (Gopi et al., 2021)."""
    rdp_epsilon: float
    """By Rényi differential privacy (Mironov, 2017), which is an upper bound too."""
    delta: float
    noise: float
    clip: float
    sample_rate: float
    steps: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def require_opacus() -> None:
    """Returns when the extra `dp` is installed.

    Raises:
        ModelError: it is not.
    """
    import importlib.util

    if importlib.util.find_spec("opacus") is None:
        raise ModelError("tune.dp needs opacus, which is not installed", hint="pip install 'dragongate[dp]'")


def plan_budget(privacy: Privacy, examples: Sequence[Example], *, batch: int, steps: int) -> Budget:
    """What the run will spend: the noise for the epsilon that is asked for, or the epsilon for the noise.

    Raises:
        ModelError: the extra `dp` is missing.
        RefusedError: delta is no chance that a record can live with, or the two accountants disagree.
    """
    require_opacus()
    records = len(examples)
    if privacy.delta >= 1.0 / records:
        raise RefusedError(
            f"tune.dp.delta = {privacy.delta:g}: publishing one of {records:,} records whole would satisfy it",
            hint=f"set it below {1.0 / records:.2g}",
        )
    rate = min(1.0, batch / records)
    noise = privacy.noise or _noise_for(privacy, rate, steps)
    epsilon, rdp = (_epsilon(kind, noise, rate, steps, privacy.delta) for kind in ("prv", "rdp"))
    if epsilon > rdp * PRV_OVER_RDP:
        raise RefusedError(f"the privacy accountants disagree: PRV says {epsilon:.4g}, RDP at most {rdp:.4g}")
    units = Counter(example.unit for example in examples if example.unit is not None)
    largest = max(units.values()) if units else None
    return Budget("record", records, largest, epsilon, rdp, privacy.delta, noise, privacy.clip, rate, steps)


def _noise_for(privacy: Privacy, rate: float, steps: int) -> float:
    from opacus.accountants.utils import get_noise_multiplier

    return float(
        get_noise_multiplier(
            target_epsilon=privacy.epsilon, target_delta=privacy.delta, sample_rate=rate, steps=steps, accountant="prv"
        )
    )  # fmt: skip


def _epsilon(kind: str, noise: float, rate: float, steps: int, delta: float) -> float:
    from opacus.accountants import create_accountant

    accountant = create_accountant(kind)
    accountant.history = [(noise, rate, steps)]
    return float(accountant.get_epsilon(delta=delta))


class Mechanism:
    """The Gaussian mechanism of a run: which records a step draws, and what it releases of them.

    Draws and noise follow from a secret, so that a killed run goes on as it would have; whoever knows the
    secret could take the noise away again, so it never leaves the training folder.
    """

    def __init__(self, budget: Budget, secret: bytes) -> None:
        self.budget = budget
        self._secret = secret
        self._hooked: Any = None
        self._last_loss = math.nan

    def batches(self, rows: Sequence[Encoded], position: Position, *, batch: int) -> Iterator[Batch]:
        """Batches from the position on, without end: each record is in each with the same chance, independently.

        That is the Poisson sampling that the accountants assume; a batch may be of any size, also empty.
        """
        epoch, first = position
        while True:
            for at in range(first, steps_an_epoch(len(rows), batch)):
                draw = random.Random(self._seed("rows", epoch, at))  # noqa: S311 - the seed is a secret's digest
                chosen = tuple(row for row in rows if draw.random() < self.budget.sample_rate)
                yield Batch(Position(epoch, at), chosen)
            epoch, first = epoch + 1, 0

    def accumulate(
        self, adapted: Adapted, rows: Sequence[Encoded], *, micro: int, pad_id: int, step: int
    ) -> float:
        """Sets the gradients to the noisy mean of clipped ones; the mean loss a record, nats a supervised token."""
        import torch

        self._hook(adapted)
        sums = {name: torch.zeros_like(p) for name, p in adapted.parameters.items()}
        total = 0.0
        for some in micro_batches(rows, micro):
            total += add_clipped(adapted, some, sums, clip=self.budget.clip, pad_id=pad_id)
        expected = self.budget.sample_rate * self.budget.records
        for name, parameter in adapted.parameters.items():
            noise = self._noise(name, step, parameter) * (self.budget.noise * self.budget.clip)
            parameter.grad = (sums[name] + noise) / expected
        # An empty draw has no loss; the last one stands for it in the log.
        self._last_loss = total / len(rows) if rows else self._last_loss
        return 0.0 if math.isnan(self._last_loss) and not rows else self._last_loss

    def _hook(self, adapted: Adapted) -> None:
        if self._hooked is None:
            self._hooked = with_record_gradients(adapted)

    def _noise(self, name: str, step: int, like: torch.Tensor) -> torch.Tensor:
        import torch

        generator = torch.Generator().manual_seed(self._seed("noise", name, step))
        return torch.randn(like.shape, generator=generator).to(like.device)

    def _seed(self, *about: object) -> int:
        text = repr(about).encode()
        return int.from_bytes(hashlib.blake2b(text, key=self._secret, digest_size=8).digest()) >> 1


def with_record_gradients(adapted: Adapted) -> Any:
    """Hooks that keep each record's gradient in `grad_sample`; they last as long as what comes back."""
    from opacus import GradSampleModule

    return GradSampleModule(adapted.model, batch_first=True, loss_reduction="sum", strict=False)


def record_losses(adapted: Adapted, rows: Sequence[Encoded], *, pad_id: int) -> torch.Tensor:
    """Each record's nats a supervised token; shape (rows,)."""
    import torch

    values = token_log_probs(adapted, rows, pad_id=pad_id)
    lengths = torch.tensor([row.supervised_tok for row in rows], device=values.device)
    row = torch.repeat_interleave(torch.arange(len(rows), device=values.device), lengths)
    return -torch.zeros(len(rows), device=values.device).index_add(0, row, values) / lengths


def add_clipped(
    adapted: Adapted, rows: Sequence[Encoded], sums: dict[str, torch.Tensor], *, clip: float, pad_id: int
) -> float:
    """The rows' summed loss, after each one's gradient, of norm `clip` at most, was added to `sums`."""
    import torch

    losses = record_losses(adapted, rows, pad_id=pad_id)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    gradients: dict[str, Any] = {name: p.grad_sample for name, p in adapted.parameters.items()}  # type: ignore[attr-defined]
    norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()  # (rows,)
    factors = (clip / norms.clamp_min(1e-12)).clamp_max(1.0)
    for name, parameter in adapted.parameters.items():
        sums[name] += torch.einsum("n,n...->...", factors, gradients[name])
        parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
    return float(losses.detach().sum())


def check_clipping(adapted: Adapted, rows: Sequence[Encoded], *, clip: float, pad_id: int) -> float:
    """How far the clipped sum of a few records is from an explicit loop over them, as a share of its norm.

    Raises:
        RefusedError: further than rounding, so a record's gradient is not what gets clipped.
    """
    import torch

    adapted.model.train()  # opacus looks at nothing else
    some = rows[:CHECKED_RECORDS]
    wanted = {name: torch.zeros_like(p) for name, p in adapted.parameters.items()}
    for row in some:
        _add_one(adapted, row, wanted, clip, pad_id)
    found = {name: torch.zeros_like(p) for name, p in adapted.parameters.items()}
    hooks = with_record_gradients(adapted)
    add_clipped(adapted, some, found, clip=clip, pad_id=pad_id)
    hooks.remove_hooks()
    difference = _norm([found[name] - wanted[name] for name in wanted]) / _norm(list(wanted.values()))
    if not difference < LARGEST_DIFFERENCE:
        raise RefusedError(
            f"what would be clipped are not the records' own gradients: off by {difference:.2g} of their sum",
            hint="take a plain decoder and adapters on its linear layers, which opacus knows",
        )
    return difference


def _add_one(adapted: Adapted, row: Encoded, sums: dict[str, torch.Tensor], clip: float, pad_id: int) -> None:
    from torch.autograd import grad

    loss = record_losses(adapted, [row], pad_id=pad_id).sum()
    gradients = grad(loss, list(adapted.parameters.values()))
    factor = min(1.0, clip / max(1e-12, _norm(list(gradients))))
    for name, gradient in zip(sums, gradients, strict=True):
        sums[name] += factor * gradient


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def secret_of(folder: Path) -> bytes:
    """The run's secret, drawn once and readable by its owner alone."""
    path = folder / SECRET
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        part = folder / f".{SECRET}.{os.getpid()}"
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(os.urandom(32))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    return path.read_bytes()


def forget_secret(folder: Path) -> None:
    """Removes what could take the noise away from a finished adapter."""
    (folder / SECRET).unlink(missing_ok=True)
