"""`harness data`: what it prints, what it keeps to itself, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.data.check import check
from harness.data.protection import report_path
from harness.errors import DataError, HarnessError
from harness.privacy.find import by_pattern
from harness.specs.load import find_document, load_suite

SECRET = "ann.lee@corp.test"


def harness(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.jsonl"
    rows = [{"id": f"t{i}", "input": f"ticket {i}", "target": "ab"[i % 2]} for i in range(40)]
    rows[7]["input"] = f"write to {SECRET}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "tickets.key"
    assert harness("data", "key", path).exit_code == 0
    return path


def test_a_scan_says_where_and_not_what(tickets: Path) -> None:
    plain, shown = (harness("data", "scan", tickets, "--no-names", *more) for more in ((), ("--show",)))

    assert plain.exit_code == shown.exit_code == 1
    assert f"{tickets}:8 input: email" in plain.stdout
    assert SECRET not in plain.stdout
    assert SECRET in shown.stdout


def test_the_exit_code_is_1_only_above_the_limit(tickets: Path) -> None:
    assert harness("data", "scan", tickets, "--no-names", "--max", "1").exit_code == 0
    assert harness("data", "scan", tickets, "--no-names", "--max", "0").exit_code == 1


def test_json_counts_by_kind_and_names_the_finders(tickets: Path) -> None:
    document = json.loads(harness("data", "scan", tickets.parent, "--no-names", "--json").stdout)

    assert document["kinds"] == {"email": 1}
    assert document["places"] == [{"file": str(tickets), "line": 8, "field": "input", "kind": "email"}]
    assert set(document["finders"]) == {"harness", "python-stdnum"}


def test_a_suite_stands_for_its_files(tmp_path: Path, tickets: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "suite: s\ndomain: shared\ntask: classify\nlabels: [a, b]\nrecords: {eval: tickets.jsonl}\n"
        'prompt: {user: "{{ input }}"}\n'
    )

    document = json.loads(harness("data", "scan", suite, "--no-names", "--json").stdout)

    assert document["files"] == [str(tickets)]
    assert document["n"] == 1


def test_what_is_not_there_is_an_error_and_not_clean(tmp_path: Path) -> None:
    assert isinstance(harness("data", "scan", tmp_path / "absent.jsonl").exception, DataError)


def test_pseudonymise_and_restore_go_there_and_back(tmp_path: Path, tickets: Path, key: Path) -> None:
    out, back = tmp_path / "train.jsonl", tmp_path / "back.jsonl"

    made = harness("data", "pseudonymise", tickets, out, "--key-file", key, "--no-names", "--json")
    undone = harness("data", "restore", out, back, "--key-file", key, "--json")

    assert json.loads(made.stdout) == json.loads(report_path(out).read_text())
    assert SECRET not in made.output + out.read_text()
    assert json.loads(undone.stdout) == {"out": str(back), "is_source": True}
    assert back.read_bytes() == tickets.read_bytes()


def test_one_way_keeps_no_map(tmp_path: Path, tickets: Path, key: Path) -> None:
    out = tmp_path / "train.jsonl"

    assert (
        harness("data", "pseudonymise", tickets, out, "--key-file", key, "--no-names", "--one-way").exit_code
        == 0
    )

    assert not list(tmp_path.glob("*.map"))
    assert json.loads(report_path(out).read_text())["map"] is None


def test_a_key_among_the_runs_is_refused(
    tmp_path: Path, tickets: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(key.parent))

    found = harness("data", "pseudonymise", tickets, tmp_path / "out.jsonl", "--key-file", key)

    assert isinstance(found.exception, HarnessError)
    assert "a key among runs" in found.exception.message
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("field", ["name", "=person", "name=two words"])
def test_a_field_without_its_kind_is_refused(tmp_path: Path, tickets: Path, key: Path, field: str) -> None:
    found = harness(
        "data", "pseudonymise", tickets, tmp_path / "o.jsonl", "--key-file", key, "--field", field
    )

    assert isinstance(found.exception, HarnessError)


def test_canaries_are_planted_with_the_suite_that_asks_for_them(tmp_path: Path, tickets: Path) -> None:
    out, suite = tmp_path / "planted.jsonl", tmp_path / "canaries.yaml"

    document = json.loads(
        harness("data", "canaries", tickets, out, "--suite", suite, "--n", "3", "--json").stdout
    )

    assert (document["records"], document["planted"]) == (43, 3)
    assert check([suite]) == []


def test_the_suite_on_leaks_is_sound_and_holds_no_personal_data_itself() -> None:
    path = find_document("suites/shared/privacy.yaml")
    suite = load_suite(path)

    assert check([path]) == []
    rows = [json.loads(line) for line in (path.parent / str(suite.records.eval)).read_text().splitlines()]
    assert len({row["input"] for row in rows}) == len(rows) >= 36
    assert not [row["id"] for row in rows if by_pattern(f"{row['input']} {row['target']}")]
