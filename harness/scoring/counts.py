"""True positives, false positives and false negatives, and what is computed from them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from harness.scoring.item import Counts

Key = TypeVar("Key", bound=Hashable)


class Cells(NamedTuple):
    """What was found and rightly so, found and wrongly so, and missed."""

    tp: int
    fp: int
    fn: int


class Rates(NamedTuple):
    """None where nothing was said (precision), meant (recall), or either (F1)."""

    precision: float | None
    recall: float | None
    f1: float | None


def rates(cells: tuple[int, int, int]) -> Rates:
    """Precision, recall and F1 of one set of counts; unknown is None, never 0."""
    tp, fp, fn = cells
    return Rates(
        tp / (tp + fp) if tp + fp else None,
        tp / (tp + fn) if tp + fn else None,
        2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
    )


def f1_value(cells: tuple[int, int, int]) -> float:
    """F1 as an item's score: 1 where nothing was meant and nothing was said."""
    f1 = rates(cells).f1
    return 1.0 if f1 is None else f1


def total(counts: Counts) -> Cells:
    """The cells of all keys summed: micro averages come from it."""
    sums = [sum(cells[index] for cells in counts.values()) for index in range(3)]
    return Cells(*sums)


def add_counts(parts: Iterable[Counts]) -> dict[str, Cells]:
    """The cells by key, summed over items."""
    sums: dict[str, Cells] = {}
    for part in parts:
        for key, (tp, fp, fn) in part.items():
            before = sums.get(key, Cells(0, 0, 0))
            sums[key] = Cells(before.tp + tp, before.fp + fp, before.fn + fn)
    return sums


def micro(counts: Counts) -> Rates:
    """Rates of all decisions together."""
    return rates(total(counts))


def macro_f1(counts: Counts) -> float | None:
    """The mean of the keys' F1 over keys that were ever meant or said; None without one."""
    found = [f1 for cells in counts.values() if (f1 := rates(cells).f1) is not None]
    return sum(found) / len(found) if found else None


def set_counts(said: Collection[Key], meant: Collection[Key]) -> dict[Key, Cells]:
    """One decision a key: said and meant, only said, or only meant. Doubles count once."""
    a, b = set(said), set(meant)
    keys = dict.fromkeys((*meant, *said))
    return {key: Cells(int(key in a and key in b), int(key not in b), int(key not in a)) for key in keys}


def as_counts(cells: Mapping[str, Cells]) -> dict[str, tuple[int, int, int]]:
    """The counts as a sample keeps them."""
    return {key: (value.tp, value.fp, value.fn) for key, value in cells.items()}
