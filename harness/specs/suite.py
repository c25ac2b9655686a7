"""A suite: records, task, scorers and slices for one domain question."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.specs.base import Document

Domain = Literal["healthcare", "finance", "legal", "support", "ecommerce", "science", "shared"]
Split = Literal["train", "dev", "calibration", "eval"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class Fields(Document):
    """Where a record keeps what the suite needs: dotted paths into the JSON object."""

    input: str = "input"
    target: str = "target"
    """The gold answer: a text, or a list of texts of which any is right."""
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
        return self


class PromptSpec(Document):
    """How a record becomes a conversation. Sandboxed Jinja; `input`, `slices` and `labels` are at hand."""

    system: str | None = None
    user: str
    max_tokens: Annotated[int, Field(ge=8, le=131072)] = 512
    """Budget for the rendered prompt, in tokens."""
    over_length: Literal["error", "skip", "truncate"] = "error"
    """Over the budget: an error that counts as wrong, left out of training and an error in evaluation,
    or the middle of the record's text cut and counted."""


class Generation(Document):
    """Settings for free answers; deterministic by default."""

    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 64
    stop: tuple[str, ...] = ()
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0


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
    task: Literal["classify", "generate"]
    """`classify` chooses a label by log-probability; `generate` writes a short answer."""
    records: Records
    labels: tuple[str, ...] = ()
    """Allowed labels, in a fixed order; empty takes the sorted labels of the training split."""
    prompt: PromptSpec
    generation: Generation = Generation()
    scorers: tuple[Literal["label", "exact", "normalised"], ...] = ()
    """How an answer becomes a score; empty takes `label` for classify and `normalised` for generate."""
    slices: tuple[str, ...] = ()
    """Slice keys to report on."""
    limit: dict[Split, Limit] = {}
    """Splits of which only a fixed random subset is used."""
    max_error_frac: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """More errors than this and the run cannot PASS."""
