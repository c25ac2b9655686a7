"""What is wrong with training data, counted and named before an hour is spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.data.overlap import normalise, shared
from harness.data.records import Record
from harness.errors import DataError
from harness.scoring.pii import find_personal
from harness.specs.recipe import Preflight, Tune
from harness.train.batches import Encoded, Example, TooLong, encode_all

if TYPE_CHECKING:
    from harness.models.chat import Chat

MAX_NAMED = 8
"""Ids that an error spells out; the report has all."""
LEAKING_WORDS = 3


class Finding(NamedTuple):
    """One kind of problem, with everything that has it."""

    check: str
    """`no_examples`, `duplicate_ids`, `unsupervised`, `truncated_answers`, `unsupervised_end`, `too_long`,
    `skipped`, `overlaps`, `leaks` or `personal`."""
    what: str
    """In words, to follow a count."""
    ids: tuple[str, ...]
    """Of the records; for an overlap `training id = gate id (kind)`."""
    limit: int
    """The most that the recipe lets through."""
    fix: str

    @property
    def is_fatal(self) -> bool:
        return len(self.ids) > self.limit


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What training would see, and what speaks against it."""

    examples: int
    trained: int
    """Examples that fit and have something to learn from."""
    tokens: int
    supervised_tok: int
    longest_tok: int
    truncated_prompts: tuple[str, ...]
    """Ids whose prompt lost its middle, as the suite allows."""
    findings: tuple[Finding, ...]

    @property
    def is_refused(self) -> bool:
        return any(finding.is_fatal for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        findings = [{**finding._asdict(), "is_fatal": finding.is_fatal} for finding in self.findings]
        return {**asdict(self), "findings": findings, "is_refused": self.is_refused}

    def summary(self) -> str:
        """One line for the journal."""
        share = f"{self.supervised_tok:,} of {self.tokens:,} tokens carry loss"
        cut = f", {len(self.truncated_prompts)} prompts lose their middle" if self.truncated_prompts else ""
        let = [f"{len(f.ids)} {f.what} (limit {f.limit})" for f in self.findings if f.ids and not f.is_fatal]
        return f"{self.trained:,} of {self.examples:,} examples; {share}{cut}{'; ' if let else ''}{', '.join(let)}"

    def raise_if_refused(self) -> None:
        """Returns when no count is above its limit.

        Raises:
            DataError: names every count that is, with ids and what to do.
        """
        fatal = [finding for finding in self.findings if finding.is_fatal]
        if fatal:
            lines = [f"  {_line(finding)}" for finding in fatal]
            kinds = "problem" if len(fatal) == 1 else "problems"
            raise DataError(
                "\n".join([f"training data has {len(fatal)} {kinds}", *lines]),
                hint="; ".join(dict.fromkeys(finding.fix for finding in fatal)),
            )


def preflight(
    examples: Sequence[Example],
    gate_records: Sequence[Record],
    chat: Chat,
    tune: Tune,
    limits: Preflight,
) -> PreflightReport:
    """What is wrong with the examples, measured on the very token ids that training would use.

    `gate_records` are the records that judge the trained model: none may have been trained on.
    """
    rows, too_long = encode_all(examples, chat, max_tokens=tune.max_tokens)
    usable = [row for row in rows if row.answer_tok > 0]
    return PreflightReport(
        examples=len(examples),
        trained=len(usable),
        tokens=sum(len(row.ids) for row in usable),
        supervised_tok=sum(row.supervised_tok for row in usable),
        longest_tok=max((len(row.ids) for row in usable), default=0),
        truncated_prompts=tuple(row.id for row in usable if row.is_prompt_truncated),
        findings=(
            *_mask_findings(rows, usable, limits),
            *_length_findings(too_long, tune, limits),
            _duplicate_ids(examples),
            _overlaps(examples, gate_records, limits),
            _leaks(examples, limits),
            _personal(examples, limits),
        ),
    )


def _mask_findings(
    rows: Sequence[Encoded], usable: Sequence[Encoded], limits: Preflight
) -> Iterator[Finding]:
    empty = tuple(row.id for row in rows if row.answer_tok <= 0)
    cut = tuple(row.id for row in rows if row.is_answer_truncated)
    # A cut answer has no end of turn either, and is counted once: under its cause.
    endless = tuple(row.id for row in rows if not row.is_end_supervised and not row.is_answer_truncated)
    none = () if usable else ("all",)
    raise_it = "raise tune.max_tokens or shorten the answers"
    yield Finding("no_examples", "training sets without a usable example", none, 0, "add training records")
    yield Finding("unsupervised", "examples without a supervised token", empty, 0, "give them an answer")
    yield Finding("truncated_answers", "cut answers", cut, limits.max_truncated_answers, raise_it)
    yield Finding(
        "unsupervised_end", "answers without a supervised end", endless, 0, "mend the chat template"
    )


def _length_findings(too_long: Sequence[TooLong], tune: Tune, limits: Preflight) -> Iterator[Finding]:
    refused = tuple(row.id for row in too_long if not row.is_skipped)
    skipped = tuple(row.id for row in too_long if row.is_skipped)
    fix = "raise tune.max_tokens and prompt.max_tokens, or set prompt.over_length to truncate"
    what = f"examples over {tune.max_tokens} tokens or their prompt's budget"
    yield Finding("too_long", what, refused, 0, fix)
    yield Finding("skipped", "examples left out for their length", skipped, limits.max_skipped, fix)


def _duplicate_ids(examples: Sequence[Example]) -> Finding:
    counts = Counter(example.id for example in examples)
    twice = tuple(id_ for id_, count in counts.items() if count > 1)
    return Finding("duplicate_ids", "ids on more than one example", twice, 0, "give each record its own id")


def shared_with_gate(
    examples: Sequence[Example], gate_records: Sequence[Record]
) -> dict[tuple[str, str], str]:
    """Each pair of a training and a gate record that are the same or nearly, by their ids: how they were found."""
    return shared([_record(example) for example in examples], gate_records)


def _overlaps(examples: Sequence[Example], gate_records: Sequence[Record], limits: Preflight) -> Finding:
    pairs = shared_with_gate(examples, gate_records)
    ids = tuple(f"{left} = {right} ({kind})" for (left, right), kind in pairs.items())
    fix = "take these records out of the training split; `preflight: {overlaps: drop}` leaves them out"
    return Finding("overlaps", "training records that the gate judges with", ids, limits.max_overlaps, fix)


def _leaks(examples: Sequence[Example], limits: Preflight) -> Finding:
    """Prompts in which the answer stands word for word: what is learnt is to copy. Short answers, such as labels
    that the prompt lists, stand there by chance or by design."""

    def gives_away(example: Example) -> bool:
        answer = normalise(example.answer)
        asked = normalise(_record(example).input)
        return len(answer.split()) >= LEAKING_WORDS and f" {answer} " in f" {asked} "

    ids = tuple(example.id for example in examples if gives_away(example))
    fix = "take the answers out of the inputs, or raise preflight.max_leaks where copying is the task"
    limit = len(ids) if limits.max_leaks is None else limits.max_leaks
    return Finding("leaks", "prompts that hold their own answer", ids, limit, fix)


def _personal(examples: Sequence[Example], limits: Preflight) -> Finding:
    """Examples with personal data in any turn or answer, and its kinds."""
    found: list[str] = []
    for example in examples:
        turns = [message.content for message in example.prompt.messages]
        texts = [*turns, example.prompt.text or "", example.answer, example.rejected or ""]
        kinds = sorted({one.kind for text in texts for one in find_personal(text)})
        if kinds:
            found.append(f"{example.id} ({', '.join(kinds)})")
    fix = "replace it by pseudonyms, or raise preflight.max_personal"
    limit = len(found) if limits.max_personal is None else limits.max_personal
    return Finding("personal", "records with personal data", tuple(found), limit, fix)


def _record(example: Example) -> Record:
    """The example as overlap looks at it; its own text where it says it, else its longest user turn."""
    turns = [message.content for message in example.prompt.messages if message.role == "user"]
    text = example.text if example.text is not None else max(turns, key=len, default="")
    # A unit that is unknown must not equal any other.
    unit = example.unit if example.unit is not None else f"\0{example.id}"
    return Record(example.id, text, (example.answer,), {}, unit, {}, example.context)


def _line(finding: Finding) -> str:
    named = ", ".join(finding.ids[:MAX_NAMED])
    more = len(finding.ids) - MAX_NAMED
    rest = f" and {more:,} more" if more > 0 else ""
    limit = f", limit {finding.limit}" if finding.limit else ""
    return f"{len(finding.ids):,} {finding.what}{limit}: {named}{rest}"
