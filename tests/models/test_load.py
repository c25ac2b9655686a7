"""References and options → models, with kept answers or without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ModelError
from harness.models.base import ChoiceRequest, Message, Prompt
from harness.models.cache import CachedModel
from harness.models.load import open_model
from tests.models.conftest import write_tiny_checkpoint
from tests.models.openai_fake import Fake, served

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server() -> Iterator[Fake]:
    with served(Fake()) as found:
        yield found


def test_answers_are_kept_for_models_that_are_known_by_content(tiny: Path, tmp_path: Path) -> None:
    model = open_model(str(tiny), answers=tmp_path, threads=1)

    assert isinstance(model, CachedModel)
    model.close()
    plain = open_model(str(tiny), threads=1)
    assert not isinstance(plain, CachedModel)
    plain.close()


def test_a_servers_word_and_a_script_are_not_kept_and_a_pin_is(server: Fake, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"id": "*", "text": "a"}\n')
    kinds = {}
    for name, reference in {
        "script": f"scripted:{script}",
        "plain": f"openai:{server.url}#tiny",
        "pinned": f"openai:{server.url}?pin=v1#tiny",
    }.items():
        model = open_model(reference, answers=tmp_path / "answers")
        kinds[name] = isinstance(model, CachedModel)
        model.close()

    assert kinds == {"script": False, "plain": False, "pinned": True}


def test_one_changed_byte_of_the_weights_reuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real checkpoint: the last weight is another one, and every answer is computed anew."""
    folder = write_tiny_checkpoint(tmp_path / "model")
    requests = [
        ChoiceRequest(str(at), Prompt((Message("user", f"q {at}"),)), ("yes", "no")) for at in range(5)
    ]

    def ask() -> tuple[int, list[Any]]:
        model = open_model(str(folder), answers=tmp_path / "answers", threads=1)
        assert isinstance(model, CachedModel)
        asked = 0
        inner = model.inner.score_choices

        def counted(some: Any) -> Any:
            nonlocal asked
            asked += len(some)
            return inner(some)

        monkeypatch.setattr(model.inner, "score_choices", counted)
        found = [answer.choice_logprobs for answer in model.score_choices(requests)]
        model.close()
        return asked, found

    first, second = ask(), ask()
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    third = ask()

    assert [first[0], second[0], third[0]] == [5, 0, 5]
    assert first[1] == second[1] != third[1]


SUITE = """
suite: colours
domain: shared
task: classify
labels: [red, blue]
records: {eval: eval.jsonl}
prompt: {user: '{{ input }}'}
repeat: 0
"""


def write_suite(folder: Path) -> None:
    (folder / "suite.yaml").write_text(SUITE)
    rows = [
        {"id": f"r{at}", "input": f"{at} red or blue? red", "target": "red", "unit": f"r{at}"}
        for at in range(6)
    ]
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def harness(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HARNESS_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **changes}
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True, text=True, env=environment, cwd=folder, check=False,
    )  # fmt: skip


def test_a_suite_runs_against_a_server_and_its_key_is_in_no_file(server: Fake, tmp_path: Path) -> None:
    write_suite(tmp_path)
    server.key = KEY
    server.faults = [None] * 60 + [
        lambda handler: handler.send(400, f'{{"error": "bad key {KEY}"}}'.encode())
    ]

    done = harness(
        tmp_path, "eval", "suite.yaml", "--model", f"openai:{server.url}#tiny", "--json", HARNESS_API_KEY=KEY
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scorecard"]["n"] == 6
    written = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert KEY not in done.stdout + done.stderr
    assert not [data for data in written if KEY.encode() in data]
    assert [data for data in written if b"bad key [key]" in data], "the complaint is there, without the key"


def test_a_key_in_the_reference_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_suite(tmp_path)

    done = harness(tmp_path, "eval", "suite.yaml", "--model", f"openai:https://user:{KEY}@host/v1#m")

    assert done.returncode == 2
    assert KEY not in done.stdout + done.stderr
    assert not list((tmp_path / "home").rglob("*"))


def test_a_second_run_asks_a_pinned_server_nothing_unless_it_is_told_to(server: Fake, tmp_path: Path) -> None:
    write_suite(tmp_path)
    model = f"openai:{server.url}?pin=v1#tiny"
    asked = []
    for more in ([], ["--fresh"], ["--no-cache"]):
        before = len(server.bodies("/v1/completions"))
        done = harness(tmp_path, "eval", "suite.yaml", "--model", model, "--json", *more)
        assert done.returncode == 0, done.stderr
        asked.append(len(server.bodies("/v1/completions")) - before)

    assert asked[1] == 0
    assert asked[2] == asked[0] > 0


def test_an_unknown_model_is_said_before_the_first_item(server: Fake, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'other'"):
        open_model(f"openai:{server.url}#other", answers=tmp_path)
