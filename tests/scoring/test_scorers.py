import math
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from harness.errors import StatsError
from harness.scoring.item import Item, Score
from harness.scoring.judge import FACTORIES, Rubric
from harness.scoring.labels import choose, label
from harness.scoring.scorers import CANARIES, SCORERS, checked_score, default_scorer, prove_scorer
from harness.scoring.text import exact, normalise, normalised
from harness.specs.suite import Task
from tests.scoring.golds import golds_for


def test_the_most_probable_label_is_chosen_with_its_probability() -> None:
    choice = choose(["a", "b", "c"], [math.log(0.2), math.log(0.6), math.log(0.2)])

    assert choice is not None
    assert (choice.label, choice.confidence) == ("b", pytest.approx(0.6))
    assert sum(choice.probs.values()) == pytest.approx(1.0)


def test_tiny_log_probabilities_do_not_underflow() -> None:
    choice = choose(["a", "b"], [-2000.0, -2001.0])

    assert choice is not None
    assert choice.confidence == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize("logprobs", [[math.nan, -1.0], [-math.inf, -math.inf], [-1.0]])
def test_unusable_log_probabilities_are_no_answer(logprobs: list[float]) -> None:
    assert choose(["a", "b"], logprobs) is None


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_missing_answer_is_wrong(name: str) -> None:
    assert [checked_score(name, item).value for item in golds_for(name)] == [0.0] * len(golds_for(name))


def test_normalisation_drops_case_articles_and_punctuation() -> None:
    assert normalise("  The State of New-York. ") == "state of newyork"
    assert normalised(Item("the State of Delaware", ("State of Delaware.",))).value == 1.0
    assert normalised(Item("the", ("a",))).value == 0.0
    assert normalised(Item("U.S.A.", ("USA",))).value == 1.0
    assert exact(Item(" x ", ("x",))).value == 1.0
    assert label(Item("x ", ("x",))).value == 0.0


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("1.5", "15", 0.0), ("-5", "5", 0.0), ("−5", "-5", 1.0), ("$-1.50", "-1.50", 1.0), ("1,200", "1200", 1.0),
        ("A-12", "A12", 1.0), ("pages 10-12", "pages 1012", 1.0), ("1.5.", "1.5", 1.0), ("-.5", "5", 0.0),
    ],
)  # fmt: skip
def test_normalisation_keeps_what_a_number_is(answer: str, gold: str, value: float) -> None:
    assert normalised(Item(answer, (gold,))).value == value


def test_scoring_loads_no_library_before_it_is_needed() -> None:
    heavy = ("torch", "scipy", "numpy", "nltk", "rouge_score", "sacrebleu", "stdnum", "re2", "lxml")
    code = (
        "import sys, harness.scoring.scorers, harness.scoring.judge\n"
        f"sys.exit(', '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_each_scorer_tells_its_canaries_apart(name: str) -> None:
    prove_scorer(name, golds_for(name))


@pytest.mark.parametrize("task", get_args(Task))
def test_every_task_has_a_scorer_of_its_own(task: str) -> None:
    assert default_scorer(task) in SCORERS


@pytest.mark.parametrize("constant", [0.0, 1.0, math.nan])
@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_scorer_that_always_says_the_same_is_stopped(name: str, constant: float) -> None:
    with pytest.raises(StatsError, match=r"can't tell right from wrong|wanted a number"):
        prove_scorer(name, golds_for(name), scorer=lambda _item: Score(constant))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_a_score_that_is_no_score_is_refused(value: float) -> None:
    with pytest.raises(StatsError, match="wanted a number"):
        checked_score("odd", Item("a", ("a",)), scorer=lambda _item: Score(value))


@pytest.mark.parametrize("cells", [(-1, 0, 0), (0.5, 0, 0)])
def test_counts_that_count_nothing_are_refused(cells: tuple[int, int, int]) -> None:
    with pytest.raises(StatsError, match="wanted whole numbers"):
        checked_score("odd", Item("a", ("a",)), scorer=lambda _item: Score(1.0, {"x": cells}))


def test_an_unknown_scorer_is_named_with_those_there_are() -> None:
    with pytest.raises(StatsError, match="no scorer is named 'labels'") as caught:
        checked_score("labels", Item("a", ("a",)))

    assert "label_set" in caught.value.hint


def test_every_canary_belongs_to_a_scorer() -> None:
    assert set(CANARIES) <= set(SCORERS)


def test_a_suite_that_gives_no_canaries_stops_the_run() -> None:
    with pytest.raises(StatsError, match="can't be proven") as caught:
        prove_scorer("citations", [Item(None, ("x",), context="no passages here")])

    assert "chunks_field" in caught.value.hint


def test_errors_show_the_beginning_of_a_hostile_answer_and_none_of_its_controls() -> None:
    with pytest.raises(StatsError) as caught:
        checked_score("odd", Item("\x1b]0;x\u202e" + "a" * 100_000, ("a",)), scorer=lambda _item: Score(2.0))

    assert len(caught.value.message) < 400
    assert "\x1b" not in caught.value.message
    assert "\u202e" not in caught.value.message


def test_every_scorer_and_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text("utf-8")
    rooms = [
        path.read_text("utf-8") for path in (Path(__file__).parents[2] / "harness" / "scoring").glob("*.py")
    ]
    read = {key for text in rooms for key in re.findall(r"settings\.get\(\"(\w+)\"", text)}
    wanted = {*SCORERS, *FACTORIES, *Rubric.__dataclass_fields__, *read}

    assert len(read) > 15
    assert [name for name in sorted(wanted) if f"`{name}`" not in page] == []
