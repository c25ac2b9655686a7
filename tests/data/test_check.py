"""`check`: what is wrong between a recipe, its suites and their records, all at once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness.data.check import check
from harness.errors import Problem, describe_problems
from harness.stats.power import can_never_pass, fewest_items

SUITE = """\
suite: clauses
domain: legal
task: classify
records:
  train: train.jsonl
  eval: eval.jsonl
  fields: {unit: unit}
labels: [Law, Court]
slices: [style, kind]
prompt:
  user: "Clause: {{ input }}"
"""

RECIPE = """\
recipe: demo
domain: shared
base: embedded:smollm2-135m
suites: [clauses.yaml]
gates:
  - {metric: accuracy, at_least: 0.8}
"""


def rows(start: int, n: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{i}", "input": f"clause number {i}", "target": ["Law", "Court"][i % 2], "unit": f"u{i}",
            "slices": {"style": "plain" if i % 4 else "old", "kind": "nda"},
        }
        for i in range(start, start + n)
    ]  # fmt: skip


def write_rows(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe, its suite and their records, all sound: 40 training and 80 eval records."""
    (tmp_path / "clauses.yaml").write_text(SUITE)
    (tmp_path / "demo.yaml").write_text(RECIPE)
    write_rows(tmp_path / "train.jsonl", rows(0, 40))
    write_rows(tmp_path / "eval.jsonl", rows(100, 80))
    return tmp_path


def problems_of(folder: Path, name: str = "demo.yaml") -> dict[str, Problem]:
    return {problem.key: problem for problem in check([folder / name])}


def with_gate(folder: Path, *gates: str) -> dict[str, Problem]:
    lines = "".join(f"  - {{{gate}}}\n" for gate in gates)
    (folder / "demo.yaml").write_text(RECIPE + lines)
    return problems_of(folder)


def test_sound_documents_have_no_problems(folder: Path) -> None:
    assert check([folder / "demo.yaml", folder / "clauses.yaml"]) == []
    assert check([folder]) == []


def test_five_mistakes_of_five_kinds_give_five_lines_at_once(folder: Path) -> None:
    (folder / "demo.yaml").write_text(
        RECIPE.replace("embedded", "tune: {rank: 0}\nbase: embedded").replace("base: tune", "tune")
        + "  - {metric: accuracy, at_least: 0.5, suite: clases}\n"
        "  - {metric: accuracy, per: styl, at_least: 0.5}\n"
        "  - {metric: accuracy, versus: bas, better_than: 0}\n"
        "  - {metric: accuracy, at_least: 0.99}\n"
    )

    problems = check([folder / "demo.yaml"])

    assert [(problem.line, problem.key) for problem in problems] == [
        (3, "tune.rank"),
        (8, "gates[1].suite"),
        (9, "gates[2].per"),
        (10, "gates[3].versus"),
        (11, "gates[4].at_least"),
    ]
    assert [problem.hint.split(": ")[-1] for problem in problems[1:4]] == ["clauses", "style", "base"]
    assert len(describe_problems(problems).splitlines()) == 6


@pytest.mark.parametrize(
    ("gate", "key", "words"),
    [
        ("metric: accuracy, at_least: 0.5, stages: [q3_k_m]", "gates[1].stages[0]", "nearest: q5_k_m"),
        ("metric: accuracy, at_least: 0.5, stages: [q8_0, adaptr]", "gates[1].stages[1]", "nearest: adapter"),
        ("metric: latency_p95_ms, at_most: 9, stages: [edge]", "gates[1].stages[0]", "leave `stages` out"),
        ("metric: latency_p95_ms, at_most: 9, stages: [f16]", "gates[1].stages[0]", "what ships"),
        ("metric: latency_p95_ms, at_least: 9", "gates[1].at_least", "less latency_p95_ms is better"),
        ("metric: size_mb, at_most: 9, per: style", "gates[1].per", "one number a file"),
        ("metric: error_rate, at_least: 0.1", "gates[1].at_least", "less error_rate is better"),
        ("metric: accuracy, versus: q8_0, no_worse_than: 0.2", "gates[1].versus", "quants come last"),
        (
            "metric: accuracy, versus: f16, no_worse_than: 0.2, stages: [f16]",
            "gates[1].versus",
            "f16 does not come",
        ),
        ("metric: accuracy, at_least: 0.5, per: label", "gates[1].per", "no label to go by"),
        ("metric: accuracy, at_least: 0.8", "gates[1]", "gates[0] is it too"),
        ("metric: accuracy, at_least: 0.5, per: style, min_n: 70", "gates[1]", "the most is 60"),
        (
            "metric: accuracy, at_least: 0.9, per: style",
            "gates[1].at_least",
            "old (20 items in 20 units): at least 34",
        ),
        (
            "metric: recall, at_least: 0.95, per: label",
            "gates[1].at_least",
            "Court (40 items in 40 units), Law",
        ),
        ("metric: accuracy, at_least: 1.0", "gates[1].at_least", "no number of items"),
        (
            "metric: accuracy, at_least: 0.9, design: sequential, n_max: 36",
            "gates[1].at_least",
            "one by one it takes more",
        ),
        ("metric: coverage, target: 0.9, at_least: 0.8", "gates[1]", "calibration_frac"),
        ("metric: confidence_gap, within: 0.1, calibrated: true", "gates[1]", "calibration_frac"),
        ("metric: truncated_rate, at_most: 0.01", "gates[1].at_most", "can never PASS"),
    ],
)
def test_a_rule_that_cannot_work_is_named(folder: Path, gate: str, key: str, words: str) -> None:
    problems = with_gate(folder, gate)

    assert set(problems) == {key}
    assert words in f"{problems[key].found} {problems[key].wanted} {problems[key].hint}"


def test_a_confidence_and_a_score_that_the_suite_does_not_have_are_named(folder: Path) -> None:
    suite = (folder / "clauses.yaml").read_text()
    (folder / "clauses.yaml").write_text(suite + "\nscorers: [label]\n")

    problems = with_gate(
        folder,
        "metric: abstention, precision: 0.9, at_least: 0.5, confidence: p_tru",
        "metric: score, score: lable, at_least: 0.5",
    )

    assert "mean_logprob" in problems["gates[1].confidence"].hint
    assert problems["gates[2].score"].hint == "nearest: label"


@pytest.mark.parametrize(
    "gate",
    [
        "metric: recall, at_least: 0.9, per: label",
        "metric: precision, at_least: 0.99, per: label",
        "metric: accuracy, at_least: 0.8, per: style",
        "metric: accuracy, versus: base, better_than: 0",
        "metric: accuracy, versus: f16, no_worse_than: 0.2, stages: [q8_0]",
        "metric: accuracy, versus: f16, no_worse_than: 0.05, acknowledge: there is no more data",
        "metric: latency_p95_ms, at_most: 200",
        "metric: size_mb, at_most: 200, stages: [q4_0]",
        "metric: truncated_rate, at_most: 0.05",
    ],
)
def test_a_rule_that_can_work_is_no_problem(folder: Path, gate: str) -> None:
    assert with_gate(folder, gate) == {}


@pytest.mark.parametrize("n", [10, 13, 14, 15, 16, 20])
@pytest.mark.parametrize(
    ("attempts", "alpha", "fewest"), [("count", 0.05, 14), ("spend", 0.05 * 6 / math.pi**2, 16)]
)
def test_can_never_pass_is_the_gates_own_arithmetic(
    folder: Path, n: int, attempts: str, alpha: float, fewest: int
) -> None:
    (folder / "demo.yaml").write_text(f"attempts: {attempts}\n{RECIPE}")
    write_rows(folder / "eval.jsonl", rows(100, n))

    assert ("gates[0].at_least" in problems_of(folder)) == can_never_pass(n, 0.8, alpha)
    assert fewest_items(0.8, alpha) == fewest


def test_a_margin_finer_than_the_records_show_must_be_acknowledged(folder: Path) -> None:
    """80 pairs at alpha .0304, a discordance of .1: (1.875 + 0.842) sqrt(.1 / 80) + 1/160 = .1023."""
    fine = "metric: accuracy, versus: f16, no_worse_than: 0.102"

    problem = with_gate(folder, fine)["gates[1].no_worse_than"]

    assert problem.wanted == "0.103 or more"
    assert "80 items in 80 units" in problem.hint
    assert with_gate(folder, f"{fine}, acknowledge: the contract says so") == {}
    assert with_gate(folder, "metric: accuracy, versus: f16, no_worse_than: 0.103") == {}


def test_a_gap_finer_than_the_smallest_groups_show_must_be_acknowledged(folder: Path) -> None:
    """Groups of 20 and 60, 80 % right: (1.875 + 0.842) sqrt(.16 (1/20 + 1/60)) = .281."""
    fine = "metric: accuracy, gap: 0.28, per: style"

    assert with_gate(folder, fine)["gates[1].gap"].wanted == "0.281 or more"
    assert with_gate(folder, f"{fine}, acknowledge: the contract says so") == {}
    assert with_gate(folder, "metric: accuracy, gap: 0.29, per: style") == {}


def test_few_units_can_prove_less_than_their_items(folder: Path) -> None:
    items = [{**row, "unit": f"u{i // 40}"} for i, row in enumerate(rows(100, 80))]
    write_rows(folder / "eval.jsonl", items)

    assert "80 items in 2 units" in problems_of(folder)["gates[0].at_least"].hint


def test_a_recipe_none_of_whose_rules_judges_a_quant_is_refused(folder: Path) -> None:
    (folder / "demo.yaml").write_text(RECIPE.replace("0.8}", "0.8, stages: [adapter, f16]}"))

    assert problems_of(folder)["gates"].found == "no rule judges a quant"


def test_a_rule_must_say_which_of_two_suites_it_reads(folder: Path) -> None:
    (folder / "other.yaml").write_text(SUITE.replace("suite: clauses", "suite: other"))
    (folder / "demo.yaml").write_text(RECIPE.replace("[clauses.yaml]", "[clauses.yaml, other.yaml]"))

    assert "clauses, other" in problems_of(folder)["gates[0]"].hint


def test_a_suite_that_cannot_be_read_does_not_make_rules_wrong(folder: Path) -> None:
    (folder / "demo.yaml").write_text(
        RECIPE.replace("[clauses.yaml]", "[clauses.yaml, missing.yaml]").replace("0.8}", "0.8, suite: other}")
    )

    assert set(problems_of(folder)) == {"suites[1]"}


def test_repeated_quants_and_suites_are_named(folder: Path) -> None:
    (folder / "demo.yaml").write_text(
        RECIPE.replace("[clauses.yaml]", "[clauses.yaml, clauses.yaml]").replace(
            "0.8}", "0.8, suite: clauses}"
        )
        + "export: {quants: [q8_0, q4_0, q8_0]}\n"
    )

    assert set(problems_of(folder)) == {"suites[1]", "export.quants[2]"}


@pytest.mark.parametrize(
    ("before", "after", "key", "words"),
    [
        ("{{ input }}", "{{ inptu }}", "prompt.user", "no variable inptu"),
        ("{{ input }}", "{{ input * 3 }}", "prompt.user", "Mul is not for prompts"),
        ("{{ input }}", "{{ slices.stile }}", "prompt", "slices has no 'stile'"),
        ("[Law, Court]", "[Law, Court, Corut]", "labels[2]", "nearest: Court"),
        ("[Law, Court]", "[Law, Court, Law]", "labels[2]", "each label once"),
        ("[Law, Court]", "[Law, Curt, ' ']", "labels[2]", "spaces"),
        ("[style, kind]", "[stile]", "slices[0]", "nearest: style"),
        ("eval: eval.jsonl", "eval: evil.jsonl", "records.eval", "a file that is there"),
        ("  fields", "  dev: gone.jsonl\n  fields", "records.dev", "a file that is there"),
        ("  fields", "  dev_frac: 0.001\n  fields", "records.dev_frac", "none of the 40 training units"),
        ("slices:", "limit: {dev: {n: 3}}\nslices:", "limit.dev", "there are train, eval"),
        ("slices:", "scorers: [label]\nslices:", "scorers[0]", "token_f1"),
    ],
)
def test_what_is_wrong_with_a_suite(folder: Path, before: str, after: str, key: str, words: str) -> None:
    source = SUITE.replace(before, after)
    (folder / "clauses.yaml").write_text(
        source.replace("classify", "generate") if "scorers" in after else source
    )

    problem = problems_of(folder, "clauses.yaml")[key]

    assert words in f"{problem.found} {problem.wanted} {problem.hint}"
    assert problem.line is not None


def test_labels_that_records_have_and_the_suite_lacks_are_counted_with_ids(folder: Path) -> None:
    write_rows(folder / "eval.jsonl", [*rows(100, 80), {**rows(900, 1)[0], "target": "Tax"}])

    problem = problems_of(folder, "clauses.yaml")["labels"]

    assert problem.found == "1 eval record with Tax"
    assert problem.hint.endswith("ids: r900")


def test_a_label_that_training_never_shows_is_named(folder: Path) -> None:
    write_rows(folder / "train.jsonl", rows(0, 40)[::2])

    assert problems_of(folder, "clauses.yaml")["labels[1]"].found == '"Court"'


def test_an_empty_eval_file_is_refused(folder: Path) -> None:
    (folder / "eval.jsonl").write_text("")

    (problem,) = check([folder / "demo.yaml"])

    assert (Path(problem.file).name, problem.found) == ("eval.jsonl", "no records")


def test_problems_of_records_have_the_records_file_and_line(folder: Path) -> None:
    write_rows(folder / "eval.jsonl", [*rows(100, 80), *rows(100, 15)])

    problems = check([folder / "demo.yaml"])

    assert [problem.line for problem in problems] == [None, *range(81, 91)]
    assert problems[0].found == "5 more problems"


def test_an_eval_record_in_training_is_refused_by_id(folder: Path) -> None:
    leaked = {**rows(100, 1)[0], "id": "leak", "unit": "elsewhere", "input": "Clause, number 100!"}
    write_rows(folder / "train.jsonl", [*rows(0, 40), leaked])

    problem = problems_of(folder)["suites[0]"]

    assert problem.found == "1 eval record outside eval too"
    assert problem.hint == "r100 has the words of leak"
    (folder / "demo.yaml").write_text(RECIPE + "preflight: {max_overlaps: 1}\n")
    assert problems_of(folder) == {}


def test_a_recipe_needs_something_to_train_on(folder: Path) -> None:
    (folder / "clauses.yaml").write_text(SUITE.replace("  train: train.jsonl\n", ""))

    assert "records.train" in problems_of(folder)["suites[0]"].hint


def test_the_records_of_a_public_set_are_looked_at_where_data_is_given(folder: Path) -> None:
    source = SUITE.replace("train: train.jsonl\n  eval: eval.jsonl", "public: legal/set")
    (folder / "clauses.yaml").write_text(source)

    assert check([folder / "demo.yaml"]) == []
    (problem,) = check([folder / "demo.yaml"], folder)
    assert "--data" in problem.hint
    (folder / "legal/set").mkdir(parents=True)
    write_rows(folder / "legal/set/train.jsonl", rows(0, 40))
    write_rows(folder / "legal/set/eval.jsonl", rows(100, 10))
    assert [problem.key for problem in check([folder / "demo.yaml"], folder)] == ["gates[0].at_least"]


def test_a_document_that_is_neither_and_one_that_is_nowhere_are_named_together(folder: Path) -> None:
    (folder / "odd.yaml").write_text("colour: red\n")

    problems = check([folder / "odd.yaml", folder / "nowhere.yaml"])

    assert {problem.found for problem in problems} == {"neither a recipe nor a suite", "no such file"}
