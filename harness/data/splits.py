"""Splits by unit: what belongs together stays together, and the same unit always falls the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from harness.data.records import Record

T = TypeVar("T")


class Carved(NamedTuple):
    """The training records in three parts that share no unit."""

    train: list[Record]
    dev: list[Record]
    calibration: list[Record]


def position(unit: str) -> float:
    """Where the unit falls in [0, 1): the first 8 bytes of its sha256. No seed, so it never moves."""
    digest = hashlib.sha256(f"split:{unit}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def carve(records: Sequence[Record], *, dev_frac: float, calibration_frac: float) -> Carved:
    """The records in three parts by their units, each in its order.

    A unit's part depends on its name and the two fractions alone: adding records moves none. The
    shares are therefore expected ones, and with few units they vary.
    """
    parts = Carved([], [], [])
    for record in records:
        place = position(record.unit)
        if place < dev_frac:
            parts.dev.append(record)
        elif place < dev_frac + calibration_frac:
            parts.calibration.append(record)
        else:
            parts.train.append(record)
    return parts


def draw(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """A fixed random subset of at most n records, in their own order.

    The draw orders ids by sha256 of seed and id, so a larger n only adds records.
    """
    kept = {record.id for record in ranked(records, seed)[:n]}
    return [record for record in records if record.id in kept]


def ranked(records: Sequence[Record], seed: int) -> list[Record]:
    """The records in a random order that depends on the seed and their ids alone."""
    return sorted(records, key=lambda record: _rank(record.id, seed))


def _rank(record_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{record_id}".encode("utf-8", "surrogatepass")).digest()
