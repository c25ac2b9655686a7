"""The cached checkpoint of an embedded model: made once, whole, checked."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness.errors import IntegrityError, ModelError
from harness.models import embedded
from harness.models.embedded import MANIFEST, embedded_gguf, gguf_checkpoint
from harness.models.identity import checkpoint_identity, digest_of, gguf_identity
from harness.models.load import open_model, resolve_base


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Stands in for the 20 seconds of conversion; holds what was converted."""
    done: list[Path] = []

    def convert(source: Path, out: Path) -> None:
        done.append(source)
        (out / "config.json").write_text("{}")
        (out / "model.safetensors").write_bytes(source.read_bytes() * 3)

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_convert", convert)
    return done


def gguf(folder: Path, content: bytes = b"GGUF and more") -> Path:
    path = folder / "some.gguf"
    path.write_bytes(content)
    return path


def test_a_second_use_finds_the_first_ones_folder(converted: list[Path], tmp_path: Path) -> None:
    source = gguf(tmp_path)
    said: list[str] = []

    first = gguf_checkpoint(source, on_progress=said.append)
    second = gguf_checkpoint(source, on_progress=said.append)

    assert first == second
    assert converted == [source]
    assert said == ["converting some.gguf to a checkpoint, once"]
    assert (first / MANIFEST).is_file()


@pytest.mark.parametrize("damage", ["flip", "remove", "add", "manifest"])
def test_a_damaged_cache_is_noticed_and_made_again(
    converted: list[Path], tmp_path: Path, damage: str
) -> None:
    source = gguf(tmp_path)
    folder = gguf_checkpoint(source)
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    if damage == "remove":
        weights.unlink()
    if damage == "add":
        (folder / "extra.safetensors").write_bytes(b"x")
    if damage == "manifest":
        (folder / MANIFEST).write_text('{"files": {}}')
    said: list[str] = []

    again = gguf_checkpoint(source, on_progress=said.append)

    assert len(converted) == 2
    assert "converting again" in said[0]
    assert sorted(path.name for path in again.iterdir()) == ["config.json", MANIFEST, "model.safetensors"]
    assert weights.read_bytes() == good


def test_another_file_of_the_same_name_gets_a_folder_of_its_own(
    converted: list[Path], tmp_path: Path
) -> None:
    one = gguf_checkpoint(gguf(tmp_path))
    two = gguf_checkpoint(gguf(tmp_path, b"GGUF and less"))

    assert one != two
    assert (one / "model.safetensors").read_bytes() != (two / "model.safetensors").read_bytes()


def test_a_conversion_that_fails_leaves_nothing(
    converted: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, out: Path) -> None:
        (out / "config.json").write_text("{}")
        raise ModelError("disk full")

    monkeypatch.setattr(embedded, "_convert", fail)
    with pytest.raises(ModelError, match="disk full"):
        gguf_checkpoint(gguf(tmp_path))

    left = [path.name for path in (tmp_path / "cache" / "bases").iterdir() if not path.name.endswith(".lock")]
    assert left == []


def test_two_at_once_convert_once(converted: list[Path], tmp_path: Path) -> None:
    source = gguf(tmp_path)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(gguf_checkpoint(source))) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(found) == 4
    assert len(converted) == 1


def test_a_package_with_other_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    model = replace(embedded.EMBEDDED["smollm2-135m"], sha256="0" * 64)
    monkeypatch.setitem(embedded.EMBEDDED, "smollm2-135m", model)

    with pytest.raises(IntegrityError, match="wanted 0000") as caught:
        embedded_gguf("smollm2-135m")

    assert "pip install" in caught.value.hint


@pytest.mark.parametrize(
    ("reference", "why", "hint"),
    [
        ("embedded:gpt-17", "no embedded model 'gpt-17'", "smollm2-135m"),
        ("nobody/has-this-model", "not in the local hub cache", "hf download nobody/has-this-model"),
        ("no such thing", "not a reference to a model", "embedded:smollm2-135m"),
        ("missing.gguf", "no such file", ""),
    ],
)
def test_a_reference_to_nothing_says_what_to_do(
    reference: str, why: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ModelError, match=why) as caught:
        resolve_base(reference)

    assert hint in caught.value.hint


def test_a_gguf_takes_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs a Transformers checkpoint"):
        open_model("some.gguf", adapter=tmp_path)


def test_identity_follows_content_and_not_names(tiny: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny, tmp_path / "other-name"))
    first = checkpoint_identity(tiny)
    assert checkpoint_identity(copy) == first
    assert checkpoint_identity(tiny, quantization="nf4").digest != first.digest

    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = checkpoint_identity(copy)
    assert changed.weights != first.weights
    assert changed.tokenizer == first.tokenizer

    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert checkpoint_identity(copy).template != first.template
    (copy / "tokenizer.json").write_text("{}")
    assert checkpoint_identity(copy).tokenizer != first.tokenizer


def test_a_digest_is_of_the_bytes_that_are_there_now(tmp_path: Path) -> None:
    path = gguf(tmp_path)
    before = digest_of(path)

    path.write_bytes(b"GGUF and mort")

    assert digest_of(path) != before
    assert gguf_identity(path).weights == digest_of(path)
