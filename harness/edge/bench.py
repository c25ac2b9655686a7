"""How fast a file answers on a device: time to first token and per token, memory, energy where it is readable.

A run is one state of the cache (cold: no prompt shares its beginning with another; warm: all share one that was
computed before) and one number of clients, each of which asks its next request when its last one is answered.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.edge.base import Ask, Done, Engine, Event, Failed
from harness.edge.bounded import resident_mb
from harness.errors import DataError, ModelError
from harness.files import read_json, sha256_file
from harness.models.base import Message
from harness.stats.quantiles import quantile

FORMAT = "dragongate.bench/1"
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
RAPL = Path("/sys/class/powercap")
CPUINFO = Path("/proc/cpuinfo")
TEXT = (
    "the supplier shall deliver goods in time and keep records of what was sent, so that a later reader may"
    " find out who agreed to which terms, when they did so and what they paid"
)
LABELS = ("delivery", "payment", "records", "termination", "liability", "governing law", "insurance", "audit")
ANSWER_S = 600.0

State = Literal["cold", "warm"]
Kind = Literal["text", "label"]


class Target(NamedTuple):
    """The file that is measured."""

    path: Path
    sha256: str
    threads: int | None
    """Those of the device that a release is for; None for a bare GGUF."""
    device: str


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, and how often."""

    concurrency: tuple[int, ...] = (1, 2, 4, 8)
    requests: int = 20
    """In each run."""
    prompt_words: int = 100
    shared_words: int = 300
    """Of a beginning that all prompts share; cold ones have as many of their own."""
    new_tok: int = 32


class Run(NamedTuple):
    """One run's requests, in milliseconds."""

    kind: Kind
    state: State
    concurrency: int
    answers: tuple[Done, ...]
    seconds: float
    energy_j: float | None

    def to_json(self) -> dict[str, Any]:
        """Percentiles; None where nothing was measured."""
        per_token = [
            (one.total_ms - one.first_ms) / (one.output_tok - 1)
            for one in self.answers
            if one.first_ms is not None and one.output_tok > 1
        ]
        output_tok = sum(one.output_tok for one in self.answers)
        return {
            "kind": self.kind, "state": self.state, "concurrency": self.concurrency, "requests": len(self.answers),
            "prompt_tok": _mean([one.prompt_tok for one in self.answers]),
            "cached_tok": _mean([one.cached_tok for one in self.answers]),
            "first_ms": _percentiles([one.first_ms for one in self.answers if one.first_ms is not None]),
            "per_token_ms": _percentiles(per_token),
            "total_ms": _percentiles([one.total_ms for one in self.answers]),
            "output_tok_s": output_tok / self.seconds if output_tok else None,
            "answers_s": len(self.answers) / self.seconds,
            "energy_j_per_answer": None if self.energy_j is None else self.energy_j / len(self.answers),
        }  # fmt: skip


def find_target(path: Path) -> Target:
    """The GGUF, or the one that a release folder ships.

    Raises:
        DataError: there is neither.
    """
    if path.is_file():
        return Target(path, sha256_file(path), None, "")
    manifest = path / "manifest.json"
    if not manifest.is_file():
        raise DataError(
            f"{path}: no GGUF and no release folder", hint="harness bench RELEASE, or a .gguf file"
        )
    try:
        document = read_json(manifest)
        model, device = document["model"], document.get("device") or {}
        return Target(
            path / model["file"], model["sha256"], device.get("threads"), str(device.get("name") or "")
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{manifest}: it does not say what ships: {error}") from error


def measure(
    engine: Engine, load: Load, *, on_run: Callable[[Run], None] = lambda _run: None, powercap: Path = RAPL
) -> list[Run]:
    """All runs, each after the ones before it. The engine answers nobody else meanwhile.

    Raises:
        ModelError: a request got no answer.
    """
    runs: list[Run] = []
    kinds: tuple[tuple[Kind, State], ...] = (("text", "cold"), ("text", "warm"), ("label", "warm"))
    for kind, state in kinds:
        ask_all(engine, list(_asks(load, kind, state, "before", 2)), 1)  # computes what is shared
        for clients in load.concurrency:
            asks = list(_asks(load, kind, state, f"{kind}{clients}", max(load.requests, clients)))
            joules, began = Joules(powercap), time.perf_counter()
            answers = ask_all(engine, asks, clients)
            run = Run(kind, state, clients, tuple(answers), time.perf_counter() - began, joules.spent())
            runs.append(run)
            on_run(run)
    return runs


def bench(
    target: Target, load: Load, *, threads: int, slots: int = 8, kv: Literal["f16", "q8_0"] = "f16", device: str = "",
    on_run: Callable[[Run], None] = lambda _run: None,
) -> dict[str, Any]:  # fmt: skip
    """What `harness bench` writes: the device, the file, how it started, and each run.

    Raises:
        IntegrityError: the file is not the one that the release names.
        ModelError: it can't be loaded, or gives no answer.
    """
    from harness.edge.engine import EdgeEngine

    engine = EdgeEngine(target.path, target.sha256, threads=threads, slots=slots, kv=kv)
    try:
        facts, pid = dict(engine.facts), engine.pid
        first = ask_all(engine, list(_asks(load, "text", "cold", "first", 1)), 1)[0]
        runs = measure(engine, load, on_run=on_run)
        peak = None if pid is None else resident_mb(pid, "VmHWM")
    finally:
        engine.close()
    return {
        "format": FORMAT,
        "device": {"name": device or target.device or platform.node(), **machine(), "threads": threads},
        "model": {"file": target.path.name, "sha256": target.sha256, "bytes": target.path.stat().st_size},
        "engine": {"slots": slots, "kv": kv, **facts},
        "load": {**asdict(load), "concurrency": list(load.concurrency)},
        "start": {"ready_ms": facts["start_ms"], "first_answer_ms": first.total_ms},
        "memory_peak_mb": peak,
        "runs": [run.to_json() for run in runs],
    }


def machine(cpuinfo: Path = CPUINFO) -> dict[str, Any]:
    """The processor, its cores and the system, as the system names them."""
    import os

    model = platform.processor() or platform.machine()
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # other systems have no such file
    return {"cpu": model, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}"}


class Joules:
    """Energy of the processor packages from now on, by the counters of Linux's powercap interface.

    Source: Linux, Documentation/power/powercap/powercap.rst.
    """

    def __init__(self, powercap: Path = RAPL) -> None:
        self._zones = sorted(powercap.glob("intel-rapl:[0-9]*"))
        self._zones = [zone for zone in self._zones if zone.name.count(":") == 1]
        self._before = [_number(zone / "energy_uj") for zone in self._zones]

    def spent(self) -> float | None:
        """Joules since then; None where no counter can be read."""
        spent = 0
        for zone, before in zip(self._zones, self._before, strict=True):
            after = _number(zone / "energy_uj")
            if before is None or after is None:
                return None
            wrap = _number(zone / "max_energy_range_uj") or 0
            spent += after - before if after >= before else after + wrap - before
        return spent / 1e6 if self._zones else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _asks(load: Load, kind: Kind, state: State, name: str, count: int) -> Iterator[Ask]:
    shared = filler(load.shared_words, 0)
    for at in range(count):
        nonce = f"Case {name}-{at}."
        own = f"{nonce} {filler(load.prompt_words, at + 1)}"
        system = shared if state == "warm" else f"{nonce} {shared}"
        yield Ask(
            id=f"{kind}-{state}-{name}-{at}", messages=(Message("system", system), Message("user", own)),
            max_new_tokens=load.new_tok, labels=LABELS if kind == "label" else (),
        )  # fmt: skip


def filler(words: int, start: int) -> str:
    """So many words of plain text, from another place of it for another start."""
    known = TEXT.split()
    return " ".join(known[(start + at) % len(known)] for at in range(words))


def ask_all(engine: Engine, asks: Sequence[Ask], clients: int) -> list[Done]:
    """The answers in the requests' order, `clients` of them on their way at a time.

    Raises:
        ModelError: a request got none.
    """
    found: dict[str, Done | Failed] = {}
    turns, ended = threading.Semaphore(clients), threading.Semaphore(0)

    def listen(name: str) -> Callable[[Event], None]:
        def tell(event: Event) -> None:
            if isinstance(event, Done | Failed):
                found[name] = event
                turns.release()
                ended.release()

        return tell

    for ask in asks:
        turns.acquire()
        engine.submit(ask, listen(ask.id))
    for _ in asks:
        if not ended.acquire(timeout=ANSWER_S):
            raise ModelError(f"a request was not answered within {ANSWER_S:g} s")
    return [_answered(found, ask.id) for ask in asks]


def _answered(found: Mapping[str, Done | Failed], name: str) -> Done:
    answer = found[name]
    if isinstance(answer, Failed):
        raise ModelError(f"request {name} got no answer: {answer.trouble}: {answer.text}")
    return answer


def _percentiles(values_ms: Sequence[float]) -> dict[str, float | None] | None:
    return {name: quantile(values_ms, share) for name, share in SHARES.items()} if values_ms else None


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None
