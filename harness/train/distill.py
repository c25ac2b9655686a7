"""Distillation: a teacher's distributions, written down once, and a student that learns them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import CancelledError, DataError, ModelError
from harness.files import digest_json
from harness.specs.tune import Distillation
from harness.train.batches import Encoded
from harness.train.objectives import LOGIT_ROWS

if TYPE_CHECKING:
    import torch

    from harness.train.methods import Adapted

PART_ROWS = 64
"""Records a file: what a killed run has to compute again at most."""
TEACHER_ROWS = 8
"""Records a forward pass of the teacher."""
LEAST_TAIL = 1e-7
"""Below this a tail is rounding, and its logarithm noise."""


class Lesson(NamedTuple):
    """What the teacher said at each supervised place of one record."""

    tokens: torch.Tensor  # (supervised, k), int64
    log_probs: torch.Tensor  # (supervised, k), float32, at the temperature


@dataclass(frozen=True)
class Lessons:
    """A teacher's distributions over records, by the record's id."""

    by_id: dict[str, Lesson]

    def of(self, rows: Sequence[Encoded], device: torch.device) -> Lesson:
        """The rows' lessons as one, row by row."""
        import torch

        found = [self.by_id[row.id] for row in rows]
        tokens = torch.cat([lesson.tokens for lesson in found])
        return Lesson(tokens.to(device), torch.cat([lesson.log_probs for lesson in found]).to(device))


def teach(
    rows: Sequence[Encoded],
    folder: Path,
    *,
    teacher: Path,
    student: Path,
    settings: Distillation,
    pad_id: int,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Lessons:
    """The teacher's `top_k` most likely tokens at each supervised place, from `folder` where they are already.

    Files are written whole, one for `PART_ROWS` records, and name the teacher's identity and the digest of
    the very token ids; one that names others is computed again.

    Raises:
        CancelledError: `should_stop` said so; finished files stay.
        ModelError: the teacher can't be loaded, or its vocabulary is not the student's.
        DataError: two records have one id.
    """
    if len({row.id for row in rows}) < len(rows):
        raise DataError("two records have one id: a teacher's answers could not be told apart")
    check_vocabulary(teacher, student)
    identity = _identity(teacher)
    parts = [tuple(rows[at : at + PART_ROWS]) for at in range(0, len(rows), PART_ROWS)]
    model: Adapted | None = None
    lessons: dict[str, Lesson] = {}
    for number, part in enumerate(parts):
        path, about = folder / f"part-{number:05d}.safetensors", _about(part, identity, settings)
        found = _read_part(path, part, about)
        if found is None:
            if should_stop():
                raise CancelledError(f"the teacher stopped after {number} of {len(parts)} parts")
            model = model or _load_teacher(teacher)
            found = dict(_ask(model, part, settings, pad_id))
            _write_part(path, part, found, about)
        lessons |= found
        if on_progress is not None:
            on_progress(min(len(rows), (number + 1) * PART_ROWS), len(rows))
    return Lessons(lessons)


def teacher_identity(reference: str) -> str:
    """The identity of the checkpoint that the reference names."""
    from harness.models.load import resolve_base

    return _identity(resolve_base(reference))


def _identity(teacher: Path) -> str:
    from harness.models.identity import checkpoint_identity

    return checkpoint_identity(teacher).digest


def check_vocabulary(teacher: Path, student: Path) -> None:
    """Returns when each token has the same id in both.

    Raises:
        ModelError: it does not, so a distribution of one says nothing about the other's tokens.
    """
    from harness.models.chat import load_chat

    one, other = (
        load_chat(folder, needs_template=False).tokenizer.get_vocab() for folder in (teacher, student)
    )
    if one != other:
        differing = sum(1 for token in one.keys() | other.keys() if one.get(token) != other.get(token))
        raise ModelError(
            f"{teacher}: {differing:,} tokens have other ids than in {student}",
            hint="take a teacher of the same family: distributions are compared token by token",
        )


def _load_teacher(teacher: Path) -> Adapted:
    from harness.train.methods import frozen

    model = frozen(teacher)
    model.model.eval()
    return model


def _ask(
    teacher: Adapted, rows: Sequence[Encoded], settings: Distillation, pad_id: int
) -> Iterator[tuple[str, Lesson]]:
    import torch

    head: Any = teacher.model.get_output_embeddings()  # type: ignore[operator]
    for at in range(0, len(rows), TEACHER_ROWS):
        some = rows[at : at + TEACHER_ROWS]
        with torch.no_grad():
            hidden, _ = teacher.hidden_and_targets(some, pad_id=pad_id)
            tops = [_top(head(states), settings) for states in _cut(hidden, LOGIT_ROWS)]
        tokens, log_probs = (torch.cat(column).cpu() for column in zip(*tops, strict=True))
        lengths = [row.supervised_tok for row in some]
        for row, *lesson in zip(some, _cut(tokens, lengths), _cut(log_probs, lengths), strict=True):
            yield row.id, Lesson(*lesson)


def _cut(values: Any, at: int | list[int]) -> tuple[torch.Tensor, ...]:
    return tuple(values.split(at))


def _top(logits: torch.Tensor, settings: Distillation) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    log_probs = torch.log_softmax(logits.float() / settings.temperature, dim=-1)
    values, tokens = log_probs.topk(min(settings.top_k, log_probs.shape[-1]))
    return tokens, values


def _about(rows: Sequence[Encoded], identity: str, settings: Distillation) -> dict[str, str]:
    ids = digest_json([[row.id, list(row.ids), row.supervised_at] for row in rows])
    kept = {"top_k": settings.top_k, "temperature": settings.temperature}
    return {"teacher": identity, "token_ids": ids, **{key: str(value) for key, value in kept.items()}}


def _write_part(
    path: Path, rows: Sequence[Encoded], lessons: dict[str, Lesson], about: dict[str, str]
) -> None:
    import torch
    from safetensors.torch import save

    from harness.files import write_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "tokens": torch.cat([lessons[row.id].tokens for row in rows]).to(torch.int32),
        "log_probs": torch.cat([lessons[row.id].log_probs for row in rows]),
    }
    write_atomic(path, save(values, metadata=about))


def _read_part(path: Path, rows: Sequence[Encoded], about: dict[str, str]) -> dict[str, Lesson] | None:
    """The part's lessons; None where it is absent, of something else, or not whole."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata() != about:
                return None
            tokens, log_probs = file.get_tensor("tokens").to(torch.int64), file.get_tensor("log_probs")
    except (OSError, SafetensorError):
        return None
    lengths = [row.supervised_tok for row in rows]
    if tokens.shape != log_probs.shape or len(tokens) != sum(lengths):
        return None
    pieces = zip(rows, _cut(tokens, lengths), _cut(log_probs, lengths), strict=True)
    return {row.id: Lesson(*lesson) for row, *lesson in pieces}


@dataclass(frozen=True)
class Distilled:
    """Forward KL from the teacher's distribution to the student's, a supervised token.

    Source: Hinton et al. (2015), "Distilling the knowledge in a neural network": both are softened by the
    temperature, whose square keeps the gradient's size.
    """

    lessons: Lessons
    settings: Distillation

    def summed_loss(self, adapted: Adapted, rows: Sequence[Encoded], *, pad_id: int) -> torch.Tensor:
        from torch import split, stack
        from torch.nn.functional import cross_entropy
        from torch.utils.checkpoint import checkpoint

        hidden, targets = adapted.hidden_and_targets(rows, pad_id=pad_id)
        lesson = self.lessons.of(rows, hidden.device)
        head: Any = adapted.model.get_output_embeddings()  # type: ignore[operator]
        heat, share = self.settings.temperature, self.settings.answer_share

        def piece(states: Any, gold: Any, tokens: Any, log_probs: Any) -> torch.Tensor:
            logits = head(states).float()
            loss = (1.0 - share) * heat**2 * forward_kl(logits / heat, tokens, log_probs).sum()
            return loss + share * cross_entropy(logits, gold, reduction="sum") if share else loss

        columns = (split(column, LOGIT_ROWS) for column in (hidden, targets, *lesson))
        sums = [
            checkpoint(piece, *columns_of, use_reentrant=False) for columns_of in zip(*columns, strict=True)
        ]
        return stack(sums).sum()

    def count(self, rows: Sequence[Encoded]) -> int:
        return sum(row.supervised_tok for row in rows)


def forward_kl(logits: torch.Tensor, tokens: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student) over the teacher's tokens and one tail of all others, in nats; shape (places,).

    `logits` is (places, vocabulary); `tokens` and `log_probs` are the teacher's, (places, k). Joining the tail
    can only lower the divergence (data processing inequality); with k the vocabulary it is the whole one.
    """
    import torch

    student = torch.log_softmax(logits, dim=-1).gather(-1, tokens)  # (places, k)
    kept = (log_probs.exp() * (log_probs - student)).sum(-1)
    tail = 1.0 - log_probs.exp().sum(-1)
    rest = (1.0 - student.exp().sum(-1)).clamp_min(LEAST_TAIL)
    has_tail = tail > LEAST_TAIL
    safe = torch.where(has_tail, tail, torch.ones_like(tail))
    return kept + torch.where(has_tail, tail * (safe.log() - rest.log()), torch.zeros_like(tail))
