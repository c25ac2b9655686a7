"""Verdicts as JUnit XML, which every CI system draws.

One testsuite a stage and suite, one testcase a rule and slice. JUnit knows no "inconclusive": it blocks, so it is
a failure, of the type `inconclusive`. What ended the run is an error in a testsuite of its own. Elements and
attributes are those of junit-10.xsd of Jenkins' xUnit plugin, the strictest reader in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.evals.results import RuleVerdict, State, Verdict
from harness.formats.report import Report, by_suite, numbers, unexplained
from harness.text import visible

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LIMIT_CHARS = 2000
COUNTS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def junit(report: Report) -> str:
    """The report as an XML document in ASCII: other characters are references, so no encoding can break it.

    Characters that XML can't hold or that a terminal would obey are spelled out, as `text.visible` does.
    """
    from xml.etree.ElementTree import Element, indent, tostring

    root = Element("testsuites", name=_safe(f"harness gate {report.run}"))
    root.extend(
        _suite(verdict, suite, rules) for verdict in report.verdicts for suite, rules in by_suite(verdict)
    )
    root.extend(_blocked(verdict, why) for verdict in report.verdicts if (why := unexplained(verdict)))
    if report.failure:
        root.append(_stopped(report.run, report.failure))
    for suite in root:
        _count(suite, [suite])
    _count(root, list(root))
    del root.attrib["skipped"]  # Jenkins' junit-10.xsd knows the number for a testsuite alone
    indent(root)
    body: bytes = tostring(root, encoding="us-ascii", xml_declaration=False)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body.decode("ascii")}\n'


def _suite(verdict: Verdict, suite: str, rules: Sequence[RuleVerdict]) -> Element:
    from xml.etree.ElementTree import SubElement

    element = _testsuite(f"{verdict.stage} · {suite}")
    properties = SubElement(element, "properties")
    for name in ("verdict", "identity", "lock"):
        SubElement(properties, "property", name=name, value=_safe(str(getattr(verdict, name))))
    seen: Counter[str] = Counter()
    for rule in rules:
        name = f"{rule.rule} · {rule.slice}"
        seen[name] += 1
        # Readers tell testcases apart by name, so that a second one of the same name would hide the first.
        shown = f"{name} ({seen[name]})" if seen[name] > 1 else name
        element.append(_case(f"{verdict.stage}.{suite}", shown, rule))
    return element


def _case(where: str, name: str, rule: RuleVerdict) -> Element:
    from xml.etree.ElementTree import SubElement

    case = _testcase(where, name)
    if rule.verdict in (State.SKIPPED, State.WAIVED):
        SubElement(case, "skipped", message=_safe(rule.reason))
    elif rule.verdict is State.PASS:
        SubElement(case, "system-out").text = _facts(rule)
    else:
        kind = "fail" if rule.verdict is State.FAIL else "inconclusive"
        _add_text(case, "failure", kind, rule.reason, _facts(rule))
    return case


def _facts(rule: RuleVerdict) -> str:
    wanted = "—" if rule.threshold is None else f"{rule.threshold:.4g}"
    needed = f"\nabout {rule.needed} more items would settle it" if rule.needed else ""
    facts = f"{rule.verdict}: {rule.metric} {numbers(rule)} on {rule.n} items, wanted {wanted}; {rule.reason}{needed}"
    return visible(facts, limit_chars=LIMIT_CHARS)


def _blocked(verdict: Verdict, why: str) -> Element:
    """A testsuite for a verdict that blocks without a rule that does: all green would be a lie."""
    element = _testsuite(f"{verdict.stage} · verdict")
    case = _testcase(verdict.stage, "the stage's verdict")
    kind = "fail" if verdict.verdict is State.FAIL else "inconclusive"
    _add_text(case, "failure", kind, why, f"{verdict.verdict}: {why}")
    element.append(case)
    return element


def _stopped(run: str, why: str) -> Element:
    element = _testsuite("run")
    case = _testcase("run", run)
    _add_text(case, "error", "run", why.partition("\n")[0], why)
    element.append(case)
    return element


def _testsuite(name: str) -> Element:
    from xml.etree.ElementTree import Element

    return Element("testsuite", name=_safe(name))


def _testcase(where: str, name: str) -> Element:
    from xml.etree.ElementTree import Element

    return Element("testcase", classname=_safe(where), name=_safe(name))


def _add_text(case: Element, tag: str, kind: str, message: str, text: str) -> None:
    from xml.etree.ElementTree import SubElement

    child = SubElement(case, tag, type=kind, message=_safe(message))
    child.text = visible(text, limit_chars=LIMIT_CHARS)


def _count(element: Element, suites: Sequence[Element]) -> None:
    cases = [case for suite in suites for case in suite.iter("testcase")]
    element.set("tests", str(len(cases)))
    for tag, name in COUNTS.items():
        element.set(name, str(sum(case.find(tag) is not None for case in cases)))


def _safe(text: str) -> str:
    return visible(text, keep_newlines=False, limit_chars=LIMIT_CHARS)
