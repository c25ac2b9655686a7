"""Slices of records: the values of one key, or of several keys crossed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product


def crossed_names(slices: Mapping[str, str | list[str]], keys: Sequence[str]) -> list[str]:
    """The slices that an item is in: `age=old`, or `age=old, sex=f` for two keys; ["all"] without keys.

    An item can have several values of one key. One that lacks a key is in none.
    """
    if not keys:
        return ["all"]
    return [", ".join(parts) for parts in product(*(_of_key(slices, key) for key in keys))]


def _of_key(slices: Mapping[str, str | list[str]], key: str) -> list[str]:
    value = slices.get(key, ())
    return [f"{key}={one}" for one in ([value] if isinstance(value, str) else value)]
