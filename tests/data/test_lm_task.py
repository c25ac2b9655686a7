"""Tasks of lm-evaluation-harness as suites: what is rendered, and what is refused where."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.check import check
from harness.data.lm_docs import read_docs
from harness.data.lm_task import task_records
from harness.data.lm_template import lm_template_problems, render
from harness.data.records import Record, RecordsError
from harness.errors import DataError, HarnessError, Problem, SpecError
from harness.specs.load import load_suite

CHOICE = """\
task: capitals
dataset_path: json
dataset_kwargs:
  data_files: {test: docs.jsonl, train: shots.jsonl}
output_type: multiple_choice
test_split: test
doc_to_text: "{{country}}?"
doc_to_choice: cities
doc_to_target: at
"""
WRITTEN = """\
task: Capitals/Written
dataset_path: json
dataset_kwargs:
  data_files: {test: docs.jsonl}
test_split: test
doc_to_text: country
doc_to_target: "{{cities[at]}}"
"""
DOCS = [
    {
        "id": "fr",
        "country": "France",
        "cities": ["Paris", "Rome"],
        "at": 0,
        "unit": "west",
        "slices": {"eu": True},
    },
    {
        "id": "it",
        "country": "Italy",
        "cities": ["Bonn", "Rome"],
        "at": 1,
        "unit": "south",
        "slices": {"eu": True},
    },
]
SHOTS = [{"country": f"land {n}", "cities": [f"c{n}", "x"], "at": 0} for n in range(4)]


def task(folder: Path, text: str, docs: list[dict[str, Any]] | None = None) -> Path:
    for name, rows in (("docs.jsonl", DOCS if docs is None else docs), ("shots.jsonl", SHOTS)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "task.yaml").write_text(text, "utf-8")
    return folder / "task.yaml"


def records(folder: Path, text: str, docs: list[dict[str, Any]] | None = None) -> list[Record]:
    return task_records(task(folder, text, docs), None)


def problems(folder: Path, text: str, docs: list[dict[str, Any]] | None = None) -> list[Problem]:
    return check([task(folder, text, docs)])


def test_a_choice_task_is_a_suite_of_raw_prompts(tmp_path: Path) -> None:
    suite = load_suite(task(tmp_path, CHOICE))

    assert (suite.suite, suite.task, suite.normalise) == ("capitals", "choice", "none")
    assert (suite.prompt.raw, suite.prompt.answer_prefix) == (True, " ")
    assert [(one.id, one.input, one.options, one.targets, one.unit) for one in records(tmp_path, CHOICE)] == [
        ("fr", "France?", ("Paris", "Rome"), ("Paris",), "west"),
        ("it", "Italy?", ("Bonn", "Rome"), ("Rome",), "south"),
    ]


def test_a_task_that_counts_acc_norm_first_divides_by_length(tmp_path: Path) -> None:
    suite = load_suite(task(tmp_path, CHOICE + "metric_list: [{metric: acc_norm}, {metric: acc}]\n"))

    assert suite.normalise == "chars"


def test_a_written_task_stops_where_lm_eval_stops(tmp_path: Path) -> None:
    suite = load_suite(task(tmp_path, WRITTEN))

    assert (suite.suite, suite.task) == ("capitals-written", "answer")
    assert (suite.generation.stop, suite.generation.max_new_tokens) == (("\n\n",), 256)
    assert suite.prompt.answer_prefix == ""
    assert records(tmp_path, WRITTEN)[0].targets == ("Paris",)


def test_a_sound_task_has_no_problems(tmp_path: Path) -> None:
    assert problems(tmp_path, CHOICE) == []
    assert problems(tmp_path, WRITTEN) == []


def test_description_and_examples_stand_before_the_question(tmp_path: Path) -> None:
    few = (
        CHOICE
        + 'description: "Capitals.\\n"\nfewshot_split: train\nnum_fewshot: 2\nfewshot_delimiter: " | "\n'
    )

    first, second = records(tmp_path, few + "fewshot_config: {sampler: first_n}\n")

    assert first.input == "Capitals.\nland 0? c0 | land 1? c1 | France?"
    assert second.input == "Capitals.\nland 0? c0 | land 1? c1 | Italy?"


def test_drawn_examples_are_the_same_each_time_and_never_the_question(tmp_path: Path) -> None:
    docs = [{"country": f"c{n}", "cities": ["a", f"b{n}"], "at": 1} for n in range(6)]
    few = CHOICE + "fewshot_split: test\nnum_fewshot: 4\n"

    found = records(tmp_path, few, docs)

    assert [one.input for one in found] == [one.input for one in records(tmp_path, few, docs)]
    for number, one in enumerate(found):
        assert one.input.count(f"c{number}?") == 1
        assert one.input.count("?") == 5


def test_what_a_task_includes_stands_behind_its_own_keys(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(CHOICE)

    found = records(tmp_path, 'include: base.yaml\ntask: mine\ndoc_to_text: "Capital of {{country}}:"\n')

    assert [one.input for one in found] == ["Capital of France:", "Capital of Italy:"]
    assert load_suite(tmp_path / "task.yaml").suite == "mine"


def test_a_problem_is_shown_in_the_file_that_its_key_stands_in(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(CHOICE.replace("test_split: test\n", "test_split: 7\n"))

    found = problems(tmp_path, "include: base.yaml\n")

    assert [(Path(one.file).name, one.line, one.key) for one in found] == [("base.yaml", 6, "test_split")]


def test_a_template_s_problem_is_shown_in_the_file_that_it_stands_in(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(CHOICE.replace("{{country}}", "{{country.encode()}}"))

    found = problems(tmp_path, "include: base.yaml\n")

    assert [(Path(one.file).name, one.line, one.key) for one in found] == [("base.yaml", 7, "doc_to_text")]


@pytest.mark.parametrize(("line", "key", "words"), [
    ("process_docs: !function utils.process_docs", "process_docs", "tag !function"),
    ("process_results: utils.count", "process_results", "Python of a task is never run"),
    ("doc_to_image: picture", "doc_to_image", "only text is read"),
    ("gen_prefix: The answer is", "gen_prefix", "doc_to_text"),
    ("repeats: 5", "repeats", "5"),
    ("metric_list: [{metric: mcc}]", "metric_list[0].metric", "mcc"),
    ("metric_list: [{metric: acc, aggregation: median}]", "metric_list[0].aggregation", "median"),
    ("filter_list: [{name: x, filter: [{function: take_first}]}]", "filter_list", "nothing for choices"),
    ("num_fewshot: 3", "num_fewshot", "fewshot_split"),
    ("num_fewshot: 3\nfewshot_split: test\nvalidation_split: test\ntest_split: null", "test_split", "given twice"),
    ("generation_kwargs: {do_sample: true}", "generation_kwargs.do_sample", "true"),
    ("shots: 5", "shots", "no such key"),
    ("include: none.yaml", "include", "none.yaml"),
    ("fewshot_config: {sampler: balanced}", "fewshot_config.sampler", "balanced"),
])  # fmt: skip
def test_what_is_not_in_the_subset_is_refused_at_its_line(
    tmp_path: Path, line: str, key: str, words: str
) -> None:
    if key == "num_fewshot":
        text = CHOICE.replace(", train: shots.jsonl", "") + line
    else:
        text = CHOICE + line

    found = problems(tmp_path, text + "\n")

    assert found, "no problem"
    assert found[0].key == key
    assert words in f"{found[0].found} {found[0].wanted} {found[0].hint}"
    assert Path(found[0].file).name == "task.yaml"
    assert found[0].line is not None


@pytest.mark.parametrize(("change", "words"), [
    (('doc_to_text: "{{country}}?"', 'doc_to_text: "{{land}}?"'), "'land' is undefined"),
    (("doc_to_target: at", "doc_to_target: country"), "none of the 2 choices"),
    (("doc_to_choice: cities", "doc_to_choice: country"), "wanted at least two texts"),
    (("doc_to_choice: cities", 'doc_to_choice: ["same", "same"]'), "one choice twice"),
    (('doc_to_text: "{{country}}?"', "doc_to_text: at"), "not supported"),
    (("test: docs.jsonl", "test: none.jsonl"), "none.jsonl"),
    (("test_split: test", "test_split: held_out"), "no split held_out"),
    (("dataset_path: json", "dataset_path: allenai/ai2_arc"), "pass --data FOLDER"),
    (("dataset_path: json", "dataset_path: ../up"), "folder/name"),
])  # fmt: skip
def test_what_does_not_fit_the_documents_is_refused(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    found = problems(tmp_path, CHOICE.replace(*change))

    assert any(words in f"{one.found} {one.wanted} {one.hint}" for one in found), found


def test_examples_that_could_show_the_question_itself_are_refused(tmp_path: Path) -> None:
    text = CHOICE.replace("test_split: test", "validation_split: test")

    with pytest.raises(RecordsError, match="examples from test"):
        records(tmp_path, text + "fewshot_split: test\nnum_fewshot: 1\n")


def test_a_public_set_is_read_from_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "geo" / "capitals").mkdir(parents=True)
    (tmp_path / "geo" / "capitals" / "test.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    path = task(tmp_path, CHOICE.replace("dataset_path: json", "dataset_path: geo/capitals"))

    assert [one.id for one in task_records(path, tmp_path)] == ["fr", "it"]


def test_a_public_set_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = task(tmp_path, CHOICE.replace("dataset_path: json", "dataset_path: geo/rivers"))

    with pytest.raises(RecordsError, match=r"rivers/test\.jsonl"):
        task_records(path, tmp_path)


@pytest.mark.parametrize("source", [
    "{{ ''.__class__ }}", "{{ x.format(1) }}", "{{ 'a' * 10**9 }}", "{% set a = 1 %}", "{% include 'x' %}",
    "{{ range(10**9)|list }}", "{% macro a() %}{% endmacro %}", "{{ x.encode() }}", "{{ x|attr('y') }}",
    "{{ '%1000000000d' % 1 }}", "{{ cycler('a') }}", "{{ x", "{% for a in x recursive %}{% endfor %}",
    "{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}", "x" * 70_000,
])  # fmt: skip
def test_templates_can_neither_call_nor_count_for_ever(source: str) -> None:
    assert lm_template_problems(source) != ()
    with pytest.raises(DataError):
        render(source, {"x": "text"})


@pytest.mark.parametrize("source", [
    "{{ x.replace('', y) }}", "{{ x|replace('', y) }}", "{{ y.join(z) }}", "{{ z|join(y) }}",
    "{{ x|regex_replace('', y) }}", "{% for a in z %}{% for b in z %}{{ a }}{% endfor %}{% endfor %}",
])  # fmt: skip
def test_a_text_that_would_fill_the_memory_is_stopped(source: str) -> None:
    with pytest.raises(DataError, match="more than 1,048,576 characters"):
        render(source, {"x": "a" * 3000, "y": "b" * 3000, "z": ["c"] * 3000})


@pytest.mark.parametrize(("source", "text"), [
    ("{{ q.strip() }}\n", "What?\n"), ("{{ c|join(' / ') }}", "a / b"), ("{{ ', '.join(c) }}", "a, b"),
    ("{{ q|regex_replace('[?]', '!')|trim }}", "What!"), ("{{ ['A', 'B'].index('B') }}", "1"),
    ("{{ c }}", "['a', 'b']"),
    ("{% for one in c %}{{ loop.index }}{{ one }} {% endfor %}", "1a 2b "), ("{{ d.deep[0] }}", "x"),
    ("{{ q.split()[0] ~ '.' }}", "What?."), ("{{ 'yes' if c|length == 2 else 'no' }}", "yes"),
])  # fmt: skip
def test_templates_give_what_jinja_gives(source: str, text: str) -> None:
    assert render(source, {"q": "  What? ", "c": ["a", "b"], "d": {"deep": ["x"]}}) == text


def test_a_document_is_data_and_never_a_template(tmp_path: Path) -> None:
    docs = [{**DOCS[0], "country": "{{ 7 }} {% raw %}"}, DOCS[1]]

    assert records(tmp_path, CHOICE, docs)[0].input == "{{ 7 }} {% raw %}?"


def test_csv_columns_are_typed_as_lm_eval_s_loader_types_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,gap,x,flag,text,none\n1,2,1.5,True,007a,NA\n-3,,2,False,b,NA\n")

    assert read_docs(tmp_path / "a.csv") == [
        {"n": 1, "gap": 2.0, "x": 1.5, "flag": True, "text": "007a", "none": None},
        {"n": -3, "gap": None, "x": 2.0, "flag": False, "text": "b", "none": None},
    ]


def test_parquet_keeps_lists(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    parquet.write_table(pyarrow.Table.from_pylist(DOCS), tmp_path / "a.parquet")

    assert read_docs(tmp_path / "a.parquet")[0]["cities"] == ["Paris", "Rome"]


@pytest.mark.parametrize(("name", "text"), [
    ("a.jsonl", ""), ("a.jsonl", "[1]"), ("a.jsonl", '{"a": 1}\n{"a"'), ("a.jsonl", '{"a": "\\ud800"}'),
    ("a.jsonl", '{"a": NaN}'), ("a.csv", "a,b\n1\n"), ("a.csv", 'a\n"x'), ("a.parquet", "no"),
])  # fmt: skip
def test_documents_that_can_t_be_read_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(DataError):
        read_docs(tmp_path / name)


def test_a_task_that_includes_itself_ends(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="8 deep"):
        load_suite(task(tmp_path, "include: task.yaml\n"))


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100)
@given(st.sampled_from(sorted(DOCS[0])), JUNK, st.sampled_from([CHOICE, WRITTEN]))
def test_documents_with_junk_in_any_field_are_rendered_or_refused(key: str, junk: object, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = task(
            Path(folder), text + "num_fewshot: 1\nfewshot_split: test\n", [{**DOCS[0], key: junk}, DOCS[1]]
        )
        try:
            found = task_records(path, None)
        except HarnessError:
            return
    assert all(one.input.strip() and one.targets and one.id and one.unit for one in found)
    assert all(set(one.targets) <= set(one.options) for one in found if one.options)
