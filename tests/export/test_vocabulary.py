from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.export.gguf import convert
from harness.export.native import Native
from harness.models.chat import Chat, load_chat
from tests.export.tiny_models import CORPUS, begin_with_bos, save_checkpoint, thousand_strings

KINDS = ("gpt-2", "smollm", "llama-bpe", "qwen2")
HARD = (
    "", " ", "  ", "\n\n1.", "a  1", "12 345.67", "\t\tx", "don't WE'LL", "é à 東京都", "🙂🙂", "\u200b", "x" * 300,
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_end", "a<custom>b", "<|endoftext|>", "١٢٣", "½ⅷ", "\r\n \r\n",
    *CORPUS[:4],
)  # fmt: skip
Encoders = tuple[Chat, Callable[[str], list[int]]]


@pytest.fixture(scope="module", params=[*KINDS, "sentencepiece", "gemma"])
def encoders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoders]:
    """A tokenizer as Transformers runs it and as llama.cpp runs it from the GGUF."""
    checkpoint = save_checkpoint(tmp_path_factory.mktemp("words") / "model", tokenizer=request.param)
    path = convert(checkpoint, checkpoint.parent / "model.gguf", metadata={}).path
    with Native(threads=1) as native:
        native.call("open_words", path=str(path))

        def encode(text: str) -> list[int]:
            ids: list[int] = native.call("encode", text=text).fields["ids"]
            return ids

        yield load_chat(checkpoint), encode


@pytest.mark.parametrize("text", HARD)
def test_llama_cpp_reads_hard_text_as_transformers_does(text: str, encoders: Encoders) -> None:
    chat, encode = encoders

    assert encode(text) == chat.encode(text)


def test_a_thousand_strings_are_read_as_transformers_reads_them(encoders: Encoders) -> None:
    chat, encode = encoders

    assert [text for text in thousand_strings() if encode(text) != chat.encode(text)] == []


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn", "Co", "Cc"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_llama_cpp_reads_any_text_as_transformers_does(encoders: Encoders, text: str) -> None:
    chat, encode = encoders

    assert encode(text) == chat.encode(text)


def test_the_end_of_turn_is_the_end_of_sequence(llama: Path, llama_gguf: Path, native: Native) -> None:
    opened = native.call("open_words", path=str(llama_gguf)).fields

    assert load_chat(llama).tokenizer.eos_token == "<|endoftext|>"
    assert opened["end_id"] == load_chat(llama).tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert opened["template"] == load_chat(llama).template


@pytest.mark.parametrize("framed", [True, False])
def test_the_first_token_is_added_only_where_transformers_adds_it(framed: bool, tmp_path: Path) -> None:
    import gguf

    checkpoint = save_checkpoint(tmp_path / "model")
    if framed:
        begin_with_bos(checkpoint)

    path = convert(checkpoint, tmp_path / "model.gguf", metadata={}).path

    fields = gguf.GGUFReader(path).fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is framed
    assert fields["tokenizer.ggml.add_eos_token"].contents() is False


def test_an_unknown_pre_tokenizer_is_refused_until_it_is_named(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model")
    _rewrite(checkpoint, '"individual_digits": true', '"individual_digits": false')

    with pytest.raises(ModelError, match="pre-tokenizer is not known") as caught:
        convert(checkpoint, tmp_path / "model.gguf", metadata={})
    assert "smollm" in caught.value.hint
    assert convert(checkpoint, tmp_path / "model.gguf", metadata={}, pre="smollm").pre == "smollm"


def test_a_normalizer_that_llama_cpp_lacks_is_refused(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model")
    _rewrite(checkpoint, '"normalizer": null', '"normalizer": {"type": "Lowercase"}')

    with pytest.raises(ModelError, match="Lowercase"):
        convert(checkpoint, tmp_path / "model.gguf", metadata={})


def test_embedding_rows_without_a_token_are_filled(tmp_path: Path, native: Native) -> None:
    size = 640
    checkpoint = save_checkpoint(tmp_path / "model", vocab_size=size)

    path = convert(checkpoint, tmp_path / "model.gguf", metadata={}).path

    native.call("open_gguf", path=str(path), threads=1, context_tok=8, is_repacked=True)
    assert native.call("logits", ids=[1, 2], first=0).fields["shape"] == [2, size]


def _rewrite(checkpoint: Path, found: str, wanted: str) -> None:
    path = checkpoint / "tokenizer.json"
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, wanted))
