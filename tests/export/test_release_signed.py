"""Attacks on a signed release. The attacker rewrites whatever is in the folder, and has no trusted key."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from harness.errors import IntegrityError
from harness.export.keys import KeyStore, Trust
from harness.export.release import ReleaseContents, sign_release, write_release
from harness.export.signing import PAYLOAD_TYPE, seal
from harness.export.statements import FILES, TYPES
from harness.export.verify import Order, VerifyReport, verify, verify_head
from harness.files import sha256_file
from tests.export.releases import edit, flip, make_contents, sign_again

Attack = Callable[[Path, Path], object]
"""Does something to the first folder; the second is another signed release."""


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    store = KeyStore(tmp_path / "keys")
    store.new("maker")
    return store


@pytest.fixture
def contents(tmp_path: Path) -> ReleaseContents:
    return make_contents(tmp_path)


@pytest.fixture
def release(contents: ReleaseContents, keys: KeyStore, tmp_path: Path) -> Path:
    return signed(tmp_path / "release", contents, keys)


@pytest.fixture
def other(keys: KeyStore, tmp_path: Path) -> Path:
    """A release of another file, signed with the same key."""
    (tmp_path / "other").mkdir()
    return signed(tmp_path / "other-release", make_contents(tmp_path / "other", size=41), keys)


def signed(folder: Path, contents: ReleaseContents, keys: KeyStore, key: str = "maker") -> Path:
    write_release(folder, contents)
    sign_release(folder, keys.signer(keys.find(key)))
    return folder


def demand(keys: KeyStore) -> Trust:
    return Trust(keys.known(), is_demanded=True)


def failed(folder: Path, trust: Trust) -> set[str]:
    return {check.name for check in verify(folder, trust).failed}


def test_a_signed_release_verifies_against_its_key(release: Path, keys: KeyStore) -> None:
    report = verify(release, demand(keys))

    assert report.ok, report.failures()
    assert report.signers == (keys.find("maker").id,)
    assert "signed by maker" in report.signature
    assert {"statements", "envelopes", "signatures", "trust", "subjects", "claims"} <= names(report)


def names(report: VerifyReport) -> set[str]:
    return {check.name for check in report.checks}


def test_an_unsigned_release_verifies_and_says_so_unless_a_key_is_demanded(
    contents: ReleaseContents, keys: KeyStore, tmp_path: Path
) -> None:
    folder = write_release(tmp_path / "release", contents).folder

    assert verify(folder).ok
    assert "UNSIGNED" in verify(folder).signature
    assert failed(folder, demand(keys)) == {"statements"}


def test_a_signature_by_a_key_that_nobody_knows_shows_nothing(release: Path) -> None:
    report = verify(release)

    assert report.ok
    assert report.signers == ()
    assert "UNPROVEN" in report.signature


def test_signing_twice_gives_the_same_bytes(release: Path, keys: KeyStore) -> None:
    before = {path: (release / path).read_bytes() for path in FILES.values()}

    sign_release(release, keys.signer(keys.find("maker")))

    assert {path: (release / path).read_bytes() for path in FILES.values()} == before


def test_what_does_not_verify_is_not_signed(release: Path, keys: KeyStore) -> None:
    flip(release / "clauses-q4_0.gguf", 200)

    with pytest.raises(IntegrityError, match="digests"):
        sign_release(release, keys.signer(keys.find("maker")))


def test_the_signature_is_one_that_the_specification_defines(release: Path, keys: KeyStore) -> None:
    """By the text of DSSE v1, with the primitive alone: PAE of type and payload, Ed25519 over it."""
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys.find("maker").public))
    for path in FILES.values():
        envelope = json.loads((release / path).read_text())
        payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
        pae = b"DSSEv1 " + b" ".join([str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
        for signature in envelope["signatures"]:
            public.verify(base64.b64decode(signature["sig"]), pae)


def test_the_statements_are_about_every_file(release: Path) -> None:
    files = {path for path in release.rglob("*") if path.is_file() and path.parent.name != "statements"}
    wanted = {
        path.relative_to(release).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    for name in TYPES:
        statement = payload(release, name)
        found = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
        assert found == wanted
        assert statement["_type"] == "https://in-toto.io/Statement/v1"


def test_the_statements_keep_what_failed_and_who_waived_it(release: Path) -> None:
    predicate = payload(release, "evaluation")["predicate"]

    assert predicate["result"] == "PASSED"
    assert [stage["stage"] for stage in predicate["failedOnTheWay"]] == ["base"]
    assert len(predicate["passedTests"]) == 5
    provenance = payload(release, "provenance")["predicate"]["buildDefinition"]
    assert provenance["resolvedDependencies"][0]["annotations"]["reference"] == "tiny"
    assert {"sha256": "c" * 64} in [found.get("digest") for found in provenance["resolvedDependencies"]]
    calibration = payload(release, "calibration")["predicate"]
    assert calibration["calibrations"]["clauses"]["temperature"] == 1.25


def payload(folder: Path, name: str) -> dict[str, Any]:
    envelope = json.loads((folder / FILES[name]).read_text())
    found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return found


# Attacks


def rewrite(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a statement and leaves its signature."""
    statement = payload(folder, name)
    change(statement)
    encoded = base64.b64encode(json.dumps(statement).encode()).decode()
    edit(folder, FILES[name], lambda envelope: envelope.update(payload=encoded))


def swap_payloads(folder: Path) -> None:
    one, two = folder / FILES["evaluation"], folder / FILES["calibration"]
    a, b = json.loads(one.read_text()), json.loads(two.read_text())
    a["payload"], b["payload"] = b["payload"], a["payload"]
    one.write_text(json.dumps(a))
    two.write_text(json.dumps(b))


def swap_envelopes(folder: Path) -> None:
    one, two = folder / FILES["evaluation"], folder / FILES["calibration"]
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(b)
    two.write_bytes(a)


def edit_card(folder: Path) -> None:
    (folder / "MODEL_CARD.md").write_text("# all is well\n")
    sign_again(folder)


def edit_calibration(folder: Path) -> None:
    edit(folder, "calibration/q4_0/clauses.json", lambda d: d.update(temperature=0.1))
    sign_again(folder)


def edit_threshold(folder: Path) -> None:
    """Consistently, in recipe, lock, verdict and manifest: only the signature can tell."""
    from harness.files import digest_json
    from harness.specs.gate import Gate

    edit(folder, "recipe.json", lambda d: d["gates"][0].update(at_least=0.5))
    recipe = json.loads((folder / "recipe.json").read_text())
    gates = [Gate.model_validate(gate) for gate in recipe["gates"]]
    lock = json.loads((folder / "lock.json").read_text())
    parts = {key: value for key, value in lock.items() if key != "digest"}
    parts["gates"] = digest_json([gate.model_dump() for gate in gates])
    digest = digest_json(parts)
    (folder / "lock.json").write_text(json.dumps({**parts, "digest": digest}))

    def judge_again(verdict: dict[str, Any]) -> None:
        verdict["lock"] = digest
        verdict["rules"][1].update(rule=gates[0].name, threshold=0.5)

    edit(folder, "verdicts/q4_0.json", judge_again)
    edit(folder, "manifest.json", lambda d: d.update(lock=digest))
    sign_again(folder)


def report_of_another_file(folder: Path, other: Path) -> None:
    shutil.rmtree(folder / "statements")
    shutil.copytree(other / "statements", folder / "statements")


def newer_than_it_is(folder: Path) -> None:
    edit(folder, "manifest.json", lambda d: d.update(version=99))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def say_twice(path: Path) -> None:
    path.write_text(path.read_text().rstrip()[:-1] + ', "payloadType": "application/vnd.in-toto+json"}')


ATTACKS: dict[str, tuple[Attack, set[str]]] = {
    "missing statement": (lambda f, o: (f / FILES["calibration"]).unlink(), {"statements", "trust"}),
    "no statements": (lambda f, o: shutil.rmtree(f / "statements"), {"statements"}),
    "extra statement": (lambda f, o: (f / "statements/trust-me.json").write_text("{}"), {"extra files"}),
    "link instead of a statement": (
        lambda f, o: link(f / FILES["evaluation"], o / FILES["evaluation"]), {"plain files", "statements", "trust"}),
    "truncated envelope": (lambda f, o: truncate(f / FILES["provenance"]), {"envelopes", "trust"}),
    "key said twice": (lambda f, o: say_twice(f / FILES["provenance"]), {"envelopes", "trust"}),
    "endless envelope": (lambda f, o: truncate_to(f / FILES["provenance"], 2**36), {"envelopes", "trust"}),
    "another payload type": (
        lambda f, o: edit(f, FILES["evaluation"], lambda d: d.update(payloadType="application/json")),
        {"envelopes", "signatures", "trust"}),
    "edited payload": (
        lambda f, o: rewrite(f, "evaluation", lambda d: d["predicate"].update(attempt=1)), {"signatures", "trust"}),
    "swapped payloads": (lambda f, o: swap_payloads(f), {"envelopes", "signatures", "trust"}),
    "swapped envelopes": (lambda f, o: swap_envelopes(f), {"envelopes"}),
    "no signatures": (
        lambda f, o: edit(f, FILES["evaluation"], lambda d: d.update(signatures=[])), {"envelopes", "trust"}),
    "base64 with a space": (
        lambda f, o: edit(f, FILES["evaluation"], lambda d: d.update(payload=d["payload"] + " ")),
        {"envelopes", "trust"}),
    "statements of another release": (report_of_another_file, {"subjects", "claims"}),
    "newer than it is": (lambda f, o: newer_than_it_is(f), {"subjects", "claims"}),
    "edited card": (lambda f, o: edit_card(f), {"subjects"}),
    "edited calibration": (lambda f, o: edit_calibration(f), {"subjects"}),
    "edited threshold": (lambda f, o: edit_threshold(f), {"subjects", "claims"}),
}  # fmt: skip


def link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def truncate_to(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("attack", ATTACKS)
def test_fails_by_name(attack: str, release: Path, other: Path, keys: KeyStore) -> None:
    act, reasons = ATTACKS[attack]

    act(release, other)

    assert failed(release, demand(keys)) == reasons


@pytest.mark.parametrize("attack", ["edited card", "edited calibration", "edited threshold"])
def test_without_signatures_a_consistent_edit_passes_which_is_why_there_are_signatures(
    attack: str, release: Path, other: Path
) -> None:
    ATTACKS[attack][0](release, other)
    shutil.rmtree(release / "statements")

    assert verify(release).ok


def test_a_flipped_byte_fails(release: Path, keys: KeyStore) -> None:
    flip(release / "clauses-q4_0.gguf", 500)

    assert "digests" in failed(release, demand(keys))
    assert verify_head(release, demand(keys)).ok


def test_nothing_is_hashed_that_no_trusted_key_vouches_for(release: Path, tmp_path: Path) -> None:
    stranger = KeyStore(tmp_path / "stranger")
    stranger.new("stranger")

    report = verify(release, demand(stranger))

    assert "digests" not in names(report)
    assert [check.name for check in report.failed] == ["trust"]


def test_a_key_of_somebody_else_fails(
    release: Path, contents: ReleaseContents, keys: KeyStore, tmp_path: Path
) -> None:
    thief = KeyStore(tmp_path / "thief")
    thief.new("maker")  # the same name makes no difference
    signed(release, contents, thief)

    assert failed(release, demand(keys)) == {"trust"}


def test_a_signature_under_another_keys_id_fails(release: Path, keys: KeyStore, tmp_path: Path) -> None:
    thief = KeyStore(tmp_path / "thief")
    thief.new("thief")
    sign_release(release, thief.signer(thief.find("thief")))
    for path in FILES.values():
        edit(release, path, lambda d: d["signatures"][0].update(keyid=keys.find("maker").id))

    assert failed(release, demand(keys)) == {"signatures", "trust"}


def test_a_revoked_key_fails_whether_or_not_a_key_is_demanded(release: Path, keys: KeyStore) -> None:
    keys.revoke("maker", "laptop lost")

    assert failed(release, demand(keys)) == {"trust"}
    report = verify(release, Trust(keys.known(), is_demanded=False))
    assert "laptop lost" in report.failures()


def test_a_second_signature_does_not_hide_a_revoked_one(release: Path, keys: KeyStore) -> None:
    keys.new("second")
    second = keys.signer(keys.find("second"))
    for path in FILES.values():
        envelope = json.loads((release / path).read_text())
        again = seal(base64.b64decode(envelope["payload"]), second)
        envelope["signatures"] += again["signatures"]
        (release / path).write_text(json.dumps(envelope))
    assert verify(release, demand(keys)).ok

    keys.revoke("maker", "laptop lost")

    assert failed(release, demand(keys)) == {"trust"}


def test_statements_that_three_keys_signed_one_each_fail(
    release: Path, contents: ReleaseContents, keys: KeyStore
) -> None:
    keys.new("second")
    whole = (release / FILES["evaluation"]).read_bytes()
    signed(release, contents, keys, "second")
    (release / FILES["evaluation"]).write_bytes(whole)

    assert failed(release, demand(keys)) == {"trust"}


def test_a_signed_statement_that_says_another_type_fails(release: Path, keys: KeyStore) -> None:
    from securesystemslib.dsse import Envelope

    envelope = json.loads((release / FILES["evaluation"]).read_text())
    forged = Envelope(base64.b64decode(envelope["payload"]), "application/json", {})
    forged.sign(keys.signer(keys.find("maker")))
    (release / FILES["evaluation"]).write_text(json.dumps({**forged.to_dict(), "payloadType": PAYLOAD_TYPE}))

    assert failed(release, demand(keys)) == {"signatures", "trust"}


@pytest.mark.parametrize(
    ("after", "is_newer"),
    [
        (Order(2, 9_999), True), (Order(3, 999), True), (Order(3, 1_000), False), (Order(3, 1_001), False),
        (Order(4, 1), False), (Order(3, None), False), (Order(2, None), True),
    ],
)  # fmt: skip
def test_an_older_release_fails(after: Order, is_newer: bool, release: Path, keys: KeyStore) -> None:
    report = verify(release, demand(keys), after=after)

    assert report.ok is is_newer
    assert [check.name for check in report.failed] == ([] if is_newer else ["newer"])


def test_a_release_without_a_sequence_still_verifies(
    contents: ReleaseContents, keys: KeyStore, tmp_path: Path
) -> None:
    folder = signed(tmp_path / "old", replace(contents, sequence=None, calibrations={}), keys)

    assert verify(folder, demand(keys)).ok
    assert "sequence" not in json.loads((folder / "manifest.json").read_text())


def test_the_manifests_digest_is_signed(release: Path) -> None:
    subjects = {
        subject["name"]: subject["digest"]["sha256"] for subject in payload(release, "evaluation")["subject"]
    }

    assert subjects["manifest.json"] == sha256_file(release / "manifest.json")
