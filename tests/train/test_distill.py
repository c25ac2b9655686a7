from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from harness.errors import CancelledError, DataError, ModelError
from harness.specs.tune import Distillation, Tune
from harness.train import distill
from harness.train.distill import Distilled, forward_kl, teach
from harness.train.plan import TrainPlan, plan_digest
from harness.train.sft import train
from tests.train.conftest import build_base, build_example
from tests.train.trained import encoded, fresh, tuned


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("teacher"), seed=7)


def asked(rows: Any, folder: Path, teacher: Path, base: Path, **options: Any) -> Any:
    how = {"top_k": 5, **{key: options.pop(key) for key in ("top_k", "temperature") if key in options}}
    wanted = Distillation(teacher=str(teacher), **how)
    return teach(rows, folder, teacher=teacher, student=base, settings=wanted, pad_id=2, **options)


def distributions(seed: int, places: int = 4, size: int = 9) -> tuple[Any, Any]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(2 * torch.randn(places, size, generator=draw, dtype=torch.float64) for _ in range(2))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_with_the_whole_vocabulary_it_is_the_kl_divergence(seed: int) -> None:
    logits, of_teacher = distributions(seed)
    log_probs, tokens = of_teacher.log_softmax(-1).topk(9)

    found = forward_kl(logits, tokens, log_probs)

    wanted = torch.nn.functional.kl_div(
        logits.log_softmax(-1), of_teacher.log_softmax(-1), log_target=True, reduction="none"
    )
    torch.testing.assert_close(found, wanted.sum(-1), rtol=1e-9, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 8))
def test_the_tail_counts_as_one_token(seed: int, k: int) -> None:
    logits, of_teacher = distributions(seed)
    p, q = of_teacher.softmax(-1), logits.softmax(-1)
    order = p.argsort(-1, descending=True)
    tokens = order[:, :k]

    found = forward_kl(logits, tokens, p.gather(-1, tokens).log())

    for at in range(len(p)):
        kept, left = order[at, :k], order[at, k:]
        wanted = sum(float(p[at, t] * (p[at, t] / q[at, t]).log()) for t in kept)
        wanted += float(p[at, left].sum() * (p[at, left].sum() / q[at, left].sum()).log())
        assert float(found[at]) == pytest.approx(wanted, rel=1e-6, abs=1e-6)
        assert 0 <= wanted <= float((p[at] * (p[at] / q[at]).log()).sum()) + 1e-9


def test_without_the_tail_a_student_could_hide_its_mass() -> None:
    log_probs = torch.tensor([[0.5, 0.3]]).log()  # a fifth of the mass is elsewhere
    honest, greedy = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.62, 0.379, 0.001]]).log()
    tokens = torch.tensor([[0, 1]])

    assert float(forward_kl(honest, tokens, log_probs)) == pytest.approx(0, abs=1e-6)
    assert float(forward_kl(greedy, tokens, log_probs)) > 0.5


def test_the_teacher_is_written_down_as_transformers_computes_it(
    base: Path, teacher: Path, chat: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr("harness.train.methods.compute_dtype", lambda device: torch.float32)
    rows = encoded(chat, 3)

    lessons = asked(rows, tmp_path, teacher, base, temperature=2.0)

    plain = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
    for row in rows:
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([row.ids])).logits[0, row.supervised_from - 1 : -1]
        values, tokens = (logits / 2.0).log_softmax(-1).topk(5)
        torch.testing.assert_close(lessons.by_id[row.id].log_probs, values, rtol=1e-4, atol=1e-5)
        assert torch.equal(lessons.by_id[row.id].tokens, tokens)
    with safe_open(tmp_path / "part-00000.safetensors", "pt") as file:
        assert set(file.metadata()) == {"teacher", "token_ids", "top_k", "temperature"}


def test_a_stopped_teacher_goes_on_where_it_was_and_asks_nothing_twice(
    base: Path, teacher: Path, chat: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "PART_ROWS", 2)
    rows, calls, honest = encoded(chat, 6), [], distill._ask

    def counted(model: Any, part: Any, *rest: Any) -> Any:
        calls.append([row.id for row in part])
        return honest(model, part, *rest)

    monkeypatch.setattr(distill, "_ask", counted)
    with pytest.raises(CancelledError, match="after 2 of 3 parts"):
        asked(rows, tmp_path, teacher, base, should_stop=lambda: len(calls) == 2)
    (tmp_path / "part-00000.safetensors").write_bytes(b"half a file")

    lessons = asked(rows, tmp_path, teacher, base)

    assert calls == [["r000", "r001"], ["r002", "r003"], ["r000", "r001"], ["r004", "r005"]]
    assert len(lessons.by_id) == 6
    asked(rows, tmp_path, teacher, base, top_k=4)
    assert len(calls) == 7


def test_what_another_teacher_said_is_not_used(base: Path, teacher: Path, chat: Any, tmp_path: Path) -> None:
    rows = encoded(chat, 2)

    one = asked(rows, tmp_path, teacher, base).by_id["r000"]
    other = asked(rows, tmp_path, base, base).by_id["r000"]

    assert not torch.equal(one.log_probs, other.log_probs)


def test_records_that_share_an_id_are_refused(base: Path, teacher: Path, chat: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two records have one id"):
        asked(encoded(chat, 1) * 2, tmp_path, teacher, base)


def test_a_teacher_of_another_vocabulary_is_refused(
    base: Path, teacher: Path, chat: Any, tmp_path: Path
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    document = (other / "tokenizer.json").read_text()
    assert '"!": 3' in document
    (other / "tokenizer.json").write_text(
        document.replace('"!": 3', '"!": 4').replace('"\\"": 4', '"\\"": 3')
    )

    with pytest.raises(ModelError, match="2 tokens have other ids"):
        asked(encoded(chat, 1), tmp_path / "out", other, base)


def test_a_student_comes_closer_to_its_teacher_in_the_same_loop(
    base: Path, teacher: Path, chat: Any, tmp_path: Path
) -> None:
    examples = [build_example(at) for at in range(8)]
    tune = Tune(
        method="lora", rank=8, objective="distill", distill=Distillation(teacher=str(teacher), top_k=8),
        batch=4, epochs=3, learning_rate=1e-2, max_tokens=300,
    )  # fmt: skip
    held_out = [replace(example, id=f"held-{example.id}") for example in examples[:4]]
    plan = TrainPlan(base, examples, held_out, tune)
    before = Distilled(asked(encoded(chat), tmp_path / "asked", teacher, base, top_k=8), tune.distill)
    model, rows = fresh(base, tuned(method="lora")), encoded(chat)
    with torch.no_grad():
        start = float(before.summed_loss(model, rows[:4], pad_id=2)) / before.count(rows[:4])

    result = train(plan, tmp_path / "run", on_event=lambda *_: None, should_stop=lambda: False)

    assert result.held_out_loss is not None
    assert result.held_out_loss < start / 2
    assert len(list((tmp_path / "run" / "teacher").iterdir())) == 1


def test_another_teacher_makes_another_run(base: Path, teacher: Path) -> None:
    plans = [
        TrainPlan(base, [], [], Tune(objective="distill", distill=Distillation(teacher=str(folder))))
        for folder in (base, teacher)
    ]

    assert len({plan_digest(plan, "a") for plan in plans}) == 2
