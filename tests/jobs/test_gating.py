"""`harness gate` on run folders as a worker leaves them, without a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import DataError, HarnessError, IntegrityError, RefusedError
from harness.evals.gate import Evidence, judge
from harness.evals.ledger import Attempt
from harness.evals.lock import DECIDING_ROOMS, code_digest, write_lock_file
from harness.evals.results import Sample, State, Verdict
from harness.files import digest_json, read_json, write_json
from harness.jobs.gating import stand, waivable_rules
from harness.jobs.regate import judge_again
from harness.jobs.seals import seal
from harness.specs.gate import Gate
from tests.evals.builders import samples
from tests.evals.runs import write_stage

GATES = (
    Gate(metric="accuracy", at_least=0.8), Gate(metric="accuracy", at_least=0.5, binding=True),
    Gate(metric="accuracy", per="style", at_least=0.7, min_n=5),
)  # fmt: skip


def styled(hits: int, n: int) -> list[Sample]:
    return samples(hits, n, slices={"style": "plain"}, label_probs={"a": 0.7, "b": 0.3})


def make_run(home: Path, name: str, hits: int, n: int = 100, *, gates: tuple[Gate, ...] = GATES, attempt: int = 0,
             code: str | None = None, job: str = "release") -> Path:  # fmt: skip
    """A run with one judged stage, its verdict what its rules say of its samples."""
    folder, found = home / "runs" / name, styled(hits, n)
    parts = {"format": 1, "gates": "g", "code": code or code_digest(DECIDING_ROOMS)}
    lock = {**parts, "digest": digest_json(parts)}
    suite = {"suite": "s", "max_error_frac": 0.02}
    document: dict[str, Any] = {"suite": suite}
    if job == "release":
        document = {
            "recipe": {"recipe": "r", "gates": [gate.model_dump(mode="json") for gate in gates],
                       "export": {"quants": []}},
            "suites": {"s": suite},
        }  # fmt: skip
    write_json(folder / "manifest.json", {
        "format": 1, "run": name, "job": job, "title": "t", "created": f"2026-11-22T09:00:{len(name):02}+00:00",
        "command": [], "document": document, "lock": lock["digest"], "harness": "0.1.0",
        "options": {"recipe": str(home / "r.yaml"), "data_root": None},
    })  # fmt: skip
    write_json(folder / "lock.json", lock)
    write_stage(folder, "adapter", found)
    if job == "release":
        held = Attempt(attempt, "", "", True).hold(gates) if attempt else gates
        verdict = judge("adapter", "m", lock["digest"], held, {"s": Evidence(found, 0.02)}, "s")
        if attempt:
            rules = (*verdict.rules, Attempt(attempt, "", "", True).rule("s", gates))
            verdict = Verdict("adapter", "m", lock["digest"], verdict.verdict, rules)
        write_json(folder / "stages" / "adapter" / "verdict.json", verdict.to_json())
        seal(folder, "adapter")
    return folder


def harness(home: Path, *arguments: str) -> Result:
    return CliRunner(env={"HARNESS_HOME": str(home), "COLUMNS": "160"}).invoke(app, list(arguments))


def states(document: Mapping[str, Any]) -> dict[str, str]:
    return {f"{rule['rule']} · {rule['slice']}": rule["verdict"] for rule in document["rules"]}


def edit(path: Path, old: str, new: str) -> None:
    before = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(before + 1, before + 1))


@pytest.mark.parametrize(("hits", "code"), [(95, 0), (30, 1), (82, 3)])
def test_the_exit_code_is_the_verdict_of_the_samples(tmp_path: Path, hits: int, code: int) -> None:
    make_run(tmp_path, "one", hits)

    done = harness(tmp_path, "gate", "one", "--json")

    assert done.exit_code == code, done.output
    document = json.loads(done.stdout)
    assert document["stale"] == []
    assert document["as_judged"] == []
    assert document["verdict"] == {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE"}[code]


def test_a_verdict_that_was_edited_does_not_follow_from_the_samples(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", 82)
    path = folder / "stages" / "adapter" / "verdict.json"
    text = path.read_text()
    path.write_text(text.replace("INCONCLUSIVE", "PASS"))
    (folder / "stages" / "adapter" / "seal.json").unlink()  # whoever edits one file may remove another

    found = stand(folder)

    assert found.verdict.verdict is State.STALE
    assert found.stale == ("the verdict on disk does not follow from the samples",)
    assert found.exit_code == 3


def test_a_failure_stays_a_failure_whatever_the_verdict_on_disk_says(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", 30)
    edit(folder / "stages" / "adapter" / "verdict.json", "FAIL", "PASS")

    assert stand(folder).verdict.verdict is State.FAIL


def test_samples_that_changed_make_the_verdict_stale_and_are_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", 95)
    edit(folder / "stages" / "adapter" / "s" / "samples.jsonl", '"score": 0.0', '"score": 1.0')

    done = harness(tmp_path, "gate", "one")

    assert done.exit_code == 3
    assert "stages/adapter/s/samples.jsonl: its bytes changed" in done.stdout
    assert "STALE" in done.stdout


def test_other_code_makes_a_verdict_stale_only_where_it_decides_otherwise(tmp_path: Path) -> None:
    same = make_run(tmp_path, "same", 95, code="0" * 64)
    assert stand(same).stale == ()

    other = make_run(tmp_path, "other", 82, code="0" * 64)
    path = other / "stages" / "adapter" / "verdict.json"
    path.write_text(path.read_text().replace("INCONCLUSIVE", "PASS"))
    seal(other, "adapter")
    assert stand(other).stale == ("the deciding code is another one, and decides otherwise",)


def test_the_attempt_that_the_verdict_names_holds_when_it_is_judged_again(tmp_path: Path) -> None:
    """97 of 100 clear 0.9 at alpha .05 (low .926), and 96 do not at the fourth attempt's .0019."""
    gates = (Gate(metric="accuracy", at_least=0.9),)
    first = make_run(tmp_path, "first", 96, gates=gates, attempt=1)
    fourth = make_run(tmp_path, "fourth", 96, gates=gates, attempt=4)

    assert stand(first).verdict.verdict is State.PASS
    assert stand(fourth).verdict.verdict is State.INCONCLUSIVE
    assert stand(first).stale == stand(fourth).stale == ()


def test_rules_of_a_file_are_asked_of_a_run_that_was_only_scored(tmp_path: Path) -> None:
    make_run(tmp_path, "scored", 95, job="eval")
    (tmp_path / "rules.yaml").write_text("gates:\n  - {metric: accuracy, at_least: 0.99}\n")

    without = harness(tmp_path, "gate", "scored")
    done = harness(tmp_path, "gate", "scored", "--gates", str(tmp_path / "rules.yaml"), "--json")

    assert isinstance(without.exception, DataError)
    assert "--gates FILE" in without.exception.hint
    assert done.exit_code == 1
    assert states(json.loads(done.stdout))["accuracy at least 0.99 · all"] == "FAIL"


def test_a_file_with_a_wrong_rule_is_bad_input(tmp_path: Path) -> None:
    make_run(tmp_path, "scored", 95, job="eval")
    (tmp_path / "rules.yaml").write_text("gates:\n  - {metric: acuracy, at_least: 0.9}\n")

    done = harness(tmp_path, "gate", "scored", "--gates", str(tmp_path / "rules.yaml"))

    assert isinstance(done.exception, HarnessError)
    assert "gates[0].metric" in done.exception.message


def test_a_baseline_is_compared_with_and_may_be_a_rule(tmp_path: Path) -> None:
    make_run(tmp_path, "before", 95)
    make_run(tmp_path, "after", 70)
    rules = tmp_path / "rules.yaml"
    rules.write_text("gates:\n  - {metric: accuracy, versus: baseline, no_worse_than: 0.05}\n")

    done = harness(tmp_path, "gate", "after", "--gates", str(rules), "--baseline", "before", "--json")

    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert states(document)["accuracy no worse than baseline by 0.05 · all"] == "FAIL"
    overall = document["baseline"]["suites"][0]["overall"]
    assert (overall["lost"], overall["gained"]) == (25, 0)


def test_without_a_baseline_a_rule_that_needs_one_proves_nothing(tmp_path: Path) -> None:
    make_run(tmp_path, "after", 95)
    rules = tmp_path / "rules.yaml"
    rules.write_text("gates:\n  - {metric: accuracy, versus: baseline, no_worse_than: 0.05}\n")

    assert harness(tmp_path, "gate", "after", "--gates", str(rules)).exit_code == 3


def test_explain_names_the_worst_rule_and_where_the_wrong_items_are(tmp_path: Path) -> None:
    make_run(tmp_path, "one", 30)

    done = harness(tmp_path, "gate", "one", "--explain")

    assert "worst: accuracy at least 0.8" in done.stdout
    assert "70 of 100 items are wrong" in done.stdout
    assert "a → b" not in done.stdout  # all items have that gold, so it tells none apart


def waive(home: Path, run: str, rule: str, **changes: str) -> Result:
    options = {"who": "Ada Lovelace", "why": "too few contracts", "until": "2999-12-31", **changes}
    return harness(
        home, "waive", run, rule, *(part for key, value in options.items() for part in (f"--{key}", value))
    )


def test_a_waived_rule_is_shown_with_who_answers_for_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", 82)
    assert [rule.rule for rule in waivable_rules(folder)] == ["accuracy at least 0.8"]

    assert waive(tmp_path, "one", "accuracy at least 0.8").exit_code == 0

    done = harness(tmp_path, "gate", "one", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 0
    assert states(document)["accuracy at least 0.8 · all"] == "WAIVED"
    assert document["stale"] == []
    assert "waived by Ada Lovelace until 2999-12-31: too few contracts" in document["waivers"][0]
    assert "Ada Lovelace" in harness(tmp_path, "gate", "one").stdout


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("accuracy at least 0.5", RefusedError), ("errors within the suite's limit", RefusedError),
        ("accuracy per style at least 0.7", DataError),
    ],
)  # fmt: skip
def test_binding_rules_and_rules_that_block_nothing_are_not_waived(
    tmp_path: Path, rule: str, error: type[HarnessError]
) -> None:
    folder = make_run(tmp_path, "one", 82)

    assert isinstance(waive(tmp_path, "one", rule).exception, error)
    assert not (folder / "waivers.jsonl").exists()


def test_a_lock_file_that_is_not_what_the_run_stands_on_is_tampered(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", 95)
    lock = read_json(folder / "lock.json")
    write_lock_file(tmp_path / "r.yaml", lock)
    assert harness(tmp_path, "gate", "one").exit_code == 0

    parts = {**{key: part for key, part in lock.items() if key != "digest"}, "gates": "other"}
    write_lock_file(tmp_path / "r.yaml", {**parts, "digest": digest_json(parts)})

    with pytest.raises(IntegrityError, match=r"TAMPERED.*r\.lock\.json froze: gates"):
        stand(folder)


def test_where_the_samples_are_gone_the_verdict_is_shown_as_it_was_judged(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", 95)
    (folder / "stages" / "adapter" / "s" / "samples.jsonl").unlink()
    (folder / "stages" / "adapter" / "seal.json").unlink()

    found = stand(folder)

    assert found.verdict.verdict is State.PASS
    assert "accuracy at least 0.8" in found.kept


def test_rules_whose_evidence_is_not_in_the_samples_are_taken_over(tmp_path: Path) -> None:
    gates = (*GATES, Gate(metric="memory_mb", at_most=500.0, stages=("adapter",)))
    folder = make_run(tmp_path, "one", 95, gates=gates)

    again = judge_again(folder, "adapter")

    assert again.kept == ("memory_mb at most 500",)
    assert again.is_same is True


def test_a_stage_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", 95)

    with pytest.raises(DataError, match="no verdict for f16"):
        stand(folder, "f16")
