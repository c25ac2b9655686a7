import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.console_compare import direction, print_comparison
from harness.errors import DataError
from harness.evals.compare import Comparison, compare
from harness.evals.results import Sample
from harness.jobs.verdicts import stages_to_compare
from tests.evals.builders import sample, samples
from tests.evals.runs import write_run, write_stage


def pair(tmp_path: Path, before: list[Sample], after: list[Sample], **stage: Any) -> Comparison:
    folder = write_run(tmp_path / "run")
    write_stage(folder, "base", before)
    write_stage(folder, "adapter", after, **stage)
    return compare(folder, folder, "base", "adapter")


def drawn(found: Comparison, width: int = 160) -> str:
    console = Console(width=width, record=True, force_terminal=False, file=None, quiet=False)
    with console.capture() as capture:
        print_comparison(console, found)
    return capture.get()


def test_the_mcnemar_table_of_the_r_manual_has_its_p(tmp_path: Path) -> None:
    # n11 = 1, n12 = 1, n21 = 7, n22 = 12: exact p 0.0703125 (R: mcnemar.exact).
    before = [sample(i, right=i < 2) for i in range(21)]
    after = [sample(i, right=i == 0 or 2 <= i < 9) for i in range(21)]

    overall = pair(tmp_path, before, after).suites[0].overall

    assert overall is not None
    assert (overall.lost, overall.gained, overall.n) == (1, 7, 21)
    assert overall.p == pytest.approx(0.0703125)
    assert (overall.a, overall.b) == pytest.approx((2 / 21, 8 / 21))
    assert overall.low is not None
    assert overall.high is not None
    # Tango's 95 % interval of this table is 0.0260 to 0.5172; the corrected bounds hold it.
    assert overall.low <= 0.0260
    assert overall.high >= 0.5172
    assert overall.low < 0.0, "a p over 5 % and bounds that leave 0 out would contradict each other"


def test_slices_are_corrected_for_their_number(tmp_path: Path) -> None:
    # Holm on .01 .04 .03 .005 gives .03 .06 .06 .02; here the raw p are those of 0 lost and k gained: 2 / 2^k.
    before, after = [], []
    for name, gained in (("w", 6), ("x", 8), ("y", 10), ("z", 1)):
        for _ in range(gained):
            number = len(before)
            before.append(sample(number, right=False, slices={"kind": name}))
            after.append(sample(number, right=True, slices={"kind": name}))

    parts = {part.slice: part for part in pair(tmp_path, before, after).suites[0].parts}

    assert {name: part.p for name, part in parts.items()} == pytest.approx(
        {"kind=w": 2 / 64, "kind=x": 2 / 256, "kind=y": 2 / 1024, "kind=z": 1.0}
    )
    assert {name: part.p_holm for name, part in parts.items()} == pytest.approx(
        {"kind=w": 4 / 64, "kind=x": 6 / 256, "kind=y": 8 / 1024, "kind=z": 1.0}
    )
    assert [name for name, part in parts.items() if direction(part) == "better"] == ["kind=x", "kind=y"]


def test_items_of_one_unit_count_as_one(tmp_path: Path) -> None:
    alone = [sample(i, right=False, unit=f"u{i}") for i in range(30)]
    together = [sample(i, right=False, unit=f"u{i // 10}") for i in range(30)]

    def gained(items: list[Sample], folder: str) -> Comparison:
        after = [sample(i, right=True, unit=one.unit) for i, one in enumerate(items)]
        return pair(tmp_path / folder, items, after)

    many, few = (gained(items, name).suites[0].overall for items, name in ((alone, "a"), (together, "b")))

    assert many is not None
    assert few is not None
    assert (many.delta, few.delta) == (1.0, 1.0)
    assert many.worth == 30
    assert few.worth == pytest.approx(3)
    assert many.p == pytest.approx(2 / 2**30)
    assert few.p == pytest.approx(2 / 2**3)


def test_flips_are_grouped_by_gold_and_wrong_answer(tmp_path: Path) -> None:
    before = [
        sample(0),
        sample(1),
        sample(2),
        sample(3, right=False, answer="x"),
        sample(4, right=False, answer="y"),
    ]
    after = [
        sample(0, right=False, answer="x"), sample(1, right=False, answer=None), sample(2, right=False, answer="x"),
        sample(3), sample(4, right=False, answer="z"),
    ]  # fmt: skip

    suite = pair(tmp_path, before, after).suites[0]

    assert [(flip.gold, flip.answer, flip.ids) for flip in suite.lost] == [
        (("a",), "x", ("r0", "r2")), (("a",), None, ("r1",)),
    ]  # fmt: skip
    assert [(flip.gold, flip.answer, flip.ids) for flip in suite.gained] == [(("a",), "x", ("r3",))]
    assert suite.n_wrong_otherwise == 1


def test_labels_are_compared_by_recall(tmp_path: Path) -> None:
    probs = {"label_probs": {"a": 0.5, "b": 0.5}}
    before = [sample(i, right=False, **probs) for i in range(4)]
    before += [sample(i, gold=("b",), answer="b", score=1.0, **probs) for i in range(4, 7)]
    after = [sample(i, right=True, **probs) for i in range(4)]
    after += [sample(i, gold=("b",), answer="a", score=0.0, **probs) for i in range(4, 7)]

    parts = {(part.metric, part.slice): part for part in pair(tmp_path, before, after).suites[0].parts}

    assert set(parts) == {("recall", "label=a"), ("recall", "label=b")}
    assert parts["recall", "label=a"].delta == 1.0
    assert parts["recall", "label=b"].delta == -1.0
    assert parts["recall", "label=b"].lost == 3


def test_items_that_are_not_the_same_are_counted_and_left_out(tmp_path: Path) -> None:
    before = [sample(0), sample(1), sample(2, gold=("a",))]
    after = [sample(1, right=False), sample(2, gold=("b",), answer="b"), sample(3)]

    suite = pair(tmp_path, before, after).suites[0]

    assert suite.overall is not None
    assert suite.overall.n == 1
    assert suite.unmatched.only_a == ("r0",)
    assert suite.unmatched.only_b == ("r3",)
    assert suite.unmatched.other_gold == ("r2",)


def test_the_same_token_ids_are_counted(tmp_path: Path) -> None:
    after = [sample(i, prompt_digest="d" if i < 3 else "e") for i in range(5)]

    assert pair(tmp_path, samples(5, 5), after).suites[0].n_same_prompt == 3


def test_nothing_in_common_is_an_error_and_not_a_zero(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no item in common"):
        pair(tmp_path, [sample(0)], [sample(1)])


def test_an_unknown_suite_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_stage(folder, "base", samples(1, 2))
    write_stage(folder, "f16", samples(1, 2), suite="t")

    with pytest.raises(DataError, match="A on s, B on t"):
        compare(folder, folder, "base", "f16")


def test_what_else_changed_is_said_by_its_place(tmp_path: Path) -> None:
    def lock(gates: str, records: str, digest: str) -> dict[str, Any]:
        suite = {"template": "t", "records": {"eval": {"n": 2, "digest": records}}}
        return {"format": 1, "gates": gates, "suites": {"s": suite}, "code": "c", "digest": digest}

    recipe = {"recipe": "r", "tune": {"rank": 8}, "gates": [{"metric": "accuracy", "at_least": 0.9}]}
    suite = {"suite": "s", "prompt": {"user": "Q: {input}"}}
    a = write_run(tmp_path / "a", lock=lock("g1", "r1", "d1"))
    b = write_run(
        tmp_path / "b", lock=lock("g2", "r2", "d2"), document={"recipe": recipe, "suites": {"s": suite}},
        options={"base": "hub/other", "until": "release"}, harness="0.2.0",
    )  # fmt: skip
    write_stage(a, "base", samples(1, 2))
    write_stage(b, "base", samples(2, 2), identity="n", requests="p")

    found = {
        (change.part, change.key): (change.a, change.b) for change in compare(a, b, "base", "base").changes
    }

    assert found == {
        ("model", ""): ("m", "n"),
        ("requests", "s"): ("q", "p"),
        ("lock", "gates"): ("g1", "g2"),
        ("lock", "suites.s.records.eval.digest"): ("r1", "r2"),
        ("document", "recipe.tune.rank"): (16, 8),
        ("document", "recipe.gates[0].at_least"): (0.8, 0.9),
        ("document", "suites.s.prompt.user"): ("{input}", "Q: {input}"),
        ("option", "base"): ("embedded:m", "hub/other"),
        ("harness", ""): ("0.1.0", "0.2.0"),
    }


def test_a_run_without_lock_parts_still_says_that_its_lock_is_another(tmp_path: Path) -> None:
    a = write_run(
        tmp_path / "a", document={"suite": {"suite": "s", "prompt": {"user": "{input}"}}}, lock=None
    )
    b = write_run(tmp_path / "b", lock={"digest": "other", "gates": "g"})
    write_stage(a, "model", samples(1, 2))
    write_stage(b, "q4_0", samples(1, 2))

    changes = compare(a, b, "model", "q4_0").changes

    assert [(one.part, one.key, one.a, one.b) for one in changes] == [
        ("lock", "digest", "l", "other"), ("document", "recipe", None, "present"),
    ]  # fmt: skip
    assert "nothing else" not in drawn(compare(a, b, "model", "q4_0"))


def test_an_unchanged_model_says_that_nothing_changed(tmp_path: Path) -> None:
    assert "nothing else changed" in drawn(pair(tmp_path, samples(2, 4), samples(3, 4)))


def test_stages_without_a_name_are_the_last_that_both_have(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    for folder, stages in ((a, ("base", "adapter", "merged")), (b, ("base", "adapter", "dev"))):
        for stage in stages:
            write_stage(folder, stage, samples(1, 2))

    assert stages_to_compare(a, b, None, None) == ("adapter", "adapter")
    assert stages_to_compare(a, b, "base", None) == ("base", "base")
    assert stages_to_compare(a, b, "merged", None) == ("merged", "adapter")
    assert stages_to_compare(a, a, "base", "merged") == ("base", "merged")
    with pytest.raises(DataError, match="with itself"):
        stages_to_compare(a, a, None, None)
    with pytest.raises(DataError, match="no samples at stage 'f16'; it was scored at base, adapter, merged"):
        stages_to_compare(a, b, "f16", None)


@given(
    rights=st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from("uvwxyz")), min_size=1, max_size=40
    )
)
@settings(max_examples=40, deadline=None)
def test_swapping_the_sides_turns_the_signs(
    rights: list[tuple[bool, bool, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = [sample(i, right=a, unit=unit, slices={"k": unit}) for i, (a, _, unit) in enumerate(rights)]
    after = [sample(i, right=b, unit=unit, slices={"k": unit}) for i, (_, b, unit) in enumerate(rights)]
    folder = write_run(tmp_path_factory.mktemp("home") / "run")
    write_stage(folder, "base", before)
    write_stage(folder, "adapter", after)

    there, back = (
        compare(folder, folder, *way).suites[0] for way in (("base", "adapter"), ("adapter", "base"))
    )

    assert there.overall is not None
    assert back.overall is not None
    for one, other in zip((there.overall, *there.parts), (back.overall, *back.parts), strict=True):
        assert one.delta == -other.delta
        assert (one.lost, one.gained) == (other.gained, other.lost)
        assert (one.p, one.p_holm) == (other.p, other.p_holm)
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.delta <= one.high
        if one.low > 0.0 or one.high < 0.0:
            assert one.p <= 0.05
    assert [flip.ids for flip in there.lost] == [flip.ids for flip in back.gained]
    assert sum(part.n for part in there.parts) == there.overall.n


def test_hostile_text_reaches_neither_the_terminal_nor_markup(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07[red]x[/INST]\u202e\n"
    before = [sample(0, id=evil, gold=(evil,), answer=evil, slices={"k": evil}), sample(1, id="ok")]
    after = [
        sample(0, id=evil, gold=(evil,), answer="\x9b2J", score=0.0, slices={"k": evil}),
        sample(1, id="ok"),
    ]

    found = pair(tmp_path, before, after)
    text = drawn(found)

    assert not any(char in text for char in "\x1b\x07\x9b\u202e")
    assert "[red]x[/INST]" in text
    assert json.loads(json.dumps(found.to_json(), ensure_ascii=False))["suites"][0]["lost"][0]["ids"] == [
        evil
    ]


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_width_hides_a_slice_or_its_verdict(tmp_path: Path, width: int) -> None:
    slices = {"slices": {"contract": "x" * 30}}
    found = pair(tmp_path, samples(0, 40, **slices), samples(40, 40, **slices))

    text = drawn(found, width)

    assert text.count("▲ better") == 2
    assert text.count("[+0.8") == 2
    assert text.count("x") >= 30
