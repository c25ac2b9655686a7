"""Other people's tools, each in an environment of its own, made once and kept.

`$HARNESS_PEERS` names the folder (default `~/.cache/dragongate/peers`); one folder a tool, so that what one
tool pins never meets what another does, nor what the harness itself does.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PACKAGES = {
    "inspect": ("inspect-ai==0.3.285", "pandas", "pyarrow"),
    "lm-eval": ("lm-eval==0.4.13", "torch", "transformers"),
    "junit": ("junitparser==5.0.3",),
}
ROOT = Path(os.environ.get("HARNESS_PEERS", "~/.cache/dragongate/peers")).expanduser()


class Peer:
    """A tool that can be asked things in its own environment."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"

    def run(self, script: str, *args: str | Path) -> Any:
        """What the script prints last, as JSON; `args` are its `sys.argv[1:]`."""
        done = self._call([self.bin / "python", "-c", script, *args])
        return json.loads(done.stdout.splitlines()[-1])

    def call(self, command: str, *args: str | Path) -> str:
        """The stdout of one of the tool's own commands."""
        return self._call([self.bin / command, *args]).stdout

    def _call(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, env={**os.environ, **offline}
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done


def peer(name: str) -> Peer:
    """The tool, installed if it was not; the test is skipped where that can't be done."""
    folder = ROOT / name
    with _locked(name):
        if missing := _missing(folder, PACKAGES[name]):
            _install(folder, missing)
    return Peer(folder)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One process at a time makes the environment; the others wait and find it made."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _missing(folder: Path, packages: Sequence[str]) -> list[str]:
    """The packages that the environment lacks, or has in another version than the pinned one."""
    if not (folder / "bin" / "python").exists():
        return list(packages)
    listed = subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "list", "--format=json"], capture_output=True, text=True
    )
    found = {
        entry["name"].lower().replace("_", "-"): entry["version"]
        for entry in json.loads(listed.stdout or "[]")
    }
    wanted = {package: package.partition("==") for package in packages}
    return [
        package
        for package, (name, _, version) in wanted.items()
        if name not in found or version not in ("", found[name])
    ]


def _install(folder: Path, packages: Sequence[str]) -> None:
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    done = subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"{' '.join(packages)} can't be installed into {folder}: {done.stderr.strip()[-300:]}")
