"""Which release answers: exchanged while requests run, and taken back at once.

Another engine is loaded and warmed beside the one that answers; then requests go to it, and the first one ends those
that it has. It is kept warm for a while, so that going back costs no loading. Two models are in memory meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from harness.edge.asking import ask_engine
from harness.edge.base import Ask, Engine
from harness.edge.served import Release
from harness.edge.wire_openai import ApiError
from harness.errors import DataError, ModelError, RefusedError
from harness.models.base import Message

KEPT_WARM_S = 600.0
WARM_UP_S = 300.0
DRAIN_S = 60.0
OpenEngine = Callable[[Release], Engine]


class Switched(NamedTuple):
    """What came of an order to switch."""

    release: str
    """Digest of what answers now."""
    before: str
    ms: float
    """From the order to the moment from which requests go to the other engine."""
    was_warm: bool


class Post:
    """A release, the engine that answers for it, and how many requests it has."""

    def __init__(self, release: Release, engine: Engine) -> None:
        self.release, self.engine = release, engine
        self.running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def held(self) -> Iterator[Post]:
        """A request; the engine is not closed under it."""
        self.running += 1
        self._idle.clear()
        try:
            yield self
        finally:
            self.running -= 1
            if not self.running:
                self._idle.set()

    async def retire(self, drain_s: float) -> None:
        """Closes the engine after its last request, or after this long."""
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            pass  # what still runs is told that it was closed
        await asyncio.to_thread(self.engine.close)


class Switch:
    """The post that answers, and the one that did before. All of it happens in one event loop."""

    def __init__(
        self, release: Release, engine: Engine, open_engine: OpenEngine, *, kept_warm_s: float = KEPT_WARM_S
    ) -> None:
        self.current = Post(release, engine)
        self.before: Post | None = None
        self._open, self._kept_warm_s = open_engine, kept_warm_s
        self._order = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._cooling: asyncio.TimerHandle | None = None

    @contextmanager
    def post(self) -> Iterator[Post]:
        """Who answers a request that comes now; stays the same for all of the request."""
        with self.current.held() as post:
            yield post

    async def to(self, release: Release) -> Switched:
        """Requests go to the release as soon as its engine is warm; until then, and where it fails, nothing changes.

        Raises:
            ModelError: its engine can't be loaded, or answers nothing.
        """
        began = time.perf_counter()
        async with self._order:
            now = self.current.release.digest
            if release.digest == now:
                return Switched(now, now, 0.0, True)
            if self.before is not None and self.before.release.digest == release.digest:
                return self._swapped(self.before, began, was_warm=True)
            engine = await asyncio.to_thread(self._open, release)
            await _warm(engine, release)
            return self._swapped(Post(release, engine), began, was_warm=False)

    async def rollback(self) -> Switched:
        """Back to what answered before, which is still warm.

        Raises:
            DataError: there is nothing before, or it was closed in the meantime.
        """
        began = time.perf_counter()
        async with self._order:
            if self.before is None:
                raise DataError(
                    "no release before this one is warm",
                    hint="give its folder to /admin/switch, or harness rollback DEVICE",
                )
            return self._swapped(self.before, began, was_warm=True)

    async def close(self, drain_s: float) -> None:
        """Closes all engines, after what runs has ended or this long."""
        if self._cooling is not None:
            self._cooling.cancel()
        posts = [post for post in (self.current, self.before) if post is not None]
        await asyncio.gather(*(post.retire(drain_s) for post in posts), *self._retiring)

    def _swapped(self, post: Post, began: float, *, was_warm: bool) -> Switched:
        was, older = self.current, self.before
        self.current, self.before = post, was
        if older is not None and older is not post:
            self._retire(older)
        if self._cooling is not None:
            self._cooling.cancel()
        self._cooling = asyncio.get_running_loop().call_later(self._kept_warm_s, self._cool, was)
        ms = (time.perf_counter() - began) * 1e3
        return Switched(post.release.digest, was.release.digest, ms, was_warm)

    def _cool(self, post: Post) -> None:
        if self.before is post:
            self.before = None
            self._retire(post)

    def _retire(self, post: Post) -> None:
        task = asyncio.get_running_loop().create_task(post.retire(DRAIN_S))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def require_follows(release: Release, now: Release) -> None:
    """Returns where the release may take the place of the one that is served.

    Raises:
        RefusedError: it is of another recipe, or not shown to be newer.
    """
    if release.recipe != now.recipe:
        raise RefusedError(f"recipe {now.recipe} is served here, the release is of {release.recipe}")
    if release.digest != now.digest and not release.order.is_after(now.order):
        raise RefusedError(
            f"{release.order} is not shown to be newer than {now.order}, which is served",
            hint="/admin/rollback goes back to the release before",
        )


async def _warm(engine: Engine, release: Release) -> None:
    """One token, so that a file that loads and can't compute never gets a request."""
    ask = Ask(id=f"warm-{release.digest[:8]}", messages=(Message("user", "Hello"),), max_new_tokens=1)
    try:
        async with asyncio.timeout(WARM_UP_S):
            await ask_engine(engine, ask)
    except (ApiError, TimeoutError) as error:
        await asyncio.to_thread(engine.close)
        why = error.message if isinstance(error, ApiError) else f"nothing within {WARM_UP_S:g} s"
        raise ModelError(f"{release.model}: its engine does not answer: {why}") from None
