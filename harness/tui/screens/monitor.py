"""Screen 8: what answers on this device."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError
from harness.tui.context import MONITOR, Context
from harness.tui.screens.base import Screen
from harness.tui.views.cells import Line
from harness.tui.views.monitor import Installed, Service, monitor_body

INSTALLED_S = 5.0
"""How often the device's folder is read."""


class MonitorScreen(Screen):
    """The servers of this home and the releases of the device that $HARNESS_DEVICE names; it reads, and no more."""

    name = MONITOR

    def forget(self) -> None:
        """It shows no run, so another one changes nothing."""
        self._services: dict[Path, Service] = getattr(self, "_services", {})
        self._installed: list[Installed] = getattr(self, "_installed", [])
        self._installed_s: float = getattr(self, "_installed_s", float("-inf"))
        self._cursor: int = getattr(self, "_cursor", 0)

    @property
    def services(self) -> list[Service]:
        return [self._services[path] for path in sorted(self._services)]

    def look(self) -> bool:
        for path in (self.desk.home.home / "serving").glob("*/requests*.jsonl"):
            self._services.setdefault(path.parent, Service(path.parent))
        if self.desk.now() - self._installed_s >= INSTALLED_S:
            self._installed, self._installed_s = (
                installed_on(os.environ.get("HARNESS_DEVICE")),
                self.desk.now(),
            )
        return any(service.look() for service in self.services)

    def context(self, common: Context) -> Context:
        return replace(common, n_served=len(self._services))

    def body(self, cells: int, rows: int) -> list[Line]:
        now_s = self.desk.now()
        return monitor_body(self.services, self._installed, self._cursor, cells, rows, now_s=now_s)

    def move(self, by: int) -> None:
        self._cursor = max(0, min(self._cursor + by, len(self._services) - 1))


def installed_on(folder: str | None) -> list[Installed]:
    """The models of a device and what is in their place; what can't be read says so."""
    if not folder:
        return []
    from harness.device.layout import Device

    device, found = Device(Path(folder)), []
    for name in device.names():
        try:
            model = device.model(name)
            digest = model.current() or ""
            record = model.record(digest)
            signed = f"signed by {', '.join(record.signers)}" if record.signers else "unsigned"
            found.append(Installed(name, digest, f"{record.recipe} · version {record.version} · {signed}"))
        except (HarnessError, OSError, ValueError) as error:
            found.append(Installed(name, "", f"can't be read: {error}"))
    return found
