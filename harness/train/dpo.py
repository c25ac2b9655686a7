"""Preference tuning: which of two answers is better, with the untrained model as the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import DataError
from harness.specs.tune import Preferences
from harness.train.batches import Encoded, Example, TooLong, encode
from harness.train.objectives import token_log_probs

if TYPE_CHECKING:
    import torch

    from harness.models.chat import Chat
    from harness.train.methods import Adapted


class Pair(NamedTuple):
    """Two answers to one prompt, as they are trained on. Only the answers and their ends of turn count."""

    id: str
    chosen: Encoded
    rejected: Encoded

    @property
    def ids(self) -> tuple[int, ...]:
        """All that goes through the model."""
        return self.chosen.ids + self.rejected.ids

    @property
    def supervised_tok(self) -> int:
        return self.chosen.supervised_tok + self.rejected.supervised_tok


def encode_pairs(
    examples: Sequence[Example], chat: Chat, *, max_tokens: int
) -> tuple[list[Pair], list[TooLong]]:
    """The examples as pairs in their order, and those of which an answer does not fit.

    Raises:
        DataError: an example has no rejected answer, or the one that was chosen.
    """
    pairs: list[Pair] = []
    too_long: list[TooLong] = []
    for example in examples:
        pair = _pair(example, chat, max_tokens)
        (too_long if isinstance(pair, TooLong) else pairs).append(pair)  # type: ignore[arg-type]
    return pairs, too_long


def _pair(example: Example, chat: Chat, max_tokens: int) -> Pair | TooLong:
    if example.rejected is None or example.rejected == example.answer:
        found = "no rejected answer" if example.rejected is None else "the same answer as chosen and rejected"
        raise DataError(
            f"record {example.id} has {found}; objective dpo wants two different ones",
            hint="give each record prompt, chosen and rejected, or set tune.objective to sft",
        )
    # The longer answer decides how much of the prompt is left, so that both follow the same prompt.
    answers = sorted((example.answer, example.rejected), key=lambda text: len(chat.answer_ids(text)))
    longest = encode(replace(example, answer=answers[-1]), chat, max_tokens=max_tokens)
    if isinstance(longest, TooLong):
        return longest
    if longest.is_answer_truncated:
        return TooLong(
            example.id, "an answer does not fit, and preferences are never about cut answers", False
        )
    prompt = longest.ids[: longest.supervised_from]
    both = [_after(longest, prompt, chat.answer_ids(text)) for text in (example.answer, example.rejected)]
    return Pair(example.id, *both)


def _after(like: Encoded, prompt: tuple[int, ...], tail: list[int]) -> Encoded:
    return like._replace(ids=(*prompt, *tail), answer_tok=len(tail) - 1)


@dataclass(frozen=True)
class DirectPreference:
    """The loss of direct preference optimisation, a pair.

    Source: Rafailov et al. (2023), "Direct Preference Optimization", eq. 7; label smoothing as in Mitchell
    (2023), "A note on DPO with noisy preferences"; length-normalised as in Meng et al. (2024), "SimPO", with
    the reference kept.
    """

    settings: Preferences

    def summed_loss(self, adapted: Adapted, rows: Sequence[Pair], *, pad_id: int) -> torch.Tensor:
        import torch

        answers = [row.chosen for row in rows] + [row.rejected for row in rows]
        with torch.no_grad(), adapted.reference() as reference:
            before = self._log_probs(reference, answers, pad_id)
        now = self._log_probs(adapted, answers, pad_id)
        gain = now - before  # (2 pairs,)
        return preference_losses(gain[: len(rows)] - gain[len(rows) :], self.settings).sum()

    def count(self, rows: Sequence[Pair]) -> int:
        return len(rows)

    def _log_probs(self, adapted: Adapted, answers: Sequence[Encoded], pad_id: int) -> torch.Tensor:
        """Each answer's log-probability with its end of turn, or its mean a token; shape (answers,)."""
        import torch

        values = token_log_probs(adapted, answers, pad_id=pad_id)  # (supervised,)
        lengths = torch.tensor([answer.supervised_tok for answer in answers], device=values.device)
        row = torch.repeat_interleave(torch.arange(len(answers), device=values.device), lengths)
        sums = torch.zeros(len(answers), device=values.device).index_add(0, row, values)
        return sums / lengths if self.settings.length_normalised else sums


def preference_losses(margin: torch.Tensor, settings: Preferences) -> torch.Tensor:
    """The loss of each pair from how much more the chosen answer gained on the reference, in nats."""
    from torch.nn.functional import logsigmoid

    scaled = settings.beta * margin
    wrong = settings.label_smoothing
    return -(1.0 - wrong) * logsigmoid(scaled) - wrong * logsigmoid(-scaled)
