"""How a base is adapted: the method, what the loss is, and the settings of the training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.specs.base import Document
from harness.specs.training import Cost, TrainGates

Method = Literal["qlora", "lora", "ia3", "prompt", "full", "none"]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA_METHODS = ("qlora", "lora")

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Broad abilities from many short answers: a high rank on every linear layer, scaled so that it stays stable.
    "instruction": {
        "method": "qlora", "rank": 64, "alpha": 64.0, "rslora": True, "epochs": 2.0, "batch": 16,
        "learning_rate": 2e-4, "schedule": "cosine", "warmup_frac": 0.05, "max_tokens": 2048,
    },
    # Small steps on few layers, for figures and terms that the base already has right.
    "conservative": {
        "method": "lora", "rank": 8, "alpha": 8.0, "targets": ("q_proj", "v_proj"), "epochs": 1.0, "batch": 16,
        "learning_rate": 5e-5, "schedule": "linear", "warmup_frac": 0.1, "weight_decay": 0.01, "clip_norm": 0.3,
    },
}  # fmt: skip
"""Settings by the name of the preset; what the recipe says itself goes before them."""

METHOD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ia3": {"targets": ("k_proj", "v_proj", "down_proj"), "learning_rate": 3e-3},
    "prompt": {"learning_rate": 3e-2},
    "full": {"learning_rate": 2e-5},
}
"""Defaults that differ from those of adapters, by method."""


class Preferences(Document):
    """Direct preference optimisation (Rafailov et al., 2023)."""

    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How closely the model is held to the base; smaller lets it go further."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """The share of pairs that are taken to be the wrong way round."""
    length_normalised: bool = False
    """Log-probabilities a token instead of an answer, so that long answers weigh no more."""


class Distillation(Document):
    """A student learns a teacher's distribution over the next token."""

    teacher: str
    """A folder with safetensors, a hub id, or `embedded:smollm2-135m`; of the same vocabulary as the base."""
    top_k: Annotated[int, Field(ge=1, le=4096)] = 32
    """Tokens a position that are kept; all others are one tail, whose mass counts."""
    temperature: Annotated[float, Field(gt=0, le=20)] = 1.0
    answer_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the loss that is the cross-entropy of the answer itself."""


class Privacy(Document):
    """Differential privacy for each training record (DP-SGD, Abadi et al., 2016). Needs the extra `dp`."""

    epsilon: Annotated[float, Field(gt=0)] | None = None
    """The budget of the whole run; the noise follows from it. Set either this or `noise`."""
    noise: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the noise, as a multiple of `clip`."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """The chance that epsilon does not hold; below one over the number of records."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of one record's gradient."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Privacy:
        if (self.epsilon is None) == (self.noise is None):
            raise ValueError("set one of epsilon and noise")
        return self


class Tune(Document):
    """How the base is adapted."""

    preset: Literal["instruction", "conservative"] | None = None
    """A named set of settings that stand where the recipe says nothing else: `instruction` for broad abilities from
    many answers, `conservative` for small steps on a base that is nearly right, as in finance."""
    objective: Literal["sft", "dpo", "distill"] = "sft"
    """`sft` learns the answers, `dpo` which of two answers is better, `distill` a teacher's distributions."""
    method: Method = "qlora"
    """`qlora` trains adapters over NF4 weights with double quantization, `lora` over 16-bit weights; `ia3` one factor
    a column; `prompt` only virtual tokens before the prompt, which no GGUF can hold; `full` all weights; `none`
    nothing: the base itself is gated and exported, as where what has to be known stands in documents."""
    base_precision: Literal["nf4", "16bit"] | None = None
    """What the base's linear layers are held in; None: NF4 for `qlora` and 16 bits for all others."""
    rank: Annotated[int, Field(ge=1, le=256)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = LINEAR
    """Names of the linear layers that get an adapter."""
    rslora: bool = False
    """Scales by alpha over the root of the rank (Kalajdzievski, 2023), so that high ranks learn too."""
    dora: bool = False
    """Trains each row's length apart from its direction (Liu et al., 2024). Such an adapter must be merged."""
    init: Literal["zero", "pissa"] = "zero"
    """Where adapters start: `pissa` at the weights' principal components (Meng et al., 2024), and the base keeps
    the rest, which is what NF4 then rounds."""
    b_rate_ratio: Annotated[float, Field(ge=1.0, le=256)] = 1.0
    """Learning rate of the factors B over that of A (LoRA+, Hayou et al., 2024); 1 is plain LoRA."""
    virtual_tokens: Annotated[int, Field(ge=1, le=512)] | None = None
    """Trained tokens before the prompt, for `prompt` alone; None: 16."""
    dpo: Preferences | None = None
    """None: its defaults where `objective` is `dpo`."""
    distill: Distillation | None = None
    dp: Privacy | None = None
    epochs: Annotated[float, Field(gt=0, le=100)] = 2.0
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stops earlier than `epochs` would."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Records an optimizer step; the expected number where `dp` draws them at random."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Records a forward pass; None means `batch`."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """None of a preset's or method's own: 3e-3 for `ia3`, 3e-2 for `prompt`, 2e-5 for `full`."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_frac: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    """Share of all steps spent warming up."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Annotated[int, Field(ge=16)] = 512
    """Longest training sequence, prompt and answer together."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 25
    """Optimizer steps between checkpoints."""
    seed: int = 17
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = "auto"
    """`auto` is AdamW in float32, and on CUDA paged AdamW with 8-bit state."""
    recompute: Literal["auto", "always", "never"] = "auto"
    """Activations of a layer are computed again in the backward instead of kept: half the memory, a fifth slower.
    `auto` does so where the estimate says that they don't fit."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that share each batch, one a GPU; started by `accelerate launch`."""
    shard_base: bool = False
    """Each process holds a part of the base instead of all of it (FSDP)."""
    gates: TrainGates | None = None
    """Scores checkpoints while training; the best one leaves. None: the last one does, unseen."""
    cost: Cost = Cost()

    @model_validator(mode="before")
    @classmethod
    def _named_settings(cls, data: Any) -> Any:
        """Presets and the method's own defaults, under what is said."""
        if not isinstance(data, dict):
            return data
        said = {**_settings(PRESETS, data.get("preset")), **data}
        # What is returned here is read as Python, where strict mode wants tuples for tuples, also from JSON.
        return _with_tuples({**_settings(METHOD_DEFAULTS, said.get("method")), **said})

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> Tune:
        if problems := list(misfits(self)):
            raise ValueError("\n".join(problems))
        return self

    @property
    def is_nf4(self) -> bool:
        """Whether the base's linear layers compute with NF4 values."""
        return self.method == "qlora" if self.base_precision is None else self.base_precision == "nf4"

    @property
    def trains(self) -> bool:
        """Whether anything is trained at all."""
        return self.method != "none"

    @property
    def is_lora(self) -> bool:
        return self.method in LORA_METHODS


def _with_tuples(value: Any) -> Any:
    """The value with each list in it as a tuple."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _settings(table: Mapping[str, Mapping[str, Any]], name: Any) -> Mapping[str, Any]:
    return table.get(name, {}) if isinstance(name, str) else {}


def misfits(tune: Tune) -> Iterator[str]:
    """Each setting that does not go with the others, its key first."""
    if not tune.trains:
        yield from _idle_settings(tune)
        return
    yield from _method_misfits(tune)
    yield from _objective_misfits(tune)
    if tune.dp is not None:
        yield from _privacy_misfits(tune)


def _idle_settings(tune: Tune) -> Iterator[str]:
    """What is set although nothing trains: a person who wrote it expects it to do something."""
    for key, field in type(tune).model_fields.items():
        value, default = getattr(tune, key), field.get_default(call_default_factory=True)
        if key != "method" and value != default:
            yield f"{key} is set, and method none trains nothing: leave it out"


def _method_misfits(tune: Tune) -> Iterator[str]:
    method, precision = tune.method, tune.base_precision
    if method == "full" and precision == "nf4":
        yield "base_precision nf4 with method full: NF4 weights can't be trained; take qlora, or 16bit"
    if method == "qlora" and precision == "16bit":
        yield "base_precision 16bit with method qlora: that is method lora"
    if method == "lora" and precision == "nf4":
        yield "base_precision nf4 with method lora: that is method qlora"
    if not tune.is_lora:
        options = {
            "rslora": tune.rslora,
            "dora": tune.dora,
            "init": tune.init == "pissa",
            "b_rate_ratio": tune.b_rate_ratio != 1.0,
            "dropout": tune.dropout > 0,
        }
        for key in (key for key, is_set in options.items() if is_set):
            yield f"{key} is an option of qlora and lora, and method is {method}"
    if tune.virtual_tokens is not None and method != "prompt":
        yield f"virtual_tokens is an option of prompt, and method is {method}"
    if tune.dora and tune.init == "pissa":
        yield "init pissa with dora: the adapter could not be written as a change of the base; take one"


def _objective_misfits(tune: Tune) -> Iterator[str]:
    if tune.dpo is not None and tune.objective != "dpo":
        yield f"dpo belongs to objective dpo, and objective is {tune.objective}"
    if tune.distill is not None and tune.objective != "distill":
        yield f"distill belongs to objective distill, and objective is {tune.objective}"
    if tune.objective == "distill" and tune.distill is None:
        yield "objective distill needs a teacher: set distill.teacher"
    if tune.objective == "dpo" and tune.method == "full":
        yield "objective dpo with method full: the reference is the base with its adapters off; take lora or ia3"
    if tune.objective == "dpo" and tune.init == "pissa":
        yield "init pissa with objective dpo: it changes the base, which is the reference; take init zero"
    if tune.objective == "dpo" and tune.dropout:
        yield "dropout with objective dpo: the two answers would be compared by different networks; set 0"


def _privacy_misfits(tune: Tune) -> Iterator[str]:
    if not tune.is_lora or tune.dora:
        yield "dp needs one gradient a record, which plain LoRA adapters give; take lora or qlora without dora"
    if tune.init == "pissa":
        yield "dp with init pissa: its loop is checked against adapters that start at zero; take init zero"
    if tune.dropout:
        yield "dropout with dp: single records' gradients could not be checked; set 0"
    if tune.processes > 1:
        yield "processes above 1 with dp: the noise is added in one place; set 1"
    if tune.gates is not None:
        yield "gates with dp: a run that goes back takes steps that its budget does not count"
    if tune.objective != "sft":
        yield f"dp goes with objective sft, and objective is {tune.objective}"
