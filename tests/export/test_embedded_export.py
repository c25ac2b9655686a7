"""The whole chain on the embedded model: real weights, real tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.export.fidelity import compare
from harness.export.gguf import convert
from harness.export.native import Native
from harness.export.quantize import quantize
from harness.models.chat import load_chat
from tests.export.tiny_models import item, thousand_strings

pytestmark = pytest.mark.slow

TEXTS = (
    "Name the type of this clause.\n\nEither party may terminate this Agreement upon thirty (30) days' notice.",
    "Name the type of this clause.\n\nLicensee's total liability shall not exceed $1,250,000.00  in any year.",
    "Summarize: The Agreement is governed by the laws of New York.\n\n1. Venue\n 2. Jury waiver\n\t(a) none",
    "Translate to English: « Le présent contrat est régi par le droit français. » 東京都",
    "Write a Python function:\n\ndef add(a, b):\n    return a + b\n",
    "List three colors and 12 345 numbers.",
)


@pytest.fixture(scope="module")
def base() -> Path:
    from harness.models.load import resolve_base

    return resolve_base("embedded:smollm2-135m")


@pytest.fixture(scope="module")
def f16(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(base, tmp_path_factory.mktemp("embedded") / "f16.gguf", metadata={}).path


def test_the_f16_file_computes_what_the_checkpoint_computes(base: Path, f16: Path) -> None:
    items = [item(str(index), text, "Termination") for index, text in enumerate(TEXTS)]

    found = compare(base, f16, items, threads=1)

    assert found.parity.holds
    assert found.divergence.mean_kl < 1e-4
    assert found.divergence.top1 > 0.99


def test_a_thousand_strings_give_the_same_ids(base: Path, f16: Path) -> None:
    chat, texts = load_chat(base), thousand_strings()

    with Native(threads=1) as native:
        native.call("open_words", path=str(f16))
        differ = [
            text for text in texts if native.call("encode", text=text).fields["ids"] != chat.encode(text)
        ]

    assert differ == []


def test_quants_fall_back_where_576_is_no_multiple_of_256(f16: Path, tmp_path: Path) -> None:
    report = quantize(f16, tmp_path / "q4.gguf", "q4_k_m")

    assert (report.fallback_count, report.tensor_count) == (180, 272)
    assert 100e6 < report.bytes < 110e6
