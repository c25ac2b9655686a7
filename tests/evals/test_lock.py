import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from harness.data.records import Record
from harness.errors import IntegrityError
from harness.evals.lock import check_lock, make_lock
from harness.specs.gate import Gate
from harness.specs.suite import Suite

SUITE = Suite.model_validate(
    {
        "suite": "tiny", "domain": "shared", "task": "classify", "labels": ["a", "b"],
        "records": {"eval": "e.jsonl"}, "prompt": {"user": "{{ input }}"},
    }
)  # fmt: skip
GATE = Gate(metric="accuracy", at_least=0.8)
RECORDS = [Record(f"r{k}", f"text {k}", ("a",), {}, f"u{k}", {}) for k in range(3)]


def lock(gate: Gate = GATE, suite: Suite = SUITE, records: list[Record] = RECORDS) -> dict[str, Any]:
    return make_lock([gate], {"tiny": suite}, {"tiny": {"eval": records}})


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
        (lambda: {**lock(), "code": "0" * 64}, "code"),
    ],
)  # fmt: skip
def test_a_change_is_tampered_and_named(changed: Callable[[], dict[str, Any]], named: str) -> None:
    with pytest.raises(IntegrityError, match="TAMPERED") as error:
        check_lock(lock(), changed())

    assert named in error.value.message
