"""Answers that move when nothing moves that matters: planted, and found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.check import check
from harness.data.records import Record
from harness.data.variants import find_renaming, make_variant, misspelled, recased, respaced, rotated
from harness.errors import CancelledError
from harness.evals.curve import curve_of
from harness.evals.gate import Evidence, applies, judge
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.run import Work, evaluate
from harness.evals.samples import read_samples
from harness.evals.scorecard import find_reading, make_scorecard
from harness.models.base import Answer
from harness.specs.gate import Gate
from harness.stats.proportions import lower_bound
from tests.evals.builders import gate, sample
from tests.evals.fakes import Told, make_work, run, suite

CLAUSE = "The Customer shall pay Orla Freight Ltd within 30 days. Mr Harker of the Customer signs. Orla Freight waits."
OPTIONS = ["red", "green", "blue"]


def record(text: str = CLAUSE, **more: Any) -> Record:
    return Record("r0", text, ("a",), {}, "r0", {}, **more)


def rules_of(rule: Gate, found: Sequence[Sample]) -> list[RuleVerdict]:
    return list(judge("adapter", "m", "l", [rule], {"s": Evidence(found, 1.0)}, "s").rules[1:])


def choosing(kinds: list[str], **more: Any) -> Any:
    return suite(
        "choice", invariance={"kinds": kinds}, prompt={"user": "{{ input }} {{ options | join }}"}, **more
    )


def prefers(position: int | None = None, option: str | None = None) -> Told:
    """Chooses by place, or by text."""

    def reply(request: Any) -> Answer:
        wanted = request.choices[position] if position is not None else option
        return Answer(
            request.id, choice_logprobs=tuple(-0.1 if c == wanted else -5.0 for c in request.choices)
        )

    return Told(reply)


# What a variant is.


def test_names_and_roles_are_replaced_alike_everywhere_and_come_back() -> None:
    variant = make_variant(
        "rename_parties", record(context="ORLA FREIGHT LTD and the customers."), (), shows_labels=False
    )

    assert variant is not None
    assert variant.record.input == (
        "The Client shall pay Northmere Ltd within 30 days. Mr Albury of the Client signs. Northmere waits."
    )
    assert variant.record.context == "ORLA FREIGHT LTD and the clients."
    assert variant.renaming.undo(variant.record.input) == CLAUSE


def test_a_role_is_never_given_a_name_that_the_text_uses_for_somebody_else() -> None:
    renaming = find_renaming("The Supplier sells to the Vendor; the seller and the provider look on.")

    assert renaming.names == {}  # all four words for that side are taken

    renaming = find_renaming("The Buyer and the Customer agree.")
    assert sorted(renaming.names.values()) == ["client", "purchaser"]


def test_parts_of_words_are_no_names() -> None:
    assert find_renaming("Customary charges; a parenthesis; clientele.").names == {}


@given(
    st.lists(
        st.sampled_from([*"abc", "Customer", "supplier", "Tenants", "Acme Rope Ltd", "Mr Smith", "BUYER"]),
        max_size=12,
    )
)
def test_renaming_undone_is_the_text_again(words: list[str]) -> None:
    text = " ".join(words)
    renaming = find_renaming(text)

    assert renaming.undo(renaming.apply(text)) == text


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("One. Two! Three?", "Three? One. Two!"),
        ("first line\nsecond line", "second line\nfirst line"),
        ("a b\n\nc. d.\n\ne f\n\ng", "e f\n\ng\n\na b\n\nc. d."),
        ("only one sentence", "only one sentence"),
        ("", ""),
    ],
)
def test_the_second_half_comes_before_the_first(text: str, turned: str) -> None:
    assert rotated(text) == turned


@given(st.text(max_size=200))
def test_spacing_and_case_keep_every_letter(text: str) -> None:
    assert "".join(respaced(text).split()) == "".join(text.split())
    assert recased(text).casefold() == text.lower().casefold() or text == text.lower()


@given(st.text(alphabet="abcdefgh ", max_size=200))
def test_typos_swap_letters_within_words_and_are_the_same_each_time(text: str) -> None:
    found = misspelled(text, "r1")

    assert found == misspelled(text, "r1")
    assert [sorted(word) for word in found.split(" ")] == [sorted(word) for word in text.split(" ")]
    assert [word[:1] + word[-1:] for word in found.split(" ")] == [
        word[:1] + word[-1:] for word in text.split(" ")
    ]


def test_some_words_of_a_long_text_are_misspelled() -> None:
    text = "customer delivery problem yesterday " * 10

    changed = sum(a != b for a, b in zip(misspelled(text, "r1").split(), text.split(), strict=True))

    assert 2 <= changed <= 15


def test_a_change_that_finds_nothing_to_change_makes_no_variant() -> None:
    plain = record("no names here")

    for kind in ("rename_parties", "reorder_sentences", "reverse_options"):
        assert make_variant(kind, plain, ("a", "b"), shows_labels=False) is None


def test_labels_are_turned_round_only_where_the_prompt_shows_them() -> None:
    shown = make_variant("reverse_options", record(), ("a", "b"), shows_labels=True)

    assert shown is not None
    assert shown.labels == ("b", "a")
    assert make_variant("reverse_options", record(), ("a", "b"), shows_labels=False) is None


# What a run finds.


def test_a_model_that_always_takes_the_first_option_is_found_out(tmp_path: Path) -> None:
    asked = choosing(["reverse_options"])
    rows = [{"target": "red", "options": OPTIONS} for _ in range(40)]

    found = run(prefers(position=0), make_work(tmp_path, asked, *rows), tmp_path)

    assert {one.score for one in found} == {1.0}  # it looks perfect
    assert {one.moved for one in found} == {("reverse_options",)}
    assert found[0].variants == {"reverse_options": "blue"}
    (rule,) = rules_of(gate(metric="consistency", at_least=0.9), found)
    assert (rule.verdict, rule.n, rule.score) == (State.FAIL, 40, 0.0)


def test_a_model_that_reads_the_options_passes_the_same_rule(tmp_path: Path) -> None:
    asked = choosing(["reverse_options"])
    rows = [{"target": "red", "options": OPTIONS} for _ in range(40)]

    found = run(prefers(option="red"), make_work(tmp_path, asked, *rows), tmp_path)

    (rule,) = rules_of(gate(metric="consistency", at_least=0.9), found)
    assert (rule.verdict, rule.score) == (State.PASS, 1.0)
    assert rule.low == lower_bound(40, 40, 0.05)


def test_letters_follow_their_options(tmp_path: Path) -> None:
    """Position bias by letter: the model says A whatever A is."""
    asked = choosing(["reverse_options"], answer_with="letter")
    asked = asked.model_copy(
        update={"prompt": asked.prompt.model_copy(update={"user": "{{ letters | join }} {{ input }}"})}
    )
    rows = [{"target": "red", "options": OPTIONS}]

    (biased,) = run(prefers(option="A"), make_work(tmp_path, asked, *rows), tmp_path)

    assert (biased.answer, biased.variants["reverse_options"]) == ("red", "blue")


def test_a_model_that_goes_by_a_role_s_name_is_found_out_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    asked = suite(
        "classify", labels=["a", "b"], invariance={"kinds": ["rename_parties", "spacing", "casing"]}
    )
    rows = [{"input": f"The Customer pays on day {n}. It is due.", "target": "a"} for n in range(6)]

    def by_name(request: Any) -> Answer:
        is_customer = "customer" in request.prompt.messages[-1].content.lower()
        return Answer(request.id, choice_logprobs=(-0.1, -3.0) if is_customer else (-3.0, -0.1))

    found = run(Told(by_name), make_work(tmp_path, asked, *rows), tmp_path)
    assert {one.moved for one in found} == {("rename_parties",)}
    by_kind = rules_of(gate(metric="consistency", at_least=0.3, per="variant", min_n=6), found)
    assert {rule.slice: rule.score for rule in by_kind} == {
        "variant=casing": 1.0, "variant=rename_parties": 0.0, "variant=spacing": 1.0,
    }  # fmt: skip

    steady = run(prefers(option="a"), make_work(tmp_path, asked, *rows), tmp_path / "steady")
    assert {one.moved for one in steady} == {()}


def test_an_answer_in_substitutes_names_is_read_in_the_record_s_own(tmp_path: Path) -> None:
    asked = suite("answer", invariance={"kinds": ["rename_parties"]})
    rows = [{"input": "Who pays Orla Freight Ltd? The customer.", "target": "x"}]

    def echo(request: Any) -> Answer:
        asked_about = request.prompt.messages[-1].content.split("pays ")[1].split("?")[0]
        return Answer(request.id, text=asked_about)

    (found,) = run(Told(echo), make_work(tmp_path, asked, *rows), tmp_path)

    assert (found.output, found.variants, found.moved) == (
        "Orla Freight Ltd",
        {"rename_parties": "Orla Freight Ltd"},
        (),
    )


def test_records_in_other_words_are_held_against_their_originals(tmp_path: Path) -> None:
    asked = suite("classify", labels=["a", "b"], invariance={"kinds": ["paired"]})
    rows = [
        {"target": "a"},
        {"target": "a", "variant_of": "r0"},
        {"target": "a", "variant_of": "r0"},
        {"target": "a", "variant_of": "not there"},
    ]

    def by_id(request: Any) -> Answer:
        return Answer(request.id, choice_logprobs=(-0.1, -3.0) if request.id != "r2" else (-3.0, -0.1))

    model = Told(by_id)
    found = {one.id: one for one in run(model, make_work(tmp_path, asked, *rows), tmp_path)}

    assert len(model.asked) == 4  # nothing is asked twice
    assert {id_: one.variants for id_, one in found.items()} == {
        "r0": {}, "r1": {"paired": "a"}, "r2": {"paired": "a"}, "r3": {},
    }  # fmt: skip
    assert (found["r1"].moved, found["r2"].moved) == ((), ("paired",))


def test_an_error_stays_in_the_denominator(tmp_path: Path) -> None:
    asked = suite("classify", labels=["a", "b"], invariance={"kinds": ["casing"]}, max_error_frac=1.0)
    rows = [{"target": "a", "input": "Question ONE"}, {"target": "a", "input": "Question TWO"}]

    def fails_on_small_letters(request: Any) -> Answer:
        text = request.prompt.messages[-1].content
        failed = text == "question two" or text == "Question ONE"
        return (
            Answer(request.id, error="no memory")
            if failed
            else Answer(request.id, choice_logprobs=(-0.1, -3.0))
        )

    found = run(Told(fails_on_small_letters), make_work(tmp_path, asked, *rows), tmp_path)

    assert [one.variants for one in found] == [{"casing": "a"}, {"casing": None}]
    assert [one.moved for one in found] == [("casing",), ("casing",)]


def test_a_fixed_draw_of_items_is_asked_again(tmp_path: Path) -> None:
    asked = suite("classify", labels=["a", "b"], invariance={"kinds": ["casing"], "items": 3})
    model = prefers(option="a")

    found = run(model, make_work(tmp_path, asked, *[{"target": "a"}] * 9), tmp_path)

    assert sum(bool(one.variants) for one in found) == 3
    assert len(model.asked) == 12


def test_what_was_asked_is_never_asked_again_and_lands_in_the_samples(tmp_path: Path) -> None:
    asked = suite("classify", labels=["a", "b"], invariance={"kinds": ["casing"]})
    work = make_work(tmp_path, asked, *[{"target": "a"}] * 4)
    found = run(prefers(option="a"), work, tmp_path)
    again = prefers(option="a")

    assert run(again, work, tmp_path) == found
    assert again.asked == []
    assert read_samples(tmp_path / "out" / "samples.jsonl") == found


def test_a_run_that_is_stopped_between_two_kinds_asks_only_for_the_rest(tmp_path: Path) -> None:
    asked = suite("classify", labels=["a", "b"], invariance={"kinds": ["casing", "spacing"]})
    work = make_work(
        tmp_path, asked, *[{"target": "a", "input": f"Q {n}. It goes on. And on"} for n in range(4)]
    )
    first, again = prefers(option="a"), prefers(option="a")
    with pytest.raises(CancelledError):
        stopped_after(8, first, work, tmp_path)

    found = run(again, work, tmp_path)

    assert {tuple(one.variants) for one in found} == {("casing", "spacing")}
    assert (len(first.asked), len(again.asked)) == (8, 4)


def stopped_after(n: int, model: Told, work: Work, folder: Path) -> None:
    evaluate(
        model, work, folder / "out" / "samples.jsonl", on_event=lambda *_a, **_k: None,
        should_stop=lambda: len(model.asked) >= n,
    )  # fmt: skip


# What rules and scorecards make of it.


def moved(n: int, of: int, kind: str = "casing") -> list[Sample]:
    return [
        sample(k, variants={kind: "a", "typos": "a"}, moved=(kind,) if k < n else (), slices={"risk": "high"})
        for k in range(of)
    ]


def test_an_item_counts_once_however_many_changes_it_was_put_through() -> None:
    (rule,) = rules_of(gate(metric="consistency", at_least=0.8), moved(3, 60))

    assert (rule.n, rule.score) == (60, 0.95)
    assert rule.low == pytest.approx(lower_bound(57, 60, 0.05))
    (high,) = rules_of(gate(metric="consistency", at_least=0.8, per="risk"), moved(3, 60))
    assert (high.slice, high.verdict) == ("risk=high", State.PASS)


def test_nothing_asked_in_another_way_is_inconclusive() -> None:
    (rule,) = rules_of(gate(metric="consistency", at_least=0.8), [sample(n) for n in range(40)])

    assert rule.verdict is State.INCONCLUSIVE
    assert "no item was asked in another way" in rule.reason


def test_consistency_alone_proves_no_quality() -> None:
    verdict = judge(
        "adapter",
        "m",
        "l",
        [gate(metric="consistency", at_least=0.8)],
        {"s": Evidence(moved(0, 60), 1.0)},
        "s",
    )

    assert [rule.verdict for rule in verdict.rules] == [State.PASS, State.PASS]
    assert verdict.verdict is State.INCONCLUSIVE


def test_the_scorecard_shows_consistency_by_kind_of_change() -> None:
    card = make_scorecard("s", "base", "m", moved(3, 60), slices=(), is_labelled=True)

    for name, hits in (("all", 57), ("variant=casing", 57), ("variant=typos", 60)):
        reading = find_reading(card, "consistency", name)
        assert reading is not None
        assert (reading.hits, reading.n) == (hits, 60)


def test_a_rule_on_consistency_judges_every_stage() -> None:
    rule = gate(metric="consistency", at_least=0.8)

    assert all(applies(rule, stage) for stage in ("base", "adapter", "f16", "q8_0"))


# Rules that hold for some values alone.


def labelled(hits: dict[str, int], n: int) -> list[Sample]:
    return [
        replace(sample(number), id=f"{label}{number}", unit=f"{label}{number}", gold=(label,),
                answer=label if number < right else "other", score=float(number < right))
        for label, right in hits.items()
        for number in range(n)
    ]  # fmt: skip


def test_a_rule_for_some_labels_judges_those_alone() -> None:
    rule = gate(metric="recall", per="label", only=["indemnity"], at_least=0.7)

    (found,) = rules_of(rule, labelled({"indemnity": 29, "payment": 0}, 30))

    assert (found.slice, found.verdict, found.rule) == (
        "label=indemnity", State.PASS, "recall per label (indemnity) at least 0.7",
    )  # fmt: skip


def test_a_label_that_the_rule_names_and_no_item_has_is_not_known_to_be_well() -> None:
    rule = gate(metric="recall", per="label", only=["indemnity", "liability"], at_least=0.7)

    found = {one.slice: one.verdict for one in rules_of(rule, labelled({"indemnity": 30}, 30))}

    assert found == {"label=indemnity": State.PASS, "label=liability": State.INCONCLUSIVE}


def test_the_curve_of_a_rule_for_some_labels_is_of_those() -> None:
    records = [Record(f"r{n}", "x", ("ab"[n % 2] if n < 40 else "c",), {}, f"r{n}", {}) for n in range(45)]

    found = curve_of(gate(metric="recall", per="label", only=["a", "b"], at_least=0.5, min_n=1), "s", records)

    assert found is not None
    assert (found.slice, found.n) == ("label=a", 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"only": ["a"]},
        {"only": ["a"], "per": ["x", "y"]},
        {"only": ["a", "a"], "per": "x"},
        {"only": ["a"], "per": "x", "design": "sequential"},
        {"only": ["a"], "per": "x", "population": "frozen"},
    ],
)
def test_only_needs_one_key_and_a_plain_bound(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only"):
        gate(**{"at_least": 0.5, **wrong})


# What `harness check` says.


def checked(tmp_path: Path, rule: str, suite_keys: str = "") -> list[str]:
    rows = [
        {"id": f"r{n}", "input": f"q {n}", "target": "ab"[n % 2], "slices": {"risk": "high"}}
        for n in range(60)
    ]
    for split in ("train", "eval"):
        lines = [json.dumps({**row, "id": split + row["id"], "input": split + row["input"]}) for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    (tmp_path / "s.yaml").write_text(
        "suite: s\ndomain: shared\ntask: classify\nrecords: {train: train.jsonl, eval: eval.jsonl}\n"
        f"labels: [a, b]\nprompt: {{user: '{{{{ input }}}}'}}\nslices: [risk]\n{suite_keys}"
    )
    (tmp_path / "r.yaml").write_text(
        "recipe: r\ndomain: shared\nbase: embedded:smollm2-135m\nsuites: [s.yaml]\nattempts: count\n"
        f"gates:\n  - {{metric: accuracy, at_least: 0.5}}\n  - {rule}\n"
    )
    return [str(problem) for problem in check([tmp_path / "r.yaml"])]


def test_a_rule_on_consistency_needs_a_suite_that_measures_it(tmp_path: Path) -> None:
    rule = "{metric: consistency, at_least: 0.8, per: variant, min_n: 5}"

    assert "no invariance" in " ".join(checked(tmp_path, rule))
    assert checked(tmp_path, rule, "invariance: {kinds: [casing]}\n") == []


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("{metric: recall, per: label, only: [a], at_least: 0.5}", ""),
        ("{metric: recall, per: label, only: [c], at_least: 0.5}", "gates[1].only[0]"),
        ("{metric: accuracy, per: risk, only: [high], at_least: 0.5}", ""),
        ("{metric: accuracy, per: risk, only: [low], at_least: 0.5}", "gates[1].only[0]"),
    ],
)
def test_values_that_no_record_has_are_named(tmp_path: Path, rule: str, wrong: str) -> None:
    found = checked(tmp_path, rule)

    assert (found == []) if not wrong else any(wrong in problem for problem in found)


@pytest.mark.parametrize(
    ("kinds", "wrong"),
    [
        ("[casing, casing]", "kinds[1]"),
        ("[rename_parties]", "fits an eval record"),
        ("[reverse_options]", "fits an eval record"),
        ("[paired]", "whose other wording"),
    ],
)
def test_changes_that_fit_no_record_are_named(tmp_path: Path, kinds: str, wrong: str) -> None:
    found = checked(
        tmp_path, "{metric: accuracy, per: risk, at_least: 0.5}", f"invariance: {{kinds: {kinds}}}\n"
    )

    assert len(found) == 1
    assert wrong in found[0]


@pytest.mark.parametrize(("limit", "n_problems"), [("", 1), ("limit: {eval: {n: 1}}\n", 0)])
def test_an_original_that_is_not_there_is_named_unless_records_are_drawn(
    tmp_path: Path, limit: str, n_problems: int
) -> None:
    row = {"id": "b", "input": "y", "target": "m", "variant_of": "c"}
    (tmp_path / "e.jsonl").write_text(json.dumps(row))
    (tmp_path / "s.yaml").write_text(
        "suite: s\ndomain: shared\ntask: answer\nrecords: {eval: e.jsonl}\n"
        f"prompt: {{user: '{{{{ input }}}}'}}\ninvariance: {{kinds: [paired]}}\n{limit}"
    )

    found = [str(problem) for problem in check([tmp_path / "s.yaml"])]

    assert len(found) == n_problems
    assert all("not there: c" in problem for problem in found)
