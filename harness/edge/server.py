"""`harness serve`: a verified release behind a socket, until somebody ends it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.device.install import rollback as roll_back
from harness.device.layout import Device, Model
from harness.edge.app import make_app
from harness.edge.escalation import ServerModel, require_allowed
from harness.edge.guards import chat_guards
from harness.edge.limits import Limits
from harness.edge.metrics import Metrics
from harness.edge.requests_log import RequestLog
from harness.edge.route import QueueOf, Router
from harness.edge.served import Release, is_device, only_name, open_installed, open_release
from harness.edge.serving import Serving, key_digest
from harness.edge.switch import KEPT_WARM_S, OpenEngine, Switch, require_follows
from harness.errors import DataError, HarnessError, ModelError
from harness.export.keys import Trust

if TYPE_CHECKING:
    import uvicorn

KEY_VARIABLE = "HARNESS_SERVE_KEY"
ADMIN_VARIABLE = "HARNESS_ADMIN_KEY"
LEAST_KEY_CHARS = 16
WATCH_S = 0.25
MAX_CONNECTIONS = 512
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a person asks of `harness serve`."""

    folder: Path
    """A release, or a device's folder."""
    trust: Trust
    home: Path
    """Where the request log and the review queue are kept."""
    name: str | None = None
    """The model's name on the device."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes any that is free."""
    key: str | None = None
    """None makes one up, which is shown once."""
    admin_key: str | None = None
    escalate: str | None = None
    """`openai:URL#NAME`."""
    guards: tuple[str, ...] = ()
    has_text: bool = False
    """The request log holds texts, with personal data masked."""
    limits: Limits = field(default_factory=Limits)
    drain_s: float = 30.0
    kept_warm_s: float = KEPT_WARM_S


@dataclass(frozen=True, slots=True)
class Started:
    """What a person is told when the server answers."""

    url: str
    key: str | None
    """Where it was made up: it is shown here and kept nowhere."""
    release: Release


def serve(options: Options, open_engine: OpenEngine, tell: Callable[[Started], None]) -> None:
    """Serves until SIGTERM or SIGINT, then lets what runs end; a second one ends at once.

    SIGHUP looks at the folder again, and switches where another release is there.

    Raises:
        RefusedError: the release does not verify, or may not be served so.
        HarnessError: the engine, the key or the address can't be had.
    """
    require_safe(options)
    key = options.key or secrets.token_urlsafe(32)
    release = look(options)
    listener = bind(options.host, options.port)
    try:
        engine = open_engine(release)
        try:
            asyncio.run(_Server(options, open_engine, key).run(listener, release, engine, tell))
        finally:
            engine.close()
    finally:
        listener.close()


def look(options: Options) -> Release:
    """The release that the folder holds now, verified.

    Raises:
        RefusedError: it does not verify.
        DataError: there is none.
    """
    if is_device(options.folder):
        return open_installed(options.folder, options.trust, name=options.name)
    return open_release(options.folder, options.trust)


def require_safe(options: Options) -> None:
    """Returns where the address and the keys can stand beside each other.

    Raises:
        DataError: other machines would get in with no key of one's own, or a key is too short to be one.
    """
    if not _is_loopback(options.host) and options.key is None:
        raise DataError(
            f"--host {options.host} lets other machines in, and there is no key",
            hint=f"put one into a file, --key-file FILE, or into ${KEY_VARIABLE}",
        )
    for what, key in (("API", options.key), ("admin", options.admin_key)):
        if key is not None and not re.fullmatch(rf"[\x21-\x7e]{{{LEAST_KEY_CHARS},512}}", key):
            raise DataError(
                f"the {what} key: wanted {LEAST_KEY_CHARS} to 512 ASCII characters without spaces",
                hint="python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
    if options.admin_key is not None and options.admin_key == options.key:
        raise DataError("the admin key is the API key: whoever may ask may then also switch releases")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        HarnessError: the address is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise HarnessError(
            f"{host}, port {port}: {error.strerror or error}", hint="--port 0 takes a free one"
        ) from None
    return listener


def read_key(file: Path | None, variable: str) -> str | None:
    """The key from the file, else from the environment; None where neither has one.

    Raises:
        DataError: others may read the file.
    """
    if file is None:
        return os.environ.get(variable, "").strip() or None
    if file.stat().st_mode & 0o077:
        raise DataError(f"{file}: others may read the key", hint=f"chmod 600 {file}")
    return file.read_text(encoding="utf-8").strip()


class _Server:
    """The server's parts, put together in one event loop."""

    def __init__(self, options: Options, open_engine: OpenEngine, key: str) -> None:
        self._options, self._open_engine, self._key = options, open_engine, key
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused = ""
        """Digest of the release that was looked at and not taken."""

    async def run(
        self, listener: socket.socket, release: Release, engine: Any, tell: Callable[[Started], None]
    ) -> None:
        options = self._options
        url = _url(listener, options.host)
        server_model = self._server_model(release)
        metrics = Metrics()
        log = RequestLog(
            options.home / "serving" / release.recipe, has_text=options.has_text,
            on_lost=lambda: metrics.count("log_lost_total"),
        )  # fmt: skip
        suites = [question.suite for question in release.questions.values()]
        router = Router(
            server=server_model, queues=QueueOf(options.home), guards=chat_guards(suites, options.guards)
        )
        switch = Switch(release, engine, self._open_engine, kept_warm_s=options.kept_warm_s)
        is_on_device = is_device(options.folder)
        self._serving = serving = Serving(
            switch, router, log, key_digest(self._key), limits=options.limits, metrics=metrics,
            admin_digest=key_digest(options.admin_key) if options.admin_key else None,
            open_release=lambda folder: open_release(folder, options.trust),
            roll_device_back=self._roll_device_back if is_on_device else None,
        )  # fmt: skip
        web = make_server(make_app(serving), serving, options.drain_s)
        await _until_ready(engine)
        log.event("start", release.source(), pid=os.getpid(), url=url, signature=release.signature)
        tell(Started(url, None if options.key else self._key, release))
        try:
            with self._hangups():
                watch = asyncio.create_task(self._watch()) if is_on_device else None
                await web.serve(sockets=[listener])
                if watch is not None:
                    watch.cancel()
        finally:
            served = switch.current.engine.health().served
            log.event("stop", serving.release.source(), served=served, unanswered=serving.admission.under_way)
            await switch.close(0.0 if web.force_exit else 5.0)
            await router.close()
            log.close()

    def _server_model(self, release: Release) -> ServerModel | None:
        if self._options.escalate is None:
            return None
        model = ServerModel(self._options.escalate, limit_s=self._options.limits.escalation_s)
        require_allowed(model.endpoint, is_sensitive=release.is_sensitive)
        return model

    @contextmanager
    def _hangups(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def look_again() -> None:
            task = loop.create_task(self._follow())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        loop.add_signal_handler(signal.SIGHUP, look_again)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    async def _watch(self) -> None:
        """Follows the link that `harness install` and `harness rollback` move."""
        model = self._model()
        while True:
            await asyncio.sleep(WATCH_S)
            with suppress(HarnessError, OSError):
                digest = model.current()
                if digest not in (None, self._serving.release.digest, self._refused):
                    self._refused = ""
                    await self._follow()
                    if self._serving.release.digest != digest:
                        self._refused = digest or ""

    async def _follow(self) -> None:
        """Switches to what the folder holds now; what is refused is said in the log, and nothing changes."""
        serving = self._serving
        try:
            release = await self._here()
            before = serving.switch.before
            is_back = before is not None and before.release.digest == release.digest
            if not is_device(self._options.folder) and not is_back:
                require_follows(release, serving.release)
        except (HarnessError, OSError) as error:
            serving.refuse(str(error))
            return
        if release.digest != serving.release.digest:
            with suppress(HarnessError):  # said in the log
                await serving.change(release, "rollback" if is_back else "switch")

    async def _here(self) -> Release:
        """What the folder holds now. The release before, to which a device leads again, was verified when it came."""
        before = self._serving.switch.before
        is_kept = before is not None and is_device(self._options.folder)
        if before is not None and is_kept and before.release.digest == self._model().current():
            return before.release
        return await asyncio.to_thread(look, self._options)

    def _model(self) -> Model:
        options = self._options
        return Device(options.folder).model(options.name or only_name(options.folder))

    async def _roll_device_back(self, reason: str) -> Release:
        options = self._options
        await asyncio.to_thread(roll_back, options.folder, options.trust, name=options.name, reason=reason)
        return await self._here()


def make_server(app: Any, serving: Serving, drain_s: float) -> uvicorn.Server:
    """uvicorn with an end of its own: no more requests at the first signal, nothing at all at the second."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 - uvicorn's signature
            serving.admission.is_draining = True
            self.force_exit, self.should_exit = self.should_exit, True

    return Server(
        uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, server_header=False, proxy_headers=False,
            ws="none", http="h11", loop="asyncio", limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=round(drain_s),
        )
    )  # fmt: skip


async def _until_ready(engine: Any, limit_s: float = 300.0) -> None:
    try:
        async with asyncio.timeout(limit_s):
            while (state := engine.health().state) != "ready":
                if state in ("failed", "closed"):
                    raise ModelError(f"the engine is {state}: it could not load the file")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ModelError(f"the engine was not ready within {limit_s:g} s") from None


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _url(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
