"""A suite: records, task, scorers and slices for one domain question."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.specs.base import Document

Domain = Literal["healthcare", "finance", "legal", "support", "ecommerce", "science", "shared"]
Split = Literal["train", "dev", "calibration", "eval"]
Task = Literal[
    "classify", "multi_label", "choice", "extract", "spans", "number", "answer", "generate", "verify", "rank",
    "perplexity",
]  # fmt: skip
SCORED_BY_LOGPROB = ("classify", "verify", "choice", "rank", "perplexity")
"""Tasks whose answer is read off log-probabilities; the others are written by the model and then read."""
CHOOSES_LABEL = ("classify", "verify")
"""Tasks whose answer is one label, scored by log-probability."""
LABELLED = (*CHOOSES_LABEL, "multi_label")
"""Tasks whose answers are labels from one list that all records share."""
Variant = Literal[
    "rename_parties", "reorder_sentences", "reverse_options", "spacing", "casing", "typos", "paired",
]  # fmt: skip
Setting = bool | int | float | str | tuple[str, ...]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class Fields(Document):
    """Where a record keeps what the suite needs: dotted paths into the JSON object."""

    input: str = "input"
    target: str = "target"
    """The gold answer: a text, or a list of texts of which any is right."""
    context: str | None = None
    """What the answer must stand on: a passage, a table, retrieved chunks."""
    document: str | None = None
    """In place of `context`: where the record names its document, such as `doc_id`; the document's text, from
    `documents`, is the context."""
    options: str | None = None
    """The record's own choices, a list of texts; `choice` and `rank` look under `options` where nothing is said."""
    variant_of: str = "variant_of"
    """Where a record says, by id, which record it puts in other words; with the invariance `paired`."""
    unit: str = "id"
    """What is independent: the document, the patient, the conversation. No unit is in two splits."""
    slices: str = "slices"


class Records(Document):
    """Where the records come from: one file a split, or a public set by name."""

    train: str | None = None
    """JSONL file, relative to the suite."""
    dev: str | None = None
    calibration: str | None = None
    eval: str | None = None
    public: str | None = None
    """`folder/name` under `--data`, such as `legal/cuad_clauses`, with train.jsonl and eval.jsonl."""
    documents: str | None = None
    """JSONL file of `{doc_id, text}`, relative to the suite, that `fields.document` points into; a public set has
    its own documents.jsonl."""
    dev_frac: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Share of the training units kept for selection, where there is no dev file."""
    calibration_frac: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Share of the training units kept for calibration, where there is no calibration file."""
    fields: Fields = Fields()

    @model_validator(mode="after")
    def _one_origin(self) -> Records:
        if self.public is None and self.eval is None:
            raise ValueError("records need an eval file or a public set")
        if self.public is not None and (self.eval or self.train or self.dev or self.calibration):
            raise ValueError("a public set brings its own files: leave train, dev, calibration and eval out")
        if self.fields.document is not None and self.fields.context is not None:
            raise ValueError("fields: context is in the record, document is in another file: set one of them")
        if self.documents is not None and (self.public is not None or self.fields.document is None):
            raise ValueError(
                "documents is a file of the suite's own, and fields.document says which one is meant"
            )
        if self.fields.document is not None and self.public is None and self.documents is None:
            raise ValueError("fields.document needs documents, a file of {doc_id, text}")
        return self


class Retrieval(Document):
    """Where a question's `context` comes from: the best passages of an index over documents, each behind its id."""

    documents: str | None = None
    """A folder of `.md` and `.txt` files, or a JSONL file of `{doc_id, text}`, relative to the suite; None: the
    documents.jsonl of the public set."""
    k: Annotated[int, Field(ge=1, le=50)] = 3
    """Passages that a question gets."""
    max_chars: Annotated[int, Field(ge=200, le=1_000_000)] = 6000
    """Of all passages together, in characters: how many tokens that is depends on the model, and every model gets
    the same passages. Those that don't fit are left out, the worst first."""
    chunk_words: Annotated[int, Field(ge=10, le=2000)] = 120
    """Words of a passage, at most."""
    query: str | None = None
    """Where a record says what is looked for, as a dotted path; None: its input."""
    within: str | None = None
    """Where a record names the one document that is searched, such as `doc_id`; None: all are."""
    flagged: Literal["keep", "leave_out", "refuse"] = "keep"
    """What becomes of passages that read like orders to a model: shown all the same, left out of the index, or an
    error that names them. A suite that tests what a model does with them keeps them."""


class PromptSpec(Document):
    """How a record becomes a conversation. Sandboxed Jinja; `input`, `context`, `options`, `letters` (A, B, …
    one an option), `slices` and `labels` are at hand."""

    system: str | None = None
    user: str
    max_tokens: Annotated[int, Field(ge=8, le=131072)] = 512
    """Budget for the rendered prompt, in tokens."""
    over_length: Literal["error", "skip", "truncate", "truncate_left"] = "error"
    """Over the budget: an error that counts as wrong, left out of training and an error in evaluation,
    or the middle (or the beginning) of the record's text cut and counted."""
    raw: bool = False
    """Plain text without the model's chat template: for base models, and for numbers that are to be
    compared with tools that use none. `system` is then left out."""
    answer_prefix: str = ""
    """Stands between prompt and answer in raw text, in examples and before each choice, such as one space."""
    few_shot: Annotated[int, Field(ge=0, le=64)] = 0
    """Examples before the question, drawn by seed from the training split, never from another."""
    few_shot_seed: int = 17


class Generation(Document):
    """Settings for free answers; deterministic by default."""

    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 64
    stop: tuple[str, ...] = ()
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    grammar: str | None = None
    """Holds the answer to a form while it is written: `labels` for a JSON list of the suite's labels,
    `fields` for a JSON object of `fields`, or GBNF of your own. GGUF models can be held to one; a
    checkpoint can't, so a release does not take it."""
    fields: dict[str, Literal["string", "number", "integer", "boolean"]] = {}
    """With `grammar: fields`: the object's fields and their kinds, in their order; any of them may be null."""


class ScorerSpec(Document):
    """A scorer by name, with its settings: `label`, or `{name: number, tolerance: 0.01}`."""

    name: Name
    key: Name | None = None
    """What its score is called, where one scorer is named twice with different settings; else its name."""
    settings: dict[str, Setting] = {}

    @property
    def score_name(self) -> str:
        """What its score is called."""
        return self.key or self.name

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "settings" not in value:
            own = {key: item for key, item in value.items() if key in ("name", "key")}
            # What a validator gives back is read as Python and not as JSON: there a list is no tuple.
            rest = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
            return {**own, "settings": {key: item for key, item in rest.items() if key not in own}}
        return value


class Confidence(Document):
    """What else is measured of how sure the model is, beside the probabilities of its tokens."""

    kinds: tuple[Literal["p_true", "self_consistency", "semantic_entropy"], ...] = ()
    samples: Annotated[int, Field(ge=2, le=64)] = 5
    """Answers drawn for self-consistency and semantic entropy."""
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 0.7


class Invariance(Document):
    """What may change in a record without its answer: each item is asked again in these ways, and has to answer
    as before."""

    kinds: tuple[Variant, ...] = ()
    """`rename_parties` (the same substitutes for names and roles everywhere), `reorder_sentences`, `reverse_options`
    (the record's options, or the labels where the prompt lists them), `spacing`, `casing`, `typos`; `paired` asks
    nothing, and holds a record's answer against that of the record which its `fields.variant_of` names."""
    items: Annotated[int, Field(ge=1)] | None = None
    """Items that are asked again, drawn by seed; None takes all."""


class Limit(Document):
    """A fixed random subset of a split, drawn by seed before any run."""

    n: Annotated[int, Field(ge=1)]
    seed: int = 17


class Suite(Document):
    """Records + task + scorers + slices for one domain question."""

    suite: Name
    version: Annotated[int, Field(ge=1)] = 1
    domain: Domain
    description: str = ""
    task: Task
    """By log-probability: `classify` chooses a label, `verify` a label for a claim and its evidence,
    `choice` one of the record's options, `rank` orders them, `perplexity` weighs the target text.
    Written and then read: `multi_label` a list of labels, `extract` a JSON object, `spans` quotes of the
    text, `number` a quantity, `answer` a short answer, `generate` any text."""
    records: Records
    retrieval: Retrieval | None = None
    """Gives each record its `context` from an index over documents; None: the record brings its own."""
    labels: tuple[str, ...] = ()
    """Allowed labels, in a fixed order; empty takes the sorted labels of the training split."""
    prompt: PromptSpec
    generation: Generation = Generation()
    scorers: tuple[ScorerSpec, ...] = ()
    """How an answer becomes a score; the first one's is the sample's. Empty takes the task's own."""
    judge: str | None = None
    """The model that the scorers `judge` and `pairwise_judge` ask, named as `--model` names one."""
    confidence: Confidence = Confidence()
    answer_with: Literal["text", "letter"] = "text"
    """For `choice` and `rank`: an option is scored by its own text, or by the letter that the prompt gives it."""
    normalise: Literal["none", "chars", "tokens"] = "none"
    """For `choice` and `rank`: log-probabilities as they are, or divided by the choice's length."""
    invariance: Invariance = Invariance()
    """Changes that must not move an answer; what came of them is the metric `consistency`."""
    repeat: Annotated[int, Field(ge=0, le=1000)] = 16
    """Items that are answered again in other batches: the share that changes is the noise floor."""
    slices: tuple[str, ...] = ()
    """Slice keys to report on."""
    limit: dict[Split, Limit] = {}
    """Splits of which only a fixed random subset is used."""
    max_error_frac: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """More errors than this and the run cannot PASS."""

    @model_validator(mode="after")
    def _one_context(self) -> Suite:
        if self.retrieval is None:
            return self
        fields = self.records.fields
        if fields.context is not None or fields.document is not None:
            raise ValueError("retrieval gives the context: leave fields.context and fields.document out")
        if self.retrieval.documents is None and self.records.public is None:
            raise ValueError("retrieval needs documents: a folder, or a JSONL file of {doc_id, text}")
        return self


def scored_fields(suite: Suite) -> tuple[str, ...]:
    """Dotted paths of what scorers read in a record beside its golds: the settings that end in `_field`."""
    named = {
        str(value)
        for scorer in suite.scorers
        for key, value in scorer.settings.items()
        if key.endswith("_field") and value
    }
    return tuple(sorted(named))
