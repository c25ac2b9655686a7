"""`harness gate --junit/--markdown` and `harness compare`, on run folders as a worker leaves them."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import HarnessError
from tests.tui.fakes import FakeRun


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    FakeRun(folder, n=96, train_steps=1).to_the_end()
    return folder


def harness(home: Path, *arguments: str) -> Result:
    return CliRunner(env={"HARNESS_HOME": str(home), "COLUMNS": "120"}).invoke(app, list(arguments))


def test_reports_are_written_beside_the_table_and_the_exit_code_stays(home: Path, tmp_path: Path) -> None:
    plain = harness(home, "gate", "last", "--stage", "base")
    xml, comment = tmp_path / "gate.xml", tmp_path / "comment.md"

    done = harness(home, "gate", "last", "--stage", "base", "--junit", str(xml), "--markdown", str(comment))

    assert (done.exit_code, done.stdout) == (plain.exit_code, plain.stdout)
    assert done.exit_code == 1
    root = ET.parse(xml).getroot()
    assert {suite.attrib["name"] for suite in root} == {"base · legal-clauses"}
    assert int(root.attrib["failures"]) > 0
    assert comment.read_text().splitlines()[1].startswith("### ✗ FAIL")


def test_without_a_stage_junit_has_them_all(home: Path) -> None:
    root = ET.fromstring(harness(home, "gate", "last", "--junit", "-").stdout)

    assert [suite.attrib["name"].split()[0] for suite in root] == [
        "base", "adapter", "merged", "f16", "q8_0", "q5_k_m", "q4_0",
    ]  # fmt: skip


def test_stdout_takes_one_document(home: Path) -> None:
    for arguments in (("--junit", "-", "--markdown", "-"), ("--junit", "-", "--json")):
        done = harness(home, "gate", "last", *arguments)

        assert isinstance(done.exception, HarnessError)
        assert done.stdout == ""


def test_a_run_that_died_before_a_verdict_is_an_error_in_its_report(tmp_path: Path) -> None:
    FakeRun(tmp_path, n=64, train_steps=1).until("eval.batch")

    done = harness(tmp_path, "gate", "last", "--junit", str(tmp_path / "gate.xml"))

    assert isinstance(done.exception, HarnessError)
    root = ET.parse(tmp_path / "gate.xml").getroot()
    assert root.attrib["errors"] == "1"
    assert "died" in root.find(".//error").attrib["message"]  # type: ignore[union-attr]


def test_two_stages_of_one_run_are_compared(home: Path) -> None:
    document = json.loads(
        harness(home, "compare", "last", "last", "--stage", "base", "--stage-b", "adapter", "--json").stdout
    )
    shown = harness(home, "compare", "last", "last", "--stage", "base", "--stage-b", "adapter")

    (suite,) = document["suites"]
    overall = suite["overall"]
    assert overall["n"] == 96
    assert overall["gained"] == sum(len(flip["ids"]) for flip in suite["gained"])
    assert overall["delta"] == pytest.approx(overall["b"] - overall["a"])
    assert shown.exit_code == 0
    assert "▲ better" in shown.stdout
    assert f"wrong → right: {overall['gained']}" in shown.stdout


def test_a_run_is_not_compared_with_itself(home: Path) -> None:
    done = harness(home, "compare", "last", "last")

    assert isinstance(done.exception, HarnessError)
    assert "with itself" in str(done.exception)
