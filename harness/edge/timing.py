"""Latencies of requests as the device will see them: through the engine that serves, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.edge.base import Ask
from harness.edge.bench import ask_all
from harness.errors import ModelError
from harness.models.base import ChoiceRequest, Request


def engine_latencies_ms(path: Path, sha256: str, requests: Sequence[Request], *, threads: int) -> list[float]:
    """Milliseconds from the acceptance of each request to its whole answer, in their order.

    What many prompts begin with is computed once, as it is on the device; the first request is not among
    the figures where there are others, because it finds nothing at hand.

    Raises:
        IntegrityError: the file has other bytes.
        ModelError: the engine can't load it, or a request gets no answer.
    """
    from harness.edge.engine import EdgeEngine

    asks = [_ask(request, at) for at, request in enumerate(requests)]
    engine = EdgeEngine(path, sha256, threads=threads, slots=1)
    try:
        found = [done.total_ms for done in ask_all(engine, asks, 1)]
    finally:
        engine.close()
    return found[1:] or found


def _ask(request: Request, at: int) -> Ask:
    prompt = request.prompt
    ask = Ask(
        id=f"{at} {request.id}", messages=prompt.messages, text=prompt.text,
        max_prompt_tok=prompt.max_tokens, over_length=prompt.over_length,
    )  # fmt: skip
    if not isinstance(request, ChoiceRequest):
        return replace(
            ask, max_new_tokens=request.max_new_tokens, stop=request.stop, temperature=request.temperature,
            seed=request.seed, grammar=request.grammar,
        )  # fmt: skip
    if request.is_open:
        raise ModelError(
            f"{request.id}: choices as open text can't be asked of the engine, whose labels end their turn",
            hint="set device.latency to library",
        )
    return replace(ask, labels=request.choices)
