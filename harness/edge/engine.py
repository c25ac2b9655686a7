"""A GGUF that answers from a process of its own: it may crash and start again, and no request is lost in silence."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.edge.base import Ask, Failed, Health, Tell
from harness.edge.bounded import resident_mb
from harness.edge.loaded import Settings
from harness.edge.roster import Note, Roster
from harness.edge.supervisor import Patience, Supervisor
from harness.edge.wire import ask_to_json
from harness.errors import ModelError

START_S = 120.0
PATIENCE_S = 60.0
"""A process that has work and says nothing for so long hangs, and is ended."""
MAX_WAITING = 256
MAX_SLOTS = 64
"""llama.cpp has 256 sequences, and kept ones and the ends of label trees take theirs."""
MEMORY_FRAC = 0.8
"""Of the machine's memory, which the process may allocate where nothing else is said."""


class Pinned(NamedTuple):
    """What became of a prefix that is to be kept at hand."""

    name: str
    tokens: int
    source: str
    """`disk`, `memory` or `computed`."""
    ms: float
    note: str
    """What is wrong with its file; empty where nothing is."""


class EdgeEngine:
    """Meets `harness.edge.base.Engine`, from any thread. One thread owns the process and tells everything."""

    def __init__(
        self,
        path: Path,
        sha256: str,
        *,
        threads: int = 2,
        slots: int = 8,
        context_tok: int | None = None,
        cells: int | None = None,
        kv: Literal["f16", "q8_0"] = "f16",
        prefix_folder: Path | None = None,
        adapters: Mapping[str, tuple[Path, str]] | None = None,
        memory_mb: int | None = None,
        max_waiting: int = MAX_WAITING,
        start_s: float = START_S,
        patience_s: float = PATIENCE_S,
        on_note: Note | None = None,
    ) -> None:
        """Starts the process and returns when a first step through the network has worked.

        `slots` requests are computed side by side. `context_tok` is what one request may take, by default the
        model's own, 4096 at most; `cells` what all may hold together, 1024 a slot by default. `adapters` are
        LoRA GGUFs by name, with their sha256. `on_note` hears, in the engine's thread, what a person should know.

        Raises:
            IntegrityError: a file is not the one that was promised.
            ModelError: llama.cpp can't use it, or it takes too long or too much memory.
        """
        if not 1 <= slots <= MAX_SLOTS:
            raise ModelError(f"slots is {slots}, wanted 1 to {MAX_SLOTS}")
        wanted = {name: (str(file.resolve()), digest) for name, (file, digest) in (adapters or {}).items()}
        settings = Settings(
            path=str(path.resolve()), sha256=sha256, threads=threads, slots=slots, context_tok=context_tok,
            cells=cells, kv=kv, is_plain=False, memory_bytes=_memory_bytes(memory_mb),
            prefix_folder=None if prefix_folder is None else str(prefix_folder.resolve()), adapters=wanted,
        )  # fmt: skip
        note: Note = on_note or (lambda _text: None)
        self._roster = Roster(slots=slots, max_waiting=max_waiting, note=note)
        self._supervisor = Supervisor(settings, self._roster, Patience(start_s, patience_s), note)
        try:
            self._supervisor.start()
        except BaseException:
            self.close()
            raise

    @property
    def digest(self) -> str:
        """sha256 hex of the file that answers."""
        return self._supervisor.settings.sha256

    @property
    def context_tok(self) -> int:
        """Tokens that one request may take, prompt and answer together."""
        return int(self._supervisor.facts["context_tok"])

    @property
    def adapters(self) -> Mapping[str, str]:
        """Loaded LoRA adapters: name to sha256 hex of the file."""
        return {name: digest for name, (_, digest) in self._supervisor.settings.adapters.items()}

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the process said of its start: `load_ms`, `sha256_ms`, `cells`, `cache_mb`, `library`."""
        return dict(self._supervisor.facts)

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._supervisor.pid

    def submit(self, ask: Ask, tell: Tell) -> None:
        """Takes the request and returns at once; all that happens to it is told.

        Once the engine is closed there is no thread of its own, and the caller's tells so.
        """
        if not self._supervisor.submit(ask, tell):
            tell(Failed("closed", "the engine is closed"))

    def withdraw(self, ask_id: str) -> None:
        """Ends the request soon, with `finish` `cancelled`. An id that is not there is no error."""
        self._supervisor.withdraw(ask_id)

    def health(self) -> Health:
        """Never blocks."""
        pid, supervisor, roster = self.pid, self._supervisor, self._roster
        memory = None if pid is None else resident_mb(pid)
        running, waiting = len(roster.running), len(roster.waiting)
        return Health(supervisor.state, running, waiting, supervisor.restarts, memory, roster.served)

    def pin(self, name: str, asks: Sequence[Ask], *, timeout_s: float = PATIENCE_S) -> Pinned:
        """Keeps what the requests begin with at hand under the name, also after a restart, and on disk where there is
        a `prefix_folder`. Two requests that differ where prompts will differ say where the prefix ends; of a
        single one, all but its last token is the prefix.

        Raises:
            ModelError: they do not begin alike, or it is too long.
        """
        if not asks:
            raise ModelError(f"prefix {name!r}: no request to take it from")
        frame = {"op": "pin", "name": name, "asks": [ask_to_json(ask) for ask in asks]}
        found = self._supervisor.order(frame, timeout_s)
        self._supervisor.pins[name] = tuple(asks)
        return Pinned(name, found["tokens"], found["source"], found["ms"], found["note"])

    def load_adapter(self, name: str, path: Path, sha256: str, *, timeout_s: float = PATIENCE_S) -> float:
        """Puts a LoRA GGUF in place under the name while others answer; milliseconds that the process took.

        Raises:
            ModelError: it can't be used, has other bytes, or one of that name answers a request now.
        """
        if not name:
            raise ModelError("an adapter needs a name: the empty one is for the release's own weights")
        frame = {"op": "adapter", "name": name, "path": str(path.resolve()), "sha256": sha256}
        supervisor = self._supervisor
        found = supervisor.order(frame, timeout_s)
        loaded = {**supervisor.settings.adapters, name: (str(path.resolve()), sha256)}
        supervisor.settings = replace(supervisor.settings, adapters=loaded)
        return float(found["ms"])

    def close(self, drain_s: float = 0.0) -> None:
        """Lets what runs end for so long, fails the rest as `closed`, and ends the process. Twice is fine."""
        self._supervisor.close(drain_s)


def _memory_bytes(memory_mb: int | None) -> int | None:
    if memory_mb is not None:
        return memory_mb * 10**6
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_FRAC)
    except (ValueError, OSError, AttributeError):
        return None
