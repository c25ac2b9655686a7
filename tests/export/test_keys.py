from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from harness.errors import DataError, HarnessError, IntegrityError, RefusedError
from harness.export.keys import KeyState, KeyStore, key_of_pem, keys_folder, public_pem


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys")


def private_file(keys: KeyStore) -> Path:
    return next((keys.folder / "private").glob("*.pem"))


def test_a_private_half_is_for_its_owner_alone(keys: KeyStore) -> None:
    keys.new("maker")

    assert stat.S_IMODE(private_file(keys).stat().st_mode) == 0o600
    assert stat.S_IMODE(private_file(keys).parent.stat().st_mode) == 0o700


def test_a_private_half_that_others_may_read_is_not_used(keys: KeyStore) -> None:
    entry = keys.new("maker")
    private_file(keys).chmod(0o640)

    with pytest.raises(DataError, match="others can read it"):
        keys.signer(entry)


def test_a_private_half_that_is_a_link_is_not_used(keys: KeyStore) -> None:
    entry = keys.new("maker")
    path = private_file(keys)
    path.symlink_to(path.rename(path.with_suffix(".moved")))

    with pytest.raises(DataError):
        keys.signer(entry)


@pytest.mark.parametrize("said", [None, b"", b"wrong"])
def test_an_encrypted_key_needs_its_passphrase(said: bytes | None, keys: KeyStore) -> None:
    entry = keys.new("maker", b"correct horse")

    assert keys.needs_passphrase(entry)
    assert b"correct horse" not in private_file(keys).read_bytes()
    keys.signer(entry, b"correct horse")
    with pytest.raises(DataError, match="passphrase") as caught:
        keys.signer(entry, said)
    assert "wrong" not in str(caught.value).replace("missing or wrong", "")


def test_another_private_half_under_the_same_id_is_noticed(keys: KeyStore, tmp_path: Path) -> None:
    entry = keys.new("maker")
    other = KeyStore(tmp_path / "other")
    other.new("maker")
    private_file(keys).write_bytes(private_file(other).read_bytes())

    with pytest.raises(IntegrityError, match="not the private half"):
        keys.signer(entry)


def test_a_public_key_travels_as_pem(keys: KeyStore, tmp_path: Path) -> None:
    entry = keys.new("maker")
    (tmp_path / "maker.pem").write_text(public_pem(entry))
    device = KeyStore(tmp_path / "device")

    taken = device.trust(tmp_path / "maker.pem", "the maker")

    assert (taken.id, taken.state) == (entry.id, KeyState.TRUSTED)
    assert key_of_pem(tmp_path / "maker.pem").id == entry.id
    assert device.signing_keys() == []


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_what_is_no_key_is_refused(text: str, keys: KeyStore, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text(text)

    with pytest.raises(DataError):
        keys.trust(tmp_path / "x.pem", "x")


def test_a_private_key_is_not_taken_for_a_public_one(keys: KeyStore) -> None:
    keys.new("maker")

    with pytest.raises(DataError, match="no public key"):
        keys.trust(private_file(keys), "x")


def test_a_revoked_key_signs_nothing_and_stays_revoked(keys: KeyStore, tmp_path: Path) -> None:
    entry = keys.new("maker")
    (tmp_path / "maker.pem").write_text(public_pem(entry))
    revoked = keys.revoke(entry.id[:12], "laptop lost")

    assert (revoked.state, revoked.reason) == (KeyState.REVOKED, "laptop lost")
    assert keys.signing_keys() == []
    assert keys.revoke("maker", "again") == revoked
    with pytest.raises(RefusedError, match="laptop lost"):
        keys.signer(keys.find("maker"))
    with pytest.raises(RefusedError, match="revoked"):
        keys.trust(tmp_path / "maker.pem", "maker")


def test_names_are_unique_and_printable(keys: KeyStore) -> None:
    keys.new("maker")
    for name in ("maker", "", " ", "a\x1b[2Jb", "x" * 101):
        with pytest.raises(HarnessError):
            keys.new(name)
    assert len(keys.known()) == 1
    assert len(list((keys.folder / "private").iterdir())) == 1


def test_a_key_under_another_id_is_noticed(keys: KeyStore) -> None:
    """Whoever edits the store could otherwise give a key of his own the id that devices expect."""
    entry = keys.new("maker")
    path = keys.folder / "trust.json"
    document = json.loads(path.read_text())
    document["keys"]["f" * 64] = document["keys"].pop(entry.id)
    path.write_text(json.dumps(document))

    with pytest.raises(IntegrityError, match="not the id of its key"):
        keys.known()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "x"}', '{"format": "dragongate.trust/1", "keys": {"a": 1}}']
)
def test_a_broken_store_is_an_error_and_not_an_empty_one(text: str, keys: KeyStore) -> None:
    keys.folder.mkdir()
    (keys.folder / "trust.json").write_text(text)

    with pytest.raises(DataError):
        keys.known()


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HARNESS_KEYS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert keys_folder() == tmp_path / "dragongate" / "keys"
    monkeypatch.setenv("HARNESS_KEYS", str(tmp_path / "k"))
    assert keys_folder() == tmp_path / "k"
