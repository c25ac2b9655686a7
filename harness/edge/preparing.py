"""A request → tokens and the work on them; what is wrong with it is said here, before it costs anybody a step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from harness.edge.base import Ask, Trouble
from harness.edge.bounded import bounded
from harness.edge.labelling import WAVE_NODES, Labelling
from harness.edge.loaded import TEMPLATE_BYTES, TEMPLATE_S, Loaded
from harness.edge.running import Running
from harness.edge.wire import ask_from_json
from harness.edge.writing import Writing, Written
from harness.errors import HarnessError, ModelError
from harness.models.base import Prompt
from harness.models.gguf_constraint import GrammarConstraint
from harness.models.prompts import Fitted, PromptTooLong

MAX_BYTES_A_TOK = 128
"""A text of more bytes than this for each token of the context is not tokenized at all, unless it may be cut."""
CUTTABLE_BYTES_A_TOK = 1024
MAX_LABELS = 4096


class Refused(Exception):  # noqa: N818 - an outcome, told to whoever asked
    """There will be no answer."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble: Trouble = trouble
        self.message = message


def prepare(loaded: Loaded, frame: Mapping[str, Any]) -> Running:
    """The request, ready for its first step.

    Raises:
        Refused: it can't be answered.
    """
    ask = ask_from_json(frame["ask"])
    if ask.adapter and ask.adapter not in loaded.adapters:
        known = ", ".join(sorted(loaded.adapters)) or "none"
        raise Refused("unknown_adapter", f"no adapter {ask.adapter!r} is loaded; there is: {known}")
    try:
        work = Labelling(_labels(ask), loaded.chat) if ask.labels else None
        fitted = _fitted(loaded, ask, _answer_tok(ask, work))
        begun = Written(tuple(frame.get("ids", ())), tuple(frame.get("logprobs", ())))
        return Running(
            number=frame["number"], ask=ask, ids=[*fitted.ids, *begun.ids], prompt_tok=len(fitted.ids),
            is_truncated=fitted.is_truncated, work=work or _writing(loaded, ask, begun),
            deadline=_deadline(frame.get("budget_ms")), told=len(begun.ids),
        )  # fmt: skip
    except PromptTooLong as error:
        raise Refused("too_long", error.message) from error
    except HarnessError as error:
        raise Refused("bad_request", error.message) from error
    except RuntimeError as error:
        raise Refused("bad_request", str(error)) from error


def _labels(ask: Ask) -> tuple[str, ...]:
    if len(ask.labels) > MAX_LABELS:
        raise ModelError(f"{len(ask.labels):,} labels, over the limit of {MAX_LABELS:,}")
    if len(set(ask.labels)) < len(ask.labels):
        raise ModelError("a label stands there twice")
    return ask.labels


def _answer_tok(ask: Ask, work: Labelling | None) -> int:
    if work is None:
        if ask.max_new_tokens < 1:
            raise ModelError(f"max_new_tokens is {ask.max_new_tokens}, wanted 1 or more")
        return ask.max_new_tokens
    deepest = max(work.trie.depths)
    if deepest > WAVE_NODES:
        raise ModelError(f"a label of {deepest:,} tokens, over the limit of {WAVE_NODES}")
    return deepest


def _fitted(loaded: Loaded, ask: Ask, answer_tok: int) -> Fitted:
    room = loaded.context_tok - answer_tok
    budget = room if ask.max_prompt_tok is None else min(room, ask.max_prompt_tok)
    can_cut = ask.over_length in ("truncate", "truncate_left")
    size = sum(len(message.content.encode("utf-8", "replace")) for message in ask.messages)
    size += len((ask.text or "").encode("utf-8", "replace"))
    limit = loaded.context_tok * (CUTTABLE_BYTES_A_TOK if can_cut else MAX_BYTES_A_TOK)
    if size > limit:
        raise Refused(
            "too_long", f"the prompt has {size:,} bytes, over the {limit:,} that may be read for a context"
        )
    if budget < 1:
        raise Refused(
            "too_long",
            f"{answer_tok:,} tokens for the answer leave no room in a context of {loaded.context_tok:,}",
        )
    prompt = Prompt(ask.messages, budget, ask.over_length, ask.text)
    with bounded("rendering the prompt", seconds=TEMPLATE_S, extra_bytes=TEMPLATE_BYTES):
        fitted = loaded.chat.fit(prompt)
    if not fitted.ids:
        raise ModelError("the prompt is empty")
    return fitted


def _writing(loaded: Loaded, ask: Ask, begun: Written) -> Writing:
    constraint = None
    if ask.grammar is not None:
        if loaded.ends.probe is None:
            raise ModelError("llama.cpp knows no token of the file that ends a turn: no grammar could end")
        constraint = GrammarConstraint(loaded.weights, ask.grammar, loaded.ends)
    return Writing(ask, loaded.chat.end_ids, loaded.pieces, constraint, begun)


def _deadline(budget_ms: float | None) -> float | None:
    return None if budget_ms is None else time.monotonic() + budget_ms / 1e3
