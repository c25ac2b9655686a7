import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evals.results import State
from harness.formats.junit import junit
from harness.formats.report import Report
from harness.text import visible
from tests.formats.reports import report, rule, verdict

HOSTILE = st.text(st.characters(), max_size=60) | st.sampled_from(
    ["\x00\x1b]0;x\x07", "]]>", "<!-- & -->", "\ud800", "\ufffe\uffff", "&#0;", "a\nb\r\tc", '"\'', "\U000e0001", ""]
)  # fmt: skip


def parse(shown: Report) -> ET.Element:
    return ET.fromstring(junit(shown))


JUNIT_10 = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id", "package",
         "file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "time", "classname", "group"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "failure": ({"type", "message"}, set()), "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()), "system-out": (set(), set()),
}  # fmt: skip
"""What junit-10.xsd of Jenkins' xUnit plugin lets an element have: attributes, and elements within."""


def counts(element: ET.Element) -> tuple[int, int, int, int]:
    """The numbers of a testsuite, or those of all testsuites, whose sums the root must show."""
    suites = [element] if element.tag == "testsuite" else list(element)
    tests, failures, errors, skipped = (
        sum(int(suite.attrib[name]) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    )
    assert [int(element.attrib[name]) for name in ("tests", "failures", "errors")] == [
        tests,
        failures,
        errors,
    ]
    return tests, failures, errors, skipped


def test_every_element_and_attribute_is_one_that_jenkins_takes() -> None:
    """Each kind of element that there is, among them a run that stopped and a verdict that nothing explains."""
    rules = [rule(state, slice=f"k={state.value}") for state in State]
    shown = report(
        verdict(*rules, state=State.FAIL), verdict(state=State.INCONCLUSIVE), error="out of memory"
    )

    for element in parse(shown).iter():
        attributes, within = JUNIT_10[element.tag]
        assert set(element.attrib) <= attributes, element.tag
        assert {child.tag for child in element} <= within, element.tag
        if element.tag in ("testsuite", "testcase", "property"):
            assert "name" in element.attrib


def test_each_verdict_of_a_rule_has_its_element() -> None:
    rules = [rule(state, slice=f"k={state.value}") for state in State]

    root = parse(report(verdict(*rules, state=State.FAIL)))

    cases = {case.attrib["name"].rpartition("=")[2]: case for case in root.iter("testcase")}
    assert [child.tag for child in cases["PASS"]] == ["system-out"]
    assert cases["FAIL"].find("failure").attrib["type"] == "fail"  # type: ignore[union-attr]
    assert cases["INCONCLUSIVE"].find("failure").attrib["type"] == "inconclusive"  # type: ignore[union-attr]
    assert [child.tag for child in cases["SKIPPED"]] == ["skipped"]
    assert cases["STALE"].find("failure") is not None
    assert [child.tag for child in cases["WAIVED"]] == ["skipped"]
    assert counts(root) == (6, 3, 0, 2)


def test_a_stage_and_suite_is_a_testsuite() -> None:
    judged = verdict(
        rule(suite="legal"), rule(suite="finance"), rule(State.FAIL, suite="legal"), state=State.FAIL
    )

    root = parse(report(verdict(rule(), stage="base"), judged))

    assert [(suite.attrib["name"], counts(suite)) for suite in root] == [
        ("base · legal", (1, 0, 0, 0)), ("q4_0 · legal", (2, 1, 0, 0)), ("q4_0 · finance", (1, 0, 0, 0)),
    ]  # fmt: skip


def test_how_many_items_would_settle_it_is_said() -> None:
    root = parse(report(verdict(rule(State.INCONCLUSIVE, needed=321), state=State.INCONCLUSIVE)))

    assert "about 321 more items" in (root.find(".//failure").text or "")  # type: ignore[union-attr]


def test_a_run_that_failed_is_an_error_even_if_all_rules_passed() -> None:
    assert counts(parse(report(verdict(rule()), error="out of memory\nat step 7"))) == (2, 0, 1, 0)


def test_a_report_without_a_verdict_is_never_green() -> None:
    assert counts(parse(report())) == (1, 0, 1, 0)
    assert counts(parse(report(verdict(state=State.INCONCLUSIVE)))) == (1, 1, 0, 0)


def test_a_blocked_verdict_whose_rules_all_pass_is_not_green() -> None:
    shown = report(verdict(rule(metric="error_rate"), state=State.INCONCLUSIVE))

    assert counts(parse(shown)) == (2, 1, 0, 0)


def test_two_rules_of_one_name_are_two_testcases() -> None:
    root = parse(report(verdict(rule(), rule(State.FAIL), state=State.FAIL)))

    assert len({case.attrib["name"] for case in root.iter("testcase")}) == 2


def test_unknown_numbers_are_not_zero() -> None:
    unknown = rule(State.INCONCLUSIVE, score=None, low=None, high=None, n=0)

    assert "accuracy — on 0 items" in junit(report(verdict(unknown, state=State.INCONCLUSIVE))).replace(
        "&#8212;", "—"
    )


@given(name=HOSTILE, slice_name=HOSTILE, reason=HOSTILE, error=HOSTILE, state=st.sampled_from(State))
@settings(max_examples=80, deadline=None)
def test_hostile_text_parses_back_as_what_is_visible(
    name: str, slice_name: str, reason: str, error: str, state: State
) -> None:
    hostile = rule(state, rule=name, slice=slice_name, reason=reason)

    text = junit(report(verdict(hostile, state=state, stage=name), error=error or "x"))

    assert text.isascii()
    root = ET.fromstring(text)
    case = next(root.iter("testcase"))
    assert case.attrib["name"] == visible(f"{name} · {slice_name}", keep_newlines=False)
    everything = "".join(
        [*root.itertext(), *(value for each in root.iter() for value in each.attrib.values())]
    )
    assert not any(not char.isprintable() and char != "\n" for char in everything)
    assert visible(reason, keep_newlines=False) in everything.replace("\n", "⏎")
