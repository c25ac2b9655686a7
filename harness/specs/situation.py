"""What is known before a recipe is planned, and what a plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.specs.device import Device
from harness.specs.obligations import Obligation
from harness.specs.recipe import Constraints
from harness.specs.suite import Domain, Suite

EMBEDDED = "embedded:smollm2-135m"


class GroupFacts(NamedTuple):
    """Values of one slice key, or the labels, that have enough evaluation records to be judged."""

    n_values: int
    n_least: int
    """Records of the smallest of them."""
    best_bound: float
    """The lower bound of the least certain of them, were every answer right."""


@dataclass(frozen=True, slots=True)
class SuiteFacts:
    """A suite and what its evaluation records can show."""

    path: str
    """As the recipe will name it."""
    suite: Suite
    n_eval: int
    n_calibration: int
    best_bound: float
    """The lower bound on the mean of all items, were every answer right."""
    finest_margin: float | None
    """The least `no_worse_than` that two equal models can be shown to keep; None without records."""
    groups: Mapping[str, GroupFacts] = field(default_factory=dict)
    """By slice key, and `label`; keys without a value that has enough records are left out."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known before anything is trained. None is unknown."""

    domain: Domain
    constraints: Constraints = field(default_factory=Constraints)
    suites: tuple[SuiteFacts, ...] = ()
    """The first one trains and is gated."""
    n_train: int | None = None
    device: Device = field(default_factory=lambda: Device(name="cpu"))
    base: str = EMBEDDED
    base_mb: float | None = None
    """The base's weights in 16 bits."""
    train_memory_mb: float | None = None
    """Memory that training may take: the GPU's where there is one."""
    at_least: float = 0.75
    """Share of right answers that the domain needs."""
    name: str = ""


class Reason(NamedTuple):
    """Why the recipe says what it says at this key."""

    key: str
    """Dotted path into the recipe, such as `tune.method` or `gates[2]`; empty for the recipe as a whole."""
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe that meets what the situation obliges, and why it looks as it does."""

    recipe: dict[str, Any]
    """The document, as YAML holds it; `Recipe` takes it where the situation names a suite."""
    obligations: tuple[Obligation, ...]
    reasons: tuple[Reason, ...]
    open: tuple[str, ...]
    """What a person has to do: obligations that no recipe meets by itself, and what stays unknown."""
