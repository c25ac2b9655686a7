"""A suite's question, asked of the engine exactly as it was asked when the release was judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.data.records import Record
from harness.data.template import letters
from harness.edge.base import Ask, Done
from harness.edge.wire_openai import ApiError
from harness.errors import DataError
from harness.evals.calibrate import Calibration
from harness.evals.tasks import Reading, grammar_of, read
from harness.evals.work import make_prompt
from harness.models.base import Answer, Prompt
from harness.specs.suite import SCORED_BY_LOGPROB, Suite

MAX_SLICE_CHARS = 64
KNOWN = frozenset(("input", "context", "options", "slices"))


@dataclass(frozen=True, slots=True)
class Question:
    """A suite of the release, with what its calibration split gave for the file that ships."""

    suite: Suite
    labels: tuple[str, ...]
    examples: tuple[tuple[str, str], ...] = ()
    """Turns before the question, as (role, text)."""
    calibration: Calibration | None = None

    @property
    def is_scored(self) -> bool:
        """The answer is chosen by log-probability, not written."""
        return self.suite.task in SCORED_BY_LOGPROB

    def why_not(self) -> str:
        """Why the engine can't be asked this as it was evaluated; empty where it can."""
        if self.suite.task in ("rank", "perplexity"):
            return f"task {self.suite.task} weighs texts and answers nothing"
        if self.is_scored and self.suite.prompt.raw:
            return "the suite scores raw text without an end of turn, the engine scores ends of turns"
        if self.suite.normalise == "tokens":
            return "the suite divides by tokens, which the engine does not tell of choices"
        return ""

    def record(self, id_: str, body: Mapping[str, Any]) -> Record:
        """The record that a client's body is.

        Raises:
            ApiError: a field is missing, wrong or unknown.
        """
        unknown = sorted(set(body) - KNOWN)
        if unknown:
            raise ApiError(
                400, f"{unknown[0]}: wanted {', '.join(sorted(KNOWN))}", param=unknown[0],
                code="unknown_argument",
            )  # fmt: skip
        options = _texts(body, "options")
        if bool(options) != (self.suite.task == "choice"):
            wanted = "a list of options" if self.suite.task == "choice" else "no options: the suite has none"
            raise ApiError(400, f"options: wanted {wanted}", param="options", code="invalid_value")
        return Record(
            id_, _text(body, "input"), (), self._slices(body.get("slices", {})), id_, dict(body),
            _text(body, "context", needed=self.suite.records.fields.context is not None), options,
        )  # fmt: skip

    def ask(self, record: Record, *, budget_ms: float | None, adapter: str = "") -> Ask:
        """What the engine is asked.

        Raises:
            ApiError: the prompt can't be rendered from the body.
        """
        prompt, how = self.prompt(record), self.suite.generation
        return Ask(
            id=record.id, messages=prompt.messages, text=prompt.text,
            labels=self._choices(record) if self.is_scored else (),
            grammar=None if self.is_scored else grammar_of(self.suite, self.labels),
            max_new_tokens=how.max_new_tokens, temperature=how.temperature, stop=how.stop, adapter=adapter,
            budget_ms=budget_ms, wants_logprobs=not self.is_scored, max_prompt_tok=prompt.max_tokens,
            over_length=prompt.over_length,
        )  # fmt: skip

    def prompt(self, record: Record) -> Prompt:
        """The suite's prompt.

        Raises:
            ApiError: as `ask`.
        """
        try:
            pairs = [tuple(self.examples[at : at + 2]) for at in range(0, len(self.examples), 2)]
            return make_prompt(self.suite, record, self.labels, pairs)
        except DataError as error:
            raise ApiError(400, error.message, code="invalid_value") from None

    def read(self, record: Record, done: Done) -> Reading:
        """What the engine's answer says, by the same reading that scored the evaluation."""
        logprobs = None
        if done.label_logprobs is not None:
            said = done.label_logprobs
            logprobs = tuple(said.get(choice, float("nan")) for choice in self._choices(record))
        answer = Answer(
            record.id, text=None if self.is_scored else done.text, choice_logprobs=logprobs,
            token_logprobs=done.token_logprobs, prompt_tok=done.prompt_tok, output_tok=done.output_tok,
        )  # fmt: skip
        return read(self.suite, record, self.labels, answer)

    def _choices(self, record: Record) -> tuple[str, ...]:
        if self.suite.task == "choice":
            return letters(len(record.options)) if self.suite.answer_with == "letter" else record.options
        return self.labels

    def _slices(self, value: Any) -> dict[str, str | list[str]]:
        """Those that the suite declares; what else a caller sends is not kept anywhere."""
        if not isinstance(value, Mapping):
            raise ApiError(400, "slices: wanted an object", param="slices", code="invalid_value")
        kept = {key: value[key] for key in self.suite.slices if key in value}
        if not all(isinstance(text, str) and len(text) <= MAX_SLICE_CHARS for text in kept.values()):
            raise ApiError(
                400, f"slices: wanted texts of at most {MAX_SLICE_CHARS} characters", param="slices",
                code="invalid_value",
            )  # fmt: skip
        return dict(kept)


def _text(body: Mapping[str, Any], key: str, *, needed: bool = True) -> str:
    value = body.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise ApiError(400, f"{key}: wanted a text", param=key, code="invalid_value")
    return value


def _texts(body: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = body.get(key, [])
    is_list = isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)
    if not is_list or len(set(value)) < len(value):
        raise ApiError(400, f"{key}: wanted a list of different texts", param=key, code="invalid_value")
    return tuple(value)
