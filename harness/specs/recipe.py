"""A recipe: a base model, data, a tuning method, the suites that gate it, and what to export for whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from harness.specs.base import Document
from harness.specs.device import Device
from harness.specs.gate import Gate
from harness.specs.suite import Domain, Name
from harness.specs.tune import Tune as Tune

Quant = Literal[
    "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_0", "q4_k_m", "q4_k_s", "q4_0", "iq4_nl", "iq4_xs", "q3_k_l", "q3_k_m",
    "q3_k_s", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "q2_k", "q2_k_s", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs",
]  # fmt: skip
NEED_IMATRIX = ("q2_k_s", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs")
"""Quants of so few bits that llama.cpp refuses them without an importance matrix."""
Cache = Literal["f16", "q8_0"]


class Constraints(Document):
    """What the domain demands, in the words of the decision flow."""

    data_sensitive: bool = False
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    budget: Literal["tight", "normal", "ample"] = "normal"
    consequence: Literal["low", "medium", "high"] = "medium"
    knowledge: Literal["stable", "changing"] = "stable"


class TrainFile(Document):
    """A file that trains."""

    path: str
    """`.jsonl`, `.csv` or `.parquet`, relative to the recipe's folder, or `hub:owner/name/file` in the hub's cache."""
    kind: Literal["messages", "completion", "preferences"] | None = None
    """`messages` (conversations), `completion` (`prompt`, `completion`) or `preferences` (`prompt`, `chosen`,
    `rejected`); None: what the first row is."""
    over_length: Literal["error", "skip", "truncate"] = "error"
    """What happens to an example over `tune.max_tokens`; `truncate` cuts the context, never an answer."""


class Preflight(Document):
    """What the data preflight may let through: every count is fatal above these."""

    max_truncated_answers: Annotated[int, Field(ge=0)] = 0
    max_overlaps: Annotated[int, Field(ge=0)] = 0
    overlaps: Literal["refuse", "drop"] = "refuse"
    """Records outside `eval` that the gate judges with, or nearly: a reason not to train, or left out and named."""
    max_skipped: Annotated[int, Field(ge=0)] = 0
    """Training records left out because they are too long."""
    max_personal: Annotated[int, Field(ge=0)] | None = None
    """Training records with personal data in them, such as a telephone number; None counts them and lets all in."""
    max_leaks: Annotated[int, Field(ge=0)] | None = None
    """Training records whose prompt gives a whole answer of three words or more away; None lets all in."""


class Export(Document):
    """What is written for the edge."""

    quants: Annotated[tuple[Quant, ...], Field(min_length=1)] = ("q8_0", "q5_k_m", "q4_k_m", "q4_0")
    pick: Literal["smallest", "fastest", "best"] = "smallest"
    """Of the files that pass every rule and fit the device: the smallest, the one that writes a token soonest, or the
    one nearest to the 16-bit file."""
    max_mean_kl: Annotated[float, Field(gt=0)] = 0.5
    """Largest mean KL of a quant from the f16 file, in nats a token."""
    imatrix: bool | Literal["auto"] = False
    """Rounds by what the training split uses. `auto` writes each quant with the importances and without, and keeps
    the one with the lower KL on the development split."""
    sensitivity: Annotated[int, Field(ge=0, le=64)] = 0
    """Groups of tensors that are each rounded alone, to see which hurt most; those get a better type. 0: none."""
    sensitivity_budget_frac: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Share of a file's size that better types may add."""
    caches: Annotated[tuple[Cache, ...], Field(min_length=1)] = ("f16",)
    """Types of keys and values that the picked file is judged with: every file with `f16`, the picked one again with
    `q8_0`, which takes half the memory. The engine may only run what was judged."""

    @model_validator(mode="after")
    def _has_importances(self) -> Export:
        needy = [quant for quant in self.quants if quant in NEED_IMATRIX]
        if needy and self.imatrix is False:
            raise ValueError(f"quants {', '.join(needy)} need importances: set imatrix to auto or true")
        return self


class Deviation(Document):
    """An obligation that the recipe does not meet, and why; the release carries it."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    from_: Annotated[str, Field(alias="from")]
    """The obligation's name, such as `coverage`; `harness check` says which ones are open."""
    because: Annotated[str, Field(min_length=12)]
    """Why it does not hold here, in words for a person who relies on the release."""


class Recipe(Document):
    """A whole release, from data to a gated GGUF."""

    recipe: Name
    version: Annotated[int, Field(ge=1)] = 1
    domain: Domain
    description: str = ""
    constraints: Constraints = Constraints()
    deviations: tuple[Deviation, ...] = ()
    """Obligations of the domain and the constraints that the recipe does not meet, each with its reason."""
    base: str
    """`embedded:smollm2-135m`, a hub id, a folder with safetensors, or a GGUF file."""
    suites: Annotated[tuple[str, ...], Field(min_length=1)]
    """Suite files, relative to the recipe's folder or its parent. The first one's training split trains."""
    data: tuple[TrainFile, ...] = ()
    """Files that train in place of the first suite's training split."""
    tune: Tune = Tune()
    preflight: Preflight = Preflight()
    gates: Annotated[tuple[Gate, ...], Field(min_length=1)]
    attempts: Literal["spend", "count"] = "spend"
    """Candidates tried on the same evaluation records: `spend` holds attempt k to alpha · 6/(π² k²), so that all
    of them together err at `alpha`; `count` leaves `alpha` to each, and the verdict says what that adds up to."""
    export: Export = Export()
    device: Device = Device(name="cpu")

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Recipe:
        micro = self.tune.micro_batch
        if micro is not None and self.tune.batch % micro:
            raise ValueError(f"tune.micro_batch {micro} does not divide tune.batch {self.tune.batch}")
        return self

    @model_validator(mode="after")
    def _can_be_exported(self) -> Recipe:
        if self.tune.method == "prompt":
            raise ValueError(
                "tune.method prompt can't become a GGUF, and a recipe ends in one: virtual tokens are no weights;"
                " take ia3, which is as small and merges, or lora"
            )
        return self

    @model_validator(mode="after")
    def _has_use_for_data(self) -> Recipe:
        if self.data and not self.tune.trains:
            raise ValueError(
                "tune.method none trains nothing, and data names files that train: leave one out"
            )
        return self

    @model_validator(mode="after")
    def _has_preferences(self) -> Recipe:
        if self.tune.objective == "dpo" and not self.data:
            raise ValueError(
                "tune.objective dpo needs chosen and rejected answers: name their files under `data`"
            )
        return self

    @model_validator(mode="after")
    def _one_order(self) -> Recipe:
        """A run has one order of its items, so the sequential rules of a suite must want the same one."""
        seeds: dict[str | None, set[int]] = {}
        for gate in self.gates:
            if gate.design == "sequential":
                seeds.setdefault(gate.suite, set()).add(gate.order_seed)
        for suite, wanted in seeds.items():
            if len(wanted) > 1:
                named = ", ".join(map(str, sorted(wanted)))
                raise ValueError(
                    f"gates of {suite or 'the suite'} want orders {named}: one order_seed a suite"
                )
        return self
