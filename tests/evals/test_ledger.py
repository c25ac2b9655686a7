from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.records import Record
from harness.errors import IntegrityError
from harness.evals.gate import combine
from harness.evals.ledger import LEDGER, Ledger, sealed_digest
from harness.evals.results import State
from harness.specs.gate import Gate

HEAD = "attempts.head.json"
ITEMS, OTHER_ITEMS = "a" * 64, "b" * 64
GATE = Gate(metric="accuracy", at_least=0.8)


def record(number: int, **changes: object) -> Record:
    values: dict[str, object] = {
        "id": f"r{number}", "input": f"text {number}", "targets": ("yes",), "slices": {}, "unit": f"u{number}",
        "raw": {},
    }  # fmt: skip
    return Record(**{**values, **changes})  # type: ignore[arg-type]


def test_each_candidate_on_the_same_items_is_an_attempt(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)

    numbers = [ledger.enter(ITEMS, identity, "run").number for identity in ("m1", "m2", "m1", "m3")]

    assert numbers == [1, 2, 1, 3]
    assert ledger.enter(OTHER_ITEMS, "m3", "run").number == 1
    assert len((tmp_path / LEDGER).read_text().splitlines()) == 4


def test_a_ledger_is_found_again_by_another_process(tmp_path: Path) -> None:
    Ledger(tmp_path).enter(ITEMS, "m1", "run")

    found = Ledger(tmp_path).find(ITEMS, "m1")

    assert found is not None
    assert found.number == 1
    assert Ledger(tmp_path).find(ITEMS, "m9") is None
    assert Ledger(tmp_path / "none").find(ITEMS, "m1") is None


def test_all_attempts_together_spend_alpha(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)

    spent = [ledger.enter(ITEMS, f"m{k}", "run").alpha(0.05) for k in range(60)]

    assert spent[0] == pytest.approx(0.05 * 6 / math.pi**2)
    assert spent[1] == pytest.approx(spent[0] / 4)
    assert 0.049 < math.fsum(spent) < 0.05


def test_attempts_that_are_only_counted_keep_alpha_and_say_what_they_risk(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for k in range(3):
        last = ledger.enter(ITEMS, f"m{k}", "run", spend=False)

    assert last.alpha(0.05) == 0.05
    assert last.hold([GATE]) == (GATE,)
    assert "attempt 3" in last.rule("s", [GATE]).reason
    assert "0.15" in last.rule("s", [GATE]).reason


def test_a_rule_is_held_to_the_share_of_its_own_alpha(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.enter(ITEMS, "m1", "run")

    held = ledger.enter(ITEMS, "m2", "run").hold([GATE, Gate(metric="accuracy", at_least=0.8, alpha=0.01)])

    assert [gate.alpha for gate in held] == pytest.approx([0.05 * 1.5 / math.pi**2, 0.01 * 1.5 / math.pi**2])
    assert {gate.beta for gate in held} == {0.05}


def test_the_attempt_alone_is_no_proof_of_quality(tmp_path: Path) -> None:
    shown = Ledger(tmp_path).enter(ITEMS, "m1", "run").rule("s", [GATE])

    assert shown.verdict is State.PASS
    assert combine([shown]) is State.INCONCLUSIVE
    assert "0.0304 of 0.05" in shown.reason


def test_what_is_asked_makes_the_account_and_not_its_names_or_its_order() -> None:
    items = {"s": [record(0), record(1)]}

    assert sealed_digest(items) == sealed_digest(
        {"s": [record(1, id="x", unit="y"), record(0, slices={"k": "v"})]}
    )
    assert sealed_digest(items) == sealed_digest({"renamed": items["s"]})
    assert sealed_digest(items) != sealed_digest({"s": [record(0)]})
    assert sealed_digest(items) != sealed_digest({"s": [record(0), record(1, targets=("no",))]})


def _edit(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def edit(home: Path) -> None:
        path = home / LEDGER
        path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))

    return edit


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(_edit(lambda lines: lines[1:]), id="first line removed"),
        pytest.param(_edit(lambda lines: [lines[0], *lines[2:]]), id="middle line removed"),
        pytest.param(_edit(lambda lines: lines[:-1]), id="last line removed"),
        pytest.param(_edit(lambda lines: lines[:-2]), id="last two lines removed"),
        pytest.param(_edit(lambda lines: [lines[1], lines[0], *lines[2:]]), id="lines exchanged"),
        pytest.param(_edit(lambda lines: [line.replace("m1", "m9") for line in lines]), id="an identity changed"),
        pytest.param(_edit(lambda lines: [*lines[:-1], lines[-1].replace("m3", "m9")]), id="the last one changed"),
        pytest.param(_edit(lambda lines: [*lines, lines[-1]]), id="a line repeated"),
        pytest.param(_edit(lambda lines: [*lines[:-1], "{}"]), id="a line that is no attempt"),
        pytest.param(lambda home: (home / LEDGER).unlink(), id="the ledger removed"),
        pytest.param(lambda home: (home / HEAD).unlink(), id="the head removed"),
    ],
)  # fmt: skip
def test_a_changed_ledger_is_tampered(tmp_path: Path, tamper: Callable[[Path], None]) -> None:
    ledger = Ledger(tmp_path)
    for identity in ("m1", "m2", "m3"):
        ledger.enter(ITEMS, identity, "run")

    tamper(tmp_path)

    with pytest.raises(IntegrityError, match="TAMPERED"):
        ledger.enter(ITEMS, "m4", "run")


def test_a_line_that_a_crash_tore_is_cut_off(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.enter(ITEMS, "m1", "run")
    with (tmp_path / LEDGER).open("ab") as file:
        file.write(b'{"before":"00')

    assert ledger.enter(ITEMS, "m2", "run").number == 2
    assert ledger.enter(ITEMS, "m1", "run").number == 1


@pytest.mark.parametrize("already", [0, 1, 2])
def test_a_crash_between_the_line_and_the_head_is_mended(tmp_path: Path, already: int) -> None:
    ledger = Ledger(tmp_path)
    for k in range(already):
        ledger.enter(ITEMS, f"m{k}", "run")
    head = (tmp_path / HEAD).read_bytes() if already else None
    ledger.enter(ITEMS, "last", "run")
    (tmp_path / HEAD).write_bytes(head) if head else (tmp_path / HEAD).unlink()

    assert ledger.enter(ITEMS, "last", "run").number == already + 1
    assert json.loads((tmp_path / HEAD).read_text())["n"] == already + 1


def _enter_many(home: str, name: str) -> None:
    for k in range(10):
        Ledger(Path(home)).enter(ITEMS, f"{name}-{k}", "run")


def test_processes_that_write_at_once_lose_no_attempt(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_enter_many, args=(str(tmp_path), f"p{k}")) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert Ledger(tmp_path).enter(ITEMS, "last", "run").number == 31
