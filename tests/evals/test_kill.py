"""A run that is killed with SIGKILL and begun again ends with the scorecard of one that was left alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

CHILD = """
import os, signal, sys
from pathlib import Path

from harness.evals.run import evaluate
from harness.evals.scorecard import make_scorecard, read_noise
from harness.files import write_json
from harness.models.base import Answer, ChoiceRequest
from harness.scoring import scorers
from tests.evals.fakes import Told, make_work, suite

folder, place, moment = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
passed = {"asked": 0, "scored": 0}

def pass_by(here):
    passed[here] += 1
    if here == place and passed[here] == moment:
        os.kill(os.getpid(), signal.SIGKILL)

def reply(request):
    with (folder / "asked.txt").open("a") as file:
        file.write(f"{type(request).__name__} {getattr(request, 'seed', 0)} {request.id}\\n")
    pass_by("asked")
    if isinstance(request, ChoiceRequest):
        return Answer(request.id, choice_logprobs=(-0.1 * (1 + len(request.id)), -1.5))
    number = int(request.id[1:])
    text = "right" if number % 3 else f"wrong {request.seed % 2}"
    return Answer(request.id, text=text, token_logprobs=(-0.01 * number, -0.2), output_tok=2)

def scored(item, own=scorers.SCORERS["normalised"]):
    if item.answer and item.answer.startswith(("right", "wrong")):
        pass_by("scored")
    return own(item)

scorers.SCORERS = {**scorers.SCORERS, "normalised": scored}
asked = suite(
    "answer", repeat=5, slices=["kind"],
    confidence={"kinds": ["p_true", "self_consistency", "semantic_entropy"], "samples": 3},
)
rows = [{"target": "right", "slices": {"kind": "ab"[n % 2]}} for n in range(40)]
model = Told(reply, size=4)
out = folder / "suite"
work = make_work(folder, asked, *rows)
samples = evaluate(
    model, work, out / "samples.jsonl", on_event=lambda *a, **k: None, should_stop=lambda: False
)
card = make_scorecard("tiny", "base", "m", samples, slices=["kind"], is_labelled=False, noise=read_noise(out))
write_json(out / "scorecard.json", card.to_json())
"""


def begin(folder: Path, place: str = "nowhere", moment: int = 0) -> int:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", CHILD, str(folder), place, str(moment)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert begin(folder) == 0
    return folder


@pytest.mark.parametrize(
    ("place", "moment"),
    [
        ("asked", 1), ("asked", 18), ("asked", 40), ("asked", 55), ("asked", 130), ("asked", 203),
        ("scored", 41), ("scored", 60), ("scored", 80),
    ],
)  # fmt: skip
def test_a_killed_run_ends_as_one_that_was_left_alone(
    tmp_path: Path, undisturbed: Path, place: str, moment: int
) -> None:
    assert begin(tmp_path, place, moment) == -signal.SIGKILL
    in_time = kept(tmp_path)
    before = asked(tmp_path)

    assert begin(tmp_path) == 0

    for name in ("scorecard.json", "noise.json", "samples.jsonl"):
        assert (tmp_path / "suite" / name).read_bytes() == (undisturbed / "suite" / name).read_bytes()
    again = asked(tmp_path) - before
    assert sum(again.values()) + in_time == sum(asked(undisturbed).values())


def test_a_run_that_is_killed_each_time_still_gets_there(tmp_path: Path, undisturbed: Path) -> None:
    kills = 0
    while begin(tmp_path, "asked", 30) == -signal.SIGKILL:
        kills += 1

    assert kills >= 6, "205 answers, at most 30 asked for at a time"
    scorecard = "suite/scorecard.json"
    assert (tmp_path / scorecard).read_bytes() == (undisturbed / scorecard).read_bytes()


def kept(folder: Path) -> int:
    """Answers that were whole on disk when the run was killed."""
    count = 0
    for path in (folder / "suite" / "answers").glob("*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            count += json.loads(line).get("n", 0) if line.endswith(b"\n") else 0
    return count


def asked(folder: Path) -> Counter[str]:
    return Counter((folder / "asked.txt").read_text().splitlines())
