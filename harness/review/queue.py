"""Which answers people look at: those the model was least sure of, and some of every slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.files import sha256_text

N = 60


class Item(NamedTuple):
    """One sample to judge."""

    sample: Mapping[str, Any]
    """As `samples.jsonl` holds it."""
    reason: str
    """Why this one."""


def make_queue(samples: Sequence[Mapping[str, Any]], *, n: int = N, seed: int = 17) -> list[Item]:
    """At most `n` answered samples, the same for the same samples and seed, whoever asks.

    Half are the least confident ones, where confidence is known; the others are drawn from all slices in
    turn. Then they are shuffled, so that a reviewer can't tell one kind from the other by its place.
    """
    answered = [sample for sample in samples if sample.get("answer") is not None]
    unsure = _least_confident(answered, n // 2)
    taken = {item.sample["id"] for item in unsure}
    rest = [sample for sample in answered if sample["id"] not in taken]
    items = [*unsure, *_from_every_slice(rest, n - len(unsure), seed)]
    return sorted(items, key=lambda item: _draw(item.sample, seed, "order"))


def _least_confident(samples: Sequence[Mapping[str, Any]], n: int) -> list[Item]:
    known = [sample for sample in samples if isinstance(sample.get("confidence"), int | float)]
    ranked = sorted(known, key=lambda sample: (sample["confidence"], str(sample["id"])))
    return [Item(sample, "among those the model was least sure of") for sample in ranked[:n]]


def _from_every_slice(samples: Sequence[Mapping[str, Any]], n: int, seed: int) -> list[Item]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for sample in sorted(samples, key=lambda one: _draw(one, seed, "slice")):
        groups.setdefault(_slice(sample), []).append(sample)
    found: list[Item] = []
    queues = [groups[name] for name in sorted(groups)]
    names = sorted(groups)
    while queues and len(found) < n and any(queues):
        for name, queue in zip(names, queues, strict=True):
            if queue and len(found) < n:
                found.append(Item(queue.pop(0), f"drawn from {name}"))
    return found


def _slice(sample: Mapping[str, Any]) -> str:
    """The first slice that the sample is in, as `key=value`."""
    slices = sample.get("slices")
    if isinstance(slices, Mapping) and slices:
        key = min(slices)
        value = slices[key]
        return f"{key}={value[0] if isinstance(value, list) and value else value}"
    return "all"


def _draw(sample: Mapping[str, Any], seed: int, purpose: str) -> str:
    """A place in a random order that depends on the sample's id and the seed alone."""
    return sha256_text(f"{seed} {purpose} {sample['id']}")
