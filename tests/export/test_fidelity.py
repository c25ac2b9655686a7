from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ModelError
from harness.export import architectures
from harness.export.divergence import Reference, _positions, _spans, divergence
from harness.export.fidelity import compare, compare_with
from harness.export.forward import Source, measure_speed
from harness.export.gguf import convert
from harness.export.parity import Parity, compare_ids, read_conversations
from harness.export.quantize import quantize
from harness.models.base import Prompt
from harness.models.chat import load_chat
from tests.export.tiny_models import (
    Item,
    begin_with_bos,
    item,
    mean_kl,
    save_adapter,
    save_checkpoint,
    torch_logits,
)

pytestmark = pytest.mark.usefixtures("warm")
ITEMS = [
    item("one", "The licensee shall pay 30 dollars.\n\n1. now"),
    item("two", "The licensor may not terminate  2 things", "no"),
    item("three", "naïve café 東京都 🙂", "maybe so"),
]


def test_a_converted_checkpoint_keeps_ids_and_distributions(llama: Path, llama_gguf: Path) -> None:
    found = compare(llama, llama_gguf, ITEMS, threads=1)

    assert found.parity.holds
    assert found.divergence.mean_kl < 1e-4
    assert found.divergence.max_kl < 1e-2
    assert found.divergence.top1 > 0.95
    assert found.divergence.n_texts == 3
    document = found.to_json()
    assert document["token_parity"] is True
    assert document["parity"]["differ"] == ()
    assert document["n_tok"] == found.divergence.n_tok > 60


def test_a_wrong_permutation_is_caught(
    llama: Path, llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "permute_rows", lambda weight, heads: weight)
    wrong = convert(llama, tmp_path / "wrong.gguf", metadata={}).path

    assert compare(llama_gguf, wrong, ITEMS, threads=1).divergence.mean_kl > 0.1


def test_a_file_is_at_no_distance_from_itself(llama_gguf: Path) -> None:
    found = compare(llama_gguf, llama_gguf, ITEMS, threads=1)

    assert found.divergence.mean_kl == found.divergence.max_kl == 0.0
    assert found.divergence.top1 == 1.0
    assert found.parity.holds


def test_the_divergence_equals_one_computed_by_torch(llama: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", initializer_range=0.26)
    ids = list(range(3, 33))

    found = divergence(Source(llama), Source(other), [ids], threads=1)

    wanted = mean_kl(torch_logits(llama, ids), torch_logits(other, ids))
    assert found.mean_kl == pytest.approx(wanted, rel=1e-4)
    assert found.n_tok == 30
    assert found.parent_peak_mb > 0


def test_an_adapter_on_its_base_is_a_stage(llama: Path, tmp_path: Path) -> None:
    from harness.export.merge import merge

    adapter = save_adapter(llama, tmp_path / "adapter")
    merged = merge(llama, adapter, tmp_path / "merged", onto="nf4").path

    near = divergence(Source(llama, adapter, nf4=True), Source(merged), [list(range(40))], threads=1)

    assert (
        near.mean_kl
        < 1e-5
        < mean_kl(torch_logits(llama, list(range(40)), adapter), torch_logits(merged, list(range(40))))
    )


def test_a_quant_is_further_than_its_parent_and_has_its_ids(llama_gguf: Path, tmp_path: Path) -> None:
    small = quantize(llama_gguf, tmp_path / "q4.gguf", "q4_0", threads=1).path

    found = compare(llama_gguf, small, ITEMS, threads=1)

    assert found.parity.holds
    assert found.divergence.mean_kl > 1e-3


def test_another_template_breaks_parity_on_the_items_that_it_changes(llama: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited"
    shutil.copytree(llama, edited)
    template = edited / "chat_template.jinja"
    template.write_text(
        template.read_text().replace("{{ message['content'] }}", "{{ message['content']|trim }}")
    )
    child = convert(edited, tmp_path / "edited.gguf", metadata={}).path
    items = [item("plain", "no space around"), item("spaced", "a space behind ")]

    found = _parity(llama, child, items)

    assert found.differ == ("spaced",)
    assert not found.is_template_same
    assert not found.holds


@pytest.mark.parametrize("framed", [True, False])
def test_raw_text_begins_alike_on_both_sides(framed: bool, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model")
    if framed:
        begin_with_bos(checkpoint)
    (checkpoint / "chat_template.jinja").unlink()  # a base model, made for raw text
    child = convert(checkpoint, tmp_path / "model.gguf", metadata={}).path
    items = [
        Item("raw", Prompt((), text="The licensee shall pay 30 dollars"), " now"),
        Item("empty", Prompt((), text=""), "yes"),
        Item("cut", Prompt((), 9, "truncate_left", "one two three four five six seven"), " eight"),
    ]

    found = compare(checkpoint, child, items, threads=1)

    assert found.parity.holds
    assert found.divergence.mean_kl < 1e-4
    bos = load_chat(checkpoint, needs_template=False).tokenizer.bos_token_id
    first = [ids[0] for ids in read_conversations(Source(child), items).ids if ids]
    assert (set(first) == {bos}) is framed


def test_a_conversation_without_a_template_is_an_error(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model")
    (checkpoint / "chat_template.jinja").unlink()
    child = convert(checkpoint, tmp_path / "model.gguf", metadata={}).path

    with pytest.raises(ModelError, match="template"):
        read_conversations(Source(checkpoint), ITEMS)
    with pytest.raises(ModelError, match="template"):
        read_conversations(Source(child), ITEMS)


def test_a_reference_on_disk_says_what_running_both_says(llama_gguf: Path, tmp_path: Path) -> None:
    small = quantize(llama_gguf, tmp_path / "q4.gguf", "q4_0", threads=1).path
    at_once = compare(llama_gguf, small, ITEMS, threads=1, max_tok=70)

    with Reference(Source(llama_gguf), ITEMS, tmp_path / "x.logits", threads=1, max_tok=70) as reference:
        kept = compare_with(reference, small, ITEMS, threads=1)
        itself = compare_with(reference, llama_gguf, ITEMS, threads=1)

    assert replace(kept.divergence, parent_peak_mb=0, child_peak_mb=0) == replace(
        at_once.divergence, parent_peak_mb=0, child_peak_mb=0
    )
    assert kept.parity == at_once.parity
    assert itself.divergence.max_kl == 0.0
    assert not (tmp_path / "x.logits").exists()


def test_a_reference_refuses_a_child_with_another_vocabulary(llama_gguf: Path, tmp_path: Path) -> None:
    other = convert(
        save_checkpoint(tmp_path / "other", vocab_size=700), tmp_path / "other.gguf", metadata={}
    ).path

    with (
        Reference(Source(llama_gguf), ITEMS, tmp_path / "x.logits", threads=1) as reference,
        pytest.raises(ModelError, match="vocabulary"),
    ):
        reference.divergence(Source(other), threads=1)


def test_a_cache_of_fewer_bits_moves_the_distributions_a_little(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", head_dim=32)  # rows that fill a block of q8_0
    path = convert(checkpoint, tmp_path / "model.gguf", metadata={}).path

    with Reference(Source(path), ITEMS, tmp_path / "x.logits", threads=1) as reference:
        kl = {
            cache: compare_with(reference, path, ITEMS, threads=1, cache=cache).divergence.mean_kl
            for cache in ("f16", "q8_0")
        }

    assert kl["f16"] == 0.0
    assert 0.0 < kl["q8_0"] < 0.1


def test_speed_is_a_positive_number_of_tokens(llama_gguf: Path) -> None:
    found = measure_speed(llama_gguf, threads=1, prompt_tok=16, decode_tok=2)

    assert found.prompt_tok_s > 0
    assert found.decode_ms > 0


def test_another_end_of_turn_breaks_parity(llama: Path, llama_gguf: Path, tmp_path: Path) -> None:
    import gguf

    child = tmp_path / "child.gguf"
    shutil.copyfile(llama_gguf, child)
    reader = gguf.GGUFReader(child, "r+")
    reader.fields["tokenizer.ggml.eos_token_id"].parts[-1][0] -= 1
    reader.data.flush()

    found = _parity(llama, child, ITEMS[:1])

    assert not found.is_end_same
    assert not found.holds


def test_prompts_over_their_budget_are_left_out_on_both_sides(llama: Path, llama_gguf: Path) -> None:
    items = [item("long", "word " * 100, max_tokens=30), ITEMS[0]]

    assert read_conversations(Source(llama), items) == read_conversations(Source(llama_gguf), items)
    found = compare(llama_gguf, llama_gguf, items, threads=1)

    assert found.divergence.n_texts == 1
    assert found.parity.holds


@pytest.mark.parametrize("items", [[], [item("long", "word " * 100, max_tokens=20)]])
def test_nothing_to_compare_on_is_an_error_not_a_zero(items: list, llama_gguf: Path) -> None:
    with pytest.raises(ModelError, match="no text to compare on"):
        compare(llama_gguf, llama_gguf, items, threads=1)


def test_stages_with_different_vocabularies_are_refused(llama_gguf: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", vocab_size=700)
    child = convert(other, tmp_path / "other.gguf", metadata={}).path

    with pytest.raises(ModelError, match="vocabulary"):
        divergence(Source(llama_gguf), Source(child), [[1, 2, 3]], threads=1)


def test_a_file_that_llama_cpp_refuses_is_named(llama_gguf: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(llama_gguf.read_bytes()[:5000])

    with pytest.raises(ModelError, match=r"broken\.gguf"):
        divergence(Source(llama_gguf), Source(broken), [[1, 2, 3]], threads=1)


def test_a_shared_beginning_counts_once_and_the_budget_holds() -> None:
    texts = [[1, 2, 3, 4], [1, 2, 3, 9, 9], [1, 2, 3, 9, 9], [7]]

    assert _spans(texts, 100) == [([1, 2, 3, 4], 0), ([1, 2, 3, 9, 9], 3), ([1, 2, 3, 9, 9], 4), ([7], 0)]
    assert _spans(texts, 5) == [([1, 2, 3, 4], 0), ([1, 2, 3, 9], 3)]
    assert _spans(texts, 4) == [([1, 2, 3, 4], 0)]


def test_a_kept_beginning_does_not_change_what_llama_cpp_computes(llama: Path, llama_gguf: Path) -> None:
    texts = [list(range(30)), [*range(20), 90, 91, 92], [*range(20), 90, 91, 92, 93]]

    found = divergence(Source(llama), Source(llama_gguf), texts, threads=1)

    assert found.n_tok == 30 + 3 + 1
    assert found.max_kl < 1e-2


def test_huge_logits_do_not_overflow() -> None:
    parent = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    child = np.array([[-1e4, 1e4, 0.0]], dtype=np.float32)

    found = _positions(parent, child)

    assert found.kl[0] == pytest.approx(2e4)
    assert not found.is_top_same[0]


def _parity(parent: Path, child: Path, items: list[Item]) -> Parity:
    before, now = (read_conversations(Source(path), items) for path in (parent, child))
    return compare_ids(before, now, items)
