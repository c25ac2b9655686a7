"""What the command line says when something is wrong: exit code, and one document on stdout where one was asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.evals.results import RuleVerdict, State, Verdict

SUITE = """\
suite: sums
domain: shared
task: classify
labels: [even, odd]
records: {train: records.jsonl, eval: records.jsonl}
prompt: {user: '{{ input }}'}
"""


def harness(*arguments: str, home: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True, text=True, env={**os.environ, "HARNESS_HOME": str(home), **changes}, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [("eval", "suite.yaml"), ("no-such-command",), ("runs", "--no-such-option"), ("show", "nobody")],
)
def test_a_mistake_is_exit_2_and_one_document(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = harness(*arguments, "--json", home=tmp_path)

    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
    assert "Traceback" not in done.stderr


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "records.jsonl").write_text('{"id": "a", "input": "2", "target": "even"}\n')

    done = harness(
        "eval", str(tmp_path / "suite.yaml"), "--model", "scripted:none", "--json", home=tmp_path / "file"
    )

    assert done.returncode == 2
    assert str(tmp_path / "file") in json.loads(done.stdout)["error"]
    assert "Traceback" not in done.stderr


def broken_run(home: Path, **manifest: object) -> Path:
    folder = home / "runs" / "r-1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(
        json.dumps({"job": "eval", "title": "t", "created": "2026", **manifest})
    )
    return folder


def test_a_defect_is_no_failed_gate(tmp_path: Path) -> None:
    verdict = broken_run(tmp_path) / "stages" / "base" / "verdict.json"
    verdict.parent.mkdir(parents=True)
    verdict.write_text('{"verdict": "PASS"}')

    done = harness("gate", "r-1", "--json", home=tmp_path)

    assert done.returncode == 4
    assert json.loads(done.stdout)["exit_code"] == 4


@pytest.mark.parametrize(
    "journal",
    [
        b"[]\n",
        b"5\n",
        b'{"seq": 1}\n',
        b"\xff\xfe\n",
        b'{"seq": 1, "time": 0, "event": "run.done"',
        b"{}" * 99,
    ],
)
def test_a_hostile_journal_is_a_run_that_died(tmp_path: Path, journal: bytes) -> None:
    (broken_run(tmp_path) / "events.jsonl").write_bytes(journal)

    assert json.loads(harness("runs", "--json", home=tmp_path).stdout)[0]["state"] == "died"


def test_what_a_manifest_says_is_no_command_to_the_terminal(tmp_path: Path) -> None:
    broken_run(tmp_path, created="\x1b[2J")

    done = harness("runs", home=tmp_path)

    assert "r-1" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_terminal_without_check_marks_is_no_crash(tmp_path: Path) -> None:
    done = harness("doctor", home=tmp_path, PYTHONIOENCODING="latin-1")

    assert done.returncode in (0, 1)
    assert "\\u2713 processor" in done.stdout


def test_without_a_terminal_the_board_is_text(tmp_path: Path) -> None:
    done = harness(home=tmp_path)

    assert done.returncode == 0
    assert "\x1b" not in done.stdout


def test_a_stage_on_two_suites_shows_the_rules_of_both(tmp_path: Path) -> None:
    folder = broken_run(tmp_path) / "stages" / "base"
    folder.mkdir(parents=True)
    rules = [
        RuleVerdict("errors within limit", suite, "error_rate", "all", 9, 0.0, None, None, 0.0, state, "why")
        for suite, state in (("first", State.FAIL), ("second", State.PASS))
    ]
    verdict = Verdict("base", "i", "l", State.FAIL, tuple(rules))
    (folder / "verdict.json").write_text(json.dumps(verdict.to_json()))

    done = harness("gate", "r-1", "--json", home=tmp_path)

    assert done.returncode == 1
    shown = json.loads(done.stdout)["rules"]
    assert [(rule["suite"], rule["verdict"]) for rule in shown] == [("first", "FAIL"), ("second", "PASS")]
    assert "first: errors within limit" in harness("gate", "r-1", home=tmp_path).stdout
