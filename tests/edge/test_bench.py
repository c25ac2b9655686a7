"""The latency suite: its figures from answers whose times are known, and the command on a tiny file."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.edge.base import Ask, Done, Failed, Tell
from harness.edge.bench import Joules, Load, Run, find_target, measure
from harness.edge.timing import engine_latencies_ms
from harness.errors import DataError, ModelError
from harness.evals.results import State
from harness.files import read_json, sha256_file, write_json
from harness.models.base import ChoiceRequest, GenerateRequest, Message, Prompt
from tests.jobs.test_stages import Sure, stages


def done(first_ms: float, total_ms: float, output_tok: int = 11) -> Done:
    return Done("x", "length", 400, 300, output_tok, first_ms, total_ms)


def test_percentiles_are_order_statistics_of_the_requests() -> None:
    answers = tuple(done(first, first + 100.0) for first in range(1, 101))
    found = Run("text", "warm", 4, answers, 10.0, 50.0).to_json()

    assert found["first_ms"] == {"p50": 50, "p95": 95, "p99": 99}
    assert found["per_token_ms"] == {"p50": 10.0, "p95": 10.0, "p99": 10.0}
    assert (found["output_tok_s"], found["answers_s"], found["energy_j_per_answer"]) == (110.0, 10.0, 0.5)
    assert (found["prompt_tok"], found["cached_tok"], found["requests"]) == (400, 300, 100)


def test_what_was_not_measured_is_unknown() -> None:
    found = Run("label", "warm", 1, (Done("a", "stop", 9, 0, 0, None, 5.0),), 1.0, None).to_json()

    assert (found["first_ms"], found["per_token_ms"], found["output_tok_s"]) == (None, None, None)
    assert found["energy_j_per_answer"] is None


class Scripted:
    """An engine that answers in a thread of its own, and counts how many requests it has at a time."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails, self.most, self.now = fails, 0, 0
        self.asks: list[Ask] = []
        self._lock = threading.Lock()

    def submit(self, ask: Ask, tell: Tell) -> None:
        with self._lock:
            self.asks.append(ask)
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Thread(target=self._answer, args=(tell,)).start()

    def _answer(self, tell: Tell) -> None:
        with self._lock:
            self.now -= 1
        tell(Failed("crashed", "gone") if self.fails else done(5.0, 105.0))


def test_each_run_asks_as_many_clients_as_it_says(tmp_path: Path) -> None:
    engine: Any = Scripted()
    runs = measure(engine, Load(concurrency=(1, 3), requests=9), powercap=tmp_path)

    assert [(run.kind, run.state, run.concurrency, len(run.answers)) for run in runs] == [
        (kind, state, clients, 9)
        for kind, state in (("text", "cold"), ("text", "warm"), ("label", "warm"))
        for clients in (1, 3)
    ]
    assert engine.most <= 3
    assert len({ask.id for ask in engine.asks}) == len(engine.asks)


def test_cold_prompts_begin_otherwise_and_warm_ones_alike(tmp_path: Path) -> None:
    engine: Any = Scripted()
    measure(engine, Load(concurrency=(1,), requests=5), powercap=tmp_path)
    system = {
        state: [a.messages[0].content for a in engine.asks if state in a.id] for state in ("cold", "warm")
    }

    assert len(set(system["warm"])) == 1
    assert len({text[:30] for text in system["cold"]}) == len(system["cold"])


def test_a_request_without_an_answer_is_no_figure(tmp_path: Path) -> None:
    engine: Any = Scripted(fails=True)

    with pytest.raises(ModelError, match="crashed"):
        measure(engine, Load(concurrency=(1,), requests=1), powercap=tmp_path)


def test_energy_is_the_counters_difference_also_where_they_wrap(tmp_path: Path) -> None:
    for zone, before in (("intel-rapl:0", 100), ("intel-rapl:1", 900), ("intel-rapl:0:0", 5)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{before}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("1000\n")
    joules = Joules(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("400\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("100\n")

    assert joules.spent() == pytest.approx(500e-6)  # the package's own zones are in it already
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert joules.spent() is None
    assert Joules(tmp_path / "nowhere").spent() is None


def test_a_release_names_its_file_and_its_device(tmp_path: Path) -> None:
    manifest = {"model": {"file": "m.gguf", "sha256": "a" * 64}, "device": {"name": "kiosk", "threads": 3}}
    write_json(tmp_path / "manifest.json", manifest)

    assert find_target(tmp_path) == (tmp_path / "m.gguf", "a" * 64, 3, "kiosk")
    write_json(tmp_path / "manifest.json", {"model": {}})
    with pytest.raises(DataError, match="does not say"):
        find_target(tmp_path)
    with pytest.raises(DataError, match="no GGUF"):
        find_target(tmp_path / "nothing")


def test_the_command_writes_one_document(gguf: Path, tmp_path: Path) -> None:
    arguments = [
        "bench",
        str(gguf),
        "--device",
        "kiosk",
        "--threads",
        "1",
        "--requests",
        "2",
        "--new-tok",
        "4",
    ]
    command = [sys.executable, "-m", "harness", *arguments, "--concurrency", "1,2", "--json"]
    ended = subprocess.run([*command, "--out", str(tmp_path / "b.json")], capture_output=True, text=True)

    assert ended.returncode == 2  # the tiny network has 512 tokens of context: the prompts do not fit
    assert "too_long" in json.loads(ended.stdout)["error"]


def test_the_command_measures_a_file(long_gguf: Path, tmp_path: Path) -> None:
    arguments = [
        "--device",
        "kiosk",
        "--threads",
        "1",
        "--requests",
        "2",
        "--new-tok",
        "4",
        "--concurrency",
        "1,2",
    ]
    command = [sys.executable, "-m", "harness", "bench", str(long_gguf), *arguments, "--json"]
    ended = subprocess.run([*command, "--out", str(tmp_path / "b.json")], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document == json.loads((tmp_path / "b.json").read_text())
    assert document["model"]["sha256"] == sha256_file(long_gguf)
    assert (document["device"]["name"], document["device"]["threads"]) == ("kiosk", 1)
    assert [run["concurrency"] for run in document["runs"]] == [1, 2] * 3
    cold, warm = (
        next(run for run in document["runs"] if run["state"] == state) for state in ("cold", "warm")
    )
    assert cold["cached_tok"] < 0.1 * cold["prompt_tok"] < 0.5 * warm["prompt_tok"] < warm["cached_tok"]
    assert all(run["total_ms"]["p95"] > 0 for run in document["runs"])


def test_the_engine_times_what_a_suite_asks(gguf: Path) -> None:
    prompts = [Prompt((Message("user", text),)) for text in ("one", "two", "three")]
    requests = [
        *(ChoiceRequest(f"c{at}", prompt, ("yes", "no")) for at, prompt in enumerate(prompts)),
        GenerateRequest("g", Prompt((), text="once"), 4),
    ]

    found = engine_latencies_ms(gguf, sha256_file(gguf), requests, threads=1)

    assert len(found) == 3  # the first one warms up
    assert all(value > 0 for value in found)
    with pytest.raises(ModelError, match="open text"):
        engine_latencies_ms(gguf, "", [ChoiceRequest("o", prompts[0], ("a", "b"), True)], threads=1)


@pytest.mark.parametrize(("latency", "wanted"), [("engine", State.FAIL), ("library", State.PASS)])
def test_latency_rules_stand_on_the_engine_where_the_device_says_so(
    latency: str, wanted: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def slow(path: Path, sha256: str, requests: Sequence[Any], *, threads: int) -> list[float]:
        asked.append(len(requests))
        return [60_000.0] * 200

    monkeypatch.setattr("harness.jobs.stages.engine_latencies_ms", slow)
    rule = {"metric": "latency_p95_ms", "at_most": 30_000, "stages": ["q8_0"]}
    held = stages(tmp_path, rule, device={"name": "kiosk", "latency": latency})

    verdict, _ = held.run("q8_0", "m", Sure, gguf=tmp_path / "m.gguf")

    judged = next(one for one in verdict.rules if one.metric == "latency_p95_ms")
    assert (judged.verdict, bool(asked)) == (wanted, latency == "engine"), judged
    assert read_json(tmp_path / "stages" / "q8_0" / "latency.json")["by"] == latency
