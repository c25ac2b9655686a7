"""A text longer than the context, as windows that each score tokens of their own."""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """Some tokens of a text and what is fed before them."""

    context: list[int]
    scored: list[int]


def rolling_windows(ids: list[int], start_id: int, context_tok: int) -> list[Window]:
    """Windows that score each of the ids exactly once, the first after `start_id`.

    No window feeds more than `context_tok` tokens; all but the first see as many earlier tokens as fit,
    and at least one.

    Source: lm-evaluation-harness 0.4, `get_rolling_token_windows` with a context of one token and
    `make_disjoint_window`.
    """
    first = min(context_tok, len(ids))
    windows = [Window([start_id], ids[:first])] if ids else []
    done = first
    while done < len(ids):
        end = min(done + context_tok, len(ids))
        windows.append(Window(ids[max(0, end - context_tok - 1) : done], ids[done:end]))
        done = end
    return windows
