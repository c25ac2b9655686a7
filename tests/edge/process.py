"""`harness serve` as a process of its own, with a tiny random model that llama.cpp computes."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import httpx2

from tests.edge.serving import ADMIN, KEY
from tests.export.tiny_models import save_checkpoint

SERVE = (sys.executable, "-m", "harness", "serve")
FREE_PORT = ("--port", "0", "--threads", "1", "--json")


@cache
def tiny_gguf() -> Path:
    """A random llama as F16 GGUF, made once a process. Read it, never write to it."""
    from harness.export.gguf import convert

    folder = Path(mkdtemp(prefix="tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save_checkpoint(folder / "checkpoint")
    return convert(folder / "checkpoint", folder / "tiny.gguf", metadata={"base": "tiny"}).path


class ServerProcess:
    """A server that answers, and what is known of it."""

    def __init__(self, folder: Path, home: Path, *arguments: str) -> None:
        environment = {
            **os.environ, "HARNESS_HOME": str(home), "HARNESS_SERVE_KEY": KEY, "HARNESS_ADMIN_KEY": ADMIN,
            "HARNESS_KEYS": str(home / "keys"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.home = home
        self.process = subprocess.Popen(
            [*SERVE, str(folder), *FREE_PORT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.facts: dict[str, Any] = json.loads(line or '{"error": "nothing was said"}')
        if "error" in self.facts:
            self.process.communicate()
            raise AssertionError(self.facts["error"])
        self.url: str = self.facts["url"]

    def client(self, **options: Any) -> httpx2.Client:
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def admin(self, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        root = self.url.removesuffix("/v1")
        return httpx2.post(
            f"{root}/admin/{path}", json=body or {}, headers={"authorization": f"Bearer {ADMIN}"}, timeout=60
        )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(timeout=60)

    def log(self) -> list[dict[str, Any]]:
        (path,) = self.home.glob("serving/*/requests.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def server_process(folder: Path, home: Path, *arguments: str) -> Iterator[ServerProcess]:
    """The server until the block ends; killed if it has not ended by then."""
    server = ServerProcess(folder, home, *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def exactly(text: str) -> str:
    """A grammar that lets a random model say this and nothing else."""
    return f"root ::= {json.dumps(text)}"
