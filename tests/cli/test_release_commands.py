"""`harness keys`, `sign`, `verify`, `install` and `rollback` as a person gives them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import DataError, HarnessError, RefusedError
from harness.export.release import write_release
from tests.export.releases import make_contents


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return write_release(folder / "release", make_contents(folder)).folder


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "release"))


def harness(folder: Path, *arguments: str, **environment: str) -> Result:
    runner = CliRunner(env={"HARNESS_KEYS": str(folder / "keys"), "COLUMNS": "160", **environment})
    found = runner.invoke(app, list(arguments))
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def test_from_a_key_to_a_device_and_back(release: Path, tmp_path: Path) -> None:
    secret = {"HARNESS_KEY_PASSPHRASE": "correct horse"}
    harness(tmp_path, "keys", "new", "--name", "maker", "--passphrase", **secret)
    (tmp_path / "maker.pem").write_text(harness(tmp_path, "keys", "show", "maker").output)

    signed = harness(tmp_path, "sign", str(release), **secret)
    assert signed.exit_code == 0
    assert "signed by maker" in signed.output
    elsewhere = harness(
        tmp_path / "device", "verify", str(release), "--key", str(tmp_path / "maker.pem"), "--json"
    )
    assert json.loads(elsewhere.output)["ok"] is True

    device = str(tmp_path / "edge")
    put = harness(tmp_path, "install", str(release), device, "--json")
    assert json.loads(put.output)["name"] == "clauses"
    with pytest.raises(DataError, match="no release before"):
        harness(tmp_path, "rollback", device)
    assert "correct horse" not in signed.output + put.output + "".join(
        path.read_text(errors="replace") for path in (tmp_path / "keys").rglob("*") if path.is_file()
    )


def test_an_encrypted_key_without_its_passphrase_signs_nothing(release: Path, tmp_path: Path) -> None:
    harness(tmp_path, "keys", "new", "--name", "maker", "--passphrase", HARNESS_KEY_PASSPHRASE="x")

    with pytest.raises(DataError, match="passphrase"):
        harness(tmp_path, "sign", str(release))
    assert not (release / "statements").exists()


def test_an_unsigned_release_is_verified_and_not_installed(release: Path, tmp_path: Path) -> None:
    found = harness(tmp_path, "verify", str(release))
    assert found.exit_code == 0
    assert "UNSIGNED" in found.output
    assert harness(tmp_path, "verify", str(release), "--signed").exit_code == 1
    with pytest.raises(RefusedError, match="demanded"):
        harness(tmp_path, "install", str(release), str(tmp_path / "edge"))
    assert (
        harness(tmp_path, "install", str(release), str(tmp_path / "edge"), "--allow-unsigned").exit_code == 0
    )


def test_what_a_revoked_key_signed_verifies_no_more(release: Path, tmp_path: Path) -> None:
    harness(tmp_path, "keys", "new", "--name", "maker")
    harness(tmp_path, "sign", str(release))
    (tmp_path / "maker.pem").write_text(harness(tmp_path, "keys", "show", "maker").output)
    harness(tmp_path, "keys", "revoke", "maker", "--reason", "laptop lost")

    assert harness(tmp_path, "verify", str(release)).exit_code == 1
    assert "laptop lost" in harness(tmp_path, "keys", "list").output
    # Naming the key by hand does not bring it back.
    named = harness(tmp_path, "verify", str(release), "--key", str(tmp_path / "maker.pem"))
    assert named.exit_code == 1


def test_several_keys_are_not_guessed_between(release: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        harness(tmp_path, "keys", "new", "--name", name)

    with pytest.raises(HarnessError, match="2 keys can sign"):
        harness(tmp_path, "sign", str(release))
    assert harness(tmp_path, "sign", str(release), "--key", "two").exit_code == 0


def test_an_older_release_is_refused_by_its_number(release: Path, tmp_path: Path) -> None:
    assert harness(tmp_path, "verify", str(release), "--after", "2").exit_code == 0
    assert harness(tmp_path, "verify", str(release), "--after", "3.1000").exit_code == 1
    with pytest.raises(HarnessError, match="no version"):
        harness(tmp_path, "verify", str(release), "--after", "new")
