"""What all requests share: the release that answers, limits, metrics, the log, and who may come in."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.edge.limits import Admission, Limits
from harness.edge.metrics import Metrics
from harness.edge.requests_log import RequestLog
from harness.edge.route import Router
from harness.edge.served import Release
from harness.edge.switch import Switch, Switched

OpenRelease = Callable[[Path], Release]


@dataclass(slots=True)
class Serving:
    """One server's state. All of it happens in one event loop, but for the log and the metrics."""

    switch: Switch
    router: Router
    log: RequestLog
    key_digest: bytes
    """sha256 of the API key."""
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    admin_digest: bytes | None = None
    """sha256 of the key for /admin; None closes it."""
    open_release: OpenRelease | None = None
    """Verifies a folder that somebody wants served."""
    roll_device_back: Callable[[str], Awaitable[Release]] | None = None
    """Where a device's folder is served: takes the release before back there, for this reason."""
    admission: Admission = field(init=False)
    began: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.admission = Admission(self.limits.running + self.limits.waiting)

    @property
    def release(self) -> Release:
        """What answers now."""
        return self.switch.current.release

    async def change(self, release: Release, event: str = "switch") -> Switched:
        """Puts the release in place, and says so in the log.

        Raises:
            ModelError: its engine does not answer; the log says so, and what answered goes on.
        """
        try:
            done = await self.switch.to(release)
        except Exception as error:
            self.refuse(str(error))
            raise
        return self.told(done, event)

    def told(self, done: Switched, event: str) -> Switched:
        """Logs a switch that was done."""
        self.metrics.count("switches_total", outcome="done")
        self.log.event(event, self.release.source(), before=done.before, ms=round(done.ms, 3))
        return done

    def refuse(self, why: str) -> None:
        """Logs a release that was not put in place."""
        self.metrics.count("switches_total", outcome="refused")
        self.log.event("refused", self.release.source(), reason=why)

    def metrics_text(self) -> str:
        """All metrics, with the engine's state as it is now."""
        engine, release = self.switch.current.engine, self.release
        health = engine.health()
        info = {**release.source(), "recipe": release.recipe}
        gauges: list[tuple[str, dict[str, str], float | None]] = [
            ("under_way", {}, self.admission.under_way), ("engine_running", {}, health.running),
            ("engine_waiting", {}, health.waiting), ("engine_restarts", {}, health.restarts),
            ("engine_memory_megabytes", {}, health.memory_mb),
            ("engine_ready", {}, float(health.state == "ready")), ("release_info", info, 1.0),
        ]  # fmt: skip
        return self.metrics.text(gauges)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /health, which needs no key and so says little."""
        state = "draining" if self.admission.is_draining else self.switch.current.engine.health().state
        return (200 if state == "ready" else 503), {"status": "ok" if state == "ready" else state}


def key_digest(key: str) -> bytes:
    """What is compared: of one length for every key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_key(said: str, digest: bytes) -> bool:
    """Whether the key is the one with this digest, in a time that tells nothing about it."""
    return hmac.compare_digest(key_digest(said), digest)
