"""Eight clients who do what clients do, a child process that is killed, and a count of every request.

    python benchmarks/serve_soak.py [--minutes 5] [--clients 8] [--kills 6] [--release FOLDER] [--tiny]

Starts `harness serve` on a release (by default the embedded SmolLM2 as a release of its own, `--tiny` a random one) and
keeps clients at it: chats and streams whose grammar lets the model say one nonce and nothing else, label questions,
streams that are hung up on, bodies that are too large or no JSON. The engine's process is killed on the way. Then:

- every request that was sent whole was answered or failed visibly, exactly once, by client and by request log;
- no answer held another client's nonce;
- the server's own memory is flat: the median of the last third over that of the middle third;
- the server is the same process throughout, answers at the end, and ends with 0 on SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "serve_soak.json"
KEY = "a-key-for-the-soak-of-the-server"
MAX_BODY = 32_768
VISIBLE = {"engine_crashed", "overloaded", "shutting_down", "timeout"}
"""Errors that say that there is no answer; with a child that is killed they are right."""
WEIGHTS = {"chat": 45, "stream": 20, "answer": 15, "hang_up": 10, "bad_json": 5, "oversized": 5}


@dataclass
class Tally:
    """What all clients saw."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    outcomes: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    def add(self, outcome: str, request_id: str | None, ms: float, *, wrong: str = "") -> None:
        with self.lock:
            self.outcomes[outcome] += 1
            self.ms.append(ms)
            if request_id:
                self.ids.append(request_id)
            if wrong:
                self.wrong.append(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--release", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seed", type=int, default=17)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        release = options.release or own_release(Path(scratch), is_tiny=options.tiny)
        report = soak(
            release, Path(scratch) / "home", seconds=options.minutes * 60, clients=options.clients,
            kills=options.kills, seed=options.seed,
        )  # fmt: skip
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    sys.exit(0 if report["ok"] else 1)


def own_release(folder: Path, *, is_tiny: bool) -> Path:
    """A release that verifies; its verdict is of the test workshop and says nothing of the model."""
    sys.path.insert(0, str(ROOT))
    from tests.edge.process import tiny_gguf
    from tests.edge.serving import calibration, make_release

    if is_tiny:
        gguf = tiny_gguf()
    else:
        from harness.models.embedded import embedded_gguf

        gguf = embedded_gguf("smollm2-135m")
    return make_release(folder / "made", gguf=str(gguf), fitted=calibration(threshold=None)).folder


def soak(
    release: Path, home: Path, *, seconds: float, clients: int, kills: int, seed: int, threads: int = 2
) -> dict[str, Any]:
    """The report; `ok` is what the script exits by."""
    process, facts = started(release, home, threads)
    does = DOES | asked_suites(facts["url"])
    tally, until = Tally(), time.monotonic() + seconds
    work = [
        threading.Thread(target=client, args=(facts["url"], number, until, tally, seed, does))
        for number in range(clients)
    ]
    try:
        for thread in work:
            thread.start()
        memory, killed = watched(process.pid, until, seconds, kills)
        for thread in work:
            thread.join(120)
        is_stuck = any(thread.is_alive() for thread in work)
        is_alive = process.poll() is None and final_answer(facts["url"])
        metrics = httpx2.get(facts["url"].replace("/v1", "/metrics"), headers=bearer(), timeout=30).text
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
    finally:
        if process.poll() is None:
            process.kill()
    return judged(tally, home, memory, killed, is_alive=is_alive, is_stuck=is_stuck, code=code,
                  seconds=seconds, clients=clients, metrics=metrics)  # fmt: skip


def started(release: Path, home: Path, threads: int) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    environment = {
        **os.environ,
        "HARNESS_HOME": str(home),
        "HARNESS_SERVE_KEY": KEY,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "serve", str(release), "--port", "0", "--threads", str(threads),
         "--max-body", str(MAX_BODY), "--seconds", "30", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline() or '{"error": "it said nothing"}')
    if "url" not in facts:
        raise SystemExit(f"the server did not start: {facts}")
    return process, facts


def watched(
    pid: int, until: float, seconds: float, kills: int
) -> tuple[list[tuple[float, float, float]], int]:
    """Memory by time as (seconds, server MB, engine MB), and how many children were killed."""
    rows: list[tuple[float, float, float]] = []
    killed, began = 0, time.monotonic()
    while (now := time.monotonic()) < until:
        engines = children(pid)
        rows.append((now - began, resident_mb(pid), sum(map(resident_mb, engines))))
        if engines and killed < kills and now - began > (killed + 1) * seconds / (kills + 1):
            os.kill(engines[0], signal.SIGKILL)
            killed += 1
        time.sleep(min(1.0, seconds / 60))
    return rows, killed


def children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except OSError:
            continue
    return found


def resident_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), 0.0)


# The clients.


def asked_suites(url: str) -> dict[str, Do]:
    """How the release's first suite with labels is asked; nothing where it has none."""
    found = httpx2.get(f"{url}/suites", headers=bearer(), timeout=30).json()["data"]
    asked = [suite for suite in found if suite["labels"] and suite["why_not"] is None]
    return {"answer": partial(answer, asked[0])} if asked else {}


def client(url: str, number: int, until: float, tally: Tally, seed: int, does: dict[str, Do]) -> None:
    rng = random.Random(f"{seed} {number}")
    kinds, weights = list(does), [WEIGHTS[kind] for kind in does]
    with httpx2.Client(base_url=url, headers=bearer(), timeout=60) as http:
        n = 0
        while time.monotonic() < until:
            n += 1
            kind = rng.choices(kinds, weights)[0]
            nonce = f"client {number} request {n} token {rng.randrange(10**6)}"
            began = time.monotonic()
            try:
                outcome, request_id, wrong = does[kind](http, nonce, rng)
            except httpx2.TimeoutException:
                outcome, request_id, wrong = f"{kind}: lost", None, f"{nonce}: no reply within 60 s"
            except httpx2.HTTPError as error:
                outcome, request_id, wrong = f"{kind}: connection", None, ""
                if kind != "oversized":  # the server may close on a body that it does not want
                    wrong = f"{nonce}: {kind}: {type(error).__name__}: {error}"
            tally.add(outcome, request_id, (time.monotonic() - began) * 1e3, wrong=wrong)


Seen = tuple[str, str | None, str]
Do = Callable[[httpx2.Client, str, random.Random], Seen]


def chat(http: httpx2.Client, nonce: str, _: random.Random) -> Seen:
    reply = http.post("/chat/completions", json=body_of(nonce))
    if reply.status_code != 200:
        return failed("chat", reply)
    choice = reply.json()["choices"][0]
    said, request_id = choice["message"]["content"], reply.headers["x-request-id"]
    if choice["finish_reason"] == "length" and nonce.startswith(said):
        return "chat: out of time", request_id, ""
    return "chat: answered", request_id, mixed(nonce, said)


def stream(http: httpx2.Client, nonce: str, _: random.Random) -> Seen:
    said, is_whole, is_cut, error = "", False, False, ""
    with http.stream("POST", "/chat/completions", json={**body_of(nonce), "stream": True}) as reply:
        if reply.status_code != 200:
            reply.read()
            return failed("stream", reply)
        request_id = reply.headers["x-request-id"]
        for line in reply.iter_lines():
            if line == "data: [DONE]":
                is_whole = True
            elif line.startswith("data: "):
                data = json.loads(line[6:])
                error = data["error"]["code"] if "error" in data else error
                said += "".join(one["delta"].get("content") or "" for one in data.get("choices", ()))
                is_cut = is_cut or any(one["finish_reason"] == "length" for one in data.get("choices", ()))
    if is_cut and nonce.startswith(said):
        return "stream: out of time", request_id, ""
    if is_whole:
        return "stream: answered", request_id, mixed(nonce, said)
    if error in VISIBLE and nonce.startswith(said):
        return f"stream: {error}", request_id, ""
    return "stream: torn", request_id, f"{nonce}: the stream ended with {said!r} and no word why"


def answer(suite: dict[str, Any], http: httpx2.Client, nonce: str, _: random.Random) -> Seen:
    reply = http.post(f"/suites/{suite['id']}/answer", json={"input": nonce})
    if reply.status_code != 200:
        return failed("answer", reply)
    body = reply.json()
    outcome = "abstained" if body["label"] is None and body["band"] == "abstain" else "answered"
    is_right = outcome == "abstained" or body["label"] in suite["labels"]
    return f"answer: {outcome}", reply.headers["x-request-id"], "" if is_right else f"{nonce}: {body}"


def hang_up(http: httpx2.Client, nonce: str, rng: random.Random) -> Seen:
    body = {"messages": [{"role": "user", "content": nonce}], "max_tokens": 64, "stream": True}
    with http.stream("POST", "/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            reply.read()
            return failed("hang_up", reply)
        request_id, lines = reply.headers["x-request-id"], reply.iter_lines()
        for _ in range(rng.randrange(1, 12)):
            if next(lines, None) is None:
                break
    return "hang_up: hung up", request_id, ""


def bad_json(http: httpx2.Client, nonce: str, rng: random.Random) -> Seen:
    data = json.dumps(body_of(nonce))[: -rng.randrange(1, 20)].encode()
    reply = http.post("/chat/completions", content=data, headers={"content-type": "application/json"})
    is_right = reply.status_code in (400, 429)
    wrong = "" if is_right else f"{nonce}: bad JSON gave {reply.status_code}"
    return f"bad_json: {reply.status_code}", reply.headers.get("x-request-id"), wrong


def oversized(http: httpx2.Client, nonce: str, rng: random.Random) -> Seen:
    body = body_of(nonce + "x" * (MAX_BODY + rng.randrange(100_000)))
    reply = http.post("/chat/completions", json=body)
    is_right = reply.status_code in (413, 429)
    wrong = "" if is_right else f"{nonce}: an oversized body gave {reply.status_code}"
    return f"oversized: {reply.status_code}", reply.headers.get("x-request-id"), wrong


DOES: dict[str, Do] = {
    "chat": chat,
    "stream": stream,
    "hang_up": hang_up,
    "bad_json": bad_json,
    "oversized": oversized,
}


def body_of(nonce: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": nonce}],
        "max_tokens": 64,
        "grammar": f"root ::= {json.dumps(nonce)}",
    }


def mixed(nonce: str, said: str) -> str:
    return "" if said == nonce else f"{nonce}: was told {said!r}"


def failed(kind: str, reply: httpx2.Response) -> Seen:
    code = reply.json()["error"]["code"]
    wrong = "" if code in VISIBLE else f"{kind}: {reply.status_code} {code}"
    return f"{kind}: {code}", reply.headers.get("x-request-id"), wrong


def bearer() -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}"}


def final_answer(url: str) -> bool:
    """Whether the server still answers."""
    with httpx2.Client(base_url=url, headers=bearer(), timeout=60) as http:
        return not chat(http, "the last one", random.Random(0))[2]


# The verdict.


def judged(
    tally: Tally, home: Path, memory: list[tuple[float, float, float]], killed: int, *, is_alive: bool,
    is_stuck: bool, code: int, seconds: float, clients: int, metrics: str,
) -> dict[str, Any]:  # fmt: skip
    lines = [
        json.loads(line)
        for path in home.glob("serving/*/requests*.jsonl")
        for line in path.read_text().splitlines()
    ]
    logged = Counter(line["id"] for line in lines if line["event"] == "request")
    seen = Counter(tally.ids)
    third = len(memory) // 3
    middle, last = ([row[1] for row in part] for part in (memory[third : 2 * third], memory[2 * third :]))
    growth = statistics.median(last) / statistics.median(middle) if middle and last else None
    problems = {
        "wrong_or_lost": tally.wrong[:20],
        "told_twice": [one for one, n in seen.items() if n > 1],
        "logged_twice": [one for one, n in logged.items() if n > 1],
        "answered_and_not_logged": [one for one in seen if one not in logged],
        "stuck": ["a client never came back"] if is_stuck else [],
        "memory": [f"{growth:.3f} times"] if growth is not None and growth > 1.1 else [],
        "server": [] if is_alive and code == 0 else [f"alive: {is_alive}, exit code {code}"],
    }
    restarts = [line for line in metrics.splitlines() if line.startswith("harness_engine_restarts")]
    lost = [line for line in metrics.splitlines() if line.startswith("harness_log_lost_total")]
    return {
        "ok": not any(problems.values()), "problems": problems, "seconds": seconds, "clients": clients,
        "requests": sum(tally.outcomes.values()), "outcomes": dict(sorted(tally.outcomes.items())),
        "logged_requests": sum(logged.values()), "children_killed": killed, "engine": restarts + lost,
        "server_mb": {"first": memory[0][1] if memory else None, "last": memory[-1][1] if memory else None,
                      "last_third_over_middle_third": growth},
        "engine_mb_largest": max((row[2] for row in memory), default=None),
        "latency_ms": {f"p{q}": percentile(tally.ms, q) for q in (50, 95, 99)},
    }  # fmt: skip


def percentile(values: list[float], q: int) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * q // 100)], 1) if ordered else None


if __name__ == "__main__":
    main()
