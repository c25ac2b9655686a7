"""Readers of JUnit read the verdicts as they are meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.evals.results import State
from harness.formats.junit import junit
from tests.contracts.peers import Peer
from tests.formats.logs import HOSTILE
from tests.formats.reports import report, rule, verdict

pytestmark = pytest.mark.slow

READ = """
import json, sys
from junitparser import JUnitXml, Failure, Error, Skipped
found = JUnitXml.fromfile(sys.argv[1])
kinds = {Failure: "failure", Error: "error", Skipped: "skipped"}
print(json.dumps({
    "totals": [found.tests, found.failures, found.errors],
    "suites": {suite.name: [suite.tests, suite.failures, suite.errors, suite.skipped] for suite in found},
    "cases": [[case.classname, case.name, [[kinds[type(r)], r.type, r.message] for r in case.result]]
        for suite in found for case in suite],
}))
"""


def test_junitparser_reads_each_verdict_as_what_it_is(junit_readers: Peer, tmp_path: Path) -> None:
    rules = [
        rule(State.PASS, slice="a"), rule(State.FAIL, slice="b", reason="too low"), rule(State.SKIPPED, slice="c"),
        rule(State.INCONCLUSIVE, slice="d", reason="open"),
    ]  # fmt: skip
    (tmp_path / "gate.xml").write_text(
        junit(report(verdict(*rules, state=State.FAIL), error="out of memory"))
    )

    found = junit_readers.run(READ, tmp_path / "gate.xml")

    assert found["totals"] == [5, 2, 1]
    assert found["suites"] == {"q4_0 · legal": [4, 2, 0, 1], "run": [1, 0, 1, 0]}
    results = [case[2] for case in found["cases"]]
    assert results[0] == []
    assert results[1] == [["failure", "fail", "too low"]]
    assert results[2][0][0] == "skipped"
    assert results[3] == [["failure", "inconclusive", "open"]]
    assert results[4] == [["error", "run", "out of memory"]]


def test_junitparser_reads_hostile_text(junit_readers: Peer, tmp_path: Path) -> None:
    one = rule(State.FAIL, rule=HOSTILE, slice=HOSTILE, suite=HOSTILE, reason=HOSTILE)
    (tmp_path / "gate.xml").write_text(junit(report(verdict(one, state=State.FAIL), error=HOSTILE)))

    found = junit_readers.run(READ, tmp_path / "gate.xml")

    assert found["totals"] == [2, 1, 1]
    assert "\\x1b" in found["cases"][0][1]
    assert "\x1b" not in str(found["cases"])
