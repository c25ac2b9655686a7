from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.device.install import install, rollback
from harness.device.layout import Device, release_digest
from harness.errors import DataError, HarnessError, IntegrityError, RefusedError
from harness.export.keys import Trust
from harness.export.release import sign_release, write_release
from harness.export.verify import verify
from tests.device.conftest import Workshop
from tests.export.releases import edit, flip, make_contents, sign_again


@pytest.fixture
def device(workshop: Workshop, tmp_path: Path) -> Path:
    """A device with the first release."""
    shutil.copytree(workshop.installed, tmp_path / "device", symlinks=True)
    return tmp_path / "device"


def copy_of(release: Path, folder: Path) -> Path:
    return Path(shutil.copytree(release, folder))


def running(device: Path, name: str = "clauses") -> str | None:
    return Device(device).model(name).current()


def model_bytes(device: Path, name: str = "clauses") -> bytes:
    """What a runtime gets that opens the model."""
    return next((device / "models" / name / "current").glob("*.gguf")).read_bytes()


def test_an_installed_release_is_what_was_signed(workshop: Workshop, device: Path) -> None:
    found = install(workshop.second, device, workshop.trust)

    assert found.name == "clauses"
    assert found.before == release_digest(workshop.first)
    assert model_bytes(device) == next(workshop.second.glob("*.gguf")).read_bytes()
    assert verify(found.current.resolve(), workshop.trust).ok
    assert "signed by maker" in found.signature


def test_what_is_in_place_is_not_put_there_again(workshop: Workshop, device: Path) -> None:
    entries = len(Device(device).audit())

    assert not install(workshop.first, device, workshop.trust).is_changed
    assert len(Device(device).audit()) == entries


def test_rollback_brings_the_release_before_back(workshop: Workshop, device: Path) -> None:
    install(workshop.second, device, workshop.trust)

    found = rollback(device, workshop.trust, reason="answers too slowly")

    assert found.release == running(device) == release_digest(workshop.first)
    assert model_bytes(device) == next(workshop.first.glob("*.gguf")).read_bytes()
    assert install(workshop.second, device, workshop.trust).is_changed  # it is no older one


def test_the_audit_log_says_what_was_switched_and_why(workshop: Workshop, device: Path) -> None:
    install(workshop.second, device, workshop.trust)
    rollback(device, workshop.trust, reason="answers too slowly")

    first, second = release_digest(workshop.first), release_digest(workshop.second)
    rows = [(row["event"], row["release"], row["replaced"], row["reason"]) for row in Device(device).audit()]
    assert rows == [
        ("install", first, None, ""),
        ("install", second, first, ""),
        ("rollback", first, second, "answers too slowly"),
    ]


def test_an_edited_audit_log_is_noticed(workshop: Workshop, device: Path) -> None:
    path = device / "audit.jsonl"
    path.write_text(path.read_text().replace("install", "rollback"))

    with pytest.raises(IntegrityError, match="TAMPERED"):
        install(workshop.second, device, workshop.trust)
    assert running(device) == release_digest(workshop.first)


def test_only_the_release_in_place_and_the_one_before_are_kept(
    workshop: Workshop, device: Path, tmp_path: Path
) -> None:
    install(workshop.second, device, workshop.trust)
    install(workshop.unsigned, device, Trust(workshop.trust.known, is_demanded=False))

    kept = {path.name for path in (device / "store").iterdir()}
    assert kept == {release_digest(workshop.second), release_digest(workshop.unsigned)}
    rollback(device, workshop.trust)
    with pytest.raises(HarnessError):
        rollback(device, workshop.trust)
    assert running(device) == release_digest(workshop.second)


def test_several_models_live_on_one_device_by_name(workshop: Workshop, device: Path) -> None:
    install(workshop.second, device, workshop.trust, name="canary")

    assert Device(device).names() == ["canary", "clauses"]
    assert running(device) == release_digest(workshop.first)
    assert running(device, "canary") == release_digest(workshop.second)
    with pytest.raises(DataError, match="canary, clauses"):
        rollback(device, workshop.trust)


# Refused, and nothing has changed


REFUSED: dict[str, Callable[[Workshop, Path], Path]] = {
    "unsigned": lambda w, tmp: w.unsigned,
    "flipped byte": lambda w, tmp: flipped(copy_of(w.second, tmp / "r")),
    "longer than signed": lambda w, tmp: longer(copy_of(w.second, tmp / "r")),
    "no folder": lambda w, tmp: tmp / "absent",
    "no release": lambda w, tmp: tmp,
    "extra file": lambda w, tmp: extra(copy_of(w.second, tmp / "r")),
    "report of another release": lambda w, tmp: mixed(copy_of(w.second, tmp / "r"), w.first),
    "manifest fits the folder again": lambda w, tmp: rewritten(copy_of(w.second, tmp / "r")),
}


def flipped(release: Path) -> Path:
    flip(next(release.glob("*.gguf")), 300)
    return release


def longer(release: Path) -> Path:
    with next(release.glob("*.gguf")).open("ab") as file:
        file.write(b"x")
    return release


def extra(release: Path) -> Path:
    (release / "autorun.sh").write_text("echo owned")
    return release


def mixed(release: Path, other: Path) -> Path:
    shutil.rmtree(release / "statements")
    shutil.copytree(other / "statements", release / "statements")
    return release


def rewritten(release: Path) -> Path:
    (release / "MODEL_CARD.md").write_text("# all is well\n")
    sign_again(release)
    return release


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_verify_is_refused(what: str, workshop: Workshop, device: Path, tmp_path: Path) -> None:
    release = REFUSED[what](workshop, tmp_path)
    before = tree(device)

    with pytest.raises(RefusedError):
        install(release, device, workshop.trust)

    assert tree(device) == before


def tree(folder: Path) -> dict[str, str]:
    """Every path with what is there; locks left out."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else str(path.stat().st_size)
        for path in folder.rglob("*")
        if path.name not in ("lock", "audit.lock") and not path.is_dir()
    }


def test_an_older_release_needs_a_reason_which_the_log_keeps(workshop: Workshop, device: Path) -> None:
    install(workshop.second, device, workshop.trust)

    with pytest.raises(RefusedError, match="not shown to be newer"):
        install(workshop.first, device, workshop.trust)
    with pytest.raises(RefusedError):
        install(workshop.first, device, workshop.trust, downgrade_reason=" ")
    install(workshop.first, device, workshop.trust, downgrade_reason="the second one swears")

    assert running(device) == release_digest(workshop.first)
    assert Device(device).audit()[-1]["reason"] == "the second one swears"


def test_a_rollback_does_not_open_the_door_to_older_releases(
    workshop: Workshop, device: Path, tmp_path: Path
) -> None:
    """What counts is the newest that was ever installed, not what runs now."""
    install(workshop.second, device, workshop.trust)
    rollback(device, workshop.trust)
    (tmp_path / "parts").mkdir()
    between = write_release(
        tmp_path / "between", make_contents(tmp_path / "parts", sequence=1_001, size=50)
    ).folder
    sign_release(between, workshop.keys.signer(workshop.keys.find("maker")))

    with pytest.raises(RefusedError, match="not shown to be newer"):
        install(between, device, workshop.trust)


def test_a_release_of_another_recipe_is_refused_under_the_same_name(
    workshop: Workshop, device: Path, tmp_path: Path
) -> None:
    release = copy_of(workshop.unsigned, tmp_path / "r")
    edit(release, "manifest.json", lambda d: d.update(recipe="others"))
    nobody = Trust(workshop.trust.known, is_demanded=False)

    with pytest.raises(RefusedError, match="runs recipe clauses"):
        install(release, device, nobody, name="clauses")
    assert install(release, device, nobody).name == "others"


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 65, "a\nb"])
def test_a_name_cannot_leave_the_folder(name: str, workshop: Workshop, device: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no name for a model"):
        Device(device).model(name)
    assert not (tmp_path / "evil").exists()


def test_a_release_whose_key_was_revoked_is_not_brought_back(workshop: Workshop, device: Path) -> None:
    from dataclasses import replace

    from harness.export.keys import KeyState

    install(workshop.second, device, workshop.trust)
    revoked = {
        key: replace(entry, state=KeyState.REVOKED, reason="lost")
        for key, entry in workshop.trust.known.items()
    }

    with pytest.raises(RefusedError, match="revoked"):
        rollback(device, Trust(revoked, is_demanded=False))
    assert running(device) == release_digest(workshop.second)


def test_a_damaged_release_before_is_not_brought_back(workshop: Workshop, device: Path) -> None:
    install(workshop.second, device, workshop.trust)
    damaged = next((device / "store" / release_digest(workshop.first)).glob("*.gguf"))
    damaged.chmod(0o644)
    os.truncate(damaged, 100)

    with pytest.raises(RefusedError, match="damaged"):
        rollback(device, workshop.trust)
    assert running(device) == release_digest(workshop.second)


def test_a_link_that_leads_out_of_the_store_is_not_followed(workshop: Workshop, device: Path) -> None:
    link = device / "models/clauses/current"
    link.unlink()
    link.symlink_to(workshop.second)

    with pytest.raises(IntegrityError, match="leads to"):
        install(workshop.second, device, workshop.trust)


def test_no_room_is_said_before_anything_is_written(
    workshop: Workshop, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(device)
    usage = shutil.disk_usage(device)._replace(free=1_000)
    monkeypatch.setattr("harness.device.install.shutil.disk_usage", lambda _: usage)

    with pytest.raises(HarnessError, match="nothing has changed"):
        install(workshop.second, device, workshop.trust)
    assert tree(device) == before


@pytest.mark.parametrize("limit_bytes", [0, 200, 1_200, 4_000, 8_000])
def test_a_write_that_fails_leaves_a_release_in_place(
    limit_bytes: int, workshop: Workshop, device: Path
) -> None:
    """The kernel refuses every byte of a file past the limit, as it does on a full disk."""

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
        install(workshop.second, device, workshop.trust)

    assert in_a_child(fill) != 0
    assert running(device) == release_digest(workshop.first)
    assert verify((device / "models/clauses/current").resolve(), workshop.trust).ok
    assert install(workshop.second, device, workshop.trust).is_changed


def in_a_child(act: Callable[[], object]) -> int:
    """The wait status of a forked child that does it."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_the_document_of_a_record_is_plain(device: Path) -> None:
    record = next((device / "models/clauses/releases").glob("*.json"))

    assert json.loads(record.read_text()).keys() == {
        "release", "manifest", "recipe", "version", "sequence", "before", "signers"
    }  # fmt: skip


def test_a_manifest_that_is_swapped_while_it_is_read_is_refused(
    workshop: Workshop, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decided by one manifest must not put another in place."""
    from harness.device import install as room

    claimed = json.loads((workshop.unsigned / "manifest.json").read_text())
    claimed["sequence"] += 1_000
    read = room.read_json
    seen: list[Path] = []

    def swapped(path: Path) -> object:
        seen.append(path)
        return claimed if len(seen) == 1 else read(path)

    monkeypatch.setattr(room, "read_json", swapped)

    with pytest.raises(RefusedError, match="changed while it was read"):
        install(workshop.unsigned, device, Trust(workshop.trust.known, is_demanded=False))
    assert running(device) == release_digest(workshop.first)
