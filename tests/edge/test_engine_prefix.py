"""What is computed once: shared beginnings in memory and on disk, and adapters beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.edge.base import Ask
from harness.edge.engine import EdgeEngine
from harness.edge.prefix import KEPT, Kept, Shelf, common_tok
from harness.edge.stored import SUFFIX, Key, StoredPrefixes
from harness.errors import IntegrityError, ModelError
from harness.files import sha256_file
from harness.models.base import Message
from tests.edge.conftest import Heard, ask

LABELS = ("the", "then", "other")
KEY = Key("m" * 64, "", "f16", "llama", (1, 2, 3))


def long_ask(text: str, **options: Any) -> Ask:
    """A request whose first 250 tokens every other one shares."""
    return ask(text, messages=(Message("system", "s" * 240), Message("user", text)), **options)


def test_a_beginning_is_computed_once(gguf: Path, sha256: str) -> None:
    engine = EdgeEngine(gguf, sha256, threads=1, slots=2)
    first = Heard(engine, long_ask("one", labels=LABELS)).done()
    second = Heard(engine, long_ask("other", labels=LABELS)).done()
    again = Heard(engine, long_ask("one", labels=LABELS)).done()
    engine.close()

    assert first.cached_tok == 0
    assert second.cached_tok > 240
    assert again.cached_tok == again.prompt_tok - 1
    assert again.label_logprobs == pytest.approx(first.label_logprobs, abs=0.1)


def test_a_conversation_that_goes_on_is_not_read_again(gguf: Path, sha256: str) -> None:
    engine = EdgeEngine(gguf, sha256, threads=1, slots=2)
    turns = (Message("user", "x" * 100),)
    first = Heard(engine, ask("", messages=turns, grammar='root ::= "and so on"')).done()
    more = (*turns, Message("assistant", first.text), Message("user", "more"))

    second = Heard(engine, ask("", messages=more)).done()

    engine.close()
    assert second.cached_tok >= first.prompt_tok + len("and so on") // 2


def test_requests_that_come_together_wait_for_what_they_share(gguf: Path, sha256: str) -> None:
    engine = EdgeEngine(gguf, sha256, threads=1, slots=4)
    heard = [Heard(engine, long_ask(f"q{at}")) for at in range(4)]

    cached = sorted(one.done().cached_tok for one in heard)

    engine.close()
    assert cached[0] == 0
    assert cached[1] > 240


def test_a_small_cache_lets_go_of_what_was_used_longest_ago(gguf: Path, sha256: str) -> None:
    """Each prompt fills a third of the cache, so what was kept must go for what comes."""
    engine = EdgeEngine(gguf, sha256, threads=1, slots=2, cells=768)
    wanted = {}
    for round_ in range(2):
        for at in range(6):
            text = f"{at}" * 200
            found = Heard(engine, ask(text, labels=LABELS)).done().label_logprobs
            if round_:
                assert found == pytest.approx(wanted[text], abs=0.1)
            wanted[text] = found
    engine.close()


def test_a_pinned_prefix_is_on_disk_and_comes_back_from_it(gguf: Path, sha256: str, tmp_path: Path) -> None:
    examples = [long_ask("a"), long_ask("b")]
    first = EdgeEngine(gguf, sha256, threads=1, slots=2, prefix_folder=tmp_path)
    computed = first.pin("system", examples)
    wanted = Heard(first, long_ask("which", labels=LABELS)).done()
    first.close()

    second = EdgeEngine(gguf, sha256, threads=1, slots=2, prefix_folder=tmp_path)
    restored = second.pin("system", examples)
    found = Heard(second, long_ask("which", labels=LABELS)).done()
    second.close()

    assert (computed.source, restored.source) == ("computed", "disk")
    assert computed.tokens == restored.tokens > 240
    assert found.cached_tok == wanted.cached_tok >= computed.tokens
    assert found.label_logprobs == wanted.label_logprobs  # bit by bit


def test_a_damaged_prefix_file_is_told_and_computed_anew(gguf: Path, sha256: str, tmp_path: Path) -> None:
    notes: list[str] = []
    engine = EdgeEngine(gguf, sha256, threads=1, slots=2, prefix_folder=tmp_path)
    engine.pin("system", [long_ask("a"), long_ask("b")])
    engine.close()
    (file,) = tmp_path.glob(f"*{SUFFIX}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    engine = EdgeEngine(gguf, sha256, threads=1, slots=2, prefix_folder=tmp_path, on_note=notes.append)
    found = engine.pin("system", [long_ask("a"), long_ask("b")])
    engine.close()

    assert found.source == "computed"
    assert "bytes changed" in found.note
    assert any("bytes changed" in note for note in notes)
    assert file.read_bytes() != bytes(data)  # written whole again


def test_a_pinned_prefix_outlives_its_process(gguf: Path, sha256: str) -> None:
    import os
    import signal

    engine = EdgeEngine(gguf, sha256, threads=1, slots=2)
    pinned = engine.pin("system", [long_ask("a"), long_ask("b")])
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)

    done = Heard(engine, long_ask("later")).done()

    engine.close()
    assert done.cached_tok >= pinned.tokens


def test_examples_that_begin_otherwise_pin_nothing(engine: EdgeEngine) -> None:
    with pytest.raises(ModelError, match="do not begin alike"):
        engine.pin("none", [Ask(id=text, text=text) for text in ("abc", "xyz")])


def test_the_longest_beginning_wins_and_never_the_whole() -> None:
    shelf = Shelf(cells=1000)
    shelf.put(Kept(1, (1, 2, 3, 9), ""))
    shelf.put(Kept(2, (1, 2, 3, 4, 5), ""))
    shelf.put(Kept(3, (1, 2, 3, 4, 5, 6), "tenant"))

    found, shared = shelf.best([1, 2, 3, 4, 5], "")

    assert found is not None
    assert (found.sequence, shared) == (2, 4)
    assert shelf.best([7], "") == (None, 0)


def test_the_shelf_is_bounded_and_keeps_what_is_pinned() -> None:
    shelf = Shelf(cells=10**6)
    shelf.put(Kept(0, (0, 0), "", name="pinned"))
    gone = [one.sequence for at in range(1, 3 * KEPT) for one in shelf.put(Kept(at, (at, at), ""))]

    assert gone == list(range(1, 2 * KEPT))
    assert any(kept.name == "pinned" for kept in shelf)


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_common_beginnings_are_counted(one: list[int], other: list[int]) -> None:
    pairs = zip(one, other, strict=False)
    wanted = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))

    assert common_tok(one, other) == wanted
    assert common_tok(tuple(one), tuple(other)) == wanted


def test_a_folder_of_prefixes_stays_within_its_bound(tmp_path: Path) -> None:
    stored = StoredPrefixes(tmp_path, max_bytes=6000)
    for at in range(5):
        assert stored.write(KEY._replace(ids=(at,)), bytes(1500))

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 6000
    assert stored.read(KEY._replace(ids=(4,))) == bytes(1500)
    assert stored.read(KEY._replace(ids=(0,))) is None
    assert not stored.write(KEY, bytes(10_000))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: b"X" + data[1:],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:8] + b"\xff\xff\xff\xff" + data[12:],
        lambda data: data.replace(b'"f16"', b'"q80"'),
    ],
)
def test_a_prefix_file_that_is_not_what_was_written_is_removed(change: Any, tmp_path: Path) -> None:
    stored = StoredPrefixes(tmp_path)
    stored.write(KEY, b"state" * 100)
    (file,) = tmp_path.iterdir()
    file.write_bytes(change(file.read_bytes()))

    with pytest.raises(IntegrityError):
        stored.read(KEY)
    assert stored.read(KEY) is None


def test_everything_that_a_state_depends_on_is_in_its_name(tmp_path: Path) -> None:
    stored = StoredPrefixes(tmp_path)
    stored.write(KEY, b"state")

    for field, value in (("model", "x"), ("adapter", "y"), ("kv", "q8_0"), ("library", "z"), ("ids", (1, 2))):
        assert stored.read(KEY._replace(**{field: value})) is None
    assert stored.read(KEY) == b"state"


def write_lora(gguf: Path, out: Path, seed: int, *, size: float = 0.3) -> Path:
    """A random LoRA of rank 2 on every down projection, by the `gguf` package alone."""
    from gguf import GGUFReader, GGUFWriter

    rng = np.random.default_rng(seed)
    writer = GGUFWriter(out, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    for tensor in GGUFReader(gguf).tensors:
        if tensor.name.endswith("ffn_down.weight"):
            columns, rows = (int(size) for size in tensor.shape)
            a, b = rng.normal(0, size, (2, columns)), rng.normal(0, size, (rows, 2))
            writer.add_tensor(f"{tensor.name}.lora_a", a.astype(np.float32))
            writer.add_tensor(f"{tensor.name}.lora_b", b.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.fixture(scope="module")
def tenants(gguf: Path, sha256: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeEngine]:
    folder = tmp_path_factory.mktemp("lora")
    paths = {
        name: write_lora(gguf, folder / f"{name}.gguf", seed) for seed, name in enumerate(("one", "two"))
    }
    files = {name: (path, sha256_file(path)) for name, path in paths.items()}
    opened = EdgeEngine(gguf, sha256, threads=1, slots=4, adapters=files)
    yield opened
    opened.close()


def scored(engine: EdgeEngine, adapter: str = "") -> dict[str, float]:
    return dict(Heard(engine, ask("which", labels=LABELS, adapter=adapter)).done().label_logprobs or {})


def test_tenants_beside_each_other_get_their_own_adapters(tenants: EdgeEngine) -> None:
    alone = {name: scored(tenants, name) for name in ("", "one", "two")}

    heard = [
        (name, Heard(tenants, ask("which", labels=LABELS, adapter=name))) for name in ("one", "", "two") * 4
    ]

    for name, one in heard:
        assert one.done().label_logprobs == pytest.approx(alone[name], abs=0.1)
    assert all(
        max(abs(alone[a][label] - alone[b][label]) for label in LABELS) > 0.5
        for a, b in (("", "one"), ("", "two"), ("one", "two"))
    )


def test_an_adapter_is_swapped_while_the_base_stays(tenants: EdgeEngine, gguf: Path, tmp_path: Path) -> None:
    path = write_lora(gguf, tmp_path / "three.gguf", seed=9)
    before, pid, base = scored(tenants, "two"), tenants.pid, scored(tenants)

    tenants.load_adapter("two", path, sha256_file(path))

    assert scored(tenants, "two") != pytest.approx(before, abs=0.5)
    assert scored(tenants) == pytest.approx(base, abs=0.1)
    assert tenants.pid == pid
    assert tenants.adapters["two"] == sha256_file(path)


def test_an_adapter_with_other_bytes_or_of_another_model_is_refused(
    tenants: EdgeEngine, gguf: Path, tmp_path: Path
) -> None:
    path = write_lora(gguf, tmp_path / "four.gguf", seed=4)
    with pytest.raises(ModelError, match="bytes changed"):
        tenants.load_adapter("four", path, "0" * 64)
    with pytest.raises(ModelError, match="adapter"):
        tenants.load_adapter("base", gguf, sha256_file(gguf))
    assert set(tenants.adapters) == {"one", "two"}
    assert scored(tenants, "one")


def test_a_lora_computes_what_numpy_computes(gguf: Path, sha256: str, tmp_path: Path) -> None:
    """W + (alpha / rank) B A, folded into the weights by numpy, answers as the adapter does."""
    from gguf import GGUFReader

    path = write_lora(gguf, tmp_path / "lora.gguf", seed=2, size=0.1)
    parts = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    folded = tmp_path / "folded.gguf"
    folded.write_bytes(gguf.read_bytes())
    for tensor in GGUFReader(folded, "r+").tensors:
        if f"{tensor.name}.lora_a" in parts:
            low, high = parts[f"{tensor.name}.lora_a"], parts[f"{tensor.name}.lora_b"]
            tensor.data[:] = (tensor.data.astype(np.float32) + high @ low).astype(tensor.data.dtype)
    adapted = EdgeEngine(gguf, sha256, threads=1, slots=1, adapters={"a": (path, sha256_file(path))})
    merged = EdgeEngine(folded, sha256_file(folded), threads=1, slots=1)

    found, wanted = scored(adapted, "a"), scored(merged)

    adapted.close()
    merged.close()
    assert found == pytest.approx(wanted, abs=0.1)
    assert found != pytest.approx(scored_once(gguf, sha256), abs=0.3)


def scored_once(gguf: Path, sha256: str) -> dict[str, float]:
    engine = EdgeEngine(gguf, sha256, threads=1, slots=1)
    try:
        return scored(engine)
    finally:
        engine.close()
