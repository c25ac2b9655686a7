from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import IntegrityError, RefusedError
from harness.evals.results import RuleVerdict, State
from harness.export import release as room
from harness.export.release import ReleaseContents, verify, write_release
from harness.export.verify import file_identity
from harness.files import sha256_file
from harness.models.identity import gguf_identity
from tests.export.releases import Attack, edit, flip, make_contents, make_rules, sign_again


@pytest.fixture
def contents(tmp_path: Path) -> ReleaseContents:
    """A candidate whose picked file passed."""
    return make_contents(tmp_path)


@pytest.fixture
def release(contents: ReleaseContents, tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", contents).folder


def failed(folder: Path) -> set[str]:
    return {check.name for check in verify(folder).failed}


def test_a_release_of_a_file_that_passed_verifies(contents: ReleaseContents, tmp_path: Path) -> None:
    report = write_release(tmp_path / "release", contents)

    found = verify(report.folder)
    assert found.ok, found.failures()
    assert report.model.read_bytes() == contents.gguf.read_bytes()
    assert {check.name for check in found.checks} >= {"digests", "identity", "lock", "thresholds", "verdict"}
    assert found.to_json()["ok"] is True
    found.raise_if_failed()


def test_the_identity_is_the_one_that_models_have(contents: ReleaseContents) -> None:
    assert file_identity(contents.gguf_sha256) == gguf_identity(contents.gguf).digest


def test_the_same_contents_give_the_same_release(contents: ReleaseContents, tmp_path: Path) -> None:
    one, two = (write_release(tmp_path / name, contents) for name in ("one", "two"))

    assert one.manifest_sha256 == two.manifest_sha256


def test_an_earlier_release_is_replaced_and_other_folders_are_not(
    contents: ReleaseContents, release: Path, tmp_path: Path
) -> None:
    write_release(release, replace(contents, notes=("again",)))
    assert "again" in (release / "MODEL_CARD.md").read_text()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("do not delete")

    with pytest.raises(RefusedError, match="is no release"):
        write_release(mine, contents)
    assert (mine / "thesis.txt").read_text() == "do not delete"


def test_the_card_keeps_what_failed_and_how_to_run_it(release: Path) -> None:
    card = (release / "MODEL_CARD.md").read_text()

    for said in (
        "base FAIL → q4_0 PASS",
        "### base",
        "97% larger",
        "llama-server -m clauses-q4_0.gguf",
        "ollama create",
        "a tiny model says little",
        "cap \\| on \\<liability\\>",
    ):
        assert said in card
    assert (release / "Modelfile").read_text().startswith("FROM ./clauses-q4_0.gguf\n")


# Writing is refused


@pytest.mark.parametrize("state", [State.FAIL, State.INCONCLUSIVE])
def test_only_pass_is_released(state: State, contents: ReleaseContents, tmp_path: Path) -> None:
    verdict = replace(contents.verdicts["q4_0"], verdict=state)

    with pytest.raises(RefusedError, match=state):
        write_release(tmp_path / "release", replace(contents, verdicts={"q4_0": verdict}))
    assert not (tmp_path / "release").exists()


def test_a_file_without_a_verdict_is_refused(contents: ReleaseContents, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no verdict on q8_0"):
        write_release(tmp_path / "release", replace(contents, picked="q8_0"))


def test_a_file_that_changed_since_it_was_judged_is_refused(
    contents: ReleaseContents, tmp_path: Path
) -> None:
    flip(contents.gguf, 100)

    with pytest.raises(IntegrityError, match="bytes changed"):
        write_release(tmp_path / "release", contents)
    with pytest.raises(RefusedError, match="another file"):
        write_release(tmp_path / "release", replace(contents, gguf_sha256=sha256_file(contents.gguf)))
    assert not (tmp_path / "release").exists()


def test_a_pass_that_its_rules_do_not_bear_out_is_refused(contents: ReleaseContents, tmp_path: Path) -> None:
    rules = list(make_rules())
    rules[1] = replace(rules[1], low=0.79)
    verdict = replace(contents.verdicts["q4_0"], rules=tuple(rules))

    with pytest.raises(RefusedError, match="bear out"):
        write_release(tmp_path / "release", replace(contents, verdicts={"q4_0": verdict}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-q4_0.gguf"]


@pytest.mark.parametrize("rules", [(), make_rules()[:1], make_rules()[:2]])
def test_a_verdict_that_leaves_rules_out_is_refused(
    rules: tuple[RuleVerdict, ...], contents: ReleaseContents, tmp_path: Path
) -> None:
    verdict = replace(contents.verdicts["q4_0"], rules=rules)

    with pytest.raises(RefusedError, match="does not verify"):
        write_release(tmp_path / "release", replace(contents, verdicts={"q4_0": verdict}))


def test_a_scorecard_of_another_file_or_of_nothing_is_refused(
    contents: ReleaseContents, tmp_path: Path
) -> None:
    card = contents.scorecards["q4_0"]["clauses"]
    for wrong in (replace(card, identity="f" * 64), replace(card, n=0), replace(card, stage="q8_0")):
        with pytest.raises(RefusedError, match="scorecards"):
            write_release(tmp_path / "r", replace(contents, scorecards={"q4_0": {"clauses": wrong}}))


def test_a_release_without_lineage_is_refused(contents: ReleaseContents, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="says nothing of data"):
        write_release(tmp_path / "release", replace(contents, lineage={**contents.lineage, "data": {}}))


def test_a_crash_while_writing_leaves_no_release(
    contents: ReleaseContents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "model_card", stop)

    with pytest.raises(KeyboardInterrupt):
        write_release(tmp_path / "release", contents)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-q4_0.gguf"]


# Attacks on what was written. Where the attacker may rewrite the manifest too, something else must hold.


SIMPLE_ATTACKS: dict[str, tuple[Attack, str]] = {
    "flipped byte": (lambda folder: flip(folder / "clauses-q4_0.gguf", 5000), "digests"),
    "truncated model": (lambda folder: os.truncate(folder / "clauses-q4_0.gguf", 4096), "digests"),
    "missing file": (lambda folder: (folder / "scorecards/q4_0/clauses.json").unlink(), "missing files"),
    "missing model": (lambda folder: (folder / "clauses-q4_0.gguf").unlink(), "missing files"),
    "extra file": (lambda folder: (folder / "extra.txt").write_text("hi"), "extra files"),
    "extra model": (lambda folder: (folder / "verdicts/other.gguf").write_bytes(b"GGUF"), "extra files"),
    "hidden file": (lambda folder: (folder / ".hidden").write_text("hi"), "plain files"),
    "empty folder": (lambda folder: (folder / "empty").mkdir(), "plain files"),
    "link": (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "plain files"),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), "plain files"),
    "edited card": (lambda folder: (folder / "MODEL_CARD.md").write_text("all is well"), "digests"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest"),
    "broken manifest": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest"),
    "list manifest": (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest"),
    "other format": (lambda f: edit(f, "manifest.json", lambda d: d.update(format="dragongate.release/9")), "manifest"),
    "no files": (lambda f: edit(f, "manifest.json", lambda d: d.update(files={})), "extra files"),
    "files of the wrong type": (lambda f: edit(f, "manifest.json", lambda d: d.update(files=[1])), "manifest"),
    "extra key": (lambda f: edit(f, "manifest.json", lambda d: d.update(note="trust me")), "manifest"),
    "edited lock": (lambda f: edit(f, "lock.json", lambda d: d.update(code="x")), "lock"),
    "edited threshold": (lambda f: edit(f, "recipe.json", lambda d: d["gates"][0].update(at_least=0.1)), "thresholds"),
    "dropped rule": (lambda f: edit(f, "recipe.json", lambda d: d["gates"].pop()), "thresholds"),
}  # fmt: skip


@pytest.mark.parametrize("attack", SIMPLE_ATTACKS)
def test_a_changed_folder_is_refused_by_name(attack: str, release: Path) -> None:
    act, reason = SIMPLE_ATTACKS[attack]

    act(release)

    assert reason in failed(release)
    with pytest.raises(IntegrityError, match=reason):
        verify(release).raise_if_failed()


def _swap_model(folder: Path) -> None:
    (folder / "clauses-q4_0.gguf").write_bytes(b"GGUF" + b"another model" * 100)


def _claim_the_swapped_model(folder: Path) -> None:
    _swap_model(folder)
    identity = file_identity(sha256_file(folder / "clauses-q4_0.gguf"))
    edit(folder, "manifest.json", lambda d: d["model"].update(identity=identity))


THOROUGH_ATTACKS: dict[str, tuple[Attack, str]] = {
    "model of A, report of B": (_swap_model, "identity"),
    "model and identity of A, report of B": (_claim_the_swapped_model, "identity"),
    "no GGUF": (lambda f: (f / "clauses-q4_0.gguf").write_bytes(b"PK\x03\x04"), "model"),
    "edited threshold": (lambda f: edit(f, "recipe.json", lambda d: d["gates"][0].update(at_least=0.1)), "thresholds"),
    "edited lock": (lambda f: edit(f, "lock.json", lambda d: d.update(gates="0" * 64)), "lock"),
    "verdict on another lock": (
        lambda f: edit(f, "verdicts/q4_0.json", lambda d: d.update(lock="0" * 64)), "lock"),
    "verdict FAIL": (lambda f: edit(f, "verdicts/q4_0.json", lambda d: d.update(verdict="FAIL")), "verdict"),
    "a rule that fails": (
        lambda f: edit(f, "verdicts/q4_0.json", lambda d: d["rules"][1].update(verdict="FAIL")), "verdict"),
    "a bound under its threshold": (
        lambda f: edit(f, "verdicts/q4_0.json", lambda d: d["rules"][1].update(low=0.5)), "verdict"),
    "a lower threshold in the verdict": (
        lambda f: edit(f, "verdicts/q4_0.json", lambda d: d["rules"][1].update(low=0.5, threshold=0.4)), "verdict"),
    "a loss past its margin": (
        lambda f: edit(f, "verdicts/q4_0.json", lambda d: d["rules"][3].update(low=-0.03)), "verdict"),
    "a size over its limit": (
        lambda f: edit(f, "verdicts/q4_0.json", lambda d: d["rules"][4].update(high=120.0)), "verdict"),
    "a rule left out": (lambda f: edit(f, "verdicts/q4_0.json", lambda d: d["rules"].pop(2)), "thresholds"),
    "verdict of another stage": (
        lambda f: edit(f, "verdicts/q4_0.json", lambda d: d.update(stage="q8_0")), "verdict"),
    "nonsense verdict": (lambda f: (f / "verdicts/q4_0.json").write_text("[1, 2]"), "verdict"),
    "verdict said twice": (
        lambda f: (f / "verdicts/q4_0.json").write_text('{"verdict": "FAIL", "verdict": "PASS"}'), "verdict"),
    "bound that is no number": (
        lambda f: (f / "verdicts/q4_0.json").write_text('{"low": NaN}'), "verdict"),
    "scorecard of another file": (
        lambda f: edit(f, "scorecards/q4_0/clauses.json", lambda d: d.update(identity="0" * 64)), "scorecards"),
    "scorecard of nothing": (
        lambda f: edit(f, "scorecards/q4_0/clauses.json", lambda d: d.update(n=0)), "scorecards"),
    "lineage without data": (lambda f: edit(f, "lineage.json", lambda d: d.pop("data")), "lineage"),
}  # fmt: skip


@pytest.mark.parametrize("attack", THOROUGH_ATTACKS)
def test_a_rewritten_manifest_does_not_help(attack: str, release: Path) -> None:
    act, reason = THOROUGH_ATTACKS[attack]

    act(release)
    sign_again(release)

    assert reason in failed(release)
    assert "digests" not in failed(release)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\..\\b", "manifest.json"]
)
def test_a_path_that_leaves_the_folder_is_refused(path: str, release: Path) -> None:
    (release.parent / "outside").write_text("secret")
    entry = {"sha256": sha256_file(release.parent / "outside"), "bytes": 6}

    edit(release, "manifest.json", lambda d: d["files"].update({path: entry}))

    assert failed(release) == {"manifest"}


def test_a_link_in_place_of_a_file_is_refused(release: Path) -> None:
    model = release / "clauses-q4_0.gguf"
    model.rename(release.parent / "elsewhere.gguf")
    model.symlink_to(release.parent / "elsewhere.gguf")

    assert {"plain files", "missing files"} <= failed(release)


def test_a_linked_folder_is_refused(release: Path) -> None:
    (release.parent / "link").symlink_to(release)

    assert failed(release.parent / "link") == {"folder"}


@pytest.mark.parametrize("name", ["absent", "model-q4_0.gguf"])
def test_what_is_no_folder_is_refused(name: str, contents: ReleaseContents) -> None:
    report = verify(contents.gguf.parent / name)

    assert not report.ok
    assert [check.name for check in report.failed] == ["folder"]


def test_an_endless_file_is_not_read(release: Path) -> None:
    with (release / "MODEL_CARD.md").open("r+b") as file:
        file.truncate(2**41)  # sparse: a terabyte of zeros would take minutes to hash

    assert failed(release) == {"sizes"}
    os.truncate(release / "MODEL_CARD.md", 2**39)
    assert "digests" in failed(release)


def test_what_a_folder_says_cannot_reach_the_terminal(release: Path) -> None:
    edit(release, "manifest.json", lambda d: d.update(format="\x1b]0;owned\x07"))
    edit(release, "manifest.json", lambda d: d["model"].update(file="\x1b[2J"))
    (release / "a\x1b[2Jb").write_text("x")

    assert "\x1b" not in verify(release).failures()
