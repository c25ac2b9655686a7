"""A server with a tiny language model over characters, and with the bad habits of real ones on demand."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

START, END = 1000, 1001
VOCABULARY = [*range(256), START, END]
LIKELY = 0.9

Fault = Callable[["Handler"], None]


def next_logprobs(ids: Sequence[int]) -> dict[int, float]:
    """log P(next | ids): what followed the last two tokens the time before is likely, all else equally unlikely."""
    return _next_logprobs(tuple(ids))


@lru_cache(maxsize=4096)
def _next_logprobs(context: tuple[int, ...]) -> dict[int, float]:
    guess = END
    for at in range(len(context) - 3, -1, -1):
        if context[at : at + 2] == context[-2:]:
            guess = context[at + 2]
            break
    rest = math.log((1 - LIKELY) / (len(VOCABULARY) - 1))
    spread = {token: rest - (token % 7) * 0.01 for token in VOCABULARY}
    spread[guess] = math.log(LIKELY)
    total = math.log(math.fsum(math.exp(value) for value in spread.values()))
    return {token: value - total for token, value in spread.items()}


def sum_logprob(before: Sequence[int], after: Sequence[int]) -> float:
    """log P(after | before), the textbook way."""
    whole = [*before, *after]
    return math.fsum(next_logprobs(whole[:at])[whole[at]] for at in range(len(before), len(whole)))


def spelled(token: int) -> str:
    return {START: "<s>", END: "</s>"}.get(token) or chr(token)


def render(messages: Sequence[dict[str, str]]) -> list[int]:
    ids: list[int] = []
    for message in messages:
        ids += [START, *map(ord, message["role"] + "\n" + message["content"]), END]
    return [*ids, START, *map(ord, "assistant\n")]


def write(ids: Sequence[int], most: int) -> list[int]:
    """The likeliest continuation, the end included."""
    found: list[int] = []
    while len(found) < most and END not in found:
        logprobs = next_logprobs([*ids, *found])
        found.append(max(logprobs, key=logprobs.__getitem__))
    return found


@dataclass
class Fake:
    """What the server is, what goes wrong next, and what it was asked."""

    style: str = "vllm"
    """`vllm` echoes; `llama` and `ollama` give top_logprobs of chats; `plain` gives text alone."""
    models: tuple[str, ...] = ("tiny",)
    key: str | None = None
    answer: Callable[[dict[str, Any]], str] | None = None
    """Writes chat answers instead of the language model."""
    faults: list[Fault | None] = field(default_factory=list)
    """One for each request that asks for tokens, in their order; None is no fault."""
    always: Fault | None = None
    echo_shift: int = 0
    """By which echoed log-probabilities are off."""
    build: str = "b6000"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list, repr=False)
    headers: list[dict[str, str]] = field(default_factory=list, repr=False)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.asked if asked == path]

    def model_list(self) -> dict[str, Any]:
        owner = {"vllm": "vllm", "llama": "llamacpp", "ollama": "library"}.get(self.style, "somebody")
        entries = [
            {"id": name, "object": "model", "created": len(self.asked), "owned_by": owner}
            for name in self.models
        ]
        return {"object": "list", "data": entries}

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and document for one request."""
        known: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "/v1/models": lambda _: self.model_list(), "/v1/chat/completions": self.chat,
        }  # fmt: skip
        if self.style != "plain":
            known["/v1/completions"] = self.complete
        if self.style == "vllm":
            known |= {"/version": lambda _: {"version": "0.11.0"}, "/tokenize": self.tokenize}
        if self.style == "llama":
            known |= {
                "/props": lambda _: {
                    "build_info": self.build, "model_path": "/models/tiny.gguf", "chat_template": "{{ x }}"
                },
                "/tokenize": lambda body: {"tokens": [*map(ord, body.get("content", ""))]},
                "/apply-template": lambda body: {"prompt": "…"},
            }  # fmt: skip
        if self.style == "ollama":
            tag = {"model": "tiny", "digest": "d" * 64, "details": {"quantization_level": "Q4_K_M"}}
            known |= {"/api/tags": lambda _: {"models": [tag]}, "/api/version": lambda _: {"version": "0.12"}}
        if path not in known:
            return 404, {"error": {"message": f"no {path} here"}}
        if path.startswith("/v1/c") and body.get("model") not in self.models:
            return 404, {"error": {"message": f"no model {body.get('model')}"}}
        return 200, known[path](body)

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        if "messages" in body:
            return {"tokens": render(body["messages"])}
        return {"tokens": [START] * body["add_special_tokens"] + [*map(ord, body["prompt"])]}

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = render(body["messages"])
        most = body.get("max_tokens", body.get("max_completion_tokens"))
        found = [*map(ord, self.answer(body)), END][:most] if self.answer else write(ids, most)
        choice: dict[str, Any] = {
            "index": 0, "message": {"role": "assistant", "content": self.text(found)},
            "finish_reason": "stop" if found[-1] == END else "length",
        }  # fmt: skip
        if body.get("logprobs") and self.style != "plain":
            choice["logprobs"] = {"content": self.content(ids, found, body.get("top_logprobs", 0))}
        return {"choices": [choice], "usage": self.usage(ids, found)}

    def content(self, ids: list[int], found: list[int], top: int) -> list[dict[str, Any]]:
        rows = []
        for at, token in enumerate(found):
            logprobs = next_logprobs([*ids, *found[:at]])
            best = sorted(logprobs, key=lambda one: -logprobs[one])[:top]
            tops = [{"token": spelled(one), "logprob": logprobs[one]} for one in best]
            rows.append({"token": spelled(token), "logprob": logprobs[token], "top_logprobs": tops})
        return rows

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        ids = [START, *map(ord, prompt)] if isinstance(prompt, str) else prompt
        found = write(ids, body["max_tokens"])
        is_echo = bool(body.get("echo")) and self.style == "vllm"
        shown = [*ids, *found] if is_echo else found
        choice: dict[str, Any] = {
            "index": 0, "text": self.text(shown), "finish_reason": "stop" if found[-1] == END else "length"
        }  # fmt: skip
        if body.get("logprobs"):
            choice["logprobs"] = self.completion_logprobs(ids, found, is_echo, body["logprobs"])
        return {"choices": [choice], "usage": self.usage(ids, found)}

    def completion_logprobs(
        self, ids: list[int], found: list[int], is_echo: bool, top: int
    ) -> dict[str, Any]:
        whole = [*ids, *found]
        begin = 0 if is_echo else len(ids)
        tables = [next_logprobs(whole[:at]) if at else {} for at in range(begin, len(whole))]
        values: list[float | None] = [
            table.get(token) for table, token in zip(tables, whole[begin:], strict=True)
        ]
        if is_echo and self.echo_shift:
            values = [None, *values[1 + self.echo_shift :], *values[1 : 1 + self.echo_shift]]
        tops = [
            {spelled(one): table[one] for one in sorted(table, key=lambda x: -table[x])[:top]}
            for table in tables
        ]
        return {"tokens": [spelled(t) for t in whole[begin:]], "token_logprobs": values, "top_logprobs": tops}

    @staticmethod
    def text(ids: Sequence[int]) -> str:
        return "".join(spelled(token) for token in ids if token < START)

    @staticmethod
    def usage(ids: Sequence[int], found: Sequence[int]) -> dict[str, int]:
        return {"prompt_tokens": len(ids), "completion_tokens": len(found)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Fake
    document: dict[str, Any]

    def do_GET(self) -> None:
        self.handle_one({})

    def do_POST(self) -> None:
        self.handle_one(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def handle_one(self, body: dict[str, Any]) -> None:
        with self.fake.lock:
            self.fake.asked.append((self.path, body))
            self.fake.headers.append(dict(self.headers))
            is_work = self.path.startswith("/v1/c")
            fault = self.fake.faults.pop(0) if self.fake.faults and is_work else self.fake.always
        if self.fake.key and self.headers.get("Authorization") != f"Bearer {self.fake.key}":
            sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self.send(401, json.dumps({"error": {"message": f"Incorrect API key provided: {sent}"}}).encode())
            return
        status, self.document = self.fake.reply(self.path, body)
        if fault and is_work:
            fault(self)
        else:
            self.send(status, json.dumps(self.document).encode())

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def status(code: int, said: str = "out of order", **headers: str) -> Fault:
    return lambda handler: handler.send(code, json.dumps({"error": {"message": said}}).encode(), **headers)


def raw(data: bytes, **headers: str) -> Fault:
    return lambda handler: handler.send(200, data, **headers)


def html(handler: Handler) -> None:
    handler.send(200, b"<html><h1>Gateway</h1></html>", Content_Type="text/html")


def changed(change: Callable[[dict[str, Any]], Any]) -> Fault:
    """The right reply, after the change."""

    def send(handler: Handler) -> None:
        change(handler.document)
        handler.send(200, json.dumps(handler.document).encode())

    return send


def cut_text(handler: Handler) -> None:
    """Half of the JSON, as a whole reply."""
    data = json.dumps(handler.document).encode()
    handler.send(200, data[: len(data) // 2])


def half_closed(handler: Handler) -> None:
    """Promises all of the reply, sends half of it, and closes."""
    data = json.dumps(handler.document).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    dropped(handler)


def dropped(handler: Handler) -> None:
    """Closes instead of a reply."""
    handler.close_connection = True
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def doubled(handler: Handler) -> None:
    """The reply twice, in one piece: on a connection that is used again the second one is the next reply."""
    data = json.dumps(handler.document).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    )
    handler.wfile.write((head + data) * 2)


def silent(handler: Handler) -> None:
    """No reply until the test ends."""
    handler.fake.released.wait(30)
    handler.close_connection = True


def endless(handler: Handler) -> None:
    """A body without an end."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    try:
        while True:
            handler.wfile.write(b" " * 2**20)
    except OSError:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no error of the server."""


@contextmanager
def served(fake: Fake) -> Iterator[Fake]:
    """The server at work; `fake.url` says where."""
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": fake}))
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
