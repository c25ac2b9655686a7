"""The view models: numbers in, lines out; nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import NOW_S
from fakes import SUITE, FakeRun
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.results import RuleVerdict, State
from harness.jobs.journal import Event, read_events
from harness.tui.context import Context
from harness.tui.desk import Desk
from harness.tui.inputs import Inputs, read_inputs
from harness.tui.views import numbers, verdicts
from harness.tui.views.bars import Axis, Series, axis_for, axis_title, interval_bar, plot, progress_bar
from harness.tui.views.board import board_body, board_of
from harness.tui.views.cells import line_width, plain
from harness.tui.views.curve import Curve
from harness.tui.views.folders import Home, RunFolder, stage_order
from harness.tui.views.live import CANNOT_FAIL, CANNOT_PASS, OPEN, outlook, slice_lines, slice_rows
from harness.tui.views.matrix import Cursor, matrix_of, planned_stages, short_name
from harness.tui.views.progress import Progress, fold
from harness.tui.views.reader import sample_lines
from harness.tui.views.samples import Filter, SampleIndex, SampleList

finite = st.floats(-1e6, 1e6)


def text(spans: object) -> str:
    return plain(spans)  # type: ignore[arg-type]


# Bars


def test_a_bar_shows_bounds_score_and_gate_where_they_are() -> None:
    bar = interval_bar(Axis(0, 1), 20, score=0.5, low=0.31, high=0.69, gate=0.85)

    assert text(bar) == "······━━━━●━━━···┃··"


def test_score_and_gate_in_one_cell_make_one_sign() -> None:
    assert text(interval_bar(Axis(0, 1), 10, score=0.55, gate=0.58)) == "·····◉····"


def test_without_bounds_there_is_a_point_and_no_interval() -> None:
    assert "━" not in text(interval_bar(Axis(0, 1), 30, score=0.4, gate=0.8))


def test_without_a_score_there_is_no_point() -> None:
    assert text(interval_bar(Axis(0, 1), 8, score=None)) == "········"


@given(score=finite, low=finite, high=finite, gate=finite, cells=st.integers(1, 60))
def test_a_bar_is_as_wide_as_asked(score: float, low: float, high: float, gate: float, cells: int) -> None:
    axis = axis_for([score, low, high, gate])
    bar = interval_bar(axis, cells, score=score, low=min(low, high), high=max(low, high), gate=gate)
    assert line_width(bar) == cells


@given(values=st.lists(st.none() | finite, max_size=8), is_difference=st.booleans())
def test_an_axis_holds_its_values(values: list[float | None], is_difference: bool) -> None:
    axis = axis_for(values, is_difference=is_difference)
    assert axis.low < axis.high
    assert all(axis.low <= value <= axis.high * (1 + 1e-6) for value in values if value is not None)


def test_axes_are_the_ones_a_person_expects() -> None:
    assert axis_for([0.2, 0.9]) == Axis(0.0, 1.0)
    assert axis_for([0.81, 0.9]) == Axis(0.5, 1.0)
    assert axis_for([-0.01, 0.04], is_difference=True) == Axis(-0.05, 0.05)
    assert axis_for([143, 200]) == Axis(0.0, 200.0)


@given(low=finite, high=finite, cells=st.integers(0, 80))
def test_the_axis_title_is_as_wide_as_the_bars_when_there_is_room(
    low: float, high: float, cells: int
) -> None:
    title = axis_title(Axis(low, high), cells, "a long legend", "short")
    assert len(title) == cells or cells < len(f"{low:g}{high:g}") + 2


@given(share=st.none() | st.floats(0, 1), cells=st.integers(0, 50))
def test_a_progress_bar_never_shows_more_than_is_done(share: float | None, cells: int) -> None:
    bar = text(progress_bar(share, cells))
    assert len(bar) == cells
    assert bar.count("█") <= cells * (share or 0.0)
    assert (bar.count("█") == cells) == (share == 1.0) or not cells


# Plots


def test_a_plot_keeps_a_spike_among_fifty_thousand_points() -> None:
    points = [(float(i), 1.0) for i in range(50_000)]
    points[25_000] = (25_000.0, 9.0)

    top = text(plot([Series(points, "curve")], 80, 12)[0])

    assert any(0x2800 < ord(char) < 0x2900 for char in top)


def test_a_falling_curve_falls_on_the_plot() -> None:
    lines = [text(spans) for spans in plot([Series([(i, 10.0 - i) for i in range(11)], "curve")], 40, 8)]
    columns = [next((i for i, c in enumerate(row) if 0x2800 < ord(c) < 0x2900), None) for row in lines[:6]]
    assert columns == sorted(column for column in columns if column is not None)
    assert lines[-1].endswith("step 10")


@given(
    points=st.lists(st.tuples(st.floats(0, 1e5), st.floats(-1e3, 1e3)), max_size=60),
    cells=st.integers(0, 90),
    rows=st.integers(0, 20),
)
def test_a_plot_stays_in_its_box(points: list[tuple[float, float]], cells: int, rows: int) -> None:
    lines = plot([Series(sorted(points), "curve"), Series(sorted(points)[:3], "dots", "○")], cells, rows)
    assert not lines or len(lines) == rows
    assert all(line_width(spans) <= max(cells, 0) for spans in lines[:-1])


# Numbers


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "—"), (0, "0:00"), (34.4, "0:34"), (725, "12:05"), (11_049, "3:04:09"), (-1, "—")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert numbers.duration(seconds) == shown


@pytest.mark.parametrize("value", [True, "3", None, math.nan, math.inf, 10**400, [1], {}])
def test_what_is_no_number_is_unknown_and_not_zero(value: object) -> None:
    assert numbers.number(value) is None
    assert numbers.count(value) is None


def test_unknown_is_a_dash() -> None:
    for show in (
        numbers.score,
        numbers.signed,
        numbers.quantity,
        numbers.amount,
        numbers.clock,
        numbers.duration,
    ):
        assert show(None) == "—"  # type: ignore[operator]


# Verdicts


def _rule(
    state: State, score: float | None, threshold: float, rule: str = "accuracy at least 0.8"
) -> RuleVerdict:
    return RuleVerdict(rule, "s", "accuracy", "all", 100, score, None, None, threshold, state, "", None)


def test_a_failing_rule_decides_before_an_undecided_one_and_the_closest_first() -> None:
    near, far = _rule(State.FAIL, 0.79, 0.8), _rule(State.FAIL, 0.2, 0.8)
    unsure, good = _rule(State.INCONCLUSIVE, 0.1, 0.8), _rule(State.PASS, 0.9, 0.8)

    assert verdicts.ranked([good, unsure, near, far]) == [far, near, unsure, good]
    assert verdicts.worst([]) is None


def test_where_less_is_better_more_is_worse() -> None:
    slow, fast = (_rule(State.FAIL, score, 200, "latency_p95_ms at most 200") for score in (400, 210))
    assert verdicts.worst([fast, slow]) is slow


def test_a_verdict_is_a_sign_and_a_word() -> None:
    assert [verdicts.words(state, 180) for state in State] == [
        "✓ pass", "✗ FAIL", "? 180 more", "· too few", "~ stale", "w waived",
    ]  # fmt: skip
    assert verdicts.words(State.INCONCLUSIVE) == "? unsure"


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        ("accuracy at least 0.8", "accuracy"),
        ("recall per label at least 0.6", "rec/label"),
        ("accuracy no worse than base by 0", "vs base"),
        ("accuracy per contract better than f16 by 0.01", "vs f16"),
        ("errors within the suite's limit", "errors"),
        ("mean KL from f16 at most 0.5", "mean KL"),
        ("token ids equal those of f16", "token ids"),
    ],
)
def test_short_names_of_rules(rule: str, shown: str) -> None:
    assert short_name(rule) == shown


# Progress


def test_a_journal_is_folded_into_steps_and_curves(finished: FakeRun) -> None:
    progress = fold(read_events(finished.folder / "events.jsonl"))

    assert progress.n_done == len(progress.steps) == 12
    assert progress.active is None
    assert [step for step, _ in progress.training.losses.points()] == list(range(1, 61))
    assert [step for step, _ in progress.training.held_out] == [20, 40, 60]
    assert progress.evaluations["q4_0", SUITE].done == 640
    assert progress.ended is not None


def test_a_resumed_training_takes_back_what_came_after_its_checkpoint() -> None:
    progress = Progress()
    for step in (1, 2, 3, 4, 3, 4):
        progress.apply(Event(step, 0.0, "train.step", {"step": step, "loss": 5.0 - step, "of": 9}))
    assert progress.training.losses.points() == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]


def test_a_step_that_was_stopped_is_not_active() -> None:
    progress = Progress()
    progress.apply(Event(1, 0.0, "step.start", {"step": "train"}))
    progress.apply(Event(2, 1.0, "run.cancelled", {"text": "stopped"}))
    assert progress.active is None
    assert progress.steps["train"].state == "stopped"


@given(
    heights=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400),
    most=st.integers(2, 40),
)
def test_a_curve_of_any_length_keeps_its_extremes_in_bounded_room(heights: list[float], most: int) -> None:
    curve = Curve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.tui.views.curve.MAX_BUCKETS", most)
        for x, y in enumerate(heights):
            curve.append(x, y)
    points = curve.points()
    assert set(points) <= set(enumerate(heights))
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert {min(heights), max(heights)} <= {y for _, y in points}
    assert points[-1] == (len(heights) - 1, heights[-1])
    assert len(points) <= 2 * most + 1


@given(heights=st.lists(st.floats(-10, 10), max_size=200), back=st.integers(0, 220), most=st.integers(2, 40))
def test_a_curve_that_goes_back_forgets_what_came_after(heights: list[float], back: int, most: int) -> None:
    curve = Curve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.tui.views.curve.MAX_BUCKETS", most)
        for x, y in enumerate(heights):
            curve.append(x, y)
        curve.cut_back(back)
        assert all(x < back for x, _ in curve.points())
        curve.append(1000, 3.0)
    assert curve.points()[-1] == (1000, 3.0)
    assert curve.last_x == 1000


values = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=3)
)
EVENTS = [
    "run.start",
    "step.start",
    "step.progress",
    "step.done",
    "train.step",
    "train.held_out",
    "train.checkpoint",
    "eval.batch",
    "scorecard",
    "verdict",
    "fidelity",
    "artifact",
    "note",
    "run.done",
    "run.failed",
    "run.cancelled",
    "something.else",
]
FIELDS = [
    "step",
    "of",
    "loss",
    "done",
    "total",
    "steps",
    "slices",
    "stage",
    "suite",
    "seconds",
    "eta_s",
    "rate",
    "pid",
    "text",
    "worst",
    "level",
    "lr",
    "bytes",
    "mean_kl",
    "top1",
    "resumed",
]
fields = st.dictionaries(
    st.sampled_from(FIELDS), values | st.dictionaries(st.text(max_size=3), values, max_size=2), max_size=8
)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), fields), max_size=12))
def test_no_journal_breaks_the_screens(events: list[tuple[str, dict[str, object]]]) -> None:
    from harness.tui.views.events import event_lines
    from harness.tui.views.live import training_lines

    progress = fold(Event(i, float(i), name, data) for i, (name, data) in enumerate(events))
    assert len(event_lines(progress, 60, 8)) == 8
    assert training_lines(progress, 60, 12, now_s=0.0)


# Folders


def test_a_look_takes_at_most_as_many_lines_as_allowed(finished: FakeRun) -> None:
    folder = RunFolder(finished.folder)
    assert folder.look(10) == 10
    assert folder.progress.n_events == 10
    folder.catch_up()
    assert folder.look() == 0


def test_stages_come_in_the_order_of_the_chain(finished: FakeRun) -> None:
    stages = ["q4_0", "f16", "base", "other", "q8_0", "adapter", "merged"]
    assert sorted(stages, key=stage_order) == ["base", "adapter", "merged", "f16", "q8_0", "q4_0", "other"]
    assert list(RunFolder(finished.folder).catch_up().verdicts) == [
        "base",
        "adapter",
        "merged",
        "f16",
        "q8_0",
        "q5_k_m",
        "q4_0",
    ]


def test_a_verdict_that_is_ambiguous_json_is_no_verdict(finished: FakeRun) -> None:
    path = finished.folder / "stages" / "base" / "verdict.json"
    path.write_text(
        '{"verdict": "FAIL", "verdict": "PASS", "stage": "base", "identity": "", "lock": "", "rules": []}'
    )
    assert "base" not in RunFolder(finished.folder).catch_up().verdicts


def test_a_changed_verdict_is_read_again(finished: FakeRun) -> None:
    folder = RunFolder(finished.folder).catch_up()
    path = finished.folder / "stages" / "base" / "verdict.json"
    path.write_text(path.read_text().replace('"verdict": "FAIL"', '"verdict": "PASS"'))
    folder.look()
    assert folder.verdicts["base"].verdict is State.PASS


def test_an_ended_run_that_did_not_change_is_not_read_again(
    finished: FakeRun, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Home(home)
    assert [info.run for info in found.look()] == [finished.run]
    monkeypatch.setattr("harness.tui.views.folders.describe_run", lambda folder: pytest.fail("read again"))
    assert [info.run for info in found.look()] == [finished.run]


def test_a_folder_without_a_manifest_is_no_run(home: Path) -> None:
    (home / "runs" / "x").mkdir(parents=True)
    (home / "runs" / "y").mkdir()
    (home / "runs" / "y" / "manifest.json").write_text("{")
    assert Home(home).look() == []


def test_planned_stages_come_from_the_recipe() -> None:
    recipe = {"export": {"quants": ["q8_0", "q4_0"]}}
    manifest = {"job": "release", "document": {"recipe": recipe}, "options": {"until": "release"}}
    assert planned_stages(manifest) == ("base", "adapter", "merged", "f16", "q8_0", "q4_0")
    assert planned_stages({**manifest, "options": {"until": "train"}}) == ("base", "adapter")
    assert planned_stages({**manifest, "job": "eval"}) == ()
    assert planned_stages({}) == ()


@pytest.mark.parametrize("size", [(60, 12), (80, 18), (100, 24), (139, 24), (140, 24), (220, 60)])
def test_the_board_fills_exactly_its_cells(
    size: tuple[int, int], finished: FakeRun, failed: FakeRun, home: Path
) -> None:
    found = Home(home)
    for info in found.look():
        board = board_of(found.runs, info, found.folder(info).catch_up(), now_s=NOW_S)
        lines = board_body(board, Cursor(stage=1), Context(screen="board", run=info.run), *size)
        assert len(lines) <= size[1]
        assert max(map(line_width, lines)) <= size[0]


def test_the_cursor_rests_on_what_ships_or_on_what_fails(
    finished: FakeRun, failed: FakeRun, home: Path
) -> None:
    shipped, stopped = (matrix_of(RunFolder(run.folder).catch_up()) for run in (finished, failed))
    assert shipped.stages[shipped.to_look_at].stage == "q5_k_m"
    assert stopped.stages[stopped.to_look_at].stage == "base"


def test_the_bars_show_the_rule_that_decides(finished: FakeRun, home: Path) -> None:
    desk = Desk(home)
    desk.catch_up()
    desk.press("tab")
    path = finished.folder / "stages" / "q4_0" / "verdict.json"
    verdict = json.loads(path.read_text())
    verdict["rules"].append({**verdict["rules"][0], "rule": "mean KL from f16 at most 0.5", "metric": "mean_kl",
                             "score": 0.7, "low": None, "high": None, "threshold": 0.5, "verdict": "FAIL"})  # fmt: skip
    path.write_text(json.dumps(verdict))
    desk.look()
    desk.press("j")

    shown = "\n".join(map(plain, desk.lines(100, 30)))
    assert "bars: mean KL from f16 at most 0.5" in shown
    assert "›mean KL" in shown


# Inputs


SUITE_FILE = """
suite: tiny
domain: legal
task: classify
records: {eval: eval.jsonl}
labels: [A, B]
prompt: {user: "{{ input }}"}
"""


def test_the_input_of_a_sample_is_read_from_the_suites_data(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SUITE_FILE)
    records = [{"id": f"r{i}", "input": f"clause {i}", "target": "A"} for i in range(3)]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    manifest = {"options": {"suite": str(tmp_path / "tiny.yaml"), "data_root": None}}

    assert read_inputs(manifest)["tiny", "r1"] == "clause 1"


def test_a_sample_whose_data_are_gone_is_shown_without_its_input(finished: FakeRun, home: Path) -> None:
    inputs = Inputs()
    inputs.read_now(RunFolder(finished.folder))
    assert inputs.find(RunFolder(finished.folder), SUITE, "clause-0000") is None


# Live numbers


def test_a_growing_number_of_samples_has_no_interval(scoring: FakeRun, finished: FakeRun) -> None:
    growing = slice_rows(RunFolder(scoring.folder).catch_up())
    final = slice_rows(RunFolder(finished.folder).catch_up())

    assert growing[0].name == "all"
    assert all(row.low is None and row.high is None for row in growing)
    assert all(row.low is not None and row.high is not None for row in final)


def test_the_gate_of_a_slice_comes_from_the_recipe(scoring: FakeRun) -> None:
    gates = {row.name: row.gate for row in slice_rows(RunFolder(scoring.folder).catch_up())}
    assert gates == {"all": 0.8, "contract=license": 0.7, "contract=services": 0.7, "contract=supply": 0.7}


# Samples


def write_batches(path: Path, *batches: list[dict[str, object]], torn: str = "") -> SampleIndex:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for number, batch in enumerate(batches):
            file.writelines(json.dumps(sample) + "\n" for sample in batch)
            file.write(json.dumps({"batch": number, "n": len(batch)}) + "\n")
        file.write(torn)
    index = SampleIndex(path)
    index.look()
    return index


def test_a_batch_counts_once_its_closing_line_is_there(tmp_path: Path) -> None:
    one, two = {"id": "a", "score": 1.0}, {"id": "b", "score": 0.0}
    path = tmp_path / "samples.jsonl"
    index = write_batches(path, [one], torn=json.dumps(two) + "\n")
    assert len(index) == 1

    with path.open("a") as file:
        file.write('{"batch": 1, "n": 1}\n{"id": "to')
    index.look()
    assert [index.data(i)["id"] for i in range(len(index))] == ["a", "b"]
    assert [index.is_failure(i) for i in range(2)] == [False, True]


def test_a_file_that_was_cut_off_and_written_again_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    index = write_batches(path, [{"id": "a", "score": 1.0}], torn='{"id": "half')
    text = path.read_text().removesuffix('{"id": "half')
    path.write_text(text + '{"id": "c", "score": 0.5}\n{"batch": 1, "n": 1}\n')
    index.look()
    assert [index.data(i)["id"] for i in range(len(index))] == ["a", "c"]

    path.unlink()
    index.look()
    assert len(index) == 0


@pytest.mark.parametrize(
    ("sample", "is_failure"),
    [
        ({"score": 1.0}, False),
        ({"score": 1}, False),
        ({"score": 0.999}, True),
        ({"score": 1e-9}, True),
        ({"score": None}, True),
        ({}, True),
        ({"output": '"score": 1.0,', "score": 0.0}, True),
        ({"slices": {"score": "1"}, "score": 0.0}, True),
        ({"label_probs": {"score": 1.0}, "score": 0.0}, True),
    ],
)
def test_failures_are_what_scored_less_than_one(
    sample: dict[str, object], is_failure: bool, tmp_path: Path
) -> None:
    assert write_batches(tmp_path / "s.jsonl", [{"id": "a", **sample}]).is_failure(0) is is_failure


SAMPLES = [
    {"id": "a1", "gold": ["Governing Law"], "answer": "Term", "score": 0.0, "slices": {"kind": "x", "lang": ["de"]}},
    {"id": "a2", "gold": ["Term"], "answer": "Term", "score": 1.0, "slices": {"kind": "y"}, "output": "Ünïcode"},
    {"id": "a3", "gold": ["Term"], "answer": None, "score": 0.0, "slices": {"kind": "y"}, "error": "score is broken"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["a1", "a2", "a3"]),
        ("TERM", ["a1", "a2", "a3"]),
        ("kind=y", ["a2", "a3"]),
        ("kind=y lang=de", []),
        ("lang=DE", ["a1"]),
        ("label=term", ["a2", "a3"]),
        ("ünïcode", ["a2"]),
        ("score", ["a3"]),
        ("governing a1", ["a1"]),
        ("nothing", []),
    ],
)
def test_filters(words: str, found: list[str], tmp_path: Path) -> None:
    index = write_batches(tmp_path / "s.jsonl", SAMPLES)
    listed = SampleList(index, Filter(words))
    listed.look()
    assert [index.data(listed[i])["id"] for i in range(len(listed))] == found
    assert listed.n_failures == sum(name in ("a1", "a3") for name in found)


def test_the_samples_that_an_evaluation_writes_are_the_ones_listed(tmp_path: Path, scoring: FakeRun) -> None:
    from harness.evals.samples import Header, SampleLog

    samples = [scoring.sample(i, 0.5) for i in range(7)]
    log = SampleLog(tmp_path / "samples.jsonl", Header("identity", "requests"))
    log.commit(0, samples[:4])
    index = SampleIndex(tmp_path / "samples.jsonl")
    index.look()
    assert len(index) == 4
    log.commit(1, samples[4:])
    index.look()

    assert [index.data(i)["id"] for i in range(len(index))] == [sample.id for sample in samples]
    assert [index.is_failure(i) for i in range(7)] == [sample.score < 1 for sample in samples]


def test_another_models_samples_in_the_same_file_replace_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"header": {"identity": "a"}}\n{"id": "x", "score": 1.0}\n{"batch": 0, "n": 1}\n')
    index = SampleIndex(path)
    index.look()
    path.write_text(
        '{"header": {"identity": "b"}}\n' + '{"id": "y", "score": 0.0}\n' * 3 + '{"batch": 0, "n": 3}\n'
    )
    index.look()
    assert [index.data(i)["id"] for i in range(len(index))] == ["y", "y", "y"]


def test_failures_only_and_the_next_failure(tmp_path: Path) -> None:
    index = write_batches(tmp_path / "s.jsonl", SAMPLES)
    listed, failures = SampleList(index, Filter()), SampleList(index, Filter(is_failures_only=True))
    listed.look()
    failures.look()
    assert len(failures) == 2
    assert listed.failure_from(0, 1) == 2
    assert listed.failure_from(2, -1) == 0
    assert listed.failure_from(2, 1) is None


def test_a_bounded_number_of_samples_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tui.views.samples.PAGE", 5)
    index = write_batches(tmp_path / "s.jsonl", [{"id": str(i), "score": 1.0} for i in range(40)])
    assert [index.data(i)["id"] for i in range(40)] == [str(i) for i in range(40)]
    assert len(index._pages) == 5


def test_a_list_goes_on_where_it_stopped(tmp_path: Path) -> None:
    batches = [[{"id": f"{b}-{i}", "score": float(i % 2)} for i in range(10)] for b in range(6)]
    index = write_batches(tmp_path / "s.jsonl", *batches)
    listed = SampleList(SampleIndex(index.path), Filter(is_failures_only=True))
    looks = 1
    while listed.look(limit=10):
        looks += 1
    assert looks >= 6
    assert len(listed) == 30


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "7", '{"id": ' + "[" * 3000, '{"id": 3, "gold": 4, "slices": 5, "label_probs": 6}'],
)
def test_a_line_that_is_no_sample_is_shown_as_such(line: str, home: Path) -> None:
    run = FakeRun(home, n=32).until("eval.batch", 1)
    path = run.folder / "stages" / "base" / SUITE / "samples.jsonl"
    path.write_text(f'{line}\n{{"batch": 0, "n": 1}}\n')
    desk = Desk(home)
    desk.catch_up()
    desk.press("3")
    desk.look()
    shown = "\n".join(map(plain, desk.lines(100, 30)))
    assert "1 of 1" in shown
    assert "1 fail" in shown


def test_a_sample_shows_all_that_was_measured_on_it() -> None:
    data = {
        "id": "s1", "gold": ["41.2"], "answer": "412", "score": 0.0, "error_class": "scale_slip",
        "parsed": {"number": 412.0, "unit": "bps"}, "scores": {"number": 0.0, "judge": 0.25},
        "confidences": {"mean_logprob": -0.5, "p_true": 0.8, "self_consistency": float("nan")},
    }  # fmt: skip
    text = "\n".join(plain(spans) for spans in sample_lines(data, 100, is_whole=True))
    assert "WHY        scale_slip" in text
    assert "bps" in text
    assert "number 0.000 · judge 0.250" in text
    assert "mean_logprob -0.500 · p_true 0.800" in text
    assert "nan" not in text


def test_lines_of_any_kind_are_filtered_as_they_are_indexed(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    wanted = [
        b'{"id": "a", "output": "Needle"}',
        b'{"batch": "needle"}',
        b'{"output": "needle {\\"batch\\": 1}"}',
    ]
    other = [
        b"",
        b'{"id": "b", "label_probs": {"needle": 1.0}}',
        b'{"id": "c", "label_probs": {"needle"',
        b"needle",
    ]
    path.write_bytes(
        b"\n".join(
            [b'{"header": {}}', *other, b'{"batch": 0, "n": 4}', *wanted, b'{"batch": 1, "n": 3}', b""]
        )
    )
    listed = SampleList(SampleIndex(path), Filter("needle"))
    listed.look_at_all()
    held = [listed.index.raw(at).rstrip(b"\n") for at in (listed[place] for place in range(len(listed)))]
    assert len(listed.index) == 7
    assert held == [line for line in wanted if b"Needle" in line or b"output" in line]


LINES = [
    b"", b"needle", b"NEEDLE", b'{"id": "needle"}', b'{"id": "Needles", "output": "thread"}', b'{"id": "a"}',
    b'{"id": "a", "label_probs": {"needle": 1.0}, "output": "thread needle"}', b'{"output": "thread"}',
    b'{"header": "needle"}', b'{"batch": "needle"}', b'{"batch": 1, "n": "needle"}', b"thread needle",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(LINES), max_size=12),
    st.sampled_from(["needle", "thread needle", "", "ünï", "id=a"]),
)
def test_a_block_is_filtered_as_each_of_its_lines_would_be(lines: list[bytes], words: str) -> None:
    first = [b'{"id": "first"}']  # a block begins with a sample
    samples = [
        line for line in first + lines
        if not line.startswith((b'{"header"', b'{"batch": 1'))
    ]  # fmt: skip
    block = b"".join(line + b"\n" for line in first + lines)
    alone = [at for at, line in enumerate(samples) if list(Filter(words).places(line + b"\n"))]
    assert list(Filter(words).places(block)) == alone


def test_long_lines_are_filtered_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tui.views.samples.BYTES_A_LOOK", 3000)
    path = tmp_path / "samples.jsonl"
    lines = [json.dumps({"id": str(at), "output": "x" * 1000 + "end" * (at % 2)}) for at in range(20)]
    path.write_text("\n".join([*lines, '{"batch": 0, "n": 20}']) + "\n")
    listed = SampleList(SampleIndex(path), Filter("end"))
    looks = 1
    while listed.look():
        looks += 1
    assert looks >= 7
    assert [listed.index.data(listed[place])["id"] for place in range(len(listed))] == [
        str(at) for at in range(1, 20, 2)
    ]


@given(
    scores=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60),
    at=st.integers(0, 60),
    gate=st.floats(0.01, 0.99),
)
def test_what_is_said_to_be_certain_holds_whatever_comes(scores: list[float], at: int, gate: float) -> None:
    read = scores[: min(at, len(scores))]
    said, mean = outlook(sum(read), len(read), len(scores), gate), sum(scores) / len(scores)
    if said == CANNOT_PASS:
        assert mean < gate
    elif said == CANNOT_FAIL:
        assert mean >= gate
    elif len(read) == len(scores):
        raise AssertionError("nothing is open once all items were read")


def test_nothing_is_certain_of_a_slice_of_unknown_size() -> None:
    assert outlook(3.0, 4, None, 0.5) == ""
    assert outlook(3.0, 4, 3, 0.5) == ""
    assert outlook(3.0, 4, 10, None) == ""


def test_a_run_that_cannot_pass_any_more_says_so_and_how_to_stop_it(home: Path) -> None:
    run = FakeRun(home, n=640).until("verdict", 1)
    write = run.journal.write
    slices = {"contract=license": [150, 20], "contract=supply": [150, 140], "contract=services": [100, 60]}
    write(
        "eval.batch", stage="adapter", suite=SUITE, done=400, total=640, correct=220, errors=0, slices=slices
    )
    folder = RunFolder(run.folder).catch_up()
    rows = {row.name: row.outlook for row in slice_rows(folder)}
    assert rows == {
        "all": CANNOT_PASS, "contract=license": CANNOT_PASS, "contract=supply": OPEN, "contract=services": OPEN,
    }  # fmt: skip
    text = "\n".join(plain(spans) for spans in slice_lines(folder, 100, 12))
    assert "✗ cannot pass" in text
    assert "x stops the run" in text
