"""SIGKILL at the system calls of an install: what `current` leads to is whole at each of them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.device.install import install, rollback
from harness.device.layout import Device, release_digest
from harness.export.verify import verify
from tests.device.conftest import Workshop
from tests.device.test_install import in_a_child

CALLS = ("open", "os.rename", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "fcntl.flock")
"""Events of PEP 578 before which the process can be killed."""


def killed_at(point: int, act: Callable[[], object]) -> bool:
    """Whether the child died before its call number `point`; False where it made fewer calls."""

    def dying() -> None:
        calls = 0

        def hook(event: str, _: object) -> None:
            nonlocal calls
            if event in CALLS:
                calls += 1
                if calls == point:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        act()

    return os.WIFSIGNALED(in_a_child(dying))


def survives(point: int, workshop: Workshop, folder: Path, *, is_rollback: bool = False) -> bool:
    """Kills an install, or a rollback, at the point, checks what is left, and finishes the work. False past the end."""
    device = folder / f"device-{point}"
    shutil.copytree(workshop.installed, device, symlinks=True)
    first, second = release_digest(workshop.first), release_digest(workshop.second)

    def act() -> object:
        if is_rollback:
            return rollback(device, workshop.trust)
        return install(workshop.second, device, workshop.trust)

    if is_rollback:
        install(workshop.second, device, workshop.trust)
    was_killed = killed_at(point, act)
    model = Device(device).model("clauses")

    assert model.current() in (first, second)
    assert verify(model.link.resolve(), workshop.trust).ok
    wanted = first if is_rollback else second
    if model.current() != wanted:
        act()
    assert model.current() == wanted
    assert verify(model.link.resolve(), workshop.trust).ok
    with Device(device).locked():
        assert not list((device / "store").glob(".*"))
    assert Device(device).audit()[-1]["release"] == wanted
    shutil.rmtree(device)
    return was_killed


def test_an_install_can_be_killed_at_any_point(workshop: Workshop, tmp_path: Path) -> None:
    for point in random.Random(17).sample(range(1, 240), 12):
        survives(point, workshop, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("is_rollback", [False, True])
def test_every_call_of_an_install_and_a_rollback_can_be_the_last(
    is_rollback: bool, workshop: Workshop, tmp_path: Path
) -> None:
    point = 1
    while survives(point, workshop, tmp_path, is_rollback=is_rollback):
        point += 1

    assert point > 20


def test_a_release_is_on_disk_before_anything_leads_to_it(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut keeps renames and loses what was not synced: every file is synced before the link is renamed."""
    device = tmp_path / "device"
    shutil.copytree(workshop.installed, device, symlinks=True)
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(handle: int) -> None:
        calls.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        calls.append(f"-> {target}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    found = install(workshop.second, device, workshop.trust)

    switch = calls.index(f"-> {found.current}")
    synced = {Path(call).name for call in calls[:switch]}
    files = {path.name for path in found.current.resolve().rglob("*") if path.is_file()}
    assert files <= synced
    assert str(device / "store") in calls[:switch]
    assert str(found.current.parent) in calls[switch:]
