import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.data.records import Record
from harness.errors import DataError, IntegrityError
from harness.evals.lock import (
    check_lock,
    lock_file_of,
    make_lock,
    read_lock_file,
    require_frozen,
    write_lock_file,
)
from harness.specs.gate import Gate
from harness.specs.suite import ScorerSpec, Suite

SUITE = Suite.model_validate(
    {
        "suite": "tiny", "domain": "shared", "task": "classify", "labels": ["a", "b"],
        "records": {"eval": "e.jsonl"}, "prompt": {"user": "{{ input }}"},
    }
)  # fmt: skip
GATE = Gate(metric="accuracy", at_least=0.8)
RECORDS = [Record(f"r{k}", f"text {k}", ("a",), {}, f"u{k}", {}) for k in range(3)]


def lock(
    gate: Gate = GATE,
    suite: Suite = SUITE,
    records: list[Record] = RECORDS,
    calibration: list[Record] | None = None,
) -> dict[str, Any]:
    return make_lock([gate], {"tiny": suite}, {"tiny": {"eval": records, "calibration": calibration or []}})


def with_prompt(user: str) -> Suite:
    return SUITE.model_copy(update={"prompt": SUITE.prompt.model_copy(update={"user": user})})


def test_the_same_things_have_the_same_lock() -> None:
    check_lock(lock(), lock())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (lambda: lock(gate=Gate(metric="accuracy", at_least=0.79)), "gates"),
        (lambda: lock(suite=with_prompt("{{ input }}!")), "suites.tiny.template"),
        (lambda: lock(records=RECORDS[:2]), "suites.tiny.records.eval"),
        (lambda: lock(records=RECORDS[::-1]), "suites.tiny.records.eval"),
        (lambda: lock(records=[dataclasses.replace(RECORDS[0], targets=("b",)), *RECORDS[1:]]), "records.eval"),
        (lambda: lock(records=[dataclasses.replace(RECORDS[0], context="c"), *RECORDS[1:]]), "records.eval"),
        (lambda: lock(records=[dataclasses.replace(RECORDS[0], options=("x",)), *RECORDS[1:]]), "records.eval"),
        (lambda: lock(records=[dataclasses.replace(RECORDS[0], target={"x": 1}), *RECORDS[1:]]), "records.eval"),
        (lambda: lock(suite=SUITE.model_copy(update={"scorers": (ScorerSpec(name="number"),)})), "scorers"),
        (lambda: lock(calibration=RECORDS[:1]), "calibration.tiny"),
        (lambda: {**lock(), "code": "0" * 64}, "code"),
    ],
)  # fmt: skip
def test_a_change_is_tampered_and_named(changed: Callable[[], dict[str, Any]], named: str) -> None:
    with pytest.raises(IntegrityError, match="TAMPERED") as error:
        check_lock(lock(), changed())

    assert named in error.value.message


def test_what_is_frozen_beside_a_recipe_is_what_a_run_must_stand_on(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    require_frozen(recipe, lock())  # nothing was frozen

    path = write_lock_file(recipe, lock())

    assert path == tmp_path / "r.lock.json" == lock_file_of(recipe)
    assert read_lock_file(recipe) == lock()
    require_frozen(recipe, lock())
    with pytest.raises(IntegrityError, match=r"TAMPERED.*r\.lock\.json froze.*gates") as error:
        require_frozen(recipe, lock(gate=Gate(metric="accuracy", at_least=0.5)))
    assert "harness lock" in error.value.hint


def test_an_edited_lock_file_is_tampered_and_names_itself(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    path = write_lock_file(recipe, lock())
    frozen = json.loads(path.read_text())
    frozen["lock"]["gates"] = lock(gate=Gate(metric="accuracy", at_least=0.5))["gates"]
    path.write_text(json.dumps(frozen))

    with pytest.raises(IntegrityError, match=r"TAMPERED.*was edited"):
        read_lock_file(recipe)


@pytest.mark.parametrize("content", ["[]", "{}", '{"lock": 3}', "not JSON"])
def test_what_is_no_lock_file_is_an_error(tmp_path: Path, content: str) -> None:
    lock_file_of(tmp_path / "r.yaml").write_text(content)

    with pytest.raises(DataError):
        read_lock_file(tmp_path / "r.yaml")


def test_a_lock_file_says_when_and_by_what_it_was_frozen(tmp_path: Path) -> None:
    frozen = json.loads(write_lock_file(tmp_path / "r.yaml", lock()).read_text())

    assert frozen["by"].keys() == {"harness", "python"}
    assert frozen["frozen"].endswith("+00:00")
    assert frozen["document"] == "r.yaml"


def test_what_a_scorer_reads_in_a_record_is_locked_and_nothing_else_of_it() -> None:
    scorer = ScorerSpec(name="number", settings={"scale_field": "meta.scale", "tolerance": 0.1})
    suite = SUITE.model_copy(update={"scorers": (scorer,)})

    def with_raw(**raw: Any) -> dict[str, Any]:
        return lock(suite=suite, records=[dataclasses.replace(RECORDS[0], raw=raw), *RECORDS[1:]])

    before = with_raw(meta={"scale": "million"}, note="a")
    check_lock(before, with_raw(meta={"scale": "million"}, note="b"))
    for raw in ({"meta": {"scale": "thousand"}}, {"meta": {}}, {}):
        with pytest.raises(IntegrityError, match=r"records\.eval"):
            check_lock(before, with_raw(**raw))
