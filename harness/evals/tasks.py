"""Each kind of task: what is asked of a model, and what is read off its answer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from harness.data.records import Record
from harness.data.template import letters
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Prompt
from harness.models.grammar import Field as FormField
from harness.models.grammar import Kind, json_list_of, json_object
from harness.scoring.labels import choose
from harness.scoring.parse import read_answer
from harness.specs.suite import SCORED_BY_LOGPROB, Suite

NOTHING_READ = "no answer could be read"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says, by the suite's task."""

    answer: str | None
    """A label, an option, or a text in one spelling; None where nothing could be read."""
    parsed: Any = None
    """Labels, an object, spans, a number, a ranking, as JSON; None where `answer` says it all."""
    confidence: float | None = None
    label_probs: dict[str, float] | None = None
    confidences: dict[str, float] = field(default_factory=dict)
    choice_logprobs: tuple[float, ...] | None = None
    error: str | None = None


def make_request(
    suite: Suite, record: Record, labels: Sequence[str], prompt: Prompt
) -> ChoiceRequest | GenerateRequest:
    """What the model is asked: to score choices, or to write."""
    if suite.task not in SCORED_BY_LOGPROB:
        how = suite.generation
        return GenerateRequest(
            record.id, prompt, how.max_new_tokens, stop=how.stop, temperature=how.temperature,
            grammar=grammar_of(suite, labels),
        )  # fmt: skip
    prefix = suite.prompt.answer_prefix if suite.prompt.raw else ""
    choices = tuple(prefix + spelled for spelled in _spelled(suite, record, labels))
    return ChoiceRequest(record.id, prompt, choices, is_open=suite.prompt.raw or suite.task == "perplexity")


def grammar_of(suite: Suite, labels: Sequence[str]) -> str | None:
    """The GBNF that the suite's answers are held to; None where they are free."""
    how = suite.generation
    return None if how.grammar is None else _grammar(how.grammar, tuple(labels), tuple(how.fields.items()))


@lru_cache(maxsize=16)
def _grammar(asked: str, labels: tuple[str, ...], fields: tuple[tuple[str, Kind], ...]) -> str:
    if asked == "labels":
        return json_list_of(labels)
    if asked == "fields":
        return json_object([FormField(name, kind, is_nullable=True) for name, kind in fields])
    return asked


def example_answer(suite: Suite, record: Record) -> str:
    """The record's gold answer as the model should give it."""
    if suite.answer_with == "letter":
        return letters(len(record.options))[record.options.index(record.targets[0])]
    return record.targets[0]


def read(suite: Suite, record: Record, labels: Sequence[str], answer: Answer) -> Reading:
    """What the answer says. An answer that can't be read is a reading of nothing, never an exception."""
    if answer.error is not None:
        return Reading(None, error=answer.error)
    if suite.task == "perplexity":
        return _read_weight(record, answer)
    if suite.task in ("choice", "rank"):
        return _read_options(suite, record, answer)
    if suite.task in SCORED_BY_LOGPROB:
        return _read_label(labels, answer)
    return _read_text(suite, record, labels, answer)


def _spelled(suite: Suite, record: Record, labels: Sequence[str]) -> Sequence[str]:
    """The choices as they are scored, in the order of labels or options."""
    if suite.task == "perplexity":
        return record.targets[:1]
    if suite.task in ("choice", "rank"):
        return letters(len(record.options)) if suite.answer_with == "letter" else record.options
    return labels


def _read_label(labels: Sequence[str], answer: Answer) -> Reading:
    choice = choose(labels, answer.choice_logprobs) if answer.choice_logprobs is not None else None
    if choice is None:
        return Reading(None, error=NOTHING_READ)
    confidences = _choice_confidences(answer, list(labels).index(choice.label))
    return Reading(choice.label, None, choice.confidence, choice.probs, confidences)


def _read_options(suite: Suite, record: Record, answer: Answer) -> Reading:
    """The option that weighs most. Its confidence is the softmax of what was compared: log-probabilities,
    or log-probabilities a character or token, which are no probabilities of the model."""
    weights = _normalised(suite, record, answer)
    choice = choose(record.options, weights) if weights is not None else None
    if choice is None or weights is None:
        return Reading(None, error=NOTHING_READ)
    order = sorted(range(len(weights)), key=lambda index: (-weights[index], index))
    ranking = [record.options[index] for index in order]
    confidences = _choice_confidences(answer, order[0])
    return Reading(
        choice.label, ranking if suite.task == "rank" else None, choice.confidence, None, confidences,
        answer.choice_logprobs,
    )  # fmt: skip


def _normalised(suite: Suite, record: Record, answer: Answer) -> list[float] | None:
    """Log-probabilities as they are compared; None where they, or the lengths they need, are unknown."""
    logprobs = answer.choice_logprobs
    if logprobs is None or suite.normalise == "none":
        return None if logprobs is None else list(logprobs)
    lengths = [len(o) for o in record.options] if suite.normalise == "chars" else answer.choice_tok
    if lengths is None or len(lengths) != len(logprobs) or min(lengths) < 1:
        return None
    return [logprob / length for logprob, length in zip(logprobs, lengths, strict=True)]


def _read_weight(record: Record, answer: Answer) -> Reading:
    """The target's log-probability and tokens, with `parsed` {"logprob", "tok", "bytes"}."""
    logprobs, tok = answer.choice_logprobs, answer.choice_tok
    if not logprobs or not tok or tok[0] < 1 or not math.isfinite(logprobs[0]) or logprobs[0] > 0.0:
        return Reading(None, error="the model gave no log-probability with a count of tokens")
    mean = logprobs[0] / tok[0]
    size = len(record.targets[0].encode("utf-8", "surrogatepass"))
    return Reading(
        f"perplexity {math.exp(min(-mean, 700.0)):.4g}", {"logprob": logprobs[0], "tok": tok[0], "bytes": size},
        math.exp(mean), None, {"mean_logprob": mean}, logprobs,
    )  # fmt: skip


def _read_text(suite: Suite, record: Record, labels: Sequence[str], answer: Answer) -> Reading:
    """A written answer. One that can't be read is wrong, and no error: the model did answer."""
    settings = suite.scorers[0].settings if suite.scorers else {}
    parsed = read_answer(
        suite.task, answer.text, labels=labels, source=record.context or record.input, settings=settings
    )
    confidences = _token_confidences(answer)
    mean = confidences.get("mean_logprob")
    return Reading(
        None if parsed is None else _as_text(suite, parsed, answer), None if isinstance(parsed, str) else parsed,
        None if mean is None else math.exp(mean), None, confidences,
        error=NOTHING_READ if answer.text is None else None,
    )  # fmt: skip


def _as_text(suite: Suite, parsed: Any, answer: Answer) -> str | None:
    """One spelling for one answer, so that equal answers are equal texts."""
    if suite.task == "multi_label":
        return ", ".join(sorted(parsed))
    if suite.task == "number":
        return ", ".join(map(_spelled_number, parsed if isinstance(parsed, list) else [parsed]))
    if suite.task == "spans":
        return json.dumps([span.get("text") for span in parsed], ensure_ascii=False)
    return json.dumps(parsed, ensure_ascii=False, sort_keys=True) if suite.task == "extract" else answer.text


def _spelled_number(parsed: dict[str, Any]) -> str:
    unit = "percent" if parsed["is_percent"] else parsed["unit"]
    return f"{parsed['number'] * parsed['scale']:.12g} {unit}".rstrip()


def _token_confidences(answer: Answer) -> dict[str, float]:
    values = answer.token_logprobs
    if not values or not all(map(math.isfinite, values)):
        return {}
    return {"mean_logprob": math.fsum(values) / len(values), "min_logprob": min(values)}


def _choice_confidences(answer: Answer, best: int) -> dict[str, float]:
    if answer.choice_logprobs is None or answer.choice_tok is None or answer.choice_tok[best] < 1:
        return {}
    return {"mean_logprob": answer.choice_logprobs[best] / answer.choice_tok[best]}
