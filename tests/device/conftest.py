"""Signed releases of one recipe, made once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from harness.device.install import install
from harness.export.keys import KeyStore, Trust
from harness.export.release import sign_release, write_release
from tests.export.releases import make_contents


class Workshop(NamedTuple):
    """Where releases are made. Copy what a test changes."""

    keys: KeyStore
    trust: Trust
    first: Path
    second: Path
    """Newer than the first."""
    unsigned: Path
    """The newest."""
    installed: Path
    """A device with the first release."""


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("workshop")
    keys = KeyStore(folder / "keys")
    signer = keys.signer(keys.new("maker"))
    trust = Trust(keys.known(), is_demanded=True)
    made = []
    for number in (1, 2, 3):
        (folder / f"parts-{number}").mkdir()
        contents = make_contents(folder / f"parts-{number}", sequence=1_000 + number, size=40 + number)
        made.append(write_release(folder / f"release-{number}", contents).folder)
    for release in made[:2]:
        sign_release(release, signer)
    install(made[0], folder / "device", trust)
    return Workshop(keys, trust, *made, folder / "device")
