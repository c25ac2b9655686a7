import html
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.evals.results import State
from harness.formats.markdown import CELL_CHARS, MAX_CHARS, markdown, quoted
from harness.text import visible
from tests.formats.reports import report, rule, verdict

RENDER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = st.text(st.characters(), max_size=80) | st.text("|`*_[]()<>!#\\&;~@:./w-\n $\"'1a", max_size=60)


def cells(text: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", RENDER.render(text), re.DOTALL)
    return [[html.unescape(re.sub(r"<.*?>", "", cell)) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row, re.DOTALL)]
            for row in rows]  # fmt: skip


def test_the_verdict_comes_first_and_then_what_blocks() -> None:
    blocked = [
        rule(slice="k=fine"), rule(State.INCONCLUSIVE, slice="k=open", needed=1200),
        rule(State.FAIL, slice="k=near", score=0.7), rule(State.FAIL, slice="k=far", score=0.2),
    ]  # fmt: skip

    text = markdown(report(verdict(*blocked, state=State.FAIL)))

    assert text.splitlines()[1].startswith("### ✗ FAIL")
    assert html.unescape(text).index("Worst: <code>k=far</code>") < text.index("| stage |")
    order = [row[2] for row in cells(text) if row[2].startswith("k=")]
    assert order == ["k=far", "k=near", "k=open", "k=fine"]
    assert "About 1,200 more items" in text


def test_a_stage_has_a_row_with_its_bounds_and_the_picked_one_is_marked() -> None:
    text = markdown(report(verdict(rule(metric="error_rate", n=160), rule(), stage="f16"), picked="f16"))

    assert ["f16 ◀ picked", "legal", "160", "0.9 [0.83, 0.95]", "✓ PASS", "0"] in cells(text)


def test_a_run_that_failed_says_so() -> None:
    assert "out of memory" in markdown(report(verdict(rule()), error="out of memory"))
    assert "No verdict" in markdown(report())


def test_a_blocked_verdict_whose_rules_all_pass_says_why() -> None:
    text = markdown(report(verdict(rule(metric="error_rate"), state=State.INCONCLUSIVE)))

    assert "? INCONCLUSIVE" in text
    assert "nothing is proved" in text


def test_a_comment_is_never_too_long() -> None:
    rules = [
        rule(State.FAIL, rule="[" * 500, slice=f"k={i}{'|' * 500}", reason="`" * 500) for i in range(300)
    ]

    text = markdown(report(*[verdict(*rules, state=State.FAIL, stage=f"{i}{'*' * 90}") for i in range(50)]))

    assert len(text) <= MAX_CHARS
    assert "✗ FAIL" in text


@given(text=HOSTILE)
@settings(max_examples=120, deadline=None)
def test_hostile_text_is_itself_and_nothing_else(text: str) -> None:
    rendered = RENDER.render(f"before {quoted(text)} after")

    shown = visible(text, keep_newlines=False, limit_chars=CELL_CHARS).strip()
    wanted = f"<code>{html.escape(shown)}</code>" if shown else "—"
    assert html.unescape(rendered) == html.unescape(f"<p>before {wanted} after</p>\n")
    assert set(re.findall(r"<[^>]*>", rendered)) <= {"<p>", "</p>", "<code>", "</code>"}


@given(name=HOSTILE, slice_name=HOSTILE, reason=HOSTILE)
@settings(max_examples=80, deadline=None)
def test_hostile_text_breaks_no_table(name: str, slice_name: str, reason: str) -> None:
    hostile = rule(State.FAIL, rule=name, slice=slice_name, reason=reason, suite=name)

    text = markdown(report(verdict(hostile, state=State.FAIL, stage=name), error=reason))

    assert sorted(len(row) for row in cells(text)) == [6, 6, 8, 8]


@given(text=HOSTILE)
def test_nothing_is_left_that_github_would_make_a_link_of(text: str) -> None:
    inside = re.sub(
        r"&#\d+;", "", quoted(f"@{text}http://x www.x.org #1").removeprefix("<code>").removesuffix("</code>")
    )

    assert not set(inside) & set("@#:.`|*_[]<>&\\~$!()")
