"""The server as people start it: a process with a real engine, signals, and a device's folder."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from harness.device.install import install, rollback
from harness.edge.served import Release, open_release
from tests.edge.process import ServerProcess, exactly, server_process, tiny_gguf
from tests.edge.serving import NOBODY, calibration, shared_release


def release_of(sequence: int) -> Release:
    return shared_release(sequence=sequence, gguf=str(tiny_gguf()), fitted=calibration(threshold=None))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(release_of(1_000).folder, tmp_path_factory.mktemp("home")) as found:
        yield found


def say(client: httpx2.Client, text: str, **more: object) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": "Say it."}], "grammar": exactly(text), **more}
    reply = client.post("/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply


def test_a_chat_with_a_grammar_says_what_the_grammar_lets_it_say(server: ServerProcess) -> None:
    with server.client() as client:
        reply = say(client, "nonce 4711")

    assert reply.json()["choices"][0]["message"]["content"] == "nonce 4711"
    assert reply.headers["x-model-digest"] == release_of(1_000).sha256
    assert reply.json()["usage"]["prompt_tokens"] > 5


def test_an_answer_asked_for_by_a_schema_is_json_of_that_schema(server: ServerProcess) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["cap", "fee"]}, "days": {"type": ["integer", "null"]}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "clause", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "Which?"}], "response_format": form, "max_tokens": 100}
    with server.client() as client:
        reply = client.post("/chat/completions", json=body).json()

    found = json.loads(reply["choices"][0]["message"]["content"])
    assert list(found) == ["kind", "days"]
    assert found["kind"] in ("cap", "fee")
    assert found["days"] is None or isinstance(found["days"], int)


def test_a_suites_question_is_answered_with_probabilities_of_all_its_labels(server: ServerProcess) -> None:
    with server.client() as client:
        body = client.post("/suites/clauses/answer", json={"input": "Pay within 30 days."}).json()

    assert body["label"] in ("cap", "fee", "term")
    assert body["band"] == "answer"
    assert body["is_calibrated"]
    assert 1 / 3 <= body["confidence"] <= 1.0
    assert not math.isnan(body["confidence"])


def test_a_prompt_over_the_suites_budget_is_refused_as_it_was_in_the_evaluation(
    server: ServerProcess,
) -> None:
    with server.client() as client:
        reply = client.post("/suites/clauses/answer", json={"input": "Pay within 30 days. " * 40})

    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_answers_of_clients_at_once_are_not_mixed_up(server: ServerProcess) -> None:
    said: dict[str, str] = {}

    def ask(name: str) -> None:
        with server.client() as client:
            for n in range(5):
                nonce = f"{name} {n}"
                said[nonce] = say(client, nonce).json()["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=ask, args=(f"client {n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(said) == 30
    assert all(nonce == text for nonce, text in said.items())


def test_a_client_that_hangs_up_ends_its_request_and_nobody_elses(server: ServerProcess) -> None:
    with server.client() as client:
        with client.stream(
            "POST",
            "/chat/completions",
            json={"messages": [{"role": "user", "content": "x"}], "max_tokens": 200, "stream": True},
        ) as reply:
            next(reply.iter_lines())
        assert say(client, "still here").json()["choices"][0]["message"]["content"] == "still here"
        health = httpx2.get(server.url.replace("/v1", "/health"))

    assert health.json() == {"status": "ok"}


def test_sigterm_lets_what_runs_end_and_takes_no_more(tmp_path: Path) -> None:
    with server_process(release_of(1_000).folder, tmp_path) as server:
        with server.client() as client:
            chunks: list[str] = []
            body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 60, "stream": True}
            with client.stream("POST", "/chat/completions", json=body) as reply:
                lines = reply.iter_lines()
                chunks.append(next(lines))
                server.signal(signal.SIGTERM)
                chunks += list(lines)
        code = server.wait()

        assert code == 0
        assert chunks[-2:] == ["data: [DONE]", ""] or chunks[-1] == "data: [DONE]"
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(server.url.replace("/v1", "/health"))
        events = [line["event"] for line in server.log()]
        assert events == ["start", "request", "stop"]


def test_a_release_that_does_not_verify_is_not_served(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    shutil.copytree(release_of(1_000).folder, folder)
    (folder / "extra.txt").write_text("x")

    with pytest.raises(AssertionError, match="extra files"):
        ServerProcess(folder, tmp_path / "home")


@pytest.mark.parametrize(
    ("key", "host", "why"),
    [("short", "127.0.0.1", "16 to 512"), ("", "0.0.0.0", "there is no key")],
)
def test_another_machine_is_not_let_in_without_a_key_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, host: str, why: str
) -> None:
    monkeypatch.setattr("tests.edge.process.KEY", key)

    with pytest.raises(AssertionError, match=why):
        ServerProcess(release_of(1_000).folder, tmp_path, "--host", host)


def test_what_is_installed_and_rolled_back_on_a_device_is_what_answers(tmp_path: Path) -> None:
    device = tmp_path / "device"
    install(release_of(1_001).folder, device, NOBODY)
    with server_process(device, tmp_path / "home") as server, server.client() as client:
        first = say(client, "a").headers["x-release"]
        install(release_of(1_002).folder, device, NOBODY)
        second = await_release(client, release_of(1_002))
        rollback(device, NOBODY)
        third = await_release(client, release_of(1_001))
        fourth = server.admin("rollback", {"reason": "a test"})
        log = [line for line in server.log() if line["event"] in ("switch", "rollback")]

    assert first == third == release_of(1_001).digest
    assert second == release_of(1_002).digest
    assert (fourth.status_code, fourth.json()["error"]["code"]) == (
        409,
        "refused",
    )  # nothing was before the first
    assert [line["event"] for line in log] == ["switch", "rollback"]
    assert log[1]["ms"] < 1_000


def test_sighup_looks_at_the_folder_again(tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(release_of(1_001).folder)
    with server_process(link, tmp_path / "home") as server, server.client() as client:
        link.unlink()
        link.symlink_to(release_of(1_002).folder)
        server.signal(signal.SIGHUP)
        found = await_release(client, release_of(1_002))

    assert found == release_of(1_002).digest


def await_release(client: httpx2.Client, release: Release) -> str:
    """Asks until the release answers; every request on the way must be answered by somebody."""
    for _ in range(2_000):
        reply = say(client, "a")
        if reply.headers["x-release"] == release.digest:
            return release.digest
    raise AssertionError("the release never answered")


def test_the_releases_of_these_tests_verify() -> None:
    assert open_release(release_of(1_002).folder, NOBODY).digest == release_of(1_002).digest
