"""The process that holds llama.cpp: reads requests from stdin, computes, tells on stdout.

`python -P -m harness.edge.child`, started by `harness.edge.process`. The first frame says what to load; then
each frame is an order, and each that goes back says what became of one. It ends with its stdin.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from harness.edge import wire
from harness.edge.base import Trouble
from harness.edge.batching import Batching
from harness.edge.bounded import limit_memory
from harness.edge.labelling import Labelling
from harness.edge.loaded import Loaded, Settings
from harness.edge.preparing import Refused, prepare
from harness.edge.running import Told
from harness.edge.stored import Key, StoredPrefixes
from harness.edge.writing import Writing
from harness.errors import DataError, HarnessError, IntegrityError, ModelError

BEAT_S = 1.0
"""While it works, it says so this often; a process that says nothing hangs."""

Orders = queue.SimpleQueue[dict[str, Any]]


class Work:
    """What one process does: orders in, frames out."""

    def __init__(self, loaded: Loaded, settings: Settings, send: Callable[[Mapping[str, Any]], None]) -> None:
        self._loaded = loaded
        self._send = send
        self._batching = Batching(loaded.network, loaded.adapters, slots=settings.slots)
        self._stored = StoredPrefixes(Path(settings.prefix_folder)) if settings.prefix_folder else None

    @property
    def is_busy(self) -> bool:
        """There is something to compute."""
        return self._batching.is_busy

    def order(self, frame: Mapping[str, Any]) -> None:
        """Does what a frame says."""
        getattr(self, f"_on_{frame['op']}")(frame)

    def step(self) -> None:
        """One pass through the network."""
        for told in self._batching.step():
            self._tell(told)

    def rest(self) -> None:
        """What can be done while nobody waits."""
        self._batching.sequences.copy_kept()

    def _on_ask(self, frame: Mapping[str, Any]) -> None:
        number = frame["number"]
        self._send({"said": "preparing", "number": number})  # whoever kills the process next is known
        try:
            run = prepare(self._loaded, frame)
        except Refused as error:
            self._fail(number, error.trouble, error.message)
        else:
            self._batching.add(run)
            self._send({
                "said": "prepared", "number": number, "prompt_tok": run.prompt_tok, "is_truncated": run.is_truncated
            })  # fmt: skip

    def _on_withdraw(self, frame: Mapping[str, Any]) -> None:
        for told in self._batching.withdraw(frame["number"]):
            self._tell(told)

    def _on_pin(self, frame: Mapping[str, Any]) -> None:
        began = time.monotonic()
        try:
            found = self._pinned(frame["name"], frame["asks"])
        except (Refused, ModelError) as error:
            self._send({"said": "refused", "order": frame["order"], "text": error.message})
        else:
            elapsed_ms = (time.monotonic() - began) * 1e3
            self._send({"said": "pinned", "order": frame["order"], "ms": elapsed_ms, **found})

    def _on_adapter(self, frame: Mapping[str, Any]) -> None:
        name, began = frame["name"], time.monotonic()
        if self._batching.uses(name):
            text = f"adapter {name!r} answers a request now"
            self._send({"said": "refused", "order": frame["order"], "text": text})
            return
        self._batching.sequences.forget(name)
        try:
            self._loaded.set_adapter(name, frame["path"], frame["sha256"])
        except HarnessError as error:
            self._send({"said": "refused", "order": frame["order"], "text": error.message})
        else:
            elapsed_ms = (time.monotonic() - began) * 1e3
            self._send({"said": "adapter", "order": frame["order"], "ms": elapsed_ms})

    def _pinned(self, name: str, asks: list[Mapping[str, Any]]) -> dict[str, Any]:
        runs = [prepare(self._loaded, {"number": -1, "ask": ask}) for ask in asks]
        ids = _shared_ids([run.ids for run in runs])
        adapter = runs[0].ask.adapter
        if not ids or any(run.ask.adapter != adapter for run in runs):
            raise ModelError(f"prefix {name!r}: the examples do not begin alike")
        if self._batching.sequences.shelf.pinned_tok + len(ids) > self._loaded.network.cache.cells // 2:
            raise ModelError(
                f"prefix {name!r}: {len(ids):,} tokens, and pinned ones may fill half of the cache"
            )
        key = self._loaded.prefix_key(adapter, tuple(ids))
        state, note = self._read(key)
        restore = None if state is None else lambda sequence: self._loaded.network.restore(sequence, state)
        at_hand = self._batching.sequences.keep(ids, adapter, name, restore)
        source = "computed" if at_hand < len(ids) else "memory" if state is None else "disk"
        if source != "disk":
            note = self._write(key, name) or note
        return {"tokens": len(ids), "source": source, "note": note}

    def _read(self, key: Key) -> tuple[bytes | None, str]:
        try:
            return (None if self._stored is None else self._stored.read(key)), ""
        except IntegrityError as error:
            return None, error.message

    def _write(self, key: Key, name: str) -> str:
        kept = next(kept for kept in self._batching.sequences.shelf if kept.name == name)
        if self._stored is None:
            return ""
        try:
            is_kept = self._stored.write(key, self._loaded.network.state(kept.sequence))
        except OSError as error:
            return f"prefix {name!r} is not on disk: {error.strerror or error}"
        return "" if is_kept else f"prefix {name!r} is not on disk: it alone is over the folder's bound"

    def _tell(self, told: Told) -> None:
        run, work = told.run, told.run.work
        if told.trouble:
            self._fail(run.number, told.trouble, told.why)
            return
        frame: dict[str, Any] = {"number": run.number, "cached_tok": run.cached_tok}
        if isinstance(work, Labelling):
            is_scored = told.finish == "stop"
            frame["labels"] = list(work.logprobs().values()) if is_scored else None
        else:
            frame |= self._written(run.told, work, told.text)
            run.told = len(work.ids)
        self._send({"said": "done" if told.finish else "piece", "finish": told.finish, **frame})

    def _written(self, told: int, work: Writing, text: str) -> dict[str, Any]:
        ids, logprobs = work.ids[told:], work.logprobs[told:]
        named = (
            {"logprobs": logprobs, "texts": [self._loaded.chat.decode([i]) for i in ids]} if logprobs else {}
        )
        return {"text": text, "ids": ids, **named}

    def _fail(self, number: int, trouble: Trouble, text: str) -> None:
        self._send({"said": "failed", "number": number, "trouble": trouble, "text": text})


def _shared_ids(rows: list[list[int]]) -> list[int]:
    """What all begin with; of a single one all but its last, which a request must still feed."""
    from harness.models.prompts import common_prefix

    return rows[0][:-1] if len(rows) == 1 else common_prefix(rows)


class Output:
    """Frames on their way out, written together."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._last = time.monotonic()

    def send(self, frame: Mapping[str, Any]) -> None:
        self._file.write(wire.pack(frame))

    def flush(self) -> None:
        """Writes what was sent, and a beat where nothing was for long."""
        now = time.monotonic()
        if now - self._last > BEAT_S:
            self.send({"said": "beat"})
            self._last = now
        self._file.flush()


def main() -> int:
    """Loads what the first frame says, then works until stdin ends."""
    out = os.fdopen(os.dup(1), "wb", buffering=2**16)
    os.dup2(2, 1)  # what native code prints must not fall between the frames
    output = Output(out)
    first = wire.read_frame(sys.stdin.buffer)
    if first is None:
        return 0
    settings = Settings(**first)
    orders: Orders = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    if settings.memory_bytes:
        limit_memory(settings.memory_bytes)
    try:
        loaded = Loaded(settings)
    except HarnessError as error:
        kind = type(error).__name__
        output.send({"said": "unusable", "kind": kind, "text": error.message, "hint": error.hint})
        output.flush()
        return 0
    work = Work(loaded, settings, output.send)
    output.send({"said": "ready", "context_tok": loaded.context_tok, **loaded.facts})
    output.flush()
    while True:
        _take_orders(orders, work)
        output.flush()
        work.step()
        output.flush()


def _take_orders(orders: Orders, work: Work) -> None:
    """All orders that are there; waits for one where there is nothing else to do."""
    if not work.is_busy and orders.empty():
        work.rest()
    while True:
        try:
            work.order(orders.get(block=not work.is_busy))
        except queue.Empty:
            return
        if orders.empty():
            return


def _read_orders(orders: Orders) -> None:
    """Ends the process with its stdin, whatever native code is doing: nobody is left to hear the answer."""
    try:
        while (frame := wire.read_frame(sys.stdin.buffer)) is not None:
            orders.put(frame)
    except (DataError, OSError):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
